#include <array>
#include <csignal>
#include <exception>
#include <iostream>
#include <memory>
#include <sys/resource.h>
#include <sys/stat.h>

#include <mergen/server/exit_code.hpp>
#include <mergen/server/signals.hpp>

#include "application.hpp"

#ifndef __linux__
#error "Mergen runs on Linux only (KVM, network namespaces, nftables, pidfd)."
#endif

namespace {

/// Poco's Application installs handlers for these, which turn a crash into an abort from within the handler, and take
/// the place of a sanitizer's. They get back what they had.
std::unique_ptr<mergen::server::Application> makeApplication() {
    constexpr std::array<int, 4> numbers = {SIGSEGV, SIGBUS, SIGILL, SIGSYS};
    std::array<struct sigaction, numbers.size()> before{};
    for (std::size_t i = 0; i < numbers.size(); ++i) ::sigaction(numbers[i], nullptr, &before[i]);
    auto application = std::make_unique<mergen::server::Application>();
    for (std::size_t i = 0; i < numbers.size(); ++i) ::sigaction(numbers[i], &before[i], nullptr);
    return application;
}

/// Each host port of a VM takes a descriptor, so that the usual soft limit of 1024 is soon met. The hard limit is the
/// operator's word; without it the first VM too many is refused with that reason.
void raiseDescriptorLimit() noexcept {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    static_cast<void>(::setrlimit(RLIMIT_NOFILE, &limit));
}

}  // namespace

int main(int argc, char** argv) {
    mergen::server::Signals::block();
    raiseDescriptorLimit();
    ::umask(022);  // an inherited 077 would keep VMs' own uids out of the folders made for them
    try {
        return makeApplication()->execute(argc, argv);
    } catch (const std::exception& error) {
        std::cerr << "mergend: " << error.what() << '\n';
        return mergen::server::exitCode::startFailed;
    }
}
