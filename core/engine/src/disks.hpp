#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include <mergen/base/fd.hpp>
#include <mergen/sdk/vmm.hpp>

#include "borrowed_disks.hpp"
#include "documents.hpp"

/// The files of one VM: its own copies of root disk, kernel, initrd and drives that take no writes, and its logs.
namespace mergen::engine {

/// What a create found at the given paths, opened once: what is checked is what is copied, whatever is renamed there
/// meanwhile.
struct OpenedImages {
    UniqueFd rootfs, kernel, initrd;
    std::vector<OpenedDisk> disks;  ///< beside the root disk, in the guest's order
};

/// Opens the files below the allowed roots, for reading and without following links. Throws Error(InvalidArgument)
/// about the member, also for an empty file, and for a disk to be used in place that cannot be written or lies in the
/// data folder of a VM.
[[nodiscard]] OpenedImages openImages(const EngineConfig& config, const CreateRequest& request);

/// Makes `<data>/<id>` with the copies and the folder for logs. Throws AlreadyExists if there is such a folder of
/// another VM, for instance one whose data was retained, and Conflict about the member whose file was changed while it
/// was copied. `durable`: whether the record survives the server; if not, the folder says so, for it may be all that is
/// left of the VM. `vmm` makes the copy of the kernel one that it can load; what it says against it names the caller's
/// path.
void makeDisks(const EngineConfig& config, const VmRecord& record, const OpenedImages& images, const VmmBackend& vmm,
               bool durable);

/// The UUID of the VM whose data folder `<data>/<id>` is; nothing if there is none or it does not say.
[[nodiscard]] std::optional<Uuid> ownerOfDisks(const EngineConfig& config, const RecordId& id);

/// A data folder and whose it is.
struct DataFolder {
    std::filesystem::path path;
    Uuid vm;
    bool whole = true;       ///< false: it was being made or removed
    bool transient = false;  ///< made for a VM whose record did not survive its server
    std::string loans{};     ///< of such a VM: loansText() of what it is lent
};

/// All data folders.
[[nodiscard]] std::vector<DataFolder> listDisks(const EngineConfig& config);

/// Writes down in the folder of a VM whose record does not survive the server what it is lent, before it is: it may be
/// all that is left of the VM. Does nothing in any other folder, or if it is gone.
void noteLoans(const EngineConfig& config, const VmRecord& record);

/// Removes one of them, with what its VM was lent given back. The disks that are away.
[[nodiscard]] std::vector<AwayDisk> removeLeftDisks(const EngineConfig& config, const DataFolder& folder);

/// Removes `<data>/<id>` if it is this VM's: never what an earlier VM of the same id left. Does nothing if it is gone.
void removeDisks(const EngineConfig& config, const VmRecord& record);

/// Makes what stays of a deleted VM root's alone: its uid is the next VM's. It is nobody's left-over any more.
void surrenderDisks(const EngineConfig& config, const VmRecord& record);

/// Who owns the VM's root disk, for a record that does not say; nothing if it has none.
[[nodiscard]] std::optional<Credentials> userOfDisks(const EngineConfig& config, const RecordId& id);

/// The run directory: the VM's uid alone may enter it.
void makeRunDirectory(const EngineConfig& config, const VmRecord& record);
void removeRunDirectory(const EngineConfig& config, const Uuid& uuid);

}  // namespace mergen::engine
