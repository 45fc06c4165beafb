// mergen-plugin-check: finds every one of Mergen's own plugins good, and each flawed library bad, for the right reason.

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <map>
#include <ostream>
#include <string>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/base/json.hpp>
#include <mergen/base/process.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

/// Processes in whose arguments `text` stands.
std::vector<std::string> processesThatName(const std::string& text) {
    std::vector<std::string> found;
    for (const std::string& pid : listDirectory("/proc")) {
        if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
        std::string words;
        try {
            words = readFile("/proc/" + pid + "/cmdline", 1U << 20U).value_or("");
        } catch (const Error&) {
            continue;  // it has ended
        }
        if (words.find(text) != std::string::npos) found.push_back(pid + " " + printable(words));
    }
    return found;
}

std::vector<std::string> linesOf(const std::string& text) {
    std::vector<std::string> lines = split(text, '\n');
    if (!lines.empty() && lines.back().empty()) lines.pop_back();
    return lines;
}

/// Runs mergen-plugin-check in a temporary folder of its own, in which nothing may be left, nor any process that was
/// started there.
class Kit : public testing::Test {
protected:
    struct Outcome {
        int status = -1;  ///< exit status
        std::string output, errors;
        [[nodiscard]] std::string lastLine() const {
            const std::vector<std::string> lines = linesOf(output);
            return lines.empty() ? "" : lines.back();
        }
    };

    Kit() {
        std::string name = (fs::temp_directory_path() / "kit-XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr) throw Error::fromErrno(errno, "cannot make the folder " + name);
        folder_ = name;
        ::chmod(folder_.c_str(), 0711);
        makeDirectories(folder_ / "t", 0711);
    }
    ~Kit() override {
        EXPECT_THAT(listDirectory(folder_ / "t"), IsEmpty());
        EXPECT_THAT(processesThatName((folder_ / "t").string()), IsEmpty());
        removeTree(folder_);
    }

    [[nodiscard]] const fs::path& folder() const { return folder_; }

    Outcome check(const std::vector<std::string>& words) {
        SpawnOptions options;
        options.arguments = {MERGEN_PLUGIN_CHECK};
        options.arguments.insert(options.arguments.end(), words.begin(), words.end());
        options.environment = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=" + (folder_ / "t").string()};
        for (const char* const name : {"ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"}) {
            if (const char* const value = std::getenv(name))
                options.environment.push_back(std::string(name) + "=" + value);
        }
        const RunResult result = run(options, std::chrono::minutes(10), 1U << 20U);
        EXPECT_TRUE(WIFEXITED(result.status)) << describeStatus(result.status) << result.errors;
        return {WEXITSTATUS(result.status), result.output, result.errors};
    }

    /// A library of this build, copied to where the test may change it.
    [[nodiscard]] fs::path copyOf(const fs::path& library) const {
        fs::copy_file(library, folder_ / library.filename());
        return folder_ / library.filename();
    }

private:
    fs::path folder_;
};

// Mergen's own
// -----------------------------------------------------------------------------------------------------------------

/// How a plugin is checked that is built here.
struct Own {
    std::vector<std::string> options;
    bool root = false;
    bool paperGuest = false;  ///< its VMM is a fake, which looks only whether kernel and disk are there
};

/// Every plugin of Mergen's has an entry.
const std::map<std::string, Own>& ownPlugins() {
    static const std::map<std::string, Own> all{
        {"storage/files", {}},
        {"storage/memory", {}},
        {"supervisor/process", {}},
        {"network/linux", {.options = {}, .root = true}},
        {"network/stub", {}},
        {"vmm/firecracker",
         {.options = {"--set", "binary=" MERGEN_FAKE_FIRECRACKER, "--set", "probe=false", "--set", "jailer=off",
                      "--program", MERGEN_FAKE_FIRECRACKER, "--guest-ready", "fake-guest: ready", "--guest-stopping",
                      "fake-guest: shutting down", "--guest-keeps-nothing"},
          .paperGuest = true}},
        {"vmm/qemu",
         {.options = {"--set", "accel=tcg", "--program", "/usr/bin/qemu-system-x86_64", "--guest", MERGEN_GUEST_DIR}}},
    };
    return all;
}

struct Library {
    fs::path file;
    std::string kind, name;
};
void PrintTo(const Library& library, std::ostream* out) {
    *out << library.kind << "/" << library.name;
}

/// Every plugin that the build knows of (MERGEN_PLUGINS), by its file's name, mergen-<kind>-<name>.so.
std::vector<Library> builtPlugins() {
    std::vector<Library> all;
    for (const std::string& line : split(readFile(MERGEN_PLUGIN_LIST, 1U << 20U).value(), '\n')) {
        if (line.empty()) continue;
        const std::string stem = fs::path(line).stem().string();
        const std::size_t first = stem.find('-') + 1, second = stem.find('-', first);
        all.push_back({line, stem.substr(first, second - first), stem.substr(second + 1)});
    }
    return all;
}

class OwnPlugins : public Kit, public testing::WithParamInterface<Library> {};

TEST_P(OwnPlugins, KeepsWhatItsKindPromises) {
    const Library& library = GetParam();
    const auto entry = ownPlugins().find(library.kind + "/" + library.name);
    ASSERT_NE(entry, ownPlugins().end()) << "this test does not say how to check it";
    if (entry->second.root && ::geteuid() != 0) GTEST_SKIP() << "needs root";
    std::vector<std::string> words{library.kind, library.file.string()};
    words.insert(words.end(), entry->second.options.begin(), entry->second.options.end());
    if (entry->second.paperGuest) {
        // An ELF file for x86-64 as far as anybody looks: 64-bit, little-endian, version 1, executable.
        const std::string head(
            "\x7f"
            "ELF\2\1\1\0\0\0\0\0\0\0\0\0\2\0\x3e\0",
            20);
        writeFileAtomically(folder() / "vmlinuz", head, 0644);
        writeFileAtomically(folder() / "rootfs.ext4", std::string(1U << 20U, '\0'), 0644);
        words.insert(words.end(), {"--guest", folder().string()});
    }

    const Outcome outcome = check(words);
    EXPECT_EQ(outcome.status, 0) << outcome.output << outcome.errors;
    EXPECT_THAT(outcome.lastLine(), HasSubstr(" kept, 0 broken, "));

    // Nothing was passed over in silence: a line for each promise that was asked for, and for loading and the like.
    words.emplace_back("--list");
    const std::vector<std::string> promises = linesOf(check(words).output);
    EXPECT_GT(promises.size(), 5U);
    const std::vector<std::string> lines = linesOf(outcome.output);
    for (const std::string& promise : promises) {
        EXPECT_TRUE(std::ranges::any_of(lines, [&](const std::string& line) {
            return line == "ok       " + promise || line.starts_with("skipped  " + promise + ": ");
        })) << promise;
    }
}

INSTANTIATE_TEST_SUITE_P(Built, OwnPlugins, testing::ValuesIn(builtPlugins()), [](const auto& given) {
    std::string name = given.param.kind + "_" + given.param.name;
    std::ranges::replace(name, '-', '_');
    return name;
});

TEST(OwnPluginsList, HasNoEntryOfAPluginThatIsNotBuilt) {
    for (const auto& [name, own] : ownPlugins()) {
        EXPECT_TRUE(std::ranges::any_of(builtPlugins(), [&](const Library& library) {
            return library.kind + "/" + library.name == name;
        })) << name;
    }
}

// Flawed ones
// -----------------------------------------------------------------------------------------------------------------

TEST_F(Kit, FindsAStorageThatLosesUpdates) {
    const Outcome outcome = check({"storage", MERGEN_FLAWED_STORAGE});
    EXPECT_EQ(outcome.status, 1) << outcome.errors;
    EXPECT_THAT(outcome.output, AllOf(HasSubstr("FAILED   PutWithStaleRevisionChangesNothing\n"),
                                      HasSubstr("FAILED   PutWithARevisionOfAnotherRecordIsConflict\n"),
                                      HasSubstr("ok       PutThenFindGivesTheSameRecord\n")));
    EXPECT_THAT(outcome.output, HasSubstr("conflict")) << "what was expected";
    EXPECT_THAT(outcome.lastLine(), Not(HasSubstr(" 0 broken")));
}

TEST_F(Kit, FindsANetworkThatCannotDetachTwice) {
    const Outcome outcome = check({"network", MERGEN_FLAWED_NETWORK});
    EXPECT_EQ(outcome.status, 1) << outcome.errors;
    EXPECT_THAT(outcome.output,
                AllOf(HasSubstr("FAILED   DetachAndUnpublishSucceedTwiceInAnyOrderAndWithoutAttach\n"),
                      HasSubstr("there is no wire of this VM"), HasSubstr("ok       AttachingTwiceIsAttachingOnce\n")));
}

TEST_F(Kit, FindsASupervisorThatEndsTheProcessAndGoesOnWithTheRest) {
    const Outcome outcome = check({"supervisor", MERGEN_FLAWED_SUPERVISOR, "--filter",
                                   "AnOwnerThatWasNeverLaunchedIsAbsent:TheListenerIsToldOfAnEndOnce:"
                                   "ExitCodesAreToldWhole"});
    EXPECT_EQ(outcome.status, 1) << outcome.errors;
    EXPECT_THAT(outcome.output,
                AllOf(HasSubstr("ok       AnOwnerThatWasNeverLaunchedIsAbsent\n"),
                      HasSubstr("FAILED   TheListenerIsToldOfAnEndOnce\n"), HasSubstr("signal 6 (Aborted)"),
                      HasSubstr("this supervisor gives up"), HasSubstr("ok       ExitCodesAreToldWhole\n")));
    EXPECT_THAT(outcome.lastLine(), HasSubstr(", 1 broken, "));
}

TEST_F(Kit, FindsAVmmBackendThatHangsAndGoesOnWithTheRest) {
    const Outcome outcome = check({"vmm", MERGEN_FLAWED_VMM, "--deadline", "10", "--set", "accel=tcg", "--filter",
                                   "NobodyListeningIsUnavailable:CleanUpOfAFolderThatIsGoneDoesNothing"});
    EXPECT_EQ(outcome.status, 1) << outcome.errors;
    EXPECT_THAT(outcome.output,
                AllOf(HasSubstr("FAILED   NobodyListeningIsUnavailable\n"), HasSubstr("nothing happened for 10 s"),
                      HasSubstr("ok       CleanUpOfAFolderThatIsGoneDoesNothing\n")));
    EXPECT_THAT(outcome.lastLine(), HasSubstr(", 1 broken, "));
}

TEST_F(Kit, ALibraryThatDoesNotLoadIsABrokenPromise) {
    const fs::path file = folder() / "mergen-storage-text.so";
    writeFileAtomically(file, "no library", 0644);
    const Outcome outcome = check({"storage", file.string()});
    EXPECT_EQ(outcome.status, 1) << outcome.errors;
    EXPECT_THAT(outcome.output, AllOf(HasSubstr("FAILED   Loads\n"), HasSubstr("opening the library")));
    EXPECT_EQ(outcome.lastLine(), "0 kept, 1 broken, 0 skipped");
}

// What cannot be checked
// -----------------------------------------------------------------------------------------------------------------

TEST_F(Kit, ALibraryThatOthersCouldChangeIsTakenOnRequestOnly) {
    const fs::path file = copyOf(MERGEN_MEMORY_STORAGE);
    fs::permissions(file, fs::perms(0666));
    const Outcome refused = check({"storage", file.string(), "--filter", "PutThenFind*"});
    EXPECT_EQ(refused.status, 2) << refused.output;
    EXPECT_THAT(refused.errors, AllOf(HasSubstr("0666"), HasSubstr("--no-trust-check")));
    EXPECT_EQ(check({"storage", file.string(), "--filter", "PutThenFind*", "--no-trust-check"}).status, 0);
}

TEST_F(Kit, WhatItCannotDoItSaysInWords) {
    const std::string memory = MERGEN_MEMORY_STORAGE;
    const std::vector<std::pair<std::vector<std::string>, std::string>> wrong{
        {{}, "KIND FILE.so: both are needed"},
        {{"storage"}, "KIND FILE.so: both are needed"},
        {{"teleport", memory}, "teleport: there is no such kind"},
        {{"network", memory}, "of the kind storage, not network"},
        {{"storage", memory, "--speed", "1"}, "--speed: there is no such option"},
        {{"storage", memory, "--set"}, "--set: needs a value"},
        {{"storage", memory, "--set", "record_limit"}, "is not KEY=VALUE"},
        {{"storage", memory, "--set", "record_limits=5"}, "has no setting 'record_limits'"},
        {{"storage", memory, "--set", "record_limit=five"}, "'five' is not a whole number"},
        {{"storage", memory, "--filter", "NoSuchPromise"}, "no promise has such a name"},
        {{"storage", memory, "--deadline", "0"}, "no number of seconds"},
        {{"storage", "/nonexistent/mergen-storage-x.so"}, "/nonexistent"},
    };
    for (const auto& [words, why] : wrong) {
        const Outcome outcome = check(words);
        EXPECT_EQ(outcome.status, 2) << why;
        EXPECT_THAT(outcome.errors, AllOf(testing::StartsWith("mergen-plugin-check: "), HasSubstr(why)));
    }
}

TEST_F(Kit, SettingsReachThePlugin) {
    const Outcome outcome = check(
        {"storage", MERGEN_MEMORY_STORAGE, "--set", "record_limit=1", "--filter", "EraseRemovesTheRecordAndNoOther"});
    EXPECT_EQ(outcome.status, 1) << "there is room for one record, and the promise needs more: " << outcome.output;
}

TEST_F(Kit, TheReportCanBeReadByPrograms) {
    const fs::path file = folder() / "report.json";
    EXPECT_EQ(check({"storage", MERGEN_FLAWED_STORAGE, "--json", file.string(), "--filter",
                     "PutWithStaleRevision*:PutThenFind*"})
                  .status,
              1);
    const auto report = json::parseObject(readFile(file, 1U << 20U).value());
    EXPECT_EQ(report->getValue<std::string>("name"), "flawed");
    EXPECT_EQ(report->getValue<int>("broken"), 1);
    std::map<std::string, std::string> outcomes;
    const auto promises = report->getArray("promises");
    for (unsigned i = 0; i < promises->size(); ++i) {
        const auto one = promises->getObject(i);
        outcomes[one->getValue<std::string>("promise")] = one->getValue<std::string>("outcome");
    }
    EXPECT_EQ(outcomes["PutWithStaleRevisionChangesNothing"], "FAILED");
    EXPECT_EQ(outcomes["PutThenFindGivesTheSameRecord"], "ok");
}

TEST_F(Kit, HelpSaysWhatEachKindNeeds) {
    const Outcome outcome = check({"--help"});
    EXPECT_EQ(outcome.status, 0);
    for (const char* const kind : {"storage ", "supervisor ", "network ", "vmm "}) {
        EXPECT_THAT(outcome.output, HasSubstr(std::string("\n  ") + kind));
    }
}

}  // namespace
}  // namespace mergen
