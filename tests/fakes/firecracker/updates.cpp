/// PATCH: what is changed of a machine, and of the devices of one that runs.
#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <functional>
#include <sys/stat.h>
#include <utility>

#include "faults.hpp"
#include "fields.hpp"
#include "machine.hpp"

namespace mergen::fake {

void Machine::patchVm(const std::string& body) {
    std::string wanted;
    parse(body, [&](JsonReader& reader) {
        reader.object("Vm", {{"state", true, [&](JsonReader& value) {
                                  wanted = value.variant({"Paused", "Resumed"});
                              }}});
        return 0;
    });
    refusePreBoot();
    state_ = wanted == "Paused" ? State::Paused : State::Running;
    if (state_ == State::Running && std::exchange(pressed_, false)) shutDown();
}

void Machine::patchMachine(const std::string& body) {
    MachineConfig config = machine_;
    bool any = false;
    parse(body, [&](JsonReader& reader) {
        const auto given = [&any](const char* name, const std::function<void(JsonReader&)>& read) {
            return JsonField{name, false, [&any, read](JsonReader& value) {
                                 if (value.null()) return;
                                 any = true;
                                 read(value);
                             }};
        };
        reader.object(
            "MachineConfigUpdate",
            {given("vcpu_count", [&](JsonReader& value) { config.vcpus = value.integer(255, "u8"); }),
             given("mem_size_mib", [&](JsonReader& value) { config.memory = value.integer(anyNumber, "usize"); }),
             given("smt", [&](JsonReader& value) { config.smt = value.boolean(); }),
             given("cpu_template", [&](JsonReader& value) { config.cpuTemplate = value.string(); }),
             given("track_dirty_pages", [&](JsonReader& value) { config.track = value.boolean(); }),
             given("huge_pages", [&](JsonReader& value) {
                 config.hugePages = value.variant({"None", "Transparent", "2M"});
             })});
        return 0;
    });
    if (!any) fault("Empty PATCH request.");
    refusePostBoot();
    within("Machine config error", [&] { setMachine(config); });
}

void Machine::patchDrive(const std::string& id, const std::string& body) {
    std::string given;
    std::optional<std::string> file;
    Limiter limit;
    parse(body, [&](JsonReader& reader) {
        reader.object("BlockDeviceUpdateConfig", {text("drive_id", true, given), optionalText("path_on_host", file),
                                                  limiterField("rate_limiter", limit)});
        return 0;
    });
    if (given != id) fault("The id from the path does not match the id from the body!");
    refusePreBoot();
    const auto found = std::find_if(drives_.begin(), drives_.end(), [&](const Drive& d) { return d.id == id; });
    const auto refuse = [](const std::string& cause) {
        fault("Drive config error: Unable to patch the block device: " + cause +
              " Please verify the request arguments.");
    };
    if (found == drives_.end()) refuse("Failed perform action on device: Device not found");
    // A change of nothing is taken for one of a disk that another process serves.
    if (!file && !limit.bandwidth && !limit.operations) refuse("Block: Running method expected different backend.");
    if (file) {
        const UniqueFd opened(::open(file->c_str(), (found->readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC));
        if (!opened) {
            refuse("Block: Virtio backend error: Error manipulating the backing file: " + osError(errno) + " " + *file);
        }
        found->path = *file;
        struct stat status {};
        if (::fstat(opened.get(), &status) == 0)
            say("fake-guest: drive " + id + ", new size " + std::to_string(status.st_size) + "\n");
    }
    found->limit.update(limit);
}

void Machine::patchNic(const std::string& id, const std::string& body) {
    std::string given;
    Limiter receive, transmit;
    parse(body, [&](JsonReader& reader) {
        reader.object("NetworkInterfaceUpdateConfig",
                      {text("iface_id", true, given), limiterField("rx_rate_limiter", receive),
                       limiterField("tx_rate_limiter", transmit)});
        return 0;
    });
    if (given != id) fault("The id from the path [" + id + "] does not match the id from the body [" + given + "]!");
    refusePreBoot();
    const auto found = std::find_if(nics_.begin(), nics_.end(), [&](const Nic& nic) { return nic.id == id; });
    if (found == nics_.end()) {
        fault(
            "Network config error: Unable to update the net device: Failed perform action on device: Device not found");
    }
    found->receive.update(receive);
    found->transmit.update(transmit);
}

void Machine::patchBalloon(const std::string& body) {
    std::uint64_t amount = 0;
    parse(body, [&](JsonReader& reader) {
        reader.object("BalloonUpdateConfig", {number("amount_mib", true, amount, 4294967295, "u32")});
        return 0;
    });
    refusePreBoot();
    within("Balloon update error", [&] {
        if (!balloon_) error("Failed perform action on device: Device not found");
        if (misbehaviour_.noDrivers) error("Balloon: Device not activated yet.");
        if (amount > machine_.memory) error("Balloon: Amount of pages requested cannot exceed memory size.");
        balloon_->amount = amount;
    });
}

void Machine::patchBalloonStatistics(const std::string& body) {
    std::uint64_t interval = 0;
    parse(body, [&](JsonReader& reader) {
        reader.object("BalloonUpdateStatsConfig", {number("stats_polling_interval_s", true, interval, 65535, "u16")});
        return 0;
    });
    refusePreBoot();
    within("Balloon update error", [&] {
        if (!balloon_) error("Failed perform action on device: Device not found");
        if ((interval == 0) != (balloon_->interval == 0))
            error("Balloon: Statistics cannot be enabled/disabled after activation.");
        balloon_->interval = interval;
    });
}

void Machine::patchMmds(const std::string& body) {
    const JsonValue patch = parse(body, JsonValue::read);
    if (!mmds_) fault("MMDS error: The MMDS data store is not initialized.");
    refuseWithoutMmds();
    mmds_->merge(patch);
}

}  // namespace mergen::fake
