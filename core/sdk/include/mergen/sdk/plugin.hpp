#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include <boost/dll/alias.hpp>

#include <mergen/sdk/error.hpp>
#include <mergen/sdk/export.hpp>
#include <mergen/sdk/failpoint.hpp>
#include <mergen/sdk/log.hpp>
#include <mergen/sdk/manifest.h>
#include <mergen/sdk/types.hpp>

namespace mergen {

/// The settings of one plugin: every key of its manifest with the value from the INI file or the default, already
/// checked against its type by the host. Asking for a key that the manifest lacks, or as another type, is a fault of
/// the plugin and throws Error(Internal).
class MERGEN_SDK_API Settings {
public:
    Settings(const mergen_key* keys, std::map<std::string, std::string, std::less<>> given);

    [[nodiscard]] const std::string& text(std::string_view key) const;
    [[nodiscard]] std::int64_t integer(std::string_view key) const;
    [[nodiscard]] bool boolean(std::string_view key) const;
    [[nodiscard]] std::chrono::milliseconds duration(std::string_view key) const;
    [[nodiscard]] std::uint64_t bytes(std::string_view key) const;
    [[nodiscard]] std::filesystem::path path(std::string_view key) const;

    /// Every key with its text, in the manifest's order of names: for `GET /v1/plugins` and `--list-plugins`.
    [[nodiscard]] const std::map<std::string, std::string, std::less<>>& all() const noexcept { return values_; }

    /// Reads `value` as `type` and throws Error(InvalidArgument) with the rule that it breaks: the one place that knows
    /// how a value is written, used by the INI checker too.
    static void check(mergen_key_type type, std::string_view value);

private:
    const std::string& find(std::string_view key, mergen_key_type type) const;
    std::map<std::string, std::string, std::less<>> values_;
    std::map<std::string, mergen_key_type, std::less<>> types_;
};

/// Where this server keeps its things. All absolute; all exist before any plugin starts.
struct HostPaths {
    std::filesystem::path configRoot;  ///< records, one folder per VM
    std::filesystem::path dataRoot;    ///< disks and logs, one folder per VM
    std::filesystem::path runRoot;     ///< sockets and other things that a reboot may take; on tmpfs
    std::filesystem::path libexec;     ///< programs of Mergen's own, such as mergen-vm
};

/// What the server gives to VMs of the network, for a network backend to hold against the host and its own settings.
struct NetworkPlan {
    Ipv4Network guests;                                ///< network.guest_cidr
    std::uint16_t portStart = 20000, portEnd = 40000;  ///< host ports for guests, inclusive
};

/// What the server offers to one plugin: no more than it needs. The reference that configure() gets stays valid until
/// the plugin is destroyed. Threads: every method may be called from any thread.
class MERGEN_SDK_API Host {
public:
    virtual ~Host();
    [[nodiscard]] virtual const Settings& settings() const noexcept = 0;
    /// A log whose lines bear the plugin's name.
    [[nodiscard]] virtual Log& log() noexcept = 0;
    [[nodiscard]] virtual const HostPaths& paths() const noexcept = 0;
    /// Eight hexadecimal digits that mark what this server makes on the host; constant for the life of its data root,
    /// so that two servers on one host tell their things apart.
    [[nodiscard]] virtual const std::string& instance() const noexcept = 0;
    [[nodiscard]] virtual const NetworkPlan& networkPlan() const noexcept = 0;
};

/// Whether a plugin can do its work now; `GET /readyz` shows it.
struct Health {
    bool ok = true;
    std::string detail;  ///< one sentence; why not, or what was found on this host
};

/// What every plugin is. Life: create → configure → start → work → stop → destroy; each once, in this order, on one
/// thread, save that stop() may come twice or without start(). Any method but stop() and the destructor may throw
/// Error; the host turns every other exception into Error(Internal) that names the plugin.
class MERGEN_SDK_API Plugin {
public:
    Plugin() = default;
    Plugin(const Plugin&) = delete;
    Plugin& operator=(const Plugin&) = delete;
    virtual ~Plugin();

    /// Checks all settings and keeps `host`; touches nothing outside the object: `mergend --check-config` stops here.
    virtual void configure(Host& host) = 0;
    /// Makes ready for work. Throws Error(NotSupported) when this host cannot run the plugin at all. On any throw
    /// nothing is left behind.
    virtual void start() = 0;
    /// Ends threads and gives back what the process holds; leaves running VMs and their things on the host alone.
    virtual void stop() noexcept = 0;

    /// Cheap; called by the health page. Threads: any, while the plugin is started.
    [[nodiscard]] virtual Health health() const { return {}; }
};

/// The compiler and C++ library that this translation unit is built with. Evaluated in the plugin and in the host: it
/// must stay inline.
inline constexpr const char* buildFingerprint() noexcept {
#if _GLIBCXX_USE_CXX11_ABI
    return MERGEN_COMPILER " libstdc++ cxx11-abi c++" MERGEN_STRINGIFY(__cplusplus);
#else
    return MERGEN_COMPILER " libstdc++ old-abi c++" MERGEN_STRINGIFY(__cplusplus);
#endif
}

}  // namespace mergen

/// Exports a plugin; once per library, at namespace scope, in `plugin.cpp`:
///
///     MERGEN_PLUGIN(mergen::StorageBackend, mergen::storage::MemoryStorage, "storage", "memory", "1.0.0", keys)
///
/// `Interface` is the kind's class: create() must hand out a pointer to exactly that base.
#define MERGEN_PLUGIN(Interface, Class, Kind, Name, Version, Keys)        \
    namespace {                                                           \
    void* mergenCreate() noexcept {                                       \
        try {                                                             \
            return static_cast<Interface*>(new Class());                  \
        } catch (...) {                                                   \
            return nullptr;                                               \
        }                                                                 \
    }                                                                     \
    void mergenDestroy(void* object) noexcept {                           \
        delete static_cast<Interface*>(object);                           \
    }                                                                     \
    const mergen_manifest mergenManifest = {sizeof(mergen_manifest),      \
                                            MERGEN_SDK_MAJOR,             \
                                            MERGEN_SDK_MINOR,             \
                                            ::mergen::buildFingerprint(), \
                                            Kind,                         \
                                            Name,                         \
                                            Version,                      \
                                            Keys,                         \
                                            mergenCreate,                 \
                                            mergenDestroy};               \
    }                                                                     \
    BOOST_DLL_ALIAS(mergenManifest, mergen_plugin_manifest)
