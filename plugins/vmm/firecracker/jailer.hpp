#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "version.hpp"

/// Whether Firecracker is jailed on this host, and by what.
namespace mergen::vmm {

/// What the settings say of it.
struct JailerWish {
    std::filesystem::path jailer;  ///< "auto", "off", an absolute path or a bare name
    bool allowVulnerable = false;  ///< versions with known holes are used all the same
};

/// Throws InvalidArgument about "jailer" for what is none of these.
void checkJailerSetting(const std::filesystem::path& jailer);

struct Jailing {
    std::optional<std::filesystem::path> jailer;  ///< none: Firecracker runs without
    std::string reason;  ///< "jailed by PATH VERSION" or "not jailed: …", for the health page
};

/// Decides. `firecracker`: the program in use, without links; `version`: of it, none where it does not say. With "auto"
/// it is the jailer that lies beside Firecracker or, failing that, in the usual folders; if there is none, if the
/// server is not root or if Firecracker could not start in a jail, there is no jail. A jailer that is there and must
/// not be used is an error, not a start without a jail: PermissionDenied (somebody could change it), NotSupported
/// (known holes, or another version than Firecracker's). One that is named is required.
[[nodiscard]] Jailing findJailer(const JailerWish& wish, const std::filesystem::path& firecracker,
                                 const std::optional<FirecrackerVersion>& version);

/// The version that a program prints as "<name> v1.17.0" in its first line; nothing if it prints none.
[[nodiscard]] std::optional<FirecrackerVersion> askVersion(const std::filesystem::path& program, std::string_view name);

/// Why this program cannot start in a jail; empty if it can. A jail has no loader and no libraries, so it must be an
/// ELF program without PT_INTERP (elf(5)); the kernel would say "No such file or directory".
[[nodiscard]] std::string hindranceInJail(const std::filesystem::path& program);

}  // namespace mergen::vmm
