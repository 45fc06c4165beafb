#pragma once

#include <mergen/base/fd.hpp>

#include "documents.hpp"

/// The files of one VM: its own copies of root disk and kernel, its logs, and the data disk that it borrows.
namespace mergen::engine {

/// What a create found at the given paths, opened once: what is checked is what is copied, whatever is renamed there
/// meanwhile.
struct OpenedImages {
    UniqueFd rootfs, kernel, dataDisk;
};

/// Opens rootfs, kernel and dataDisk below the allowed roots without following links. Throws Error about the member.
[[nodiscard]] OpenedImages openImages(const EngineConfig& config, const CreateRequest& request);

/// Makes `<data>/<id>` with the copies and the folder for logs. Throws AlreadyExists if there is such a folder of
/// another VM, for instance one whose data was retained.
void makeDisks(const EngineConfig& config, const VmRecord& record, const OpenedImages& images);

/// The UUID of the VM whose data folder `<data>/<id>` is; nothing if there is none or it does not say.
[[nodiscard]] std::optional<Uuid> ownerOfDisks(const EngineConfig& config, const RecordId& id);

/// Removes `<data>/<id>` if it is this VM's: never what an earlier VM of the same id left. Does nothing if it is gone.
void removeDisks(const EngineConfig& config, const VmRecord& record);

/// Makes what stays of a deleted VM root's alone: its uid is the next VM's.
void surrenderDisks(const EngineConfig& config, const VmRecord& record);

/// Who owns the VM's root disk, for a record that does not say; nothing if it has none.
[[nodiscard]] std::optional<Credentials> userOfDisks(const EngineConfig& config, const RecordId& id);

/// Gives the data disk to the VM's uid for the time that it runs, and back to root after. Does nothing without one.
void lendDataDisk(const EngineConfig& config, const VmRecord& record);
void takeBackDataDisk(const EngineConfig& config, const VmRecord& record);

/// The run directory: the VM's uid alone may enter it.
void makeRunDirectory(const EngineConfig& config, const VmRecord& record);
void removeRunDirectory(const EngineConfig& config, const Uuid& uuid);

}  // namespace mergen::engine
