// What can be changed of a VM: in its record, and of the guest that runs.
#include <algorithm>

#include <mergen/base/text.hpp>
#include <mergen/engine/guest_document.hpp>

#include "engine_impl.hpp"
#include "request_names.hpp"

namespace mergen::engine {

namespace {

[[noreturn]] void refuse(ErrorKind kind, const std::string& field, const std::string& text) {
    throw Error(kind, field + ": " + text).about(field);
}

bool hasDrive(const VmRecord& record, const std::string& id) {
    if (id == rootDriveId) return true;
    if (id == dataDriveId) return record.dataDisk.has_value();
    return std::ranges::find(record.drives, id, &DriveRequest::id) != record.drives.end();
}

/// Throws about `field` unless `path` is what the VM uses as this drive, and in place: a VMM opens what lies there
/// anew.
void refuseOtherFile(const EngineConfig& config, const VmRecord& record, const std::string& drive,
                     const std::filesystem::path& path, const std::string& field) {
    const std::vector<GivenDisk> borrowed = borrowedDisks(record);
    const auto disk = std::ranges::find(borrowed, drive, &GivenDisk::id);
    if (disk == borrowed.end()) {
        refuse(ErrorKind::NotSupported, field,
               "the VM has a copy of its own as this drive, which does not change with the file that it was made of");
    }
    if (path != disk->path)
        refuse(ErrorKind::NotSupported, field, "the file of a drive cannot be changed; it is " + disk->path.string());
    try {
        requireOwnFile(config, record, *disk);
    } catch (const Error& error) {
        refuse(ErrorKind::FailedPrecondition, field, error.what());
    }
}

void changeDrives(const EngineConfig& config, VmRecord& record, const ChangeRequest& request) {
    for (std::size_t i = 0; i < request.drives.size(); ++i) {
        const ChangeRequest::Drive& change = request.drives[i];
        const std::string field = "drives[" + std::to_string(i) + "]";
        if (!hasDrive(record, change.id))
            refuse(ErrorKind::InvalidArgument, field + ".driveId",
                   "the VM has no drive \"" + printable(change.id) + "\"");
        if (change.path) refuseOtherFile(config, record, change.id, *change.path, field + ".pathOnHost");
        auto drive = std::ranges::find(record.drives, change.id, &DriveRequest::id);
        if (drive == record.drives.end()) {
            DriveRequest made;
            made.id = change.id;
            drive = record.drives.insert(drive, made);
        }
        if (change.limit) drive->limit = *change.limit;
    }
}

void changeNics(VmRecord& record, const ChangeRequest& request) {
    for (std::size_t i = 0; i < request.nics.size(); ++i) {
        const ChangeRequest::Nic& change = request.nics[i];
        if (record.nics.empty()) {
            record.nics.emplace_back();
            record.nics.back().id = "eth0";
        }
        const auto nic = std::ranges::find(record.nics, change.id, &NicRequest::id);
        if (nic == record.nics.end()) {
            refuse(ErrorKind::InvalidArgument, "networkInterfaces[" + std::to_string(i) + "].ifaceId",
                   "the VM has no network card \"" + printable(change.id) + "\"");
        }
        if (change.receive) nic->receive = *change.receive;
        if (change.transmit) nic->transmit = *change.transmit;
    }
}

void changeDevices(VmRecord& record, const ChangeRequest& request) {
    GuestOptions& options = record.options;
    if (request.balloonAmount || request.balloonStatsInterval) {
        if (!options.balloon) refuse(ErrorKind::InvalidArgument, "balloon", "the VM was made without one");
        if (request.balloonAmount.value_or(MiB{}) > record.memory) {
            refuse(ErrorKind::InvalidArgument, "balloon.amountMib",
                   std::to_string(request.balloonAmount->count) + " is more than the " +
                       std::to_string(record.memory.count) + " MiB of memory that the guest has");
        }
        options.balloon->amount = request.balloonAmount.value_or(options.balloon->amount);
        options.balloon->statsInterval = request.balloonStatsInterval.value_or(options.balloon->statsInterval);
    }
    if (request.mmdsContent) {
        if (!options.mmds) refuse(ErrorKind::InvalidArgument, "mmds", "the VM was made without it");
        options.mmds->content = *request.mmdsContent;
    }
}

}  // namespace

VmView Engine::Impl::change(const std::string& id, const ChangeRequest& request) {
    const Guard guard(*this);
    const auto vm = need(id);
    run(vm, "change", [&](Operation& op) { changeVm(op, request); });
    return view(*vm);
}

void Engine::Impl::changeVm(Operation& op, const ChangeRequest& request) {
    const VmRecord before = op.record();
    switch (before.state) {
        case VmState::Created:
        case VmState::Stopped:
        case VmState::Failed:
        case VmState::Running:
        case VmState::Paused:
            break;
        default:
            throw Error(
                ErrorKind::FailedPrecondition,
                "VM '" + before.id.str() + "' is " + std::string(toString(before.state)) + " and cannot be changed");
    }
    VmRecord wanted = before;
    changeDrives(config_, wanted, request);
    changeNics(wanted, request);
    changeDevices(wanted, request);
    const VmmBackend& vmm = vmmOf(before);
    try {
        vmm.check(guestSpec(config_, wanted, backends_.network.traits().touchesHost));
    } catch (const Error& error) {
        throw inRequestWords(error, wanted);
    }
    const bool up = (before.state == VmState::Running || before.state == VmState::Paused) &&
                    backends_.supervisor.status(tagOf(before)).pid != 0;
    if (!up) {
        // Its next start, or its parent's, begins with the record.
        if (before.state == VmState::Running || before.state == VmState::Paused) {
            throw Error(ErrorKind::FailedPrecondition,
                        "VM '" + before.id.str() + "' has ended or waits to be started again");
        }
        op.step("commit", [&] { persist(op.vm(), wanted); });
        return;
    }
    if (!vmm.traits().adjust) {
        throw Error(ErrorKind::NotSupported,
                    "the VMM '" + before.vmm + "' of VM '" + before.id.str() + "' cannot change a guest that runs");
    }
    std::set<std::string> reread;  // who names a file that he cannot change means that the file has changed
    for (const ChangeRequest::Drive& drive : request.drives) {
        if (drive.path) reread.insert(drive.id);
    }
    try {
        op.step("intent", [&] { persist(op.vm(), intent(op, before, before.state)); });
        op.step(
            "guest", [&] { adjustGuest(wanted, reread); }, [&] { adjustGuest(before); });
        op.step("commit", [&] { persist(op.vm(), settled(wanted, before.state, before.failure)); });
    } catch (const Error& error) {
        op.undoAll();
        persistBestEffort(op.vm(), settled(op.record(), before.state, before.failure));
        throw inRequestWords(error, wanted);
    }
}

void Engine::Impl::adjustGuest(const VmRecord& record, const std::set<std::string>& reread) {
    GuestSpec guest = guestSpec(config_, record, backends_.network.traits().touchesHost);
    for (DiskSpec& disk : guest.disks) disk.reread = reread.contains(disk.id);
    vmmOf(record).adjust(vmmPlace(config_, record), guest, config_.controlTimeout);
}

std::string Engine::Impl::metrics(const std::string& id) const {
    const auto vm = need(id);
    const VmRecord record = [&] {
        const std::lock_guard lock(vm->mutex);
        return vm->record;
    }();
    if (!record.options.metrics) throw Error(ErrorKind::NotSupported, "VM '" + id + "' was made without metrics");
    if (record.state != VmState::Running && record.state != VmState::Paused) {
        throw Error(ErrorKind::FailedPrecondition,
                    "VM '" + id + "' is " + std::string(toString(record.state)) + " and has no metrics");
    }
    return vmmOf(record).metrics(vmmPlace(config_, record), config_.controlTimeout);
}

}  // namespace mergen::engine
