#pragma once

#include <mergen/base/fd.hpp>

#include "documents.hpp"

/// The files of one VM: its own copies of root disk, kernel and initrd, its logs, and the data disk that it borrows.
namespace mergen::engine {

/// What a create found at the given paths, opened once: what is checked is what is copied, whatever is renamed there
/// meanwhile.
struct OpenedImages {
    UniqueFd rootfs, kernel, initrd, dataDisk;
};

/// Opens the files below the allowed roots, for reading and without following links. Throws Error(InvalidArgument)
/// about the member, also for an empty file and for a data disk that cannot be written or lies in the data folder of a
/// VM.
[[nodiscard]] OpenedImages openImages(const EngineConfig& config, const CreateRequest& request);

/// Makes `<data>/<id>` with the copies and the folder for logs. Throws AlreadyExists if there is such a folder of
/// another VM, for instance one whose data was retained, and Conflict about the member whose file was changed while it
/// was copied.
void makeDisks(const EngineConfig& config, const VmRecord& record, const OpenedImages& images);

/// The UUID of the VM whose data folder `<data>/<id>` is; nothing if there is none or it does not say.
[[nodiscard]] std::optional<Uuid> ownerOfDisks(const EngineConfig& config, const RecordId& id);

/// Removes `<data>/<id>` if it is this VM's: never what an earlier VM of the same id left. Does nothing if it is gone.
void removeDisks(const EngineConfig& config, const VmRecord& record);

/// Makes what stays of a deleted VM root's alone: its uid is the next VM's.
void surrenderDisks(const EngineConfig& config, const VmRecord& record);

/// Who owns the VM's root disk, for a record that does not say; nothing if it has none.
[[nodiscard]] std::optional<Credentials> userOfDisks(const EngineConfig& config, const RecordId& id);

/// The data disk as it lies there now, opened for reading. Throws as openBeneath().
[[nodiscard]] UniqueFd openDataDisk(const EngineConfig& config, const VmRecord& record);

/// To whom the data disk is to be given back, if it is lent now: to be in the record before lendDataDisk().
[[nodiscard]] DiskOwner ownerBeforeLoan(const UniqueFd& dataDisk, const VmRecord& record);

/// Gives the data disk to the VM's uid alone for the time that it runs, and back to `record.dataDiskOwner` after, with
/// its mode. Both can be repeated, and taking back touches nothing if the disk was not lent, is gone, or was given to
/// somebody else meanwhile. Nothing without a data disk, or where VMs run as our own user.
void lendDataDisk(const EngineConfig& config, const VmRecord& record);
void takeBackDataDisk(const EngineConfig& config, const VmRecord& record);

/// The run directory: the VM's uid alone may enter it.
void makeRunDirectory(const EngineConfig& config, const VmRecord& record);
void removeRunDirectory(const EngineConfig& config, const Uuid& uuid);

}  // namespace mergen::engine
