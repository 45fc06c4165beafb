#pragma once

#include <filesystem>
#include <string>

#include <mergen/base/fd.hpp>
#include <mergen/sdk/supervisor.hpp>
#include <mergen/sdk/types.hpp>

namespace mergen::vmm {

/// Makes the pipe into which Firecracker writes its metrics, for the VM's user alone; one that is there is replaced.
void makeMetricsPipe(const std::filesystem::path& path, const Credentials& owner);

/// The reading end of that pipe. Firecracker has it open both ways and does not block: what does not fit is lost, so
/// the pipe's capacity bounds it. What is read is not trusted. Threads: one.
class MetricsPipe {
public:
    /// Throws NotSupported if there is none, Unavailable if something else lies there, Conflict while another call
    /// reads.
    explicit MetricsPipe(const std::filesystem::path& path);

    /// Reads away what has been written.
    void empty();
    /// The next whole line that is a JSON object. Throws Timeout at the deadline.
    [[nodiscard]] std::string line(SteadyTime deadline);

private:
    UniqueFd fd_;
};

}  // namespace mergen::vmm
