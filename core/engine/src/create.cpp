// Making a VM: what is asked for is looked at, claimed and reserved, then made as one operation.
#include <cerrno>
#include <chrono>
#include <sys/stat.h>
#include <thread>

#include <mergen/base/file.hpp>
#include <mergen/base/rollback.hpp>
#include <mergen/base/text.hpp>
#include <mergen/engine/guest_document.hpp>

#include "engine_impl.hpp"
#include "request_names.hpp"

namespace mergen::engine {

namespace {

/// An id in the shape of a UUID is what Mergen gives: a chosen one could be another VM's internal identity.
void refuseUuid(const RecordId& id) {
    if (!uuidOf(id)) return;
    throw Error(ErrorKind::InvalidArgument, "'" + id.str() + "' is a UUID; leave the id out to be given one")
        .about("id");
}

void refuseTooManyDisks(const CreateRequest& request) {
    if (givenDisks(request.dataDisk, request.drives).size() < maxDrives) return;  // and the root disk
    throw Error(ErrorKind::InvalidArgument,
                "a VM has at most " + std::to_string(maxDrives) + " disks, the root disk and the data disk among them")
        .about("drives");
}

}  // namespace

Created Engine::Impl::create(const CreateRequest& request) {
    const Guard guard(*this);
    refuseTooManyDisks(request);
    const OpenedImages images = openImages(config_, request);

    VmRecord record(request.id.value_or(RecordId::parse("unnamed")), Uuid{});  // reserve() gives it what is missing
    record.name = request.name;
    record.createdAt = std::chrono::system_clock::now();
    record.vmm = request.vmm.empty() ? config_.vmm : request.vmm;
    if (!backends_.vmms.contains(record.vmm)) {
        std::string loaded;
        for (const auto& [name, vmm] : backends_.vmms) loaded += (loaded.empty() ? "" : ", ") + name;
        throw Error(ErrorKind::InvalidArgument,
                    "'" + printable(record.vmm) + "' is none of the VMMs that are loaded: " + loaded)
            .about("vmm");
    }
    record.rootfs = request.rootfs;
    record.kernel = request.kernel;
    record.initrd = request.initrd;
    record.dataDisk = request.dataDisk;
    record.vcpus = request.vcpus;
    record.memory = request.memory;
    record.drives = request.drives;
    record.nics = request.nics;
    record.options = request.options;
    record.httpPort = request.httpPort;
    record.autoStart = request.autoStart;
    record.restartPolicy = request.restartPolicy;
    record.maxRestarts = request.maxRestarts;
    record.onUnresponsive = request.onUnresponsive;
    record.bootArguments = request.bootArguments;
    record.extraEnv = request.extraEnv;
    record.tags = request.tags;
    record.metadata = request.metadata;
    record.hooks = request.hooks;

    refuseUnpublishable(request.ports);
    // Before the ports, which the VM of that id may hold: the id is what is wrong then.
    if (request.id) {
        refuseUuid(*request.id);
        registry_.refuseTaken(*request.id);
    }
    identities_.reserve(record, request.ports, request.id.has_value());
    Rollback undo;
    undo.add([&] { identities_.release(record); });
    try {
        const VmmBackend& vmm = vmmOf(record);
        const GuestSpec guest = guestSpec(config_, record, backends_.network.traits().touchesHost);
        GuestSpec given = guest;
        given.kernel = request.kernel;  // its own copy is not made yet, and its kind is looked at
        vmm.check(given);
        if (request.autoStart) vmm.checkStart(given);
        if (record.restartPolicy != RestartPolicy::No) {
            try {
                refuseUnattended(record, vmm.plan(guest, vmmPlace(config_, record)));
            } catch (const Error& error) {
                // Where the VMM's program is missing, a VM can be made all the same, and its start says so.
                if (error.kind() != ErrorKind::FailedPrecondition) throw;
            }
        }
    } catch (const Error& error) {
        throw inRequestWords(error, record);
    }

    const auto vm = std::make_shared<Vm>(record, config_.eventsPerVm);
    {
        // Held before it can be seen: nobody deletes a VM that is half made.
        Operation op(vm, "create", log_, [this](const Uuid& uuid) { queueExit(uuid); });
        registry_.add(vm, config_.maxVms);
        undo.add([&] { registry_.remove(*vm); });
        undo.add([&] { disks_.release(record.id); });
        try {
            claimDisks(record, images);
            op.lock(lockFile(*vm), tagOf(record));
            runHeld(op, [&] { createVm(op, images); });
        } catch (const Error&) {
            if (!discardUnfinished(op)) undo.commit();
            throw;
        }
        adoptDisks(record);
    }
    undo.commit();
    log_.info("vm.created", {{"vm", record.id.str()}, {"guest", record.guest.str()}});
    if (!record.hooks.empty()) noteHooks(*vm);
    Created created;
    if (request.autoStart) {
        try {
            run(vm, "start", [&](Operation& op) { startVm(op); });
        } catch (const Error& error) {
            created.startFailure = error.within("VM '" + record.id.str() + "' was created but could not be started");
        }
    }
    created.vm = view(*vm);
    return created;
}

bool Engine::Impl::discardUnfinished(Operation& op) {
    Vm& vm = op.vm();
    try {
        const VmRecord record = [&] {
            const std::lock_guard lock(vm.mutex);
            vm.erased = true;  // for who waits to delete it
            return vm.record;
        }();
        removeDisks(config_, record);
        // The record goes last: while it is there, a restart would undo the rest. And only if it is ours: a create that
        // was refused because the id is taken in storage has none.
        if (vm.revision) static_cast<void>(backends_.storage.erase(record.id));
        op.removeLock();
        return true;
    } catch (const std::exception& error) {
        // Then the VM stays visible as it is, and a DELETE or the next start of the server removes it.
        log_.error("vm.create.leftover", {{"vm", vm.id.str()}, {"cause", error.what()}});
        const std::lock_guard lock(vm.mutex);
        vm.erased = false;
        return false;
    }
}

void Engine::Impl::refuseUnpublishable(const std::vector<PortRequest>& ports) const {
    if (backends_.network.traits().udp) return;
    for (std::size_t i = 0; i < ports.size(); ++i) {
        if (ports[i].protocol == Protocol::Udp) {
            throw Error(ErrorKind::NotSupported, "the network backend publishes TCP ports only")
                .about("ports[" + std::to_string(i) + "].protocol");
        }
    }
}

void Engine::Impl::noteHooks(Vm& vm) {
    Event event;
    event.vm = vm.id.str();
    event.operation = "create";
    event.outcome = "note";
    event.cause = "the hooks are stored; nothing runs them, because no hooks plugin is loaded";
    vm.timeline.append(std::move(event));
}

namespace {

struct stat inspect(const UniqueFd& fd, const std::filesystem::path& path) {
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) throw Error::fromErrno(errno, "cannot inspect " + path.string());
    return status;
}

void refuseWritten(const UniqueFd& fd, const std::filesystem::path& path, const std::string& field) {
    // A VMM that used a disk by io_uring(7) has ended some tens of milliseconds before the kernel has taken that apart,
    // and the open file with it.
    constexpr std::chrono::milliseconds letsGo{500}, pause{5};
    const auto deadline = std::chrono::steady_clock::now() + letsGo;
    while (isOpenForWriting(fd.get())) {
        if (std::chrono::steady_clock::now() >= deadline) {
            throw Error(ErrorKind::Conflict, "another program has " + path.string() + " open for writing").about(field);
        }
        std::this_thread::sleep_for(pause);
    }
}

}  // namespace

void Engine::Impl::claimDisks(const VmRecord& record, const OpenedImages& images) {
    struct Image {
        std::string field;
        const UniqueFd& fd;
        std::filesystem::path path;
    };
    std::vector<Image> used{{"rootfs", images.rootfs, record.rootfs}, {"kernel", images.kernel, record.kernel}};
    if (record.initrd) used.push_back({"initrd", images.initrd, *record.initrd});
    for (const OpenedDisk& disk : images.disks) {
        if (!disk.given.borrowed) used.push_back({disk.given.field, disk.fd, disk.given.path});
    }
    for (const Image& image : used) {
        disks_.refuseForeign(inspect(image.fd, image.path), image.path, record.id, image.field);
        refuseWritten(image.fd, image.path, image.field);
    }
    for (const auto& [given, fd] : images.disks) {
        if (!given.borrowed) continue;
        const struct stat disk = inspect(fd, given.path);
        for (const Image& image : used) {
            if (!isSameFile(inspect(image.fd, image.path), disk)) continue;
            throw Error(ErrorKind::InvalidArgument, given.path.string() + " is the file that is given as " +
                                                        image.field + " too, and the guest would write to it")
                .about(given.field);
        }
        disks_.claim(disk, given.path, record.id, given.field);
        refuseWritten(fd, given.path, given.field);
        used.push_back({given.field, fd, given.path});
    }
}

void Engine::Impl::adoptDisks(const VmRecord& record) {
    const auto adopt = [&](const std::filesystem::path& path) {
        try {
            struct stat status {};
            if (::lstat(path.c_str(), &status) == 0) {
                disks_.claim(status, path, record.id, "");
            } else {
                disks_.claimName(path, record.id);  // not mounted yet, perhaps
            }
        } catch (const Error& error) {
            log_.error("vm.disk.shared", {{"vm", record.id.str()},
                                          {"cause", error.what()},
                                          {"effect", "it cannot be started while that is so"}});
        }
    };
    adopt(pathsOf(config_, record.id, record.uuid).dataDir / "rootfs.ext4");
    for (const GivenDisk& disk : borrowedDisks(record)) adopt(disk.path);
}

std::vector<OpenedDisk> Engine::Impl::claimBorrowed(const VmRecord& record) {
    std::vector<OpenedDisk> disks;
    for (GivenDisk& disk : borrowedDisks(record)) {
        try {
            UniqueFd fd = openBorrowed(config_, disk);
            const struct stat status = inspect(fd, disk.path);
            if (status.st_size == 0)
                throw Error(ErrorKind::FailedPrecondition, "cannot use " + disk.path.string() + ": it is empty");
            disks_.claim(status, disk.path, record.id, disk.field);
            // A claim holds as long as its file is at its path; what is open may have been renamed since.
            for (const OpenedDisk& other : disks) {
                if (!isSameFile(inspect(other.fd, other.given.path), status)) continue;
                throw Error(ErrorKind::AlreadyExists, disk.path.string() + " is the same file as " +
                                                          other.given.path.string() + ", which the VM has as a disk");
            }
            refuseWritten(fd, disk.path, disk.field);
            disks.push_back({std::move(disk), std::move(fd)});
        } catch (const Error& error) {
            // No member of this request: the host is not as it was when the VM was made.
            const bool unfit =
                error.kind() == ErrorKind::InvalidArgument || error.kind() == ErrorKind::PermissionDenied;
            throw Error(unfit ? ErrorKind::FailedPrecondition : error.kind(),
                        "the drive \"" + disk.id + "\": " + error.what());
        }
    }
    return disks;
}

}  // namespace mergen::engine
