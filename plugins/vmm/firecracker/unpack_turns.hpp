#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <set>
#include <string>

namespace mergen::vmm {

/// Whose turn it is to unpack a kernel. Threads: any. It must outlive the turns taken of it.
class UnpackTurns {
public:
    /// Each unpacking has up to 128 MiB of memory (unpack()), so that half a GiB is the most.
    static constexpr std::size_t usuallyAtOnce = 4;

    explicit UnpackTurns(std::size_t atOnce = usuallyAtOnce) : free_(atOnce) {}

    /// The only one for the kernel of this digest, so that the next one finds in the cache what this one made; awaited
    /// by the constructor. Taken before a Place.
    class OfKernel {
    public:
        OfKernel(UnpackTurns& turns, std::string digest);
        OfKernel(const OfKernel&) = delete;
        OfKernel& operator=(const OfKernel&) = delete;
        ~OfKernel();

    private:
        UnpackTurns& turns_;
        const std::string digest_;
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

    /// How many threads await a turn now.
    [[nodiscard]] std::size_t waiting() const;

private:
    template <typename Ready>
    void await(std::unique_lock<std::mutex>& lock, const Ready& ready);

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    // Guarded by mutex_.
    std::set<std::string> kernels_;  ///< digests of those that are somebody's
    std::size_t free_;               ///< places
    std::size_t waiting_ = 0;
};

}  // namespace mergen::vmm
