#include "sysctl.hpp"

#include <cerrno>
#include <fcntl.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::network {

namespace {

constexpr const char* root = "/proc/sys/net/";
constexpr std::size_t longest = 64U << 10U;

std::string pathOf(const std::string& key) {
    return root + key;
}

UniqueFd folderOf(const char* family) {
    UniqueFd fd(::open(pathOf(family).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!fd && errno != ENOENT) throw Error::fromErrno(errno, "cannot open " + pathOf(family));
    return fd;
}

std::string trimmed(const std::string& text) {
    return std::string(trim(split(text, '\n').front()));
}

}  // namespace

Sysctls::Sysctls() : ipv4_(folderOf("ipv4")), ipv6_(folderOf("ipv6")) {}

Sysctls::Place Sysctls::placeOf(const std::string& key) const {
    const std::size_t end = key.find('/');
    const UniqueFd& folder = key.compare(0, end, "ipv6") == 0 ? ipv6_ : ipv4_;
    return {folder.get(), key.substr(end + 1)};
}

std::optional<std::string> Sysctls::read(const std::string& key) const {
    const Place place = placeOf(key);
    const auto text = readFileAt(place.folder, place.name, longest);
    if (!text) return std::nullopt;
    return trimmed(*text);
}

void Sysctls::write(const std::string& key, std::string_view value) const {
    const Place place = placeOf(key);
    const UniqueFd fd(::openat(place.folder, place.name.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC));
    if (!fd) throw Error::fromErrno(errno, "cannot open " + pathOf(key));
    writeAll(fd.get(), value, pathOf(key));
}

void Sysctls::disableIpv6(const std::string& link) const {
    const std::string key = "ipv6/conf/" + link + "/disable_ipv6";
    if (ipv6_ && ::faccessat(ipv6_.get(), placeOf(key).name.c_str(), F_OK, 0) == 0) write(key, "1");
}

std::optional<std::string> readSysctl(const std::string& key) {
    const auto text = readFile(pathOf(key), longest);
    if (!text) return std::nullopt;
    return trimmed(*text);
}

}  // namespace mergen::network
