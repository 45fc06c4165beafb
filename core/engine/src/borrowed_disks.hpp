#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <sys/stat.h>
#include <vector>

#include <mergen/base/fd.hpp>
#include <mergen/sdk/error.hpp>

#include "documents.hpp"

/// The disks that a VM uses in place: its data disk, and further drives that take writes. Each stays a file of its
/// owner's, and is lent to the VM's uid alone while the VM runs.
namespace mergen::engine {

/// Those of `record`, in the guest's order.
[[nodiscard]] std::vector<GivenDisk> borrowedDisks(const VmRecord& record);

/// A disk held open: what is looked at is what is copied or lent, whatever is renamed there meanwhile.
struct OpenedDisk {
    GivenDisk given;
    UniqueFd fd;
};

/// Whether both are of one file, under whatever names.
[[nodiscard]] bool isSameFile(const struct stat& one, const struct stat& other) noexcept;

/// The disk as it lies there now, opened for reading. Throws as openBeneath().
[[nodiscard]] UniqueFd openBorrowed(const EngineConfig& config, const GivenDisk& disk);

/// Throws as openBeneath(), or Conflict, unless the file that the VM has as this disk still lies there. Of a VM that
/// does not run: unless a file lies there.
void requireOwnFile(const EngineConfig& config, const VmRecord& record, const GivenDisk& disk);

/// To whom the open disks are to be given back, by drive: to be in the record before lendDisks().
[[nodiscard]] std::map<std::string, DiskOwner> ownersBeforeLoan(const std::vector<OpenedDisk>& disks,
                                                                const VmRecord& record);

/// Gives the open disks to the VM's uid alone for the time that it runs. Throws Conflict if another program has opened
/// one for writing since it was looked at, or if another file lies there by now: it would be what the VMM opens. Does
/// nothing where VMs run as our own user.
void lendDisks(const EngineConfig& config, const VmRecord& record, const std::vector<OpenedDisk>& disks);

/// A disk that could not be given back: its file is not where it was, or whoever has its folder in hand keeps us from
/// it.
struct AwayDisk {
    std::filesystem::path path;
    DiskOwner owner;    ///< to whom it is owed
    std::string cause;  ///< what is found there, or what keeps us from it, as a sentence
};

/// What came of giving disks back.
struct TakenBack {
    /// By drive, to whom a disk is still owed: it is not there, or another file is; it may be mounted again. Or it
    /// could not be given back.
    std::map<std::string, DiskOwner> owed;
    std::vector<AwayDisk> away;    ///< those of them that nothing of ours keeps us from: to be told
    std::optional<Error> failure;  ///< what we lack to give one back; about the first such
};

/// Gives what the VM was lent back to `record.diskOwners`, with its modes: the files at the disks' paths, or those that
/// are held open. Can be repeated, as long as the record then says what is still owed, and touches no file that was not
/// lent or was given to somebody else meanwhile; one that cannot be given back keeps no other from it. The loan may
/// have been cut off half way, so a file that still is its owner's and 0600 is given its mode. Nothing where VMs run as
/// our own user.
[[nodiscard]] TakenBack takeBackDisks(const EngineConfig& config, const VmRecord& record);
[[nodiscard]] TakenBack takeBackDisks(const VmRecord& record, const std::vector<OpenedDisk>& disks);

/// "/images/data.ext4 is owed to 1000:1000 with mode 0644: ..."
[[nodiscard]] std::string toString(const AwayDisk& disk);

/// Of disks about to be lent: what is owed of an earlier run where now another file lies.
[[nodiscard]] std::vector<AwayDisk> replacedDisks(const std::vector<OpenedDisk>& disks, const VmRecord& record);

/// What the folder of a VM whose record does not survive the server says of `record.diskOwners`: a line "ID UID GID
/// MODE INODE PATH" each.
[[nodiscard]] std::string loansText(const VmRecord& record);
/// Puts into `record` what such a text says, or one of an earlier version. A line that is none is left out.
void readLoans(const std::string& text, VmRecord& record);

}  // namespace mergen::engine
