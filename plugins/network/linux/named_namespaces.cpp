#include "named_namespaces.hpp"

#include <cerrno>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/failpoint.hpp>

#include "rtnetlink.hpp"

namespace mergen::network {

namespace {

constexpr std::size_t longestTag = 256;

Error alreadyThere(const std::filesystem::path& path) {
    return {ErrorKind::AlreadyExists, "the network namespace " + path.string() + " is there and is not this VM's"};
}

/// Makes `path` with `content` in one step, so that there is no instant at which it is empty. False if it is there.
bool placeFile(const std::filesystem::path& path, std::string_view content) {
    const UniqueFd file = openFile(path.parent_path(), O_TMPFILE | O_WRONLY, 0444);
    writeAll(file.get(), content, path.string());
    const std::string source = "/proc/self/fd/" + std::to_string(file.get());
    if (::linkat(AT_FDCWD, source.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) == 0) return true;
    if (errno == EEXIST) return false;
    throw Error::fromErrno(errno, "cannot make " + path.string());
}

}  // namespace

std::string tagOf(const NetNamespace& space) {
    return space.run([] {
        const auto loopback = Rtnetlink().findLink("lo");
        return loopback ? loopback->alias : std::string();
    });
}

void NamedNamespaces::prepare(const std::function<void()>& beforeMount) const {
    makeDirectories(directory_, 0755);
    if (::mount("", directory_.c_str(), "none", MS_SHARED | MS_REC, nullptr) == 0) return;
    if (errno != EINVAL) throw Error::fromErrno(errno, "cannot share the mounts of " + directory_.string());
    beforeMount();  // EINVAL: it is not a mount
    if (::mount(directory_.c_str(), directory_.c_str(), "none", MS_BIND | MS_REC, nullptr) != 0) {
        throw Error::fromErrno(errno, "cannot make " + directory_.string() + " a mount");
    }
    if (::mount("", directory_.c_str(), "none", MS_SHARED | MS_REC, nullptr) != 0) {
        const int errnum = errno;
        ::umount2(directory_.c_str(), UMOUNT_NOFOLLOW);
        throw Error::fromErrno(errnum, "cannot share the mounts of " + directory_.string());
    }
}

bool NamedNamespaces::unprepare() const {
    if (!names().empty()) return false;
    if (::umount2(directory_.c_str(), UMOUNT_NOFOLLOW) == 0 || errno == EINVAL || errno == ENOENT) return true;
    if (errno == EBUSY) return false;
    throw Error::fromErrno(errno, "cannot unmount " + directory_.string());
}

std::vector<std::string> NamedNamespaces::names() const {
    return listDirectory(directory_);
}

std::optional<NamedEntry> NamedNamespaces::find(const std::string& name) const {
    std::optional<NamedEntry> entry = look(name);
    if (entry && entry->space) entry->tag = tagOf(*entry->space);
    return entry;
}

std::optional<NetNamespace> NamedNamespaces::open(const std::string& name) const {
    std::optional<NamedEntry> entry = look(name);
    return entry ? std::move(entry->space) : std::nullopt;
}

std::optional<NamedEntry> NamedNamespaces::look(const std::string& name) const {
    const std::filesystem::path file = path(name);
    // Somebody else may have put anything there: no following of links, no waiting for a FIFO's writer.
    UniqueFd fd(::open(file.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!fd) {
        if (errno == ENOENT) return std::nullopt;
        if (errno == ELOOP || errno == ENXIO) return NamedEntry{};
        throw Error::fromErrno(errno, "cannot open " + file.string());
    }
    struct statfs system {};
    if (::fstatfs(fd.get(), &system) != 0) throw Error::fromErrno(errno, "cannot inspect " + file.string());
    if (system.f_type == NSFS_MAGIC && ::ioctl(fd.get(), NS_GET_NSTYPE) == CLONE_NEWNET) {
        return NamedEntry{NetNamespace(std::move(fd)), {}};
    }
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) throw Error::fromErrno(errno, "cannot inspect " + file.string());
    NamedEntry entry;
    if (S_ISREG(status.st_mode) && static_cast<std::uint64_t>(status.st_size) <= longestTag) {
        entry.tag = readFile(file, longestTag).value_or("");
    }
    return entry;
}

void NamedNamespaces::bind(const std::string& name, const OwnerTag& owner, const NetNamespace& space) const {
    const std::filesystem::path file = path(name);
    if (!placeFile(file, owner.str())) {
        const auto there = find(name);
        if (!there || there->space || there->tag != owner.str()) throw alreadyThere(file);
    }
    MERGEN_FAILPOINT("network.linux.attach.file");
    const std::string source = "/proc/self/fd/" + std::to_string(space.fd());
    if (::mount(source.c_str(), file.c_str(), "none", MS_BIND, nullptr) != 0) {
        throw Error::fromErrno(errno, "cannot name the network namespace " + file.string());
    }
}

void NamedNamespaces::remove(const std::string& name, const OwnerTag& owner) const {
    const std::filesystem::path file = path(name);
    for (;;) {  // several mounts may lie on one file; each is looked at before it is taken away
        const auto there = find(name);
        if (!there || there->tag != owner.str()) return;
        if (!there->space) break;
        if (::umount2(file.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno != ENOENT) {
            throw Error::fromErrno(errno, "cannot unmount " + file.string());
        }
        MERGEN_FAILPOINT("network.linux.detach.unmounted");
    }
    if (::unlink(file.c_str()) != 0 && errno != ENOENT) {
        throw Error::fromErrno(errno, "cannot remove " + file.string());
    }
}

}  // namespace mergen::network
