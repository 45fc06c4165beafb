#include "disk_owners.hpp"

#include <mergen/sdk/error.hpp>

namespace mergen::engine {

namespace fs = std::filesystem;

std::optional<std::string> DiskOwners::whereClaimed(const struct stat& file) {
    std::string path;
    {
        const std::lock_guard lock(mutex_);
        const auto found = paths_.find(idOf(file));
        if (found == paths_.end()) return std::nullopt;
        path = found->second;
    }
    // The number may be a new file's: whoever claimed it has deleted or replaced his. What a VM that runs has open
    // keeps its number, and is told by isOpenForWriting().
    struct stat there {};
    if (::lstat(path.c_str(), &there) == 0 && idOf(there) == idOf(file)) return path;
    const std::lock_guard lock(mutex_);
    if (const auto disk = disks_.find(path); disk != disks_.end() && disk->second.file == idOf(file)) {
        disk->second.file.reset();
        paths_.erase(idOf(file));
    }
    return std::nullopt;
}

void DiskOwners::refuseLocked(const std::string& path, const RecordId& vm, const std::string& shown,
                              const std::string& field) const {
    const auto found = disks_.find(path);
    if (found == disks_.end() || found->second.vm == vm.str()) return;
    throw Error(ErrorKind::AlreadyExists,
                shown + " is a disk of VM '" + found->second.vm + "', whose guest alone may use it")
        .about(field);
}

void DiskOwners::insertLocked(const std::string& path, Disk disk) {
    if (const auto old = disks_.find(path); old != disks_.end()) {
        if (old->second.file) paths_.erase(*old->second.file);
    } else {
        ofVm_.emplace(disk.vm, path);
    }
    if (disk.file) paths_.insert_or_assign(*disk.file, path);
    disks_.insert_or_assign(path, std::move(disk));
}

void DiskOwners::refuseForeign(const struct stat& file, const fs::path& path, const RecordId& vm,
                               const std::string& field) {
    const std::optional<std::string> claimed = whereClaimed(file);
    const std::lock_guard lock(mutex_);
    refuseLocked(path.lexically_normal(), vm, path, field);
    if (claimed) refuseLocked(*claimed, vm, path, field);
}

void DiskOwners::claim(const struct stat& file, const fs::path& path, const RecordId& vm, const std::string& field) {
    static_cast<void>(whereClaimed(file));  // forgets what is out of date
    const std::string name = path.lexically_normal();
    const std::lock_guard lock(mutex_);
    refuseLocked(name, vm, path, field);
    if (const auto claimed = paths_.find(idOf(file)); claimed != paths_.end() && claimed->second != name) {
        refuseLocked(claimed->second, vm, path, field);
        throw Error(ErrorKind::AlreadyExists,
                    path.string() + " is the same file as " + claimed->second + ", which the VM has as a disk")
            .about(field);
    }
    insertLocked(name, Disk{vm.str(), idOf(file)});
}

void DiskOwners::claimName(const fs::path& path, const RecordId& vm) {
    const std::string name = path.lexically_normal();
    const std::lock_guard lock(mutex_);
    refuseLocked(name, vm, path, "");
    insertLocked(name, Disk{vm.str(), std::nullopt});
}

void DiskOwners::release(const RecordId& vm) {
    const std::lock_guard lock(mutex_);
    const auto [begin, end] = ofVm_.equal_range(vm.str());
    for (auto at = begin; at != end; ++at) {
        const auto disk = disks_.find(at->second);
        if (disk->second.file) paths_.erase(*disk->second.file);
        disks_.erase(disk);
    }
    ofVm_.erase(begin, end);
}

}  // namespace mergen::engine
