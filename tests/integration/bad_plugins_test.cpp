// Libraries that must be refused, one by one beside a good one: the sentence names file, step and cause, the server's
// process stays, the good plugin works.

#include <chrono>
#include <cstring>
#include <elf.h>
#include <filesystem>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/pluginhost/plugin_host.hpp>
#include <mergen/sdk/manifest.h>

#include "plugin_folder.hpp"

namespace mergen::test {
namespace {

namespace fs = std::filesystem;
using pluginhost::PluginHost;
using pluginhost::PluginInfo;
using pluginhost::PluginState;
using testing::HasSubstr;
using testing::StartsWith;

constexpr auto opening = "opening the library: ";
constexpr auto reading = "reading its manifest: ";
constexpr auto creating = "create(): ";
constexpr auto destroying = "destroy(): ";
constexpr auto closing = "closing the library: ";
constexpr auto checking = "checking the file: ";

struct Case {
    std::string name;
    std::string step;
    std::string cause;  ///< a part of it
    /// Puts the bad file into the folder and gives its path; null: the trial library of that name is copied.
    std::function<fs::path(const PluginFolder&)> make = nullptr;
    bool asRoot = false;
};

void PrintTo(const Case& bad, std::ostream* out) {
    *out << bad.name;
}

/// The trial library `good`, with its beginning changed.
std::string withHeader(const std::function<void(Elf64_Ehdr&)>& change) {
    std::string content = trialLibrary("good");
    Elf64_Ehdr header;
    std::memcpy(&header, content.data(), sizeof header);
    change(header);
    std::memcpy(content.data(), &header, sizeof header);
    return content;
}

std::function<fs::path(const PluginFolder&)> content(std::function<std::string()> make) {
    return [make = std::move(make)](const PluginFolder& folder) { return folder.write("bad.so", make()); };
}

/// "2.0": this build's, so many majors and minors ahead.
std::string sdkVersion(int majors, int minors) {
    return std::to_string(MERGEN_SDK_MAJOR + majors) + "." + std::to_string(MERGEN_SDK_MINOR + minors);
}

Case truncated(std::size_t length, std::string cause) {
    return {"truncated_at_" + std::to_string(length), opening, std::move(cause),
            content([length] { return trialLibrary("good").substr(0, length); })};
}

/// A library that is good but for its mode or owner.
Case changed(std::string name, std::string cause, std::function<int(const char*)> change, bool asRoot = false) {
    return {std::move(name), checking, std::move(cause),
            [change = std::move(change)](const PluginFolder& folder) {
                fs::path file = folder.add("good", "bad.so");
                if (change(file.c_str()) != 0) throw Error::fromErrno(errno, "cannot change " + file.string());
                return file;
            },
            asRoot};
}

/// Something that is no file of the folder.
Case instead(std::string name, std::string cause, std::function<int(const PluginFolder&, const char*)> make) {
    return {std::move(name), checking, std::move(cause), [make = std::move(make)](const PluginFolder& folder) {
                fs::path file = folder.path() / "bad.so";
                if (make(folder, file.c_str()) != 0) throw Error::fromErrno(errno, "cannot make " + file.string());
                return file;
            }};
}

const std::vector<Case>& cases() {
    static const std::vector<Case> all = {
        // No library.
        {"empty_file", opening, "file too short", content([] { return std::string(); })},
        {"text_file", opening, "invalid ELF header", content([] { return std::string(5000, 'x'); })},
        truncated(1, "file too short"),
        truncated(63, "file too short"),
        truncated(64, ""),
        truncated(500, ""),
        truncated(3000,
                  "it ended the process that tried it, with signal 7 (Bus error), as a file that is cut short does"),
        truncated(9000, "signal 7 (Bus error)"),
        {"for_32_bits", opening, "wrong ELF class: ELFCLASS32",
         content([] { return withHeader([](Elf64_Ehdr& header) { header.e_ident[EI_CLASS] = ELFCLASS32; }); })},
        {"for_another_processor", opening, "",
         content([] { return withHeader([](Elf64_Ehdr& header) { header.e_machine = EM_S390; }); })},
        {"a_program", opening, "cannot dynamically load",
         [](const PluginFolder& folder) {
             fs::path file = folder.path() / "bad.so";
             fs::copy_file(MERGEN_PREFLIGHT, file);
             return file;
         }},

        // Not to be trusted, or no file at all.
        changed("writable_by_group", "mode 0664, so others than its owner can write it (chmod go-w)",
                [](const char* file) { return ::chmod(file, 0664); }),
        changed("writable_by_all", "mode 0646, so others than its owner can write it (chmod go-w)",
                [](const char* file) { return ::chmod(file, 0646); }),
        changed(
            "of_another_user", "belongs to uid 65534", [](const char* file) { return ::chown(file, 65534, 65534); },
            /*asRoot=*/true),
        instead("link_out_of_the_folder", "a link out of the plugin folder, to ",
                [](const PluginFolder& folder, const char* file) {
                    fs::copy_file(folder.add("good", "x"), folder.root() / "outside.so");
                    return ::symlink("../outside.so", file);
                }),
        instead("link_to_nothing", "cannot follow the link: No such file or directory",
                [](const PluginFolder&, const char* file) { return ::symlink("gone", file); }),
        instead("link_to_itself", "cannot follow the link: Too many levels of symbolic links",
                [](const PluginFolder&, const char* file) { return ::symlink("bad.so", file); }),
        instead("fifo", "not a regular file",
                [](const PluginFolder&, const char* file) { return ::mkfifo(file, 0644); }),
        instead("folder", "not a regular file",
                [](const PluginFolder&, const char* file) { return ::mkdir(file, 0755); }),

        // A library that does not fit, or harms whoever opens it.
        {"missing_symbol", opening, "undefined symbol: _ZN6mergen5trial21nobodyHasThisFunctionEv"},
        {"missing_dependency", opening, "libtrial_dependency.so: cannot open shared object file"},
        {"initialiser_throws", opening,
         "signal 6 (Aborted) (it said: terminate called after throwing an instance of "
         "'std::runtime_error'; what():  the stars are not right)"},
        {"initialiser_aborts", opening, "signal 6 (Aborted) (it said: this library gives up)"},
        {"initialiser_exits", opening, "it ended the process that tried it, with exit status 0"},
        {"initialiser_crashes", opening, "signal 11 (Segmentation fault)"},
        {"closing_aborts", closing, "signal 6 (Aborted) (it said: this library gives up)"},

        // A manifest that does not fit.
        {"no_manifest", reading, "it does not export mergen_plugin_manifest"},
        {"null_manifest", reading, "its manifest is NULL"},
        {"other_major", reading,
         "it is built for version " + sdkVersion(1, 0) + " of the SDK, this server has " + sdkVersion(0, 0)},
        {"newer_minor", reading,
         "it needs version " + sdkVersion(0, 1) + " of the SDK, this server has only " + sdkVersion(0, 0)},
        {"short_manifest", reading, "its manifest has 24 bytes, at least 64 are needed"},
        {"other_fingerprint", reading, "it is built with 'gcc-3 libstdc++ old-abi c++199711L', this server with '"},
        {"null_fingerprint", reading, "the fingerprint of its manifest is NULL"},
        {"wild_fingerprint", reading, "signal 11 (Segmentation fault)"},
        {"unknown_kind", reading,
         "it is of the kind 'teleport', and this server knows storage, supervisor, network, vmm"},
        {"null_kind", reading, "the kind in its manifest is NULL"},
        {"bad_name", reading, "its name '../Bad Name' is not 1 to 32 of a-z, 0-9 and -"},
        {"empty_name", reading, "its name '' is not"},
        {"empty_version", reading, "its version '' is not"},
        {"duplicate_key", reading, "it declares the setting 'fault' twice"},
        {"bad_key_name", reading, "the name 'limit = 3' of a setting is not"},
        {"unknown_key_type", reading, "the setting 'limit' has the type 77, which this server does not know"},
        {"bad_default", reading,
         "the default of the setting 'limit' does not fit its type: '64 kilobytes' is not a size"},
        {"no_sentence", reading, "the sentence of the setting 'limit' is NULL"},
        {"null_create", reading, "create in its manifest is NULL"},
        {"null_destroy", reading, "destroy in its manifest is NULL"},
        {"name_taken", reading, "the name storage/good is taken by ",
         [](const PluginFolder& folder) { return folder.add("good", "the-same-again.so"); }},

        // An object that cannot be made or ended.
        {"create_gives_null", creating, "it gives no object (NULL)"},
        {"create_throws", creating, "it let out a std::runtime_error: no room for an object"},
        {"create_throws_int", creating, "it threw a value of the type int, which is no exception"},
        {"create_aborts", creating, "signal 6 (Aborted)"},
        {"create_gives_another_type", creating, "no pointer to the interface of the kind storage"},
        {"destroy_throws", destroying, "it let out a std::runtime_error: cannot let go"},
        {"destroy_crashes", destroying, "signal 11 (Segmentation fault)"},
    };
    return all;
}

class BadPlugin : public testing::TestWithParam<Case> {};

TEST_P(BadPlugin, IsRefusedWithFileStepAndCauseAndHarmsNoOther) {
    const Case& bad = GetParam();
    if (bad.asRoot && ::geteuid() != 0) GTEST_SKIP() << "only root can give a file to another user";
    const PluginFolder folder;
    const fs::path good = folder.add("good", "a-good.so");
    const fs::path file = bad.make ? bad.make(folder) : folder.add(bad.name);

    PluginHost host(folder.config(), nullLog());
    const std::vector<PluginInfo> found = host.scan();
    EXPECT_EQ(found.size(), 2U);
    const PluginInfo refused = entryOf(found, file);
    EXPECT_EQ(refused.state, PluginState::Failed);
    EXPECT_THAT(refused.detail, StartsWith(file.string() + ": " + bad.step));
    EXPECT_THAT(refused.detail, HasSubstr(bad.cause));
    EXPECT_EQ(refused.detail.find('\n'), std::string::npos);
    EXPECT_FALSE(refused.detail.ends_with(": Bad file descriptor")) << refused.detail;
    EXPECT_FALSE(isMapped(file));

    EXPECT_EQ(entryOf(found, good).state, PluginState::Available) << entryOf(found, good).detail;
    host.configure("storage", "good", {});
    host.start();
    StorageBackend& storage = host.storage("good");
    const RecordId id = RecordId::parse("one");
    storage.put({id, {{"meta.json", "{}"}}}, std::nullopt);
    EXPECT_TRUE(storage.find(id));

    // Who asks for the bad one by name learns the same.
    if (!refused.kind.empty() && refused.name != "good") {
        try {
            host.configure(refused.kind, refused.name, {});
            ADD_FAILURE() << "a refused library was loaded";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::FailedPrecondition);
            EXPECT_THAT(error.what(), HasSubstr(refused.detail));
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Each, BadPlugin, testing::ValuesIn(cases()),
                         [](const auto& tested) { return tested.param.name; });

TEST(BadPlugins, OneThatNeverReturnsIsEndedAndRefused) {
    const PluginFolder folder;
    const fs::path file = folder.add("initialiser_hangs");
    pluginhost::PluginHostConfig config = folder.config();
    config.preflightTimeout = std::chrono::milliseconds(2000);
    PluginHost host(config, nullLog());
    EXPECT_EQ(entryOf(host.scan(), file).detail,
              file.string() + ": opening the library: it did not come to an end within 2000 ms");
}

TEST(BadPlugins, OneThatIsCutAnywhereHarmsNobody) {
    const std::string whole = trialLibrary("good");
    const PluginFolder folder;
    constexpr std::size_t cuts = 24;
    for (std::size_t cut = 1; cut < cuts; ++cut) {
        folder.write("cut-" + std::to_string(cut) + ".so", whole.substr(0, whole.size() * cut / cuts));
    }
    const fs::path good = folder.add("good", "a-good.so");
    PluginHost host(folder.config(), nullLog());
    const std::vector<PluginInfo> found = host.scan();
    EXPECT_EQ(found.size(), cuts);
    EXPECT_EQ(entryOf(found, good).state, PluginState::Available);
    // What the loader needs of the file stands before its symbols for the debugger: a late cut may do no harm, but then
    // the name is taken.
    for (const PluginInfo& info : found) {
        EXPECT_EQ(info.state == PluginState::Available, info.file == good) << info.file;
    }
}

TEST(BadPlugins, AllAtOnceAreRefusedEachForItsOwnCause) {
    const PluginFolder folder;
    std::size_t expected = 1;
    for (const Case& bad : cases()) {
        if (bad.make) continue;
        folder.add(bad.name);
        ++expected;
    }
    const fs::path good = folder.add("good", "zz-good.so");
    PluginHost host(folder.config(), nullLog());
    const std::vector<PluginInfo> found = host.scan();
    ASSERT_EQ(found.size(), expected);
    for (const Case& bad : cases()) {
        if (bad.make) continue;
        EXPECT_THAT(entryOf(found, folder.path() / (bad.name + ".so")).detail, HasSubstr(bad.step));
    }
    EXPECT_EQ(entryOf(found, good).state, PluginState::Available);
}

}  // namespace
}  // namespace mergen::test
