#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <mergen/base/fd.hpp>

#include "devices.hpp"
#include "json_value.hpp"
#include "misbehaviour.hpp"
#include "outputs.hpp"

namespace mergen::fake {

struct Request {
    std::string method, path;
    std::optional<std::string> body;
};

struct Reply {
    int status = 204;
    std::string body;
    bool deprecated = false;
};

/// One microVM as its API shows it: what may be asked when, what is refused, and in which words. The guest does nothing
/// but print: its kernel arguments and that it is ready, and at Ctrl-Alt-Del that it shuts down.
class Machine {
public:
    enum class State { NotStarted, Running, Paused };

    /// `misbehaviour` gets the words of the kernel arguments added; `print` is the guest's console. Both are borrowed.
    Machine(std::string id, Misbehaviour& misbehaviour, std::function<void(const std::string&)> print)
        : id_(std::move(id)), misbehaviour_(misbehaviour), print_(std::move(print)) {}

    Reply handle(const Request& request);

    /// `--config-file`: configures and starts. Throws std::runtime_error with Firecracker's words.
    void startFrom(const std::string& configuration, const std::string& metadata);

    [[nodiscard]] State state() const { return state_; }
    /// The guest has shut down.
    [[nodiscard]] bool ended() const { return ended_; }

private:
    struct MachineConfig {
        std::uint64_t vcpus = 1, memory = 128;
        bool smt = false, track = false;
        std::string hugePages = "None", cpuTemplate;
    };
    struct BootSource {
        std::string kernel;
        std::optional<std::string> initrd, arguments;
    };
    struct Drive {
        std::string id, path, cache = "Unsafe", engine = "Sync";
        std::optional<std::string> partuuid, socket;
        std::optional<std::string> file;  ///< path, if it was given
        Limiter limit;
        bool root = false, readOnly = false;
    };
    struct Nic {
        std::string id, device;
        std::optional<std::string> mac;
        std::optional<std::uint64_t> mtu;
        Limiter receive, transmit;
        UniqueFd tap;
    };

    Reply get(const std::vector<std::string>& path);
    void put(const std::vector<std::string>& path, const std::string& body, Reply& reply);
    void patch(const std::vector<std::string>& path, const std::string& body);
    void remove(const std::vector<std::string>& path);

    // Readers of bodies.
    static MachineConfig readMachine(JsonReader& reader);
    static BootSource readBoot(JsonReader& reader);
    static Drive readDrive(JsonReader& reader);
    static Nic readNic(JsonReader& reader);

    // What a body asks for. Throw std::runtime_error without the words of where it stood.
    void setMachine(const MachineConfig& config);
    void setBoot(const BootSource& boot);
    void setDrive(Drive drive);
    void setNic(Nic nic);
    void setBalloon(const Balloon& balloon);
    void setVsock(Vsock vsock);
    void setMmdsConfig(const MmdsConfig& config);

    // Routes of devices; false if the path is none of theirs.
    bool getDevice(const std::vector<std::string>& path, Reply& reply);
    bool putDevice(const std::vector<std::string>& path, const std::string& body, Reply& reply);
    void refuseWithoutMmds() const;

    // What is changed by a PATCH.
    void patchVm(const std::string& body);
    void patchMachine(const std::string& body);
    void patchDrive(const std::string& id, const std::string& body);
    void patchNic(const std::string& id, const std::string& body);
    void patchBalloon(const std::string& body);
    void patchBalloonStatistics(const std::string& body);
    void patchMmds(const std::string& body);

    void start();
    void say(const std::string& text);
    void pressCtrlAltDel();
    void shutDown();
    void refusePostBoot() const;
    void refusePreBoot() const;
    [[nodiscard]] std::string machineJson() const;
    [[nodiscard]] std::string configJson() const;

    std::string id_;
    Misbehaviour& misbehaviour_;
    std::function<void(const std::string&)> print_;
    State state_ = State::NotStarted;
    bool ended_ = false;
    bool pressed_ = false;  ///< Ctrl-Alt-Del while paused
    MachineConfig machine_;
    std::optional<BootSource> boot_;
    std::vector<Drive> drives_;
    std::vector<Nic> nics_;
    std::optional<Balloon> balloon_;
    std::optional<Vsock> vsock_;
    std::optional<Entropy> entropy_;
    std::optional<MmdsConfig> mmdsConfig_;
    std::optional<JsonValue> mmds_;  ///< once it has been put
    Metrics metrics_;
    Logger logger_;
    Serial serial_;
};

}  // namespace mergen::fake
