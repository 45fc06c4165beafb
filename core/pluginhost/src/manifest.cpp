#include "manifest.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <type_traits>

#include <mergen/base/text.hpp>

namespace mergen::pluginhost {

namespace {

template <typename Interface>
Plugin* toPlugin(void* object) noexcept {
    return static_cast<Interface*>(object);
}

template <typename Interface>
bool hasType(Plugin& plugin, const void* object) noexcept {
    return dynamic_cast<Interface*>(&plugin) == object;
}

struct Kind {
    std::string_view name;
    Plugin* (*toPlugin)(void* object) noexcept;
    bool (*hasType)(Plugin& plugin, const void* object) noexcept;
};

template <typename Interface>
constexpr Kind kind(std::string_view name) {
    return {name, toPlugin<Interface>, hasType<Interface>};
}

constexpr std::array kinds{kind<StorageBackend>("storage"), kind<SupervisorBackend>("supervisor"),
                           kind<NetworkBackend>("network"), kind<VmmBackend>("vmm")};

constexpr std::array<std::string_view, kinds.size()> kindNames = [] {
    std::array<std::string_view, kinds.size()> names;
    std::ranges::transform(kinds, names.begin(), &Kind::name);
    return names;
}();

[[noreturn]] void refuse(const std::string& cause) {
    throw Error(ErrorKind::FailedPrecondition, cause);
}

std::string inQuotes(std::string_view text) {
    return "'" + printable(text, 80) + "'";
}

/// A text of the manifest. Bounded, because it may be anything; nothing is read beyond maxTextBytes + 1.
std::string copyText(const char* text, const std::string& what) {
    if (text == nullptr) refuse(what + " is NULL");
    const std::size_t length = ::strnlen(text, maxTextBytes + 1);
    if (length > maxTextBytes) refuse(what + " is longer than " + std::to_string(maxTextBytes) + " bytes");
    return {text, length};
}

bool isWord(std::string_view text, std::size_t longest, char joint) noexcept {
    const auto lower = [](char c) { return c >= 'a' && c <= 'z'; };
    const auto fits = [&](char c) { return lower(c) || (c >= '0' && c <= '9') || c == joint; };
    return !text.empty() && text.size() <= longest && lower(text.front()) && std::ranges::all_of(text, fits);
}

/// One line of clean text: what goes into a report, a log line and a table.
bool isLine(std::string_view text) noexcept {
    return isCleanUtf8(text) && std::ranges::none_of(text, [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

/// The type of a setting as a number: to load a value that the enumeration lacks as one of it would be undefined.
auto typeNumber(const mergen_key& key) noexcept {
    std::underlying_type_t<mergen_key_type> number{};
    static_assert(sizeof number == sizeof key.type);
    std::memcpy(&number, &key.type, sizeof number);
    return number;
}

void checkKey(const PluginKey& key) {
    if (!isWord(key.key, 64, '_')) {
        refuse("the name " + inQuotes(key.key) +
               " of a setting is not 1 to 64 of a-z, 0-9 and _, beginning with a letter");
    }
    const std::string setting = "the setting '" + key.key + "'";
    if (key.sentence.empty() || !isLine(key.sentence)) refuse(setting + " is not explained by one line of text");
    if (key.required) return;
    if (!isLine(key.defaultValue)) refuse("the default of " + setting + " is not one line of text");
    try {
        Settings::check(key.type, key.defaultValue);
    } catch (const Error& error) {
        refuse("the default of " + setting + " does not fit its type: " + error.what());
    }
}

}  // namespace

std::span<const std::string_view> knownKinds() noexcept {
    return kindNames;
}

Plugin* asPlugin(std::string_view kind, void* object) noexcept {
    const auto* found = std::ranges::find(kinds, kind, &Kind::name);
    return found == kinds.end() ? nullptr : found->toPlugin(object);
}

bool isOfKind(std::string_view kind, Plugin& plugin, const void* object) noexcept {
    const auto* found = std::ranges::find(kinds, kind, &Kind::name);
    return found != kinds.end() && found->hasType(plugin, object);
}

ManifestCopy readManifest(const mergen_manifest* manifest) {
    if (manifest == nullptr) refuse("its manifest is NULL");
    // The three first fields stand where they are in every version: they tell whether the rest may be read at all.
    if (manifest->sdk_major != MERGEN_SDK_MAJOR) {
        refuse("it is built for version " + std::to_string(manifest->sdk_major) + "." +
               std::to_string(manifest->sdk_minor) + " of the SDK, this server has " +
               MERGEN_STRINGIFY(MERGEN_SDK_MAJOR) "." MERGEN_STRINGIFY(MERGEN_SDK_MINOR) +
               ", and the major versions must be equal: rebuild it against this server's SDK");
    }
    if (manifest->sdk_minor > MERGEN_SDK_MINOR) {
        refuse("it needs version " + std::to_string(manifest->sdk_major) + "." + std::to_string(manifest->sdk_minor) +
               " of the SDK, this server has only " +
               MERGEN_STRINGIFY(MERGEN_SDK_MAJOR) "." MERGEN_STRINGIFY(MERGEN_SDK_MINOR) ": use a newer server");
    }
    // Fields are only ever appended; these are the ones of 1.0.
    constexpr std::size_t smallest = offsetof(mergen_manifest, destroy) + sizeof manifest->destroy;
    if (manifest->struct_size < smallest) {
        refuse("its manifest has " + std::to_string(manifest->struct_size) + " bytes, at least " +
               std::to_string(smallest) + " are needed");
    }
    const std::string fingerprint = copyText(manifest->fingerprint, "the fingerprint of its manifest");
    if (fingerprint != buildFingerprint()) {
        refuse("it is built with " + inQuotes(fingerprint) + ", this server with '" + buildFingerprint() +
               "', and C++ objects cannot pass between the two: rebuild it with this server's compiler");
    }

    ManifestCopy copy;
    copy.kind = copyText(manifest->kind, "the kind in its manifest");
    copy.name = copyText(manifest->name, "the name in its manifest");
    copy.version = copyText(manifest->version, "the version in its manifest");
    for (const mergen_key* key = manifest->keys; key != nullptr && key->key != nullptr; ++key) {
        if (copy.keys.size() == maxKeys) refuse("it has more than " + std::to_string(maxKeys) + " settings");
        PluginKey& taken = copy.keys.emplace_back();
        taken.key = copyText(key->key, "the name of a setting");
        if (const auto type = typeNumber(*key); type <= MERGEN_KEY_PATH) {
            taken.type = static_cast<mergen_key_type>(type);
        } else {
            refuse("the setting " + inQuotes(taken.key) + " has the type " + std::to_string(type) +
                   ", which this server does not know");
        }
        taken.required = key->default_value == nullptr;
        if (!taken.required) {
            taken.defaultValue = copyText(key->default_value, "the default of the setting " + inQuotes(taken.key));
        }
        taken.sentence = copyText(key->sentence, "the sentence of the setting " + inQuotes(taken.key));
    }
    if (manifest->create == nullptr) refuse("create in its manifest is NULL");
    if (manifest->destroy == nullptr) refuse("destroy in its manifest is NULL");
    checkWords(copy);
    return copy;
}

void checkWords(const ManifestCopy& manifest) {
    if (std::ranges::find(kindNames, manifest.kind) == kindNames.end()) {
        std::string known;
        for (const std::string_view name : kindNames) known += (known.empty() ? "" : ", ") + std::string(name);
        refuse("it is of the kind " + inQuotes(manifest.kind) + ", and this server knows " + known);
    }
    if (!isWord(manifest.name, 32, '-')) {
        refuse("its name " + inQuotes(manifest.name) + " is not 1 to 32 of a-z, 0-9 and -, beginning with a letter");
    }
    if (manifest.version.empty() || manifest.version.size() > 64 || !isLine(manifest.version)) {
        refuse("its version " + inQuotes(manifest.version) + " is not 1 to 64 bytes of text");
    }
    std::set<std::string_view> seen;
    for (const PluginKey& key : manifest.keys) {
        checkKey(key);
        if (!seen.insert(key.key).second) refuse("it declares the setting '" + key.key + "' twice");
    }
}

}  // namespace mergen::pluginhost
