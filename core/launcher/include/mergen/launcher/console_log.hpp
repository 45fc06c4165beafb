#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include <mergen/base/fd.hpp>

namespace mergen::launcher {

/// What a guest prints, in a file that cannot fill the disk: FILE grows to the limit, is then renamed to FILE.1 (the
/// older FILE.1 is gone) and begun anew. FILE.1 and FILE together hold at least the newest `limit` bytes, and at most
/// twice as many. An existing FILE is continued.
///
/// A guest can print gigabytes and must never be stopped by its host's disk: what cannot be written is dropped and
/// counted. The folder may belong to the VM's own user, who may plant links in it: none is followed.
/// Threads: one.
class ConsoleLog {
public:
    /// `limit`: at least 1 byte. Throws if the folder or the file cannot be opened, or is a link or no regular file.
    ConsoleLog(const std::filesystem::path& file, std::uint64_t limit);

    /// Takes all of `data`; never throws and never waits but for the disk.
    void write(std::string_view data) noexcept;

    /// Bytes that could not be written.
    [[nodiscard]] std::uint64_t dropped() const noexcept { return dropped_; }

private:
    [[nodiscard]] UniqueFd open(bool anew) const noexcept;
    void rotate() noexcept;

    std::string name_;
    std::string previousName_;
    std::uint64_t limit_;
    UniqueFd folder_;
    UniqueFd file_;  // none after a rotation that could not make a new file
    std::uint64_t size_ = 0;
    std::uint64_t dropped_ = 0;
};

}  // namespace mergen::launcher
