// What the host does with libraries that are fit to be loaded, and with faults that show only in use.

#include <cstdlib>
#include <dlfcn.h>
#include <filesystem>
#include <map>
#include <optional>
#include <ostream>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/pluginhost/plugin_host.hpp>

#include "plugin_folder.hpp"
#include "test_host.hpp"

namespace mergen::test {
namespace {

namespace fs = std::filesystem;
using pluginhost::PluginHost;
using pluginhost::PluginHostConfig;
using pluginhost::PluginInfo;
using pluginhost::PluginState;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::StartsWith;

using Settings = std::map<std::string, std::string, std::less<>>;

/// The Error that `call` throws; a test failure and nothing if it throws none.
template <typename Call>
std::optional<Error> errorOf(Call&& call) {
    try {
        call();
    } catch (const Error& error) {
        return error;
    }
    ADD_FAILURE() << "nothing was thrown";
    return std::nullopt;
}

/// Makes the trial library `changing` change its own file when it is opened, here or in a child.
class Touching {
public:
    Touching() { ::setenv("TRIAL_TOUCH", "1", /*overwrite=*/1); }
    Touching(const Touching&) = delete;
    Touching& operator=(const Touching&) = delete;
    ~Touching() { ::unsetenv("TRIAL_TOUCH"); }
};

RecordId recordId() {
    return RecordId::parse("one");
}
Record record() {
    return {recordId(), {{"meta.json", "{}"}}};
}

TEST(PluginScan, ShowsWhatAManifestSaysAndMapsNothing) {
    const PluginFolder folder;
    const fs::path file = folder.add("good");
    PluginHost host(folder.config(), nullLog());
    const PluginInfo info = entryOf(host.scan(), file);
    EXPECT_EQ(info.state, PluginState::Available) << info.detail;
    EXPECT_EQ(info.kind, "storage");
    EXPECT_EQ(info.name, "good");
    EXPECT_EQ(info.version, "1.2.3");
    EXPECT_EQ(info.detail, "");
    EXPECT_THAT(info.settings, IsEmpty());
    ASSERT_EQ(info.keys.size(), 2U);
    EXPECT_EQ(info.keys[1].key, "limit");
    EXPECT_EQ(info.keys[1].type, MERGEN_KEY_SIZE);
    EXPECT_FALSE(info.keys[1].required);
    EXPECT_EQ(info.keys[1].defaultValue, "64KiB");
    EXPECT_EQ(info.keys[1].sentence, "Nothing; it is here to be read.");
    EXPECT_FALSE(isMapped(file));
}

TEST(PluginScan, IsNotConfusedByWhatALibraryPrints) {
    const PluginFolder folder;
    const fs::path file = folder.add("chatty");
    PluginHost host(folder.config(), nullLog());
    const PluginInfo info = entryOf(host.scan(), file);
    EXPECT_EQ(info.state, PluginState::Available) << info.detail;
    EXPECT_EQ(info.name, "chatty");
}

TEST(PluginScan, TakesALinkToAFileBesideIt) {
    const PluginFolder folder;
    folder.add("good", "good.so.1.2.3");
    const fs::path link = folder.path() / "good.so";
    fs::create_symlink("good.so.1.2.3", link);
    PluginHost host(folder.config(), nullLog());
    EXPECT_EQ(entryOf(host.scan(), link).state, PluginState::Available);
    host.configure("storage", "good", {});
    EXPECT_TRUE(isMapped(folder.path() / "good.so.1.2.3"));
}

TEST(PluginScan, LooksAtSharedObjectsOnlyAndSortsThem) {
    const PluginFolder folder;
    folder.write("README", "not a plugin");
    folder.add("good", "b.so.dpkg-new");
    const fs::path second = folder.add("good", "b.so");
    const fs::path first = folder.write("a.so", "not a library");
    PluginHost host(folder.config(), nullLog());
    const std::vector<PluginInfo> found = host.scan();
    ASSERT_EQ(found.size(), 2U);
    EXPECT_EQ(found[0].file, first);
    EXPECT_EQ(found[1].file, second);
}

TEST(PluginScan, TriesAFileOutAgainOnlyWhenItChanged) {
    const PluginFolder folder;
    const fs::path file = folder.add("good");
    // A preflight program that can be taken away shows whether it was asked for.
    PluginHostConfig config = folder.config();
    config.preflightProgram = folder.root() / "preflight";
    fs::create_symlink(MERGEN_PREFLIGHT, config.preflightProgram);
    PluginHost host(config, nullLog());
    EXPECT_EQ(entryOf(host.scan(), file).state, PluginState::Available);
    fs::remove(config.preflightProgram);
    EXPECT_EQ(entryOf(host.scan(), file).state, PluginState::Available);

    folder.add("good");  // the same content in a new file
    const auto error = errorOf([&] { host.scan(); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::NotFound);
    EXPECT_THAT(error->what(), HasSubstr(config.preflightProgram.string()));

    fs::create_symlink(MERGEN_PREFLIGHT, config.preflightProgram);
    folder.add("other_major", "good.so");
    EXPECT_EQ(entryOf(host.scan(), file).state, PluginState::Failed);
    folder.add("good");
    EXPECT_EQ(entryOf(host.scan(), file).state, PluginState::Available);
    fs::remove(file);
    EXPECT_THAT(host.scan(), IsEmpty());
}

TEST(PluginScan, RefusesAFileThatChangesWhileItIsTriedOut) {
    const PluginFolder folder;
    const fs::path file = folder.add("changing");
    PluginHost host(folder.config(), nullLog());
    {
        const Touching touching;
        const PluginInfo info = entryOf(host.scan(), file);
        EXPECT_EQ(info.state, PluginState::Failed);
        EXPECT_EQ(info.detail, file.string() + ": checking the file: it was changed while it was tried out");
    }
    EXPECT_EQ(entryOf(host.scan(), file).state, PluginState::Available);
}

TEST(PluginScan, RefusesAFolderThatOthersCanChange) {
    const PluginFolder folder;
    folder.add("good");
    PluginHost host(folder.config(), nullLog());
    ASSERT_EQ(::chmod(folder.path().c_str(), 0777), 0);
    auto error = errorOf([&] { host.scan(); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::PermissionDenied);
    EXPECT_THAT(error->what(), AllOf(HasSubstr("the plugin folder " + folder.path().string()), HasSubstr("mode 0777")));

    // Even sticky: whoever may add a file there adds a plugin.
    ASSERT_EQ(::chmod(folder.path().c_str(), 01777), 0);
    EXPECT_TRUE(errorOf([&] { host.scan(); }));
    ASSERT_EQ(::chmod(folder.path().c_str(), 0755), 0);
    EXPECT_EQ(host.scan().size(), 1U);
}

TEST(PluginScan, RefusesAFolderBelowOneThatOthersCanChange) {
    const PluginFolder folder;
    folder.add("good");
    PluginHost host(folder.config(), nullLog());
    ASSERT_EQ(::chmod(folder.root().c_str(), 0775), 0);
    const auto error = errorOf([&] { host.scan(); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::PermissionDenied);
    EXPECT_THAT(error->what(), HasSubstr("the folder " + folder.root().string() + " above the plugin folder"));
    // As in /tmp, what is there already can then be moved by its owner only.
    ASSERT_EQ(::chmod(folder.root().c_str(), 01777), 0);
    EXPECT_EQ(host.scan().size(), 1U);
}

TEST(PluginScan, RefusesAFolderOfAnotherUser) {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can give a folder to another user";
    const PluginFolder folder;
    PluginHost host(folder.config(), nullLog());
    ASSERT_EQ(::chown(folder.path().c_str(), 65534, 65534), 0);
    auto error = errorOf([&] { host.scan(); });
    ASSERT_TRUE(error);
    EXPECT_THAT(error->what(), HasSubstr("belongs to uid 65534"));
    ASSERT_EQ(::chown(folder.path().c_str(), 0, 0), 0);
    ASSERT_EQ(::chown(folder.root().c_str(), 65534, 65534), 0);
    error = errorOf([&] { host.scan(); });
    ASSERT_TRUE(error);
    EXPECT_THAT(error->what(), HasSubstr("the folder " + folder.root().string() + " above"));
    ASSERT_EQ(::chown(folder.root().c_str(), 0, 0), 0);
}

TEST(PluginScan, NamesAFolderThatIsMissingOrNone) {
    const PluginFolder folder;
    PluginHostConfig config = folder.config();
    config.directory = folder.root() / "none";
    auto error = errorOf([&] { PluginHost(config, nullLog()).scan(); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::NotFound);
    EXPECT_THAT(error->what(), HasSubstr(config.directory.string()));
    config.directory = folder.write("file", "");
    error = errorOf([&] { PluginHost(config, nullLog()).scan(); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::InvalidArgument);
    config.directory = "plugins";
    error = errorOf([&] { PluginHost(config, nullLog()).scan(); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::InvalidArgument);
}

/// Every plugin that this build made.
TEST(PluginScan, FindsTheProjectsOwnPluginsFit) {
    PluginFolder folder;
    PluginHostConfig config = folder.config();
    config.directory = MERGEN_PLUGIN_FOLDER;
    PluginHost host(config, nullLog());
    const std::vector<PluginInfo> found = host.scan();
    EXPECT_FALSE(found.empty());
    for (const PluginInfo& info : found) {
        EXPECT_EQ(info.state, PluginState::Available) << info.detail;
        EXPECT_EQ(info.file.filename(), "mergen-" + info.kind + "-" + info.name + ".so");
    }
}

TEST(PluginHost, LoadsUsesAndUnloadsTwentyTimes) {
    const PluginFolder folder;
    const fs::path file = folder.add("good");
    for (int round = 0; round < 20; ++round) {
        {
            PluginHost host(folder.config(), nullLog());
            host.configure("storage", "good", {});
            host.start();
            ASSERT_TRUE(isMapped(file));
            StorageBackend& storage = host.storage("good");
            ASSERT_FALSE(storage.find(recordId()));  // a new object each time
            storage.put(record(), std::nullopt);
            ASSERT_TRUE(storage.find(recordId()));
        }
        ASSERT_FALSE(isMapped(file)) << "round " << round;
    }
}

TEST(PluginHost, LoadsWhatTookTheFilesPlace) {
    const PluginFolder folder;
    folder.add("good");
    {
        PluginHost host(folder.config(), nullLog());
        host.configure("storage", "good", {});
    }
    folder.add("other_major", "good.so");
    PluginHost host(folder.config(), nullLog());
    const auto error = errorOf([&] { host.configure("storage", "good", {}); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::NotFound);  // a manifest of another major has no name that could be trusted
}

TEST(PluginHost, RefusesAFileThatChangesWhileItIsLoaded) {
    const PluginFolder folder;
    const fs::path file = folder.add("changing");
    PluginHost host(folder.config(), nullLog());
    host.scan();
    {
        const Touching touching;
        const auto error = errorOf([&] { host.configure("storage", "changing", {}); });
        ASSERT_TRUE(error);
        EXPECT_EQ(error->kind(), ErrorKind::Conflict);
        EXPECT_THAT(error->what(), HasSubstr("the file was changed while it was loaded"));
    }
    EXPECT_FALSE(isMapped(file));
    host.configure("storage", "changing", {});
    EXPECT_TRUE(isMapped(file));
}

TEST(PluginHost, AnUpgradedFileDoesNotDisturbTheLoadedPlugin) {
    const PluginFolder folder;
    const fs::path file = folder.add("good");
    PluginHost host(folder.config(), nullLog());
    host.configure("storage", "good", {});
    host.start();
    folder.add("other_major", "good.so");
    EXPECT_EQ(entryOf(host.scan(), file).state, PluginState::Failed);
    EXPECT_EQ(entryOf(host.plugins(), file).state, PluginState::Ready);
    fs::remove(file);
    host.scan();
    EXPECT_EQ(entryOf(host.plugins(), file).state, PluginState::Ready);
    host.storage("good").put(record(), std::nullopt);
}

TEST(PluginHost, TellsStateAndSettingsOfThePluginsInUse) {
    const PluginFolder folder;
    const fs::path file = folder.add("good");
    const fs::path other = folder.add("another");
    PluginHost host(folder.config(), nullLog());
    host.configure("storage", "good", {{"limit", "1MiB"}});
    EXPECT_EQ(entryOf(host.plugins(), file).state, PluginState::Available);
    EXPECT_THAT(entryOf(host.plugins(), file).settings, ElementsAre(Pair("fault", ""), Pair("limit", "1MiB")));
    host.start();
    EXPECT_EQ(entryOf(host.plugins(), file).state, PluginState::Ready);
    EXPECT_EQ(entryOf(host.plugins(), other).state, PluginState::Available);
    EXPECT_THAT(entryOf(host.plugins(), other).settings, IsEmpty());
    host.stop();
    host.stop();
    EXPECT_EQ(entryOf(host.plugins(), file).state, PluginState::Available);
}

TEST(PluginHost, StartsInOrderOfConfigurationAndStopsBackwards) {
    const PluginFolder folder;
    folder.add("good");
    folder.add("another");
    CapturingLog log;
    {
        PluginHost host(folder.config(), log);
        host.configure("storage", "good", {});
        host.configure("storage", "another", {});
        host.start();
        host.start();  // nothing is left to start
    }
    std::vector<std::string> lines;
    for (const LogLine& line : log.lines()) lines.push_back(line.event + " " + line.fields.at("plugin"));
    EXPECT_THAT(lines, ElementsAre("trial.started storage/good", "trial.started storage/another",
                                   "trial.stopped storage/another", "trial.stopped storage/good"));
}

TEST(PluginHost, DoesNotStopWhatWasNotStarted) {
    const PluginFolder folder;
    folder.add("good");
    CapturingLog log;
    {
        PluginHost host(folder.config(), log);
        host.configure("storage", "good", {});
    }
    EXPECT_THAT(log.lines(), IsEmpty());
}

TEST(PluginHost, NamesThePluginsThatThereAreWhenAskedForAnother) {
    const PluginFolder folder;
    folder.add("good");
    folder.add("another");
    PluginHost host(folder.config(), nullLog());
    auto error = errorOf([&] { host.configure("storage", "goods", {}); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::NotFound);
    EXPECT_THAT(error->what(), HasSubstr("there is no plugin storage/goods in " + folder.path().string() +
                                         "; of the kind storage there is another, good"));
    // A name is a name within its kind.
    error = errorOf([&] { host.configure("network", "good", {}); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::NotFound);
    EXPECT_THAT(error->what(), HasSubstr("of the kind network there is none"));
}

TEST(PluginHost, SaysWhatIsWrongWithTheLibraryThatIsMeant) {
    const PluginFolder folder;
    const fs::path file = folder.write("mergen-storage-files.so", trialLibrary("good").substr(0, 200));
    PluginHost host(folder.config(), nullLog());
    const auto error = errorOf([&] { host.configure("storage", "files", {}); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::FailedPrecondition);
    EXPECT_THAT(error->what(), StartsWith("plugin storage/files: " + file.string() + ": opening the library: "));
}

TEST(PluginHost, GivesObjectsOnlyByKindAndNameOfConfiguredPlugins) {
    const PluginFolder folder;
    folder.add("good");
    folder.add("another");
    PluginHost host(folder.config(), nullLog());
    host.configure("storage", "good", {});
    EXPECT_FALSE(host.storage("good").traits().durable);
    EXPECT_EQ(errorOf([&] { (void)host.storage("another"); }).value().kind(), ErrorKind::NotFound);
    EXPECT_EQ(errorOf([&] { (void)host.network("good"); }).value().kind(), ErrorKind::NotFound);
    EXPECT_EQ(errorOf([&] { (void)host.supervisor("good"); }).value().kind(), ErrorKind::NotFound);
    EXPECT_EQ(errorOf([&] { (void)host.vmm("good"); }).value().kind(), ErrorKind::NotFound);
    EXPECT_EQ(errorOf([&] { host.configure("storage", "good", {}); }).value().kind(), ErrorKind::AlreadyExists);
}

TEST(PluginHost, RefusesSettingsThatTheManifestDoesNotAllow) {
    const PluginFolder folder;
    const fs::path file = folder.add("good");
    PluginHost host(folder.config(), nullLog());
    for (const Settings& wrong : {Settings{{"limits", "1"}}, Settings{{"limit", "much"}}}) {
        const auto error = errorOf([&] { host.configure("storage", "good", wrong); });
        ASSERT_TRUE(error);
        EXPECT_EQ(error->kind(), ErrorKind::InvalidArgument);
        EXPECT_THAT(error->what(), AllOf(StartsWith("plugin storage/good of " + file.string() + ": configure(): "),
                                         HasSubstr(wrong.begin()->first)));
        EXPECT_FALSE(isMapped(file));
        EXPECT_EQ(entryOf(host.plugins(), file).state, PluginState::Failed);
    }
    host.configure("storage", "good", {{"limit", "1KiB"}});
    EXPECT_EQ(entryOf(host.plugins(), file).state, PluginState::Available);
}

struct Fault {
    std::string name;
    ErrorKind kind;
    std::string cause;
};
void PrintTo(const Fault& fault, std::ostream* out) {
    *out << fault.name;
}

const std::vector<Fault> faults = {
    {"error", ErrorKind::Unavailable, "the trial medium is away"},
    {"std", ErrorKind::Internal, "it let out a std::out_of_range: beyond the end"},
    {"own", ErrorKind::Internal, "OwnException: the text of a type of my own"},
    {"int", ErrorKind::Internal, "it threw a value of the type int, which is no exception"},
};

class PluginFault : public testing::TestWithParam<Fault> {};

TEST_P(PluginFault, InConfigureIsAnErrorThatOutlivesTheLibrary) {
    const PluginFolder folder;
    const fs::path file = folder.add("good");
    PluginHost host(folder.config(), nullLog());
    const auto error = errorOf([&] { host.configure("storage", "good", {{"fault", "configure." + GetParam().name}}); });
    EXPECT_FALSE(isMapped(file));
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), GetParam().kind);
    EXPECT_THAT(error->what(), AllOf(StartsWith("plugin storage/good of " + file.string() + ": configure(): "),
                                     HasSubstr(GetParam().cause)));
    const PluginInfo info = entryOf(host.plugins(), file);
    EXPECT_EQ(info.state, PluginState::Failed);
    EXPECT_EQ(info.detail, error->what());
    EXPECT_EQ(errorOf([&] { (void)host.storage("good"); }).value().kind(), ErrorKind::NotFound);
}

TEST_P(PluginFault, InStartIsAnErrorAndLeavesTheOthersStarted) {
    const PluginFolder folder;
    const fs::path file = folder.add("good");
    const fs::path before = folder.add("another");
    std::optional<Error> error;
    {
        PluginHost host(folder.config(), nullLog());
        host.configure("storage", "another", {});
        host.configure("storage", "good", {{"fault", "start." + GetParam().name}});
        error = errorOf([&] { host.start(); });
        EXPECT_EQ(entryOf(host.plugins(), before).state, PluginState::Ready);
        EXPECT_EQ(entryOf(host.plugins(), file).state, PluginState::Failed);
        EXPECT_EQ(entryOf(host.plugins(), file).detail, error.value().what());
        host.storage("another").put(record(), std::nullopt);
    }
    EXPECT_FALSE(isMapped(file));
    EXPECT_EQ(error->kind(), GetParam().kind);
    EXPECT_THAT(error->what(), AllOf(StartsWith("plugin storage/good of " + file.string() + ": start(): "),
                                     HasSubstr(GetParam().cause)));
}

TEST_P(PluginFault, InDestroyIsLoggedAndTheLibraryIsClosed) {
    const PluginFolder folder;
    const fs::path file = folder.add("good");
    CapturingLog log;
    {
        PluginHost host(folder.config(), log);
        host.configure("storage", "good", {{"fault", "destroy." + GetParam().name}});
    }
    EXPECT_FALSE(isMapped(file));
    const std::vector<LogLine> lines = log.lines("plugin.destroy.failed");
    ASSERT_EQ(lines.size(), 1U);
    EXPECT_EQ(lines[0].level, LogLevel::Warning);
    EXPECT_THAT(lines[0].fields.at("cause"), HasSubstr(GetParam().cause));
    EXPECT_THAT(lines[0].fields.at("plugin"), HasSubstr(file.string()));
}

INSTANTIATE_TEST_SUITE_P(Each, PluginFault, testing::ValuesIn(faults),
                         [](const auto& tested) { return tested.param.name; });

TEST(PluginHost, APluginThatDoesNotFitTheHostIsNotApplicable) {
    const PluginFolder folder;
    const fs::path file = folder.add("good");
    PluginHost host(folder.config(), nullLog());
    host.configure("storage", "good", {{"fault", "start.not_supported"}});
    const auto error = errorOf([&] { host.start(); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::NotSupported);
    const PluginInfo info = entryOf(host.plugins(), file);
    EXPECT_EQ(info.state, PluginState::NotApplicable);
    EXPECT_THAT(info.detail, HasSubstr("this host has no trial device"));
}

TEST(PluginHost, AnErrorOfABackendIsCaughtByKindAndOutlivesTheLibrary) {
    const PluginFolder folder;
    const fs::path file = folder.add("good");
    std::optional<Error> kept;
    {
        PluginHost host(folder.config(), nullLog());
        host.configure("storage", "good", {});
        host.start();
        host.storage("good").put(record(), std::nullopt);
        kept = errorOf([&] { host.storage("good").put(record(), std::nullopt); });
    }
    ASSERT_FALSE(isMapped(file));
    ASSERT_TRUE(kept);
    EXPECT_EQ(kept->kind(), ErrorKind::AlreadyExists);
    EXPECT_THAT(kept->within("asking").what(), HasSubstr("there is a record 'one'"));
}

/// What a library exports is its own: two may have the same names (RTLD_LOCAL).
TEST(PluginHost, TwoLibrariesDoNotSeeEachOthersSymbols) {
    const PluginFolder folder;
    folder.add("good");
    folder.add("another");
    PluginHost host(folder.config(), nullLog());
    host.configure("storage", "good", {});
    host.configure("storage", "another", {});
    EXPECT_EQ(::dlsym(RTLD_DEFAULT, MERGEN_MANIFEST_SYMBOL), nullptr);
    EXPECT_NE(&host.storage("good"), &host.storage("another"));
    host.storage("good").put(record(), std::nullopt);
    EXPECT_FALSE(host.storage("another").find(recordId()));
}

}  // namespace
}  // namespace mergen::test
