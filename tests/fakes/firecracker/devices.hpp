#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <mergen/base/fd.hpp>

#include "serde.hpp"

/// What a microVM has beside disks and network cards.
namespace mergen::fake {

/// `rate_limiter` and its like.
struct Limiter {
    struct Bucket {
        std::uint64_t size = 0, refill = 0;
        std::optional<std::uint64_t> burst;
    };
    std::optional<Bucket> bandwidth, operations;

    /// As `GET /vm/config` shows it: null if nothing is limited.
    [[nodiscard]] std::string json() const;
    /// What a PATCH gives takes the place of what was.
    void update(const Limiter& given);
};
/// Members of these types.
JsonField limiterField(const char* name, Limiter& target);
JsonField bucketField(const char* name, std::optional<Limiter::Bucket>& target);

struct Balloon {
    std::uint64_t amount = 0, interval = 0;  ///< MiB, seconds
    bool deflate = false, hinting = false, reporting = false;
    static Balloon read(JsonReader& reader);
    [[nodiscard]] std::string json() const;
    /// `obeyed`: the guest has given what is asked for, else nothing.
    [[nodiscard]] std::string statistics(bool obeyed) const;
};

struct Vsock {
    std::optional<std::string> id;
    std::uint64_t cid = 0;
    std::string path;
    UniqueFd socket;
    static Vsock read(JsonReader& reader);
    /// Throws std::runtime_error.
    void bind();
    [[nodiscard]] std::string json() const;
};

struct Entropy {
    Limiter limit;
    static Entropy read(JsonReader& reader);
    [[nodiscard]] std::string json() const;
};

struct MmdsConfig {
    std::string version = "V1";
    std::vector<std::string> interfaces;
    std::optional<std::string> address;
    bool imdsCompatible = false;
    static MmdsConfig read(JsonReader& reader);
    /// Throws std::runtime_error. `known`: the ids of the network cards.
    void check(const std::vector<std::string>& known) const;
    [[nodiscard]] std::string json() const;
};

/// `PUT /cpu-config`: read, and nothing done with it.
struct CpuTemplate {
    static CpuTemplate read(JsonReader& reader);
};

}  // namespace mergen::fake
