/// `--config-file`.
#include <utility>

#include "faults.hpp"
#include "machine.hpp"

namespace mergen::fake {
namespace {

/// A device of the configuration file that need not be there.
template <typename Device>
JsonField optional(const char* name, std::optional<Device>& target) {
    return {name, false, [&target](JsonReader& reader) {
                if (!reader.null()) target = Device::read(reader);
            }};
}

}  // namespace

void Machine::startFrom(const std::string& configuration, const std::string& metadata) {
    const std::string parsing = "Configuration for VMM from one single json failed: ";
    MachineConfig machine;
    BootSource boot;
    std::vector<Drive> drives;
    std::vector<Nic> nics;
    std::optional<Balloon> balloon;
    std::optional<Vsock> vsock;
    std::optional<MmdsConfig> mmds;
    std::optional<std::string> metrics;
    std::optional<Logger> logger;
    std::optional<Serial> serial;
    std::optional<CpuTemplate> processor;
    try {
        JsonReader reader(configuration);
        reader.object(
            "VmmConfig",
            {optional<Balloon>("balloon", balloon),
             optional<Vsock>("vsock", vsock),
             optional<Entropy>("entropy", entropy_),
             optional<MmdsConfig>("mmds-config", mmds),
             optional<CpuTemplate>("cpu-config", processor),
             optional<Logger>("logger", logger),
             optional<Serial>("serial", serial),
             {"metrics", false,
              [&](JsonReader& value) {
                  if (!value.null()) metrics = Metrics::readPath(value);
              }},
             {"drives", true,
              [&](JsonReader& value) { value.array([&](JsonReader& each) { drives.push_back(readDrive(each)); }); }},
             {"boot-source", true, [&](JsonReader& value) { boot = readBoot(value); }},
             {"machine-config", false,
              [&](JsonReader& value) {
                  if (!value.null()) machine = readMachine(value);
              }},
             {"network-interfaces", false,
              [&](JsonReader& value) { value.array([&](JsonReader& each) { nics.push_back(readNic(each)); }); }}},
            /*lenient=*/true);
        reader.end();
    } catch (const JsonFault& bad) {
        error(parsing + "Invalid JSON: " + bad.what());
    }
    if (logger) {
        logger_ = std::move(*logger);
        within(parsing + "Logger error", [&] { logger_.open(); });
    }
    if (metrics) within(parsing + "Metrics error", [&] { metrics_.open(*metrics); });
    within(parsing + "VM config error", [&] { setMachine(machine); });
    within(parsing + "Boot source error", [&] { setBoot(boot); });
    for (Drive& drive : drives) within(parsing + "Block device error", [&] { setDrive(std::move(drive)); });
    for (Nic& nic : nics) within(parsing + "Network device error", [&] { setNic(std::move(nic)); });
    if (vsock) within(parsing + "Vsock device error", [&] { setVsock(std::move(*vsock)); });
    if (balloon) within(parsing + "Balloon device error", [&] { setBalloon(*balloon); });
    if (mmds) within(parsing + "MMDS config error", [&] { setMmdsConfig(*mmds); });
    if (serial) serial_ = std::move(*serial);
    if (!metadata.empty()) mmds_ = parse(metadata, JsonValue::read);
    within("Could not Start MicroVM from one single json", [this] { start(); });
}

}  // namespace mergen::fake
