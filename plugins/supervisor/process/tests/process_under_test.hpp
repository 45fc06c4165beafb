#pragma once

#include <memory>

#include "process_supervisor.hpp"
#include "supervisor_contract.hpp"

namespace mergen::supervisor {

/// This backend with the mergen-vm of this build.
[[nodiscard]] inline SupervisorUnderTest processUnderTest() {
    return {ProcessSupervisor::keys, {{"launcher", MERGEN_TEST_LAUNCHER}, {"restart_delay", "1ms"}}, [] {
                return std::make_unique<ProcessSupervisor>();
            }};
}

}  // namespace mergen::supervisor
