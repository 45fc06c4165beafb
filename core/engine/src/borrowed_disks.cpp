#include "borrowed_disks.hpp"

#include <cerrno>
#include <exception>
#include <fcntl.h>
#include <sstream>
#include <sys/stat.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/engine/guest_document.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/failpoint.hpp>

namespace mergen::engine {

namespace {

/// Of a disk while a VM has it: others neither write to it nor read what the guest writes.
constexpr mode_t lentMode = 0600;

struct stat inspect(const UniqueFd& fd, const GivenDisk& disk) {
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) throw Error::fromErrno(errno, "cannot inspect " + disk.path.string());
    return status;
}

void changeOwner(const UniqueFd& fd, uid_t uid, gid_t gid, const GivenDisk& disk) {
    if (::fchown(fd.get(), uid, gid) != 0)
        throw Error::fromErrno(errno, "cannot change the owner of " + disk.path.string());
}

void changeMode(const UniqueFd& fd, mode_t mode, const GivenDisk& disk) {
    if (::fchmod(fd.get(), mode) != 0) throw Error::fromErrno(errno, "cannot change the mode of " + disk.path.string());
}

/// Whether VMs run as our own user: then there is nobody to lend a disk to.
bool isOurs(const Credentials& user) noexcept {
    return user.uid == ::geteuid() && user.gid == ::getegid();
}

void lend(const EngineConfig& config, const GivenDisk& disk, const Credentials& user) {
    const UniqueFd fd = openBorrowed(config, disk);
    // First the mode: what the former owner granted to his group must not be granted to the VM's.
    changeMode(fd, lentMode, disk);
    MERGEN_FAILPOINT("engine.disks.lending");
    changeOwner(fd, user.uid, user.gid, disk);
}

/// False if the disk is not there.
bool takeBack(const EngineConfig& config, const GivenDisk& disk, const VmRecord& record) {
    try {
        const UniqueFd fd = openBorrowed(config, disk);
        const struct stat status = inspect(fd, disk);
        const auto known = record.diskOwners.find(disk.id);
        // A record that does not say is one of an earlier version, which gave such a disk to us.
        const DiskOwner former = known != record.diskOwners.end()
                                     ? known->second
                                     : DiskOwner{::geteuid(), ::getegid(), status.st_mode & 07777U};
        const bool lent = status.st_uid == record.credentials.uid;
        const bool halfLent = status.st_uid == former.uid && (status.st_mode & 07777U) == lentMode;
        if (!lent && !halfLent) return true;
        if (status.st_uid != former.uid || status.st_gid != former.gid) changeOwner(fd, former.uid, former.gid, disk);
        MERGEN_FAILPOINT("engine.disks.taking_back");
        changeMode(fd, former.mode, disk);
        return true;
    } catch (const Error& error) {
        if (error.kind() != ErrorKind::NotFound) throw;
        return false;
    }
}

}  // namespace

std::vector<GivenDisk> borrowedDisks(const VmRecord& record) {
    std::vector<GivenDisk> disks = givenDisks(record.dataDisk, record.drives);
    std::erase_if(disks, [](const GivenDisk& disk) { return !disk.borrowed; });
    return disks;
}

UniqueFd openBorrowed(const EngineConfig& config, const GivenDisk& disk) {
    return openBeneath(config.imageRoots, disk.path, O_RDONLY);
}

DiskOwner ownerBeforeLoan(const UniqueFd& fd, const GivenDisk& disk, const VmRecord& record) {
    const struct stat status = inspect(fd, disk);
    // Not given back after an earlier run: what was written down then is still true.
    const auto known = record.diskOwners.find(disk.id);
    if (known != record.diskOwners.end() && status.st_uid == record.credentials.uid) return known->second;
    return DiskOwner{status.st_uid, status.st_gid, status.st_mode & 07777U};
}

void lendDisks(const EngineConfig& config, const VmRecord& record) {
    if (isOurs(record.credentials)) return;
    for (const GivenDisk& disk : borrowedDisks(record)) lend(config, disk, record.credentials);
}

std::map<std::string, DiskOwner> takeBackDisks(const EngineConfig& config, const VmRecord& record) {
    std::map<std::string, DiskOwner> owed;
    if (isOurs(record.credentials)) return owed;
    std::exception_ptr first;
    for (const GivenDisk& disk : borrowedDisks(record)) {
        try {
            if (takeBack(config, disk, record)) continue;
            const auto known = record.diskOwners.find(disk.id);
            if (known != record.diskOwners.end()) owed.insert(*known);
        } catch (const Error&) {
            if (!first) first = std::current_exception();
        }
    }
    if (first) std::rethrow_exception(first);
    return owed;
}

std::string loansText(const std::vector<GivenDisk>& disks, const std::map<std::string, DiskOwner>& owners) {
    std::string text;
    for (const GivenDisk& disk : disks) {
        const DiskOwner& owner = owners.at(disk.id);
        text += disk.id + " " + std::to_string(owner.uid) + " " + std::to_string(owner.gid) + " " +
                std::to_string(owner.mode) + " " + disk.path.string() + "\n";
    }
    return text;
}

void readLoans(const std::string& text, VmRecord& record) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        DriveRequest drive;
        DiskOwner owner;
        std::string path;
        if (!(words >> drive.id >> owner.uid >> owner.gid >> owner.mode >> std::ws) || !std::getline(words, path))
            continue;
        drive.path = path;
        record.diskOwners[drive.id] = owner;
        if (drive.id == dataDriveId) {
            record.dataDisk = path;
        } else {
            record.drives.push_back(std::move(drive));
        }
    }
}

}  // namespace mergen::engine
