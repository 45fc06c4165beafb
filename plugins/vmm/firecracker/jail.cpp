#include "jail.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string_view>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

#include <mergen/base/fd.hpp>
#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/failpoint.hpp>

#include "metrics_pipe.hpp"

namespace mergen::vmm {
namespace {

namespace fs = std::filesystem;

constexpr auto baseName = ".jail";
constexpr auto filesFolder = "vm";
constexpr std::size_t mountInfoLimit = 16U << 20U;

std::string diskName(const DiskSpec& disk) {
    return "disk-" + disk.id;
}

/// Calls `each` with every file of the guest: the member it is, its path, its name in the jail, and whether the VM's
/// user writes to it.
template <typename Each>
void forEachFile(GuestSpec& guest, const Each& each) {
    each("kernel", guest.kernel, std::string("kernel"), false);
    if (guest.initrd) each("initrd", *guest.initrd, std::string("initrd"), false);
    for (std::size_t i = 0; i < guest.disks.size(); ++i) {
        DiskSpec& disk = guest.disks[i];
        each("disks[" + std::to_string(i) + "].file", disk.file, diskName(disk), !disk.readOnly);
    }
}

/// Opens a folder by its name in another, or throws for a link, a mount point, or what somebody else than us may
/// change.
UniqueFd enter(const UniqueFd& folder, const std::string& name, const fs::path& shown) {
    open_how how{};
    how.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
    UniqueFd fd(static_cast<int>(::syscall(SYS_openat2, folder.get(), name.c_str(), &how, sizeof how)));
    if (fd) return fd;
    if (errno == ELOOP || errno == ENOTDIR)
        throw Error(ErrorKind::PermissionDenied, "cannot make a jail: " + shown.string() + " is a link or no folder");
    if (errno == EXDEV)
        throw Error(ErrorKind::PermissionDenied, "cannot make a jail: something is mounted at " + shown.string());
    throw Error::fromErrno(errno, "cannot open " + shown.string());
}

/// The same, and the folder must be ours and nobody else's to change.
UniqueFd enterOwn(const UniqueFd& folder, const std::string& name, const fs::path& shown) {
    UniqueFd fd = enter(folder, name, shown);
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) throw Error::fromErrno(errno, "cannot inspect " + shown.string());
    if (status.st_uid != ::geteuid() || (status.st_mode & 0022U) != 0) {
        throw Error(ErrorKind::PermissionDenied,
                    "cannot make a jail: " + shown.string() +
                        " must belong to the server's user and be writable by nobody else");
    }
    return fd;
}

/// Makes a folder of mode 0700 unless it is there, and enters it.
UniqueFd makeAndEnter(const UniqueFd& folder, const std::string& name, const fs::path& shown) {
    if (::mkdirat(folder.get(), name.c_str(), 0700) != 0 && errno != EEXIST)
        throw Error::fromErrno(errno, "cannot make " + shown.string());
    return enterOwn(folder, name, shown);
}

void give(const UniqueFd& fd, uid_t uid, gid_t gid, mode_t mode, const fs::path& shown) {
    if (::fchmod(fd.get(), mode) != 0 || ::fchown(fd.get(), uid, gid) != 0)
        throw Error::fromErrno(errno, "cannot give away " + shown.string());
}

std::string magicLink(const UniqueFd& fd) {
    return "/proc/self/fd/" + std::to_string(fd.get());
}

void bindOnto(const UniqueFd& source, const UniqueFd& folder, const std::string& name, const fs::path& shown) {
    const UniqueFd target(
        ::openat(folder.get(), name.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0));
    if (!target) throw Error::fromErrno(errno, "cannot make " + shown.string());
    if (::mount(magicLink(source).c_str(), magicLink(target).c_str(), nullptr, MS_BIND, nullptr) != 0)
        throw Error::fromErrno(errno, "cannot bind " + shown.string());
}

/// Brings one file into the folder `files` of the jail.
void bringIn(const std::string& field, const fs::path& file, const UniqueFd& files, const std::string& name,
             bool writable, bool own, const Credentials& user) {
    const auto refuse = [&](std::string_view why) {
        return Error(ErrorKind::InvalidArgument, "cannot bring " + file.string() + " into a jail: " + std::string(why))
            .about(field);
    };
    const UniqueFd source(::open(file.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!source) throw Error::fromErrno(errno, "cannot open " + file.string()).about(field);
    struct stat status {};
    if (::fstat(source.get(), &status) != 0) throw Error::fromErrno(errno, "cannot inspect " + file.string());
    if (!S_ISREG(status.st_mode)) throw refuse("it is no regular file");
    // A name may have been led elsewhere since the engine lent the file to the VM's user: nothing else is that user's.
    if ((writable || !own) && status.st_uid != user.uid) throw refuse("it does not belong to the VM's user");
    if (!writable && !own) {
        // Its owner may have it open and write to it while the guest runs.
        const UniqueFd readable = openFile(magicLink(source), O_RDONLY);
        copySparse(readable.get(), fs::path(magicLink(files)) / name, 0440, ::geteuid(), user.gid);
        return;
    }
    const int linked = ::linkat(AT_FDCWD, magicLink(source).c_str(), files.get(), name.c_str(), AT_SYMLINK_FOLLOW);
    if (linked == 0) return;
    // Another file system, one without hard links, or too many of them.
    if (errno != EXDEV && errno != EPERM && errno != EMLINK)
        throw Error::fromErrno(errno, "cannot link " + file.string() + " into a jail");
    bindOnto(source, files, name, file);
}

bool isBelow(const fs::path& folder, const fs::path& path) {
    const auto [folderEnd, rest] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
    return folderEnd == folder.end() && rest != path.end();
}

/// As mountinfo writes a path: blank, tab, newline and backslash as octal numbers.
fs::path unescaped(std::string_view text) {
    std::string path;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const std::string_view digits = text.substr(i + 1, 3);
        const bool octal = text[i] == '\\' && digits.size() == 3 &&
                           std::ranges::all_of(digits, [](char c) { return c >= '0' && c <= '7'; });
        path += octal ? static_cast<char>(std::stoi(std::string(digits), nullptr, 8)) : text[i];
        if (octal) i += 3;
    }
    return path;
}

/// What is mounted below `folder`, the newest last; proc(5).
std::vector<fs::path> mountsBelow(const fs::path& folder) {
    std::vector<fs::path> points;
    const std::string text = readFile("/proc/self/mountinfo", mountInfoLimit).value_or("");
    for (const std::string& line : split(text, '\n')) {
        const std::vector<std::string> words = split(line, ' ');
        if (words.size() < 5) continue;
        fs::path point = unescaped(words[4]);
        if (isBelow(folder, point)) points.push_back(std::move(point));
    }
    return points;
}

/// Names of the folders in `folder`; none if it is itself a link or no folder.
std::vector<std::string> foldersIn(const fs::path& folder) {
    std::error_code ignored;
    if (!fs::is_directory(fs::symlink_status(folder, ignored))) return {};
    std::vector<std::string> names = listDirectory(folder);
    std::erase_if(
        names, [&](const std::string& name) { return !fs::is_directory(fs::symlink_status(folder / name, ignored)); });
    return names;
}

}  // namespace

GuestSpec seenFromJail(GuestSpec guest) {
    forEachFile(guest, [](const std::string&, fs::path& file, const std::string& name, bool) {
        file = fs::path("/") / filesFolder / name;
    });
    return guest;
}

fs::path inFolder(const UniqueFd& files, const fs::path& inside) {
    return fs::path(magicLink(files)) / inside.filename();
}

// Without links, as mountinfo has it.
JailYard::JailYard(fs::path dataRoot) : dataRoot_(fs::canonical(dataRoot)), base_(dataRoot_ / baseName) {}

fs::path JailYard::rootOf(const std::string& program, const Uuid& vm) const {
    return base_ / program / vm.str() / "root";
}

fs::path JailYard::find(const Uuid& vm) const {
    for (const std::string& program : foldersIn(base_)) {
        std::error_code ignored;
        fs::path root = rootOf(program, vm);
        if (fs::is_directory(fs::symlink_status(root, ignored))) return root;
    }
    return {};
}

void JailYard::make(const std::string& program, const GuestSpec& guest, const VmmPlace& place) const {
    const Uuid& vm = place.owner.vm;
    const Credentials& user = place.credentials;
    remove(vm);
    const fs::path root = rootOf(program, vm);
    const UniqueFd data = openFile(dataRoot_, O_RDONLY | O_DIRECTORY);
    const UniqueFd ofVm = [&] {
        const std::lock_guard lock(mutex_);
        const UniqueFd base = makeAndEnter(data, baseName, base_);
        const UniqueFd ofProgram = makeAndEnter(base, program, base_ / program);
        return makeAndEnter(ofProgram, vm.str(), root.parent_path());
    }();
    MERGEN_FAILPOINT("vmm.firecracker.jail.folder");
    const UniqueFd rootFd = makeAndEnter(ofVm, "root", root);
    const UniqueFd files = makeAndEnter(rootFd, filesFolder, root / filesFolder);
    GuestSpec all = guest;
    forEachFile(all, [&](const std::string& field, const fs::path& file, const std::string& name, bool writable) {
        bringIn(field, file, files, name, writable, isBelow(dataRoot_, fs::weakly_canonical(file)), user);
        MERGEN_FAILPOINT("vmm.firecracker.jail.file");
    });
    if (guest.metrics) makeMetricsPipe(inFolder(files, jailed::metrics), user);
    // The VM's group may pass through; what is in it stays under our names.
    give(files, ::geteuid(), user.gid, 0710, root / filesFolder);
    const UniqueFd run = makeAndEnter(rootFd, "run", root / "run");
    give(run, user.uid, user.gid, 0700, root / "run");
    give(rootFd, user.uid, user.gid, 0700, root);
    MERGEN_FAILPOINT("vmm.firecracker.jail.made");
}

std::optional<UniqueFd> JailYard::files(const Uuid& vm) const {
    const fs::path root = find(vm);
    if (root.empty()) return std::nullopt;
    const UniqueFd ofVm = openFile(root.parent_path(), O_RDONLY | O_DIRECTORY);
    return enterOwn(ofVm, (fs::path("root") / filesFolder).string(), root / filesFolder);
}

std::uint64_t JailYard::freeBytes() const {
    struct statvfs status {};
    if (::statvfs(base_.c_str(), &status) != 0)
        throw Error::fromErrno(errno, "cannot see how much room there is at " + base_.string());
    return std::uint64_t{status.f_bfree} * status.f_frsize;
}

void JailYard::write(const Uuid& vm, const fs::path& inside, std::string_view text, const Credentials& owner) const {
    const std::optional<UniqueFd> folder = files(vm);
    if (!folder) throw Error(ErrorKind::NotFound, "VM " + vm.str() + " has no jail");
    writeFileAtomically(inFolder(*folder, inside), text, 0400, owner);
}

void JailYard::remove(const Uuid& vm) const {
    for (const std::string& program : foldersIn(base_)) {
        const fs::path jail = base_ / program / vm.str();
        std::error_code ignored;
        if (!fs::exists(fs::symlink_status(jail, ignored))) continue;  // nothing can be mounted in it
        std::vector<fs::path> points = mountsBelow(jail);
        for (auto point = points.rbegin(); point != points.rend(); ++point) {
            if (::umount2(point->c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno != EINVAL && errno != ENOENT)
                throw Error::fromErrno(errno, "cannot unmount " + point->string() + ", so its jail stays");
        }
        if (points = mountsBelow(jail); !points.empty()) {
            throw Error(ErrorKind::FailedPrecondition,
                        "the jail " + jail.string() + " stays: " + points.front().string() + " is still mounted");
        }
        MERGEN_FAILPOINT("vmm.firecracker.jail.unmounted");
        static_cast<void>(removeTree(jail));
        const std::lock_guard lock(mutex_);
        static_cast<void>(::rmdir((base_ / program).c_str()));  // if that was the last
    }
    const std::lock_guard lock(mutex_);
    static_cast<void>(::rmdir(base_.c_str()));
}

std::vector<Uuid> JailYard::list() const {
    std::vector<Uuid> vms;
    for (const std::string& program : foldersIn(base_)) {
        for (const std::string& name : foldersIn(base_ / program)) {
            try {
                vms.push_back(Uuid::parse(name));
            } catch (const Error&) {
                continue;  // nothing of ours
            }
        }
    }
    return vms;
}

std::vector<fs::path> leftInJail(const fs::path& root, const std::string& program) {
    return {root / "dev", root / "run", root / "old_root", root / program, root / (program + ".pid")};
}

}  // namespace mergen::vmm
