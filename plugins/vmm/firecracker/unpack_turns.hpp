#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace mergen::vmm {

/// Whose turn it is to unpack a kernel. Threads: any. It must outlive the turns taken of it.
class UnpackTurns {
public:
    /// Each unpacking has up to 128 MiB of memory (unpack()), so that half a GiB is the most.
    static constexpr std::size_t usuallyAtOnce = 4;

    explicit UnpackTurns(std::size_t atOnce = usuallyAtOnce) : free_(atOnce) {}

    /// The first one for the kernel of this digest, or whoever awaited the end of the first one: he finds in the cache
    /// what that one made, and where it made nothing to be kept, he awaits nobody else. Taken before a Place.
    class OfKernel {
    public:
        OfKernel(UnpackTurns& turns, std::string digest);
        OfKernel(const OfKernel&) = delete;
        OfKernel& operator=(const OfKernel&) = delete;
        ~OfKernel();

        [[nodiscard]] bool isFirst() const noexcept { return isFirst_; }

    private:
        UnpackTurns& turns_;
        const std::string digest_;
        bool isFirst_ = false;
    };

    /// One of the few that unpack at once, whatever kernel; awaited by the constructor.
    class Place {
    public:
        explicit Place(UnpackTurns& turns);
        Place(const Place&) = delete;
        Place& operator=(const Place&) = delete;
        ~Place();

    private:
        UnpackTurns& turns_;
    };

    /// How many threads await the first one of their kernel, and how many a place, now.
    [[nodiscard]] std::size_t waitingForKernel() const;
    [[nodiscard]] std::size_t waitingForPlace() const;

private:
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    // Guarded by mutex_.
    std::map<std::string, std::uint64_t> firsts_;  ///< by digest, each with a number of its own
    std::uint64_t next_ = 0;                       ///< such a number
    std::size_t free_;                             ///< places
    std::size_t waitingForKernel_ = 0, waitingForPlace_ = 0;
};

}  // namespace mergen::vmm
