#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include <mergen/pluginhost/plugin_library.hpp>

#include "backend_under_test.hpp"
#include "test_host.hpp"

/// The contract suites of all kinds, made to run on a library.
namespace mergen::check {

/// What a suite runs on. The library is borrowed and must outlive the run.
struct Subject {
    const pluginhost::PluginLibrary* library = nullptr;
    std::map<std::string, std::string, std::less<>> settings;
    std::filesystem::path program, libexec, guest;
    GuestSigns signs;
};

/// The suite of one kind.
struct Suite {
    std::string_view kind;
    std::string_view needs;  ///< of the host, in words
    /// The suite's cases will be about this. Once, before InitGoogleTest().
    void (*use)(const Subject& subject);
    /// One object's life up to start() and stop(). Throws what the plugin throws.
    void (*tryOut)(const Subject& subject);
};

[[nodiscard]] std::span<const Suite> suites() noexcept;

template <typename Interface>
[[nodiscard]] BackendUnderTest<Interface> backendOf(const Subject& subject) {
    const pluginhost::PluginLibrary& library = *subject.library;
    return {.keys = library.keys(),
            .create =
                [&library] {
                    return BackendPtr<Interface>(static_cast<Interface*>(library.create()),
                                                 BackendEnd(library.destroy()));
                },
            .settings = subject.settings,
            .program = subject.program,
            .libexec = subject.libexec,
            .guest = subject.guest,
            .signs = subject.signs,
            .probe = subject.libexec / "mergen-probe"};
}

template <typename Interface>
void tryOut(const Subject& subject) {
    const BackendUnderTest<Interface> backend = backendOf<Interface>(subject);
    test::TestHost host(backend.keys, backend.settings, backend.libexec);
    const BackendPtr<Interface> object = backend.create();
    object->configure(host);
    object->start();
    object->stop();
}

void useStorage(const Subject& subject);
void useSupervisor(const Subject& subject);
void useNetwork(const Subject& subject);
void useVmm(const Subject& subject);

}  // namespace mergen::check
