#pragma once

#include <memory>

#include "process_supervisor.hpp"
#include "supervisor_contract.hpp"

namespace mergen::supervisor {

/// This backend with the mergen-vm of this build.
[[nodiscard]] inline SupervisorUnderTest processUnderTest() {
    return {.keys = ProcessSupervisor::keys,
            .create = [] { return std::make_unique<ProcessSupervisor>(); },
            .settings = {{"launcher", MERGEN_TEST_LAUNCHER}, {"restart_delay", "1ms"}}};
}

}  // namespace mergen::supervisor
