#pragma once

#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <sys/stat.h>
#include <utility>

#include <mergen/sdk/types.hpp>

namespace mergen::engine {

/// Which VM writes to which file: a guest's disk is nobody else's, neither as a disk nor to be copied from. A file is
/// known by device and inode, so that hard links and other names of it are the same, and a disk that is not there (not
/// mounted yet) by its path. Costs one lookup and at most one lstat(2), however many VMs there are. Threads: any.
class DiskOwners {
public:
    /// Throws Error(AlreadyExists) about `field` if `file`, found at `path`, is a disk of another VM than `vm`.
    void refuseForeign(const struct stat& file, const std::filesystem::path& path, const RecordId& vm,
                       const std::string& field);

    /// refuseForeign(), and the file is a disk of `vm` from then on, in the place of what was claimed at `path` before.
    /// Throws AlreadyExists, too, if it is a disk of the VM under another name: two of a guest's disks are two files.
    void claim(const struct stat& file, const std::filesystem::path& path, const RecordId& vm,
               const std::string& field);
    /// Only the name, of a file that is not there. Throws the same.
    void claimName(const std::filesystem::path& path, const RecordId& vm);

    /// All disks of the VM are nobody's.
    void release(const RecordId& vm);

private:
    using FileId = std::pair<dev_t, ino_t>;
    struct Disk {
        std::string vm;
        std::optional<FileId> file;
    };
    using Disks = std::map<std::string, Disk>;  // by path

    [[nodiscard]] static FileId idOf(const struct stat& file) noexcept { return {file.st_dev, file.st_ino}; }
    /// The path at which the file was claimed, if it is still there. Forgets a claim whose file has gone from its path.
    [[nodiscard]] std::optional<std::string> whereClaimed(const struct stat& file);
    /// Throws if the disk at `path` is another VM's.
    void refuseLocked(const std::string& path, const RecordId& vm, const std::string& shown,
                      const std::string& field) const;
    void insertLocked(const std::string& path, Disk disk);

    std::mutex mutex_;
    // All below is guarded by mutex_.
    Disks disks_;
    std::map<FileId, std::string> paths_;
    std::multimap<std::string, std::string> ofVm_;  // VM → path
};

}  // namespace mergen::engine
