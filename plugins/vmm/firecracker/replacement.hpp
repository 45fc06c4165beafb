#pragma once

#include <filesystem>
#include <string>

#include <mergen/base/fd.hpp>

namespace mergen::vmm {

/// A new file beside a VM's kernel, with its owner and mode, which takes its place when it is whole and is gone
/// otherwise. Errors: Error, whose text names operation and cause and not the file, which is not the caller's.
class Replacement {
public:
    /// `given`: the file at `kernel`, open.
    Replacement(const std::filesystem::path& kernel, int given);
    Replacement(const Replacement&) = delete;
    Replacement& operator=(const Replacement&) = delete;
    ~Replacement();

    /// Empty at first, open for reading and writing.
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    /// The beginning of what has been written so far, as readHead() gives it.
    [[nodiscard]] std::string head() const;
    /// Syncs it and renames it over the kernel.
    void commit();

private:
    const std::filesystem::path kernel_, aside_;
    UniqueFd fd_;
    bool done_ = false;
};

}  // namespace mergen::vmm
