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

void writeAt(int folder, const std::string& name, const std::string& key, std::string_view value) {
    const UniqueFd fd(::openat(folder, name.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC));
    if (!fd) throw Error::fromErrno(errno, "cannot open " + pathOf(key));
    writeAll(fd.get(), value, pathOf(key));
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
    if (place.folder < 0) return std::nullopt;
    const auto text = readFileAt(place.folder, place.name, longest);
    if (!text) return std::nullopt;
    return trimmed(*text);
}

void Sysctls::write(const std::string& key, std::string_view value) const {
    const Place place = placeOf(key);
    writeAt(place.folder, place.name, key, value);
}

void Sysctls::disableIpv6(const std::string& link) const {
    const std::string key = "conf/" + link + "/disable_ipv6";
    // A module may have been loaded since.
    const UniqueFd late = ipv6_ ? UniqueFd() : folderOf("ipv6");
    const int folder = ipv6_ ? ipv6_.get() : late.get();
    if (folder >= 0 && ::faccessat(folder, key.c_str(), F_OK, 0) == 0) writeAt(folder, key, "ipv6/" + key, "1");
}

std::optional<std::string> readSysctl(const std::string& key) {
    const auto text = readFile(pathOf(key), longest);
    if (!text) return std::nullopt;
    return trimmed(*text);
}

}  // namespace mergen::network
