#pragma once

#include <map>
#include <string>
#include <vector>

#include <mergen/base/fd.hpp>

#include "documents.hpp"

/// The disks that a VM uses in place: its data disk, and further drives that take writes. Each stays a file of its
/// owner's, and is lent to the VM's uid alone while the VM runs.
namespace mergen::engine {

/// Those of `record`, in the guest's order.
[[nodiscard]] std::vector<GivenDisk> borrowedDisks(const VmRecord& record);

/// The disk as it lies there now, opened for reading. Throws as openBeneath().
[[nodiscard]] UniqueFd openBorrowed(const EngineConfig& config, const GivenDisk& disk);

/// To whom the open disk is to be given back, if it is lent now: to be in the record before lendDisks().
[[nodiscard]] DiskOwner ownerBeforeLoan(const UniqueFd& fd, const GivenDisk& disk, const VmRecord& record);

/// Gives the disks to the VM's uid alone for the time that it runs, and back to `record.diskOwners` after, with their
/// modes. Both can be repeated, and taking back touches no disk that was not lent, is not there, or was given to
/// somebody else meanwhile; one that cannot be given back keeps no other from it, and what is thrown is about the first
/// such. Gives the owners to whom a disk is still owed because it is not there: it may be mounted again. Nothing where
/// VMs run as our own user.
void lendDisks(const EngineConfig& config, const VmRecord& record);
[[nodiscard]] std::map<std::string, DiskOwner> takeBackDisks(const EngineConfig& config, const VmRecord& record);

/// What the folder of a VM whose record does not survive the server says of them: a line "ID UID GID MODE PATH" each.
[[nodiscard]] std::string loansText(const std::vector<GivenDisk>& disks,
                                    const std::map<std::string, DiskOwner>& owners);
/// Puts into `record` what such a text says. A line that is none is left out.
void readLoans(const std::string& text, VmRecord& record);

}  // namespace mergen::engine
