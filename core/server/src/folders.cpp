#include <array>
#include <cerrno>
#include <cstdio>
#include <iterator>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/server/folders.hpp>

namespace mergen::server {

namespace fs = std::filesystem;

namespace {

struct stat inspect(const fs::path& path) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) throw Error::fromErrno(errno, "cannot inspect " + path.string());
    return status;
}

std::string modeOf(const struct stat& status) {
    std::array<char, 8> text{};
    std::snprintf(text.data(), text.size(), "%04o", static_cast<unsigned>(status.st_mode & 07777U));
    return text.data();
}

void checkOwner(const fs::path& folder, std::string_view key) {
    const struct stat status = inspect(folder);
    const auto refuse = [&](const std::string& why) {
        throw Error(ErrorKind::PermissionDenied, "the folder " + folder.string() + " of [paths] " + std::string(key) +
                                                     " " + why + ": whoever can write there can take over VMs");
    };
    if (status.st_uid != 0 && status.st_uid != ::geteuid()) {
        refuse("belongs to the user " + std::to_string(status.st_uid) + ", neither to root nor to us");
    }
    if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) refuse("can be written by others (mode " + modeOf(status) + ")");
}

/// Whether a uid that is nobody's can pass every folder down to `folder`. Looks at the path as the kernel walks it, so
/// behind links.
void checkPassable(const fs::path& folder, std::string_view key) {
    const fs::path real = fs::canonical(folder);
    fs::path at;
    for (const fs::path& part : real) {
        at /= part;
        const struct stat status = inspect(at);
        if ((status.st_mode & S_IXOTH) != 0) continue;
        throw Error(ErrorKind::PermissionDenied, "the VMs' own users cannot reach [paths] " + std::string(key) + " = " +
                                                     folder.string() + ": " + at.string() + " has mode " +
                                                     modeOf(status) + "; run 'chmod o+x " + at.string() +
                                                     "', or choose another folder");
    }
}

/// Hooks that an operator brings along from mergen-fire would be missed in silence.
void sayHooksThatDoNotRun(const fs::path& folder, Log& log) {
    std::error_code absent;
    const fs::directory_iterator entries(folder, absent);
    const auto files = absent ? 0 : std::distance(begin(entries), end(entries));
    if (files == 0) return;
    log.warning(
        "paths.global_hooks.inert",
        {{"path", folder.string()}, {"files", files}, {"effect", "no plugin runs hooks yet: none of them is called"}});
}

}  // namespace

void prepareFolders(const PathsSection& paths, Log& log) {
    makeDirectories(paths.configRoot, 0750);
    makeDirectories(paths.dataRoot, 0751);
    makeDirectories(paths.runRoot, 0711);
    checkOwner(paths.configRoot, "config_root");
    checkOwner(paths.dataRoot, "data_root");
    checkOwner(paths.runRoot, "run_root");
    if (::geteuid() == 0) {  // else a VM runs as ourselves
        checkPassable(paths.dataRoot, "data_root");
        checkPassable(paths.runRoot, "run_root");
    }
    for (const fs::path& root : paths.imageRoots) {
        if (root == paths.dataRoot / "images") makeDirectories(root, 0755);
        std::error_code ignored;
        if (fs::is_directory(root, ignored)) continue;
        log.warning("paths.image_root.missing", {{"path", root.string()}, {"effect", "no VM can use files below it"}});
    }
    sayHooksThatDoNotRun(paths.globalHooksDir, log);
}

}  // namespace mergen::server
