#include <array>
#include <exception>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>
#include <utility>

#include <mergen/base/folder_watches.hpp>

namespace mergen {

namespace {

/// Of fs.inotify.max_user_instances, 128 by default, we keep no more than these while nobody waits.
constexpr std::size_t mostIdle = 16;

}  // namespace

UniqueFd FolderWatches::take() {
    {
        const std::lock_guard lock(mutex_);
        if (!idle_.empty()) {
            UniqueFd inotify = std::move(idle_.back());
            idle_.pop_back();
            return inotify;
        }
    }
    return UniqueFd(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
}

void FolderWatches::giveBack(UniqueFd inotify) noexcept {
    const std::lock_guard lock(mutex_);
    if (idle_.size() >= mostIdle) return;
    try {
        idle_.push_back(std::move(inotify));
    } catch (const std::exception&) {
        return;  // no memory to remember it by: closed
    }
}

FolderWatches::Watch::Watch(FolderWatches& lender, const std::filesystem::path& folder)
    : lender_(lender), inotify_(lender.take()) {
    if (inotify_) watch_ = ::inotify_add_watch(inotify_.get(), folder.c_str(), IN_CREATE | IN_MOVED_TO | IN_ONLYDIR);
}

FolderWatches::Watch::~Watch() {
    if (!inotify_) return;
    // Not if the kernel took it off by itself, as the folder is gone: the number is not given twice.
    if (watch_ >= 0) ::inotify_rm_watch(inotify_.get(), watch_);
    empty();
    lender_.giveBack(std::move(inotify_));
}

void FolderWatches::Watch::empty() noexcept {
    std::array<char, 4096> events;  // NOLINT: only emptied
    while (::read(inotify_.get(), events.data(), events.size()) > 0) {
    }
}

void FolderWatches::Watch::wait(std::chrono::milliseconds atMost) {
    pollfd entry{watch_ < 0 ? -1 : inotify_.get(), POLLIN, 0};  // a descriptor of -1 is passed over by poll(2)
    ::poll(&entry, 1, static_cast<int>(atMost.count()));
    if (watch_ >= 0) empty();
}

}  // namespace mergen
