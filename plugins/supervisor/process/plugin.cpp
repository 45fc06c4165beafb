#include <mergen/sdk/plugin.hpp>

#include "process_supervisor.hpp"

MERGEN_PLUGIN(mergen::SupervisorBackend, mergen::supervisor::ProcessSupervisor, "supervisor", "process", "1.0.0",
              mergen::supervisor::ProcessSupervisor::keys)
