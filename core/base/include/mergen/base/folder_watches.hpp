#pragma once

#include <chrono>
#include <filesystem>
#include <mutex>
#include <vector>

#include <mergen/base/fd.hpp>

namespace mergen {

/// Lends out watches on folders (inotify(7)), and keeps what a watch needs of the kernel for the next one: to close an
/// inotify instance that has watched something takes the kernel many milliseconds (it waits for readers of its lists),
/// to take the watch off it microseconds.
///
/// Threads: any.
class FolderWatches {
public:
    /// Sees entries that appear in one folder. Threads: one.
    class Watch {
    public:
        Watch(FolderWatches& lender, const std::filesystem::path& folder);
        ~Watch();
        Watch(const Watch&) = delete;
        Watch& operator=(const Watch&) = delete;

        /// Waits until something has appeared since the last call, or since the construction; at most `atMost`, which
        /// is also how long it takes where the host's limit of inotify instances is reached.
        void wait(std::chrono::milliseconds atMost);

    private:
        void empty() noexcept;

        FolderWatches& lender_;
        UniqueFd inotify_;  // none: a limit of the host's is reached
        int watch_ = -1;
    };

private:
    [[nodiscard]] UniqueFd take();
    void giveBack(UniqueFd inotify) noexcept;

    std::mutex mutex_;
    std::vector<UniqueFd> idle_;  // without any watch; guarded by mutex_
};

}  // namespace mergen
