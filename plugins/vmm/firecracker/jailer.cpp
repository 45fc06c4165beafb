#include "jailer.hpp"

#include <array>
#include <chrono>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <unistd.h>

#include <mergen/base/fd.hpp>
#include <mergen/base/file.hpp>
#include <mergen/base/process.hpp>
#include <mergen/base/text.hpp>
#include <mergen/base/trust.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::vmm {
namespace {

using namespace std::chrono_literals;

Jailing notJailed(std::string why) {
    return {std::nullopt, "not jailed: " + std::move(why)};
}

/// The jailer beside Firecracker, else that of the usual folders; nothing if there is none.
std::optional<std::filesystem::path> jailerFor(const std::filesystem::path& firecracker) {
    for (const std::filesystem::path& place : {firecracker.parent_path() / "jailer", std::filesystem::path("jailer")}) {
        try {
            return trustedProgram(place);
        } catch (const Error& error) {
            if (error.kind() != ErrorKind::NotFound) throw;
        }
    }
    return std::nullopt;
}

std::filesystem::path jailerAt(const std::filesystem::path& wished) {
    try {
        return trustedProgram(wished);
    } catch (const Error& error) {
        throw error.within("jailer = " + wished.string());
    }
}

bool readAt(int fd, void* target, std::size_t size, std::uint64_t offset) {
    return ::pread(fd, target, size, static_cast<off_t>(offset)) == static_cast<ssize_t>(size);
}

}  // namespace

void checkJailerSetting(const std::filesystem::path& jailer) {
    if (!jailer.empty() && (jailer.is_absolute() || !jailer.has_parent_path())) return;
    throw Error(ErrorKind::InvalidArgument, "jailer = " + printable(jailer.string()) +
                                                ": must be auto, off, an absolute path or the bare name of a program")
        .about("jailer");
}

Jailing findJailer(const JailerWish& wish, const std::filesystem::path& firecracker,
                   const std::optional<FirecrackerVersion>& version) {
    if (wish.jailer == "off") return notJailed("jailer = off");
    const bool automatic = wish.jailer == "auto";
    const auto without = [&](const std::string& why) {
        if (automatic) return notJailed(why);
        throw Error(ErrorKind::NotSupported, "jailer = " + wish.jailer.string() + " cannot be used: " + why);
    };
    if (::geteuid() != 0) return without("only root can make a jail");
    const std::optional<std::filesystem::path> jailer = automatic ? jailerFor(firecracker) : jailerAt(wish.jailer);
    if (!jailer) return notJailed("there is no jailer beside " + firecracker.string() + " or in the usual folders");
    if (const std::string why = hindranceInJail(firecracker); !why.empty()) return without(why);
    const std::optional<FirecrackerVersion> own = askVersion(*jailer, "Jailer");
    const std::string shown = jailer->string() + " " + (own ? own->str() : "of an unknown version");
    if (own && hasKnownHoles(*own) && !wish.allowVulnerable) {
        throw Error(ErrorKind::NotSupported,
                    shown +
                        " has known holes (CVE-2026-1386): use 1.14.4, 1.15.1 or newer, or set "
                        "allow_vulnerable = true");
    }
    if (!own || own != version) {
        throw Error(ErrorKind::NotSupported, shown + " does not belong to " + firecracker.string() + " " +
                                                 (version ? version->str() : "of an unknown version") +
                                                 ": both must be of one release; or set jailer = off");
    }
    return {jailer, "jailed by " + shown};
}

std::optional<FirecrackerVersion> askVersion(const std::filesystem::path& program, std::string_view name) {
    const RunResult result = run(SpawnOptions{.arguments = {program.string(), "--version"}, .environment = {}}, 5s);
    const std::string_view line = std::string_view(result.output).substr(0, result.output.find('\n'));
    const std::string start = std::string(name) + " ";
    if (result.timedOut || result.status != 0 || !line.starts_with(start)) return std::nullopt;
    return FirecrackerVersion::parse(trim(line.substr(start.size())));
}

std::string hindranceInJail(const std::filesystem::path& program) {
    const UniqueFd fd = openFile(program, O_RDONLY);
    Elf64_Ehdr header{};
    if (!readAt(fd.get(), &header, sizeof header, 0) ||
        std::memcmp(static_cast<const unsigned char*>(header.e_ident), ELFMAG, SELFMAG) != 0 ||
        header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_phentsize != sizeof(Elf64_Phdr)) {
        return program.string() + " is no 64-bit ELF program";
    }
    for (unsigned i = 0; i < header.e_phnum; ++i) {
        Elf64_Phdr segment{};
        if (!readAt(fd.get(), &segment, sizeof segment, header.e_phoff + i * sizeof segment))
            return program.string() + " is truncated";
        if (segment.p_type == PT_INTERP) {
            return program.string() +
                   " is dynamically linked, and there are no libraries in a jail: its releases are static";
        }
    }
    return {};
}

}  // namespace mergen::vmm
