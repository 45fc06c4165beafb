// A supervisor that dies of sending a signal, and leaves what it supervised.
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "process_supervisor.hpp"

namespace {

class DiesOfSignals final : public mergen::supervisor::ProcessSupervisor {
public:
    bool signal(const mergen::OwnerTag& owner, int signal, std::string_view by) override {
        const bool sent = ProcessSupervisor::signal(owner, signal, by);
        if (sent) {
            std::fputs("this supervisor gives up\n", stderr);
            std::abort();
        }
        return sent;
    }
};

}  // namespace

MERGEN_PLUGIN(mergen::SupervisorBackend, DiesOfSignals, "supervisor", "flawed", "1.0.0", DiesOfSignals::keys)
