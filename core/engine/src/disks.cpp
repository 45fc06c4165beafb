#include "disks.hpp"

#include <cerrno>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/engine/guest_document.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/failpoint.hpp>

namespace mergen::engine {

namespace fs = std::filesystem;

namespace {

/// Says whose a data folder is. A folder of the same id that an earlier VM left (retainData) has another UUID in it.
constexpr auto ownerFile = ".owner";

/// Says that a folder's VM is known to nobody after its server; in it the disks that the VM is lent.
constexpr auto transientFile = ".transient";
/// Bytes that it has at most: a path and five short words for each disk.
constexpr std::size_t transientLimit = maxDrives * 5000;

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

/// Throws Error(InvalidArgument) about its member unless the file can be a disk that a guest writes to.
void checkBorrowed(const EngineConfig& config, const UniqueFd& fd, const GivenDisk& disk) {
    const auto refuse = [&](std::string_view why) {
        return Error(ErrorKind::InvalidArgument, "cannot use " + disk.path.string() + ": " + std::string(why))
            .about(disk.field);
    };
    // "<id>/<file>" of what lies in a VM's folder.
    const fs::path below = disk.path.lexically_normal().lexically_relative(config.dataRoot.lexically_normal());
    if (below.has_parent_path() && *below.begin() != "..") {
        const std::string folder = *below.begin();
        if (!ownerOf(config.dataRoot / folder).empty()) throw refuse("it lies in the data folder of a VM");
        // Such as jails and caches: what a guest wrote there would be another VM's kernel.
        if (folder.starts_with('.')) throw refuse("it lies in a folder of the server's own");
    }
    const std::string same = "/proc/self/fd/" + std::to_string(fd.get());
    if (::access(same.c_str(), R_OK | W_OK) != 0) {
        // To the caller a wrong path is wrong input, whatever stands in its way.
        throw Error(ErrorKind::InvalidArgument, Error::fromErrno(errno, "cannot write to " + disk.path.string()).what())
            .about(disk.field);
    }
}

void copyImage(const UniqueFd& source, const fs::path& target, mode_t mode, const Credentials& user,
               const std::string& field) {
    try {
        copySparse(source.get(), target, mode, user.uid, user.gid);
    } catch (const Error& error) {
        if (error.kind() != ErrorKind::Conflict) throw;
        throw error.about(field);
    }
}

/// The drives that nobody writes to, into `folder`, which is made if there are any.
void copyDrives(const OpenedImages& images, const fs::path& folder, const Credentials& user) {
    for (const OpenedDisk& disk : images.disks) {
        if (disk.given.borrowed) continue;
        makeDirectories(folder, 0750);
        giveAway(folder, user.uid, user.gid);
        copyImage(disk.fd, folder / disk.given.id, 0440, user, disk.given.field);
        MERGEN_FAILPOINT("engine.disks.drive_copied");
    }
}

/// `copy` is the VM's own of the kernel that the caller knows as `given`.
void importKernel(const VmmBackend& vmm, const fs::path& copy, const fs::path& given) {
    try {
        vmm.importKernel(copy);
    } catch (const Error& error) {
        if (error.field() != "kernel") throw;
        throw Error(error.kind(), "cannot use the kernel " + given.string() + ": " + error.what()).about("kernel");
    }
}

}  // namespace

OpenedImages openImages(const EngineConfig& config, const CreateRequest& request) {
    OpenedImages images;
    images.rootfs = openImage(config, request.rootfs, O_RDONLY, "rootfs");
    images.kernel = openImage(config, request.kernel, O_RDONLY, "kernel");
    if (request.initrd) images.initrd = openImage(config, *request.initrd, O_RDONLY, "initrd");
    for (GivenDisk& disk : givenDisks(request.dataDisk, request.drives)) {
        UniqueFd fd = openImage(config, disk.path, O_RDONLY, disk.field);
        if (disk.borrowed) checkBorrowed(config, fd, disk);
        images.disks.push_back({std::move(disk), std::move(fd)});
    }
    return images;
}

std::optional<Uuid> ownerOfDisks(const EngineConfig& config, const RecordId& id) {
    try {
        return Uuid::parse(ownerOf(config.dataRoot / id.str()));
    } catch (const Error&) {
        return std::nullopt;
    }
}

void makeDisks(const EngineConfig& config, const VmRecord& record, const OpenedImages& images, const VmmBackend& vmm,
               bool durable) {
    const fs::path folder = pathsOf(config, record.id, record.uuid).dataDir;
    const fs::path aside = asideFolder(config, record);
    const Credentials& user = record.credentials;
    if (fs::exists(fs::symlink_status(folder))) throw folderTaken(folder);
    makeDirectories(aside, 0750);
    writeFileDurably(aside / ownerFile, record.uuid.str() + "\n", 0640);
    if (!durable) writeFileDurably(aside / transientFile, loansText(record), 0640);
    // Root's folder, which the VM's group, that is its uid, may pass through to its own disk and nothing else.
    const Credentials ours{::geteuid(), user.gid};
    giveAway(aside, ours.uid, ours.gid);
    makeDirectories(aside / "logs", 0750);
    copyImage(images.kernel, aside / "kernel", 0440, ours, "kernel");
    MERGEN_FAILPOINT("engine.disks.kernel_copied");
    if (images.initrd) copyImage(images.initrd, aside / "initrd", 0440, ours, "initrd");
    copyImage(images.rootfs, aside / "rootfs.ext4", 0640, user, "rootfs");
    MERGEN_FAILPOINT("engine.disks.rootfs_copied");
    copyDrives(images, aside / drivesFolder, ours);
    // Last: what the VMM keeps of it for speed must not take the room of the VM's own files.
    importKernel(vmm, aside / "kernel", record.kernel);
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
            if (const auto loans = readFile(folder.path / transientFile, transientLimit)) {
                folder.transient = true;
                folder.loans = *loans;
            }
        } catch (const Error&) {
            continue;  // no folder of a VM
        }
        folders.push_back(std::move(folder));
    }
    return folders;
}

void noteLoans(const EngineConfig& config, const VmRecord& record) {
    const fs::path file = pathsOf(config, record.id, record.uuid).dataDir / transientFile;
    if (ownerOf(file.parent_path()) != record.uuid.str() || !fs::exists(fs::symlink_status(file))) return;
    writeFileDurably(file, loansText(record), 0640);
}

std::vector<AwayDisk> removeLeftDisks(const EngineConfig& config, const DataFolder& folder) {
    if (!folder.whole) {  // a disk is lent after such a folder is whole, and is back before it is taken apart
        static_cast<void>(removeTree(folder.path));
        return {};
    }
    VmRecord record(RecordId::parse(folder.path.filename().string()), folder.vm);
    readLoans(folder.loans, record);
    if (const auto user = userOfDisks(config, record.id)) record.credentials = *user;
    const TakenBack back = takeBackDisks(config, record);
    if (back.failure) throw Error(*back.failure);
    removeDisks(config, record);
    return back.away;
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
    std::vector<fs::path> paths{folder / "rootfs.ext4", folder / "initrd", folder / "kernel"};
    for (const std::string& drive : listDirectory(folder / drivesFolder))
        paths.push_back(folder / drivesFolder / drive);
    paths.insert(paths.end(), {folder / drivesFolder, folder});
    for (const fs::path& path : paths) {
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

void makeRunDirectory(const EngineConfig& config, const VmRecord& record) {
    const fs::path folder = pathsOf(config, record.id, record.uuid).runDir;
    makeDirectories(folder, 0700);
    giveAway(folder, record.credentials.uid, record.credentials.gid);
}

void removeRunDirectory(const EngineConfig& config, const Uuid& uuid) {
    static_cast<void>(removeTree(config.runRoot / uuid.str()));
}

}  // namespace mergen::engine
