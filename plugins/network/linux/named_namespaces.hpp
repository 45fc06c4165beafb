#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <mergen/sdk/types.hpp>

#include "net_namespace.hpp"

namespace mergen::network {

/// What stands under a name in /run/netns.
struct NamedEntry {
    std::optional<NetNamespace> space;  ///< none: a file on which nothing is mounted
    std::string tag;                    ///< what it says of its owner; empty or any text if it is not ours
};

/// The named network namespaces of this host, as ip-netns(8) knows them: files in /run/netns with a namespace mounted
/// on each. Ours tell whose they are at every instant: the loopback link of the namespace bears the owner's tag as its
/// alias before it is named, and the file bears it as its content before anything is mounted on it, so that a process
/// killed in between leaves nothing that belongs to nobody.
///
/// Errors: Error with path and errno. Threads: any, for different names.
class NamedNamespaces {
public:
    explicit NamedNamespaces(std::filesystem::path directory) : directory_(std::move(directory)) {}

    /// Makes the folder, and makes it a mount of its own whose mounts other mount namespaces see, as `ip netns add`
    /// does. `beforeMount` is called if that needs a new mount.
    void prepare(const std::function<void()>& beforeMount) const;
    /// Takes prepare()'s mount away unless something stands in the folder; whether it is gone.
    [[nodiscard]] bool unprepare() const;

    [[nodiscard]] std::filesystem::path path(const std::string& name) const { return directory_ / name; }
    [[nodiscard]] std::optional<NamedEntry> find(const std::string& name) const;
    /// The namespace under the name, whosever it is; nothing if there is none.
    [[nodiscard]] std::optional<NetNamespace> open(const std::string& name) const;
    [[nodiscard]] std::vector<std::string> names() const;

    /// Names `space`; a file of the same owner that is left from before is used. Throws AlreadyExists if the name is
    /// taken.
    void bind(const std::string& name, const OwnerTag& owner, const NetNamespace& space) const;
    /// Takes the name away if it is this owner's. The namespace ends with the last process in it.
    void remove(const std::string& name, const OwnerTag& owner) const;

private:
    /// find() without the tag of a namespace, which takes a thread to read.
    [[nodiscard]] std::optional<NamedEntry> look(const std::string& name) const;

    std::filesystem::path directory_;
};

/// The alias of the loopback link of `space`: where a namespace of ours says whose it is.
[[nodiscard]] std::string tagOf(const NetNamespace& space);

}  // namespace mergen::network
