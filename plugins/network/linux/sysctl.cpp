#include "sysctl.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>

namespace mergen::network {

namespace {

std::string pathOf(const std::string& key) {
    return "/proc/sys/net/" + key;
}

}  // namespace

std::optional<std::string> readSysctl(const std::string& key) {
    constexpr std::size_t longest = 64U << 10U;
    const auto text = readFile(pathOf(key), longest);
    if (!text) return std::nullopt;
    return std::string(trim(split(*text, '\n').front()));
}

void writeSysctl(const std::string& key, std::string_view value) {
    const std::string path = pathOf(key);
    const UniqueFd fd = openFile(path, O_WRONLY | O_TRUNC);
    writeAll(fd.get(), value, path);
}

void disableIpv6(const std::string& link) {
    const std::string key = "ipv6/conf/" + link + "/disable_ipv6";
    if (::access(pathOf(key).c_str(), F_OK) == 0) writeSysctl(key, "1");
}

}  // namespace mergen::network
