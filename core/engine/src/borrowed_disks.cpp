#include "borrowed_disks.hpp"

#include <cerrno>
#include <charconv>
#include <fcntl.h>
#include <functional>
#include <iterator>
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

constexpr auto anotherFile = "another file lies there";

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

void lend(const EngineConfig& config, const OpenedDisk& disk, const Credentials& user) {
    // First the mode: what the former owner granted to his group must not be granted to the VM's.
    changeMode(disk.fd, lentMode, disk.given);
    MERGEN_FAILPOINT("engine.disks.lending");
    changeOwner(disk.fd, user.uid, user.gid, disk.given);
    // Only from here on can nobody else open it.
    const std::string name = disk.given.path.string();
    if (isOpenForWriting(disk.fd.get()))
        throw Error(ErrorKind::Conflict, "another program has " + name + " open for writing");
    if (!isSameFile(inspect(openBorrowed(config, disk.given), disk.given), inspect(disk.fd, disk.given)))
        throw Error(ErrorKind::Conflict, name + " was replaced by another file in this moment");
}

/// Null if the record does not say.
const DiskOwner* knownOwner(const GivenDisk& disk, const VmRecord& record) {
    const auto known = record.diskOwners.find(disk.id);
    return known != record.diskOwners.end() ? &known->second : nullptr;
}

/// Whether the file is the one that `owner` was noted of, as far as that says.
bool isOf(const DiskOwner& owner, const struct stat& status) noexcept {
    return owner.inode == 0 || owner.inode == status.st_ino;
}

/// Whether the file that was `owner`'s is the VM's now, or half: a loan, or its end, may have been cut off between mode
/// and owner.
bool isLent(const struct stat& status, const DiskOwner& owner, const Credentials& user) noexcept {
    return status.st_uid == user.uid || (status.st_uid == owner.uid && (status.st_mode & 07777U) == lentMode);
}

/// False if another file than the one that was lent lies there: it is nothing of ours, and is left alone.
bool takeBack(const UniqueFd& fd, const GivenDisk& disk, const VmRecord& record) {
    const struct stat status = inspect(fd, disk);
    const DiskOwner* const known = knownOwner(disk, record);
    if (known != nullptr && !isOf(*known, status)) return false;
    // A record that does not say is one of an earlier version, which gave such a disk to us.
    const bool lent =
        known != nullptr ? isLent(status, *known, record.credentials) : status.st_uid == record.credentials.uid;
    if (!lent) return true;
    const DiskOwner former =
        known != nullptr ? *known : DiskOwner{::geteuid(), ::getegid(), status.st_mode & 07777U, status.st_ino};
    if (status.st_uid != former.uid || status.st_gid != former.gid) changeOwner(fd, former.uid, former.gid, disk);
    MERGEN_FAILPOINT("engine.disks.taking_back");
    changeMode(fd, former.mode, disk);
    return true;
}

DiskOwner ownerBeforeLoan(const OpenedDisk& disk, const VmRecord& record) {
    const struct stat status = inspect(disk.fd, disk.given);
    // Not given back after an earlier run: what was written down then is still true.
    const DiskOwner* const known = knownOwner(disk.given, record);
    if (known != nullptr && isOf(*known, status) && isLent(status, *known, record.credentials))
        return DiskOwner{known->uid, known->gid, known->mode, status.st_ino};
    return DiskOwner{status.st_uid, status.st_gid, status.st_mode & 07777U, status.st_ino};
}

/// Adds to `result` what comes of `takeBackIt`, a takeBack() of this disk.
void takeBackInto(TakenBack& result, const GivenDisk& disk, const VmRecord& record,
                  const std::function<bool()>& takeBackIt) {
    const DiskOwner* const known = knownOwner(disk, record);
    const auto isAway = [&](const std::string& cause) {
        if (known != nullptr) result.away.push_back({disk.path, *known, cause});
    };
    try {
        if (takeBackIt()) return;
        isAway(anotherFile);
    } catch (const Error& error) {
        // What somebody did to the disk or its folder must not keep a VM from being stopped or deleted, nor its end
        // from being noted. What this process lacks, it has the next time.
        const bool passes = error.kind() == ErrorKind::ResourceExhausted || error.kind() == ErrorKind::Internal;
        if (!passes) {
            isAway(error.what());
        } else if (!result.failure) {
            result.failure = error;
        }
    }
    if (known != nullptr) result.owed.emplace(disk.id, *known);
}

template <typename Number>
std::optional<Number> numberIn(const std::string& word) {
    Number number = 0;
    const auto [end, failure] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (failure != std::errc() || end != word.data() + word.size()) return std::nullopt;
    return number;
}

}  // namespace

std::vector<GivenDisk> borrowedDisks(const VmRecord& record) {
    std::vector<GivenDisk> disks = givenDisks(record.dataDisk, record.drives);
    std::erase_if(disks, [](const GivenDisk& disk) { return !disk.borrowed; });
    return disks;
}

bool isSameFile(const struct stat& one, const struct stat& other) noexcept {
    return one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

UniqueFd openBorrowed(const EngineConfig& config, const GivenDisk& disk) {
    return openBeneath(config.imageRoots, disk.path, O_RDONLY);
}

void requireOwnFile(const EngineConfig& config, const VmRecord& record, const GivenDisk& disk) {
    const UniqueFd fd = openBorrowed(config, disk);
    const DiskOwner* const known = knownOwner(disk, record);
    if (known != nullptr && !isOf(*known, inspect(fd, disk)))
        throw Error(ErrorKind::Conflict, "another file lies at " + disk.path.string() + " than the VM has");
}

std::map<std::string, DiskOwner> ownersBeforeLoan(const std::vector<OpenedDisk>& disks, const VmRecord& record) {
    std::map<std::string, DiskOwner> owners;
    for (const OpenedDisk& disk : disks) owners[disk.given.id] = ownerBeforeLoan(disk, record);
    return owners;
}

void lendDisks(const EngineConfig& config, const VmRecord& record, const std::vector<OpenedDisk>& disks) {
    if (isOurs(record.credentials)) return;
    for (const OpenedDisk& disk : disks) lend(config, disk, record.credentials);
}

TakenBack takeBackDisks(const EngineConfig& config, const VmRecord& record) {
    TakenBack result;
    if (isOurs(record.credentials)) return result;
    for (const GivenDisk& disk : borrowedDisks(record))
        takeBackInto(result, disk, record, [&] { return takeBack(openBorrowed(config, disk), disk, record); });
    return result;
}

TakenBack takeBackDisks(const VmRecord& record, const std::vector<OpenedDisk>& disks) {
    TakenBack result;
    if (isOurs(record.credentials)) return result;
    for (const OpenedDisk& disk : disks)
        takeBackInto(result, disk.given, record, [&] { return takeBack(disk.fd, disk.given, record); });
    return result;
}

std::vector<AwayDisk> replacedDisks(const std::vector<OpenedDisk>& disks, const VmRecord& record) {
    std::vector<AwayDisk> replaced;
    for (const OpenedDisk& disk : disks) {
        const DiskOwner* const known = knownOwner(disk.given, record);
        if (known == nullptr || isOf(*known, inspect(disk.fd, disk.given))) continue;
        replaced.push_back({disk.given.path, *known, anotherFile});
    }
    return replaced;
}

std::string toString(const AwayDisk& disk) {
    std::ostringstream text;
    text << disk.path.string() << " is owed to " << disk.owner.uid << ":" << disk.owner.gid << " with mode 0"
         << std::oct << disk.owner.mode << ": " << disk.cause;
    return text.str();
}

std::string loansText(const VmRecord& record) {
    std::string text;
    for (const GivenDisk& disk : borrowedDisks(record)) {
        const DiskOwner* const owner = knownOwner(disk, record);
        if (owner == nullptr) continue;
        text += disk.id + " " + std::to_string(owner->uid) + " " + std::to_string(owner->gid) + " " +
                std::to_string(owner->mode) + " " + std::to_string(owner->inode) + " " + disk.path.string() + "\n";
    }
    return text;
}

void readLoans(const std::string& text, VmRecord& record) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        const std::size_t slash = line.find('/');
        if (slash == std::string::npos) continue;
        std::istringstream head(line.substr(0, slash));
        std::vector<std::string> words{std::istream_iterator<std::string>(head), {}};
        // Earlier versions wrote no inode, and the first of them no drive: it knew the data disk alone.
        if (words.size() == 3) words.insert(words.begin(), dataDriveId);
        if (words.size() == 4) words.emplace_back("0");
        if (words.size() != 5) continue;
        const auto uid = numberIn<std::uint32_t>(words[1]);
        const auto gid = numberIn<std::uint32_t>(words[2]);
        const auto mode = numberIn<std::uint32_t>(words[3]);
        const auto inode = numberIn<std::uint64_t>(words[4]);
        if (!uid || !gid || !mode || !inode) continue;
        record.diskOwners[words[0]] = DiskOwner{*uid, *gid, *mode, *inode};
        if (words[0] == dataDriveId) {
            record.dataDisk = line.substr(slash);
        } else {
            record.drives.push_back({.id = words[0], .path = line.substr(slash)});
        }
    }
}

}  // namespace mergen::engine
