#include "disks.hpp"

#include <cerrno>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/failpoint.hpp>

namespace mergen::engine {

namespace fs = std::filesystem;

namespace {

/// Says whose a data folder is. A folder of the same id that an earlier VM left (retainData) has another UUID in it.
constexpr auto ownerFile = ".owner";

/// Says that a folder's VM is known to nobody after its server; in it the path of the data disk, if there is one.
constexpr auto transientFile = ".transient";

constexpr std::string_view asideMark = ".aside-";

UniqueFd openImage(const EngineConfig& config, const fs::path& path, int flags, const std::string& field) {
    try {
        UniqueFd fd = openBeneath(config.imageRoots, path, flags);
        struct stat status {};
        if (::fstat(fd.get(), &status) != 0) throw Error::fromErrno(errno, "cannot inspect " + path.string());
        if (status.st_size == 0)
            throw Error(ErrorKind::InvalidArgument, "cannot use " + path.string() + ": it is empty");
        return fd;
    } catch (const Error& error) {
        // To the caller a wrong path is wrong input, whatever stands in its way.
        throw Error(ErrorKind::InvalidArgument, error.what()).about(field);
    }
}

/// Where a data folder is made and unmade, whole and out of sight. The UUID is in it: it can be nobody else's.
fs::path asideFolder(const EngineConfig& config, const VmRecord& record) {
    return config.dataRoot / (std::string(asideMark) + record.uuid.str());
}

/// The UUID of the VM whose data folder this is; empty if it is none.
std::string ownerOf(const fs::path& folder) {
    const auto text = readFile(folder / ownerFile, 100);
    return text ? std::string(trim(std::string_view(*text).substr(0, text->find('\n')))) : std::string();
}

Error folderTaken(const fs::path& folder) {
    return Error(ErrorKind::AlreadyExists,
                 "the data folder " + folder.string() + " is there already; move it away or choose another id")
        .about("id");
}

void giveAway(const fs::path& path, uid_t uid, gid_t gid) {
    if (uid == ::geteuid() && gid == ::getegid()) return;
    if (::lchown(path.c_str(), uid, gid) != 0) throw Error::fromErrno(errno, "cannot give away " + path.string());
}

void changeOwner(const UniqueFd& fd, uid_t uid, gid_t gid, const fs::path& shown) {
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) throw Error::fromErrno(errno, "cannot inspect " + shown.string());
    if (status.st_uid == uid && status.st_gid == gid) return;
    if (::fchown(fd.get(), uid, gid) != 0)
        throw Error::fromErrno(errno, "cannot change the owner of " + shown.string());
}

/// A data disk, to root.
void giveBack(const EngineConfig& config, const std::optional<fs::path>& disk) {
    if (!disk) return;
    try {
        const UniqueFd fd = openBeneath(config.imageRoots, *disk, O_RDWR);
        changeOwner(fd, ::geteuid(), ::getegid(), *disk);
    } catch (const Error& error) {
        if (error.kind() != ErrorKind::NotFound) throw;  // taken away by its owner: nothing to give back
    }
}

}  // namespace

OpenedImages openImages(const EngineConfig& config, const CreateRequest& request) {
    OpenedImages images;
    images.rootfs = openImage(config, request.rootfs, O_RDONLY, "rootfs");
    images.kernel = openImage(config, request.kernel, O_RDONLY, "kernel");
    if (request.dataDisk) images.dataDisk = openImage(config, *request.dataDisk, O_RDWR, "dataDisk");
    return images;
}

std::optional<Uuid> ownerOfDisks(const EngineConfig& config, const RecordId& id) {
    try {
        return Uuid::parse(ownerOf(config.dataRoot / id.str()));
    } catch (const Error&) {
        return std::nullopt;
    }
}

void makeDisks(const EngineConfig& config, const VmRecord& record, const OpenedImages& images, bool durable) {
    const fs::path folder = pathsOf(config, record.id, record.uuid).dataDir;
    const fs::path aside = asideFolder(config, record);
    const Credentials& user = record.credentials;
    if (fs::exists(fs::symlink_status(folder))) throw folderTaken(folder);
    makeDirectories(aside, 0750);
    writeFileDurably(aside / ownerFile, record.uuid.str() + "\n", 0640);
    if (!durable) {
        writeFileDurably(aside / transientFile, record.dataDisk.value_or("").string(), 0640);
    }
    // Root's folder, which the VM's group, that is its uid, may pass through to its own disk and nothing else.
    if (user.gid != ::getegid() && ::lchown(aside.c_str(), ::geteuid(), user.gid) != 0) {
        throw Error::fromErrno(errno, "cannot give the data folder to the VM's group");
    }
    makeDirectories(aside / "logs", 0750);
    copySparse(images.kernel.get(), aside / "kernel", 0440, ::geteuid(), user.gid);
    MERGEN_FAILPOINT("engine.disks.kernel_copied");
    copySparse(images.rootfs.get(), aside / "rootfs.ext4", 0640, user.uid, user.gid);
    MERGEN_FAILPOINT("engine.disks.rootfs_copied");
    if (::renameat2(AT_FDCWD, aside.c_str(), AT_FDCWD, folder.c_str(), RENAME_NOREPLACE) != 0) {
        if (errno == EEXIST) throw folderTaken(folder);
        throw Error::fromErrno(errno, "cannot rename " + aside.string() + " to " + folder.string());
    }
    syncDirectory(config.dataRoot);
}

std::vector<DataFolder> listDisks(const EngineConfig& config) {
    std::vector<DataFolder> folders;
    for (const std::string& name : listDirectory(config.dataRoot)) {
        DataFolder folder{.path = config.dataRoot / name, .vm = {}, .whole = !name.starts_with(asideMark)};
        try {
            folder.vm = Uuid::parse(folder.whole ? ownerOf(folder.path) : name.substr(asideMark.size()));
            if (const auto disk = readFile(folder.path / transientFile, 4096)) {
                folder.transient = true;
                if (!disk->empty()) folder.dataDisk = *disk;
            }
        } catch (const Error&) {
            continue;  // no folder of a VM
        }
        folders.push_back(std::move(folder));
    }
    return folders;
}

void removeLeftDisks(const EngineConfig& config, const DataFolder& folder) {
    giveBack(config, folder.dataDisk);
    if (!folder.whole) {
        static_cast<void>(removeTree(folder.path));
        return;
    }
    VmRecord record(RecordId::parse(folder.path.filename().string()), folder.vm);
    removeDisks(config, record);
}

void removeDisks(const EngineConfig& config, const VmRecord& record) {
    const fs::path folder = pathsOf(config, record.id, record.uuid).dataDir;
    const fs::path aside = asideFolder(config, record);
    if (ownerOf(folder) == record.uuid.str()) {
        // Out of the way by one rename: an interrupted removal is never taken for a disk, and is found by its name.
        static_cast<void>(removeTree(aside));
        if (::rename(folder.c_str(), aside.c_str()) != 0) {
            throw Error::fromErrno(errno, "cannot rename " + folder.string() + " to " + aside.string());
        }
    }
    static_cast<void>(removeTree(aside));
}

void surrenderDisks(const EngineConfig& config, const VmRecord& record) {
    const fs::path folder = pathsOf(config, record.id, record.uuid).dataDir;
    if (ownerOf(folder) != record.uuid.str()) return;
    static_cast<void>(removeTree(folder / transientFile));
    for (const fs::path& path : {folder / "rootfs.ext4", folder / "kernel", folder}) {
        if (::lchown(path.c_str(), ::geteuid(), ::getegid()) != 0 && errno != ENOENT) {
            throw Error::fromErrno(errno, "cannot take back " + path.string());
        }
    }
}

std::optional<Credentials> userOfDisks(const EngineConfig& config, const RecordId& id) {
    struct stat status {};
    if (::lstat((config.dataRoot / id.str() / "rootfs.ext4").c_str(), &status) != 0) return std::nullopt;
    return Credentials{status.st_uid, status.st_gid};
}

void lendDataDisk(const EngineConfig& config, const VmRecord& record) {
    if (!record.dataDisk) return;
    const UniqueFd fd = openBeneath(config.imageRoots, *record.dataDisk, O_RDWR);
    changeOwner(fd, record.credentials.uid, record.credentials.gid, *record.dataDisk);
}

void takeBackDataDisk(const EngineConfig& config, const VmRecord& record) {
    giveBack(config, record.dataDisk);
}

void makeRunDirectory(const EngineConfig& config, const VmRecord& record) {
    const fs::path folder = pathsOf(config, record.id, record.uuid).runDir;
    makeDirectories(folder, 0700);
    giveAway(folder, record.credentials.uid, record.credentials.gid);
}

void removeRunDirectory(const EngineConfig& config, const Uuid& uuid) {
    static_cast<void>(removeTree(config.runRoot / uuid.str()));
}

}  // namespace mergen::engine
