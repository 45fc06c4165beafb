/// What bodies say of the machine, its disks and its network cards.
#include <cctype>
#include <string_view>

#include "fields.hpp"
#include "machine.hpp"

namespace mergen::fake {
namespace {

bool isMac(std::string_view mac) {
    if (mac.size() != 17) return false;
    for (std::size_t i = 0; i < mac.size(); ++i) {
        if (i % 3 == 2 ? mac[i] != ':' : std::isxdigit(static_cast<unsigned char>(mac[i])) == 0) return false;
    }
    return true;
}

std::string lowered(std::string text) {
    for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return text;
}

}  // namespace

Machine::MachineConfig Machine::readMachine(JsonReader& reader) {
    MachineConfig config;
    reader.object(
        "MachineConfig",
        {{"vcpu_count", true, [&](JsonReader& value) { config.vcpus = value.integer(255, "u8"); }},
         {"mem_size_mib", true, [&](JsonReader& value) { config.memory = value.integer(anyNumber, "usize"); }},
         flag("smt", false, config.smt),
         {"cpu_template", false,
          [&](JsonReader& value) {
              if (!value.null()) config.cpuTemplate = value.variant({"C3", "T2", "T2S", "None", "T2CL", "T2A"});
          }},
         flag("track_dirty_pages", false, config.track),
         {"huge_pages", false, [&](JsonReader& value) {
              config.hugePages = value.variant({"None", "Transparent", "2M"});
          }}});
    return config;
}

Machine::BootSource Machine::readBoot(JsonReader& reader) {
    BootSource boot;
    reader.object("BootSourceConfig",
                  {text("kernel_image_path", true, boot.kernel), optionalText("initrd_path", boot.initrd),
                   optionalText("boot_args", boot.arguments)});
    return boot;
}

Machine::Drive Machine::readDrive(JsonReader& reader) {
    Drive drive;
    reader.object("BlockDeviceConfig", {text("drive_id", true, drive.id),
                                        optionalText("partuuid", drive.partuuid),
                                        flag("is_root_device", true, drive.root),
                                        {"cache_type", false,
                                         [&](JsonReader& value) {
                                             drive.cache = value.variant({"Unsafe", "Writeback"});
                                         }},
                                        {"is_read_only", false,
                                         [&](JsonReader& value) {
                                             if (!value.null()) drive.readOnly = value.boolean();
                                         }},
                                        optionalText("path_on_host", drive.file),
                                        limiterField("rate_limiter", drive.limit),
                                        {"io_engine", false,
                                         [&](JsonReader& value) {
                                             if (!value.null()) drive.engine = value.variant({"Async", "Sync"});
                                         }},
                                        optionalText("socket", drive.socket)});
    return drive;
}

Machine::Nic Machine::readNic(JsonReader& reader) {
    Nic nic;
    reader.object("NetworkInterfaceConfig", {text("iface_id", true, nic.id),
                                             text("host_dev_name", true, nic.device),
                                             {"guest_mac", false,
                                              [&](JsonReader& value) {
                                                  if (value.null()) return;
                                                  nic.mac = lowered(value.string());
                                                  if (!isMac(*nic.mac))
                                                      value.faultOfValue("The provided MAC address is invalid.");
                                              }},
                                             {"mtu", false,
                                              [&](JsonReader& value) {
                                                  if (!value.null()) nic.mtu = value.integer(65535, "u16");
                                              }},
                                             limiterField("rx_rate_limiter", nic.receive),
                                             limiterField("tx_rate_limiter", nic.transmit)});
    return nic;
}

}  // namespace mergen::fake
