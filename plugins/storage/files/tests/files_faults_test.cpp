#include <algorithm>
#include <cerrno>
#include <sched.h>
#include <set>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include "files_fixture.hpp"
#include "syscall_spy.hpp"

/// Everything that can go wrong in the middle: crashes at every failpoint, errors at every failpoint, failing system
/// calls, a full disk.
namespace mergen::storage {

namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

namespace fs = std::filesystem;
namespace spy = mergen::test::spy;

using Documents = std::map<std::string, std::string, std::less<>>;

/// Arms every failpoint of this plugin: the first `passed` ones that are met do nothing, the next one does `action`.
void armAfter(unsigned passed, const std::string& action) {
    const std::string all = "storage.files.*=";
    failpoint::arm((passed == 0 ? "" : all + std::to_string(passed) + "*delay(0);") + all + action);
}

class FilesFaults : public FilesTest {
protected:
    // Some documents change, one stays, one goes, one comes.
    const Documents oldDocuments{
        {"meta.json", "{\"is\": \"old\"}"}, {"env", "OLD=1"}, {"vm.json", "{}"}, {"gone", "x"}};
    const Documents newDocuments{
        {"meta.json", "{\"is\": \"new\"}"}, {"env", "NEW=1"}, {"vm.json", "{}"}, {"come", "y"}};

    Record oldRecord() const { return {id("web"), oldDocuments}; }
    Record newRecord() const { return {id("web"), newDocuments}; }
    Record oneChanged() const {
        Record record = oldRecord();
        record.documents["meta.json"] = "{\"is\": \"changed\"}";
        return record;
    }

    /// Puts the old record and two entries that are no documents into an empty folder.
    Revision prepare() {
        failpoint::arm("");
        storage().erase(id("web"));
        const Revision revision = storage().put(oldRecord(), std::nullopt);
        write(root() / "web/NOTE", "by hand");
        fs::create_directory(root() / "web/Folder");
        write(root() / "web/Folder/file", "deep");
        return revision;
    }

    /// What stands under the id: "old", "new", or "none"; anything else is a failure. All of it is checked: documents,
    /// carried entries, and that the folder holds nothing more.
    std::string state(bool carried) {
        const auto found = storage().find(id("web"));
        if (!found) return "none";
        EXPECT_EQ(found->corrupt, "");
        std::set<std::string> expected;
        for (const auto& [name, content] : found->record.documents) expected.insert(name);
        if (carried) {
            expected.insert({"NOTE", "Folder"});
            EXPECT_EQ(slurp(root() / "web/NOTE"), "by hand");
            EXPECT_EQ(slurp(root() / "web/Folder/file"), "deep");
        }
        const auto entries = listDirectory(root() / "web");
        EXPECT_EQ(std::set<std::string>(entries.begin(), entries.end()), expected);
        if (found->record.documents == oldDocuments) return "old";
        if (found->record.documents == newDocuments) return "new";
        ADD_FAILURE() << "neither the old nor the new record";
        return "mixed";
    }

    void expectNoLeftovers() {
        for (const std::string& name : names()) EXPECT_EQ(name, "web") << "left over";
    }

    /// Lets a child crash at the first failpoint that `action` meets, then at the second, ... until it meets no more.
    /// After each crash a new server starts, and `check` looks at what is there. Gives what check() said, crash by
    /// crash.
    std::vector<std::string> crashEverywhere(const std::function<std::function<void()>()>& prepareAction,
                                             const std::function<std::string()>& check) {
        std::vector<std::string> seen;
        for (unsigned passed = 0;; ++passed) {
            const std::function<void()> action = prepareAction();
            const int status = inChild([&] {
                armAfter(passed, "crash");
                action();
            });
            const bool crashed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
            const bool done = WIFEXITED(status) && WEXITSTATUS(status) == 0;
            EXPECT_TRUE(crashed || done) << "status " << status << " after " << passed << " failpoints";
            start();
            SCOPED_TRACE("crash after " + std::to_string(passed) + " failpoints");
            seen.push_back(check());
            expectNoLeftovers();
            if (!crashed) return seen;
        }
    }

    /// `seen` is at least one `before`, then at least one `after`, and nothing else.
    static void expectOneTurn(const std::vector<std::string>& seen, const std::string& before,
                              const std::string& after) {
        const auto turn = std::ranges::find_if(seen, [&](const std::string& one) { return one != before; });
        EXPECT_NE(turn, seen.begin()) << "no crash came before the commit";
        EXPECT_NE(turn, seen.end()) << "the action has no effect";
        EXPECT_TRUE(std::all_of(turn, seen.end(), [&](const std::string& one) { return one == after; }))
            << ::testing::PrintToString(seen);
    }
};

// Crashes
// --------------------------------------------------------------------------------------------------------------

TEST_F(FilesFaults, ACrashAtAnyStepOfAReplacementLeavesTheWholeOldOrTheWholeNewRecord) {
    const auto seen = crashEverywhere(
        [&] {
            const Revision revision = prepare();
            return [this, revision] { storage().put(newRecord(), revision); };
        },
        [&] { return state(/*carried=*/true); });
    EXPECT_GE(seen.size(), 16U) << "failpoints have gone";
    expectOneTurn(seen, "old", "new");
}

TEST_F(FilesFaults, ACrashWhereOneDocumentChangesLeavesTheOldOrTheNewOneAndTheNextPutClearsUp) {
    const auto seen = crashEverywhere(
        [&] {
            const Revision revision = prepare();
            return [this, revision] { storage().put(oneChanged(), revision); };
        },
        [&] {
            const auto found = storage().find(id("web"));
            const std::string what = found->record.documents == oldDocuments ? "old" : "new";
            EXPECT_THAT(found->record.documents, ::testing::AnyOf(oldDocuments, oneChanged().documents));
            Record next = oldRecord();
            next.documents["meta.json"] = "{\"is\": \"next\"}";
            storage().put(next, found->revision);
            EXPECT_THAT(listDirectory(root() / "web"),
                        UnorderedElementsAre("meta.json", "env", "vm.json", "gone", "NOTE", "Folder"));
            EXPECT_EQ(slurp(root() / "web/NOTE"), "by hand");
            return what;
        });
    EXPECT_GE(seen.size(), 4U) << "failpoints have gone";
    expectOneTurn(seen, "old", "new");
}

TEST_F(FilesFaults, WhatAnInterruptedChangeOfOneDocumentLeftIsNotCarriedOver) {
    const Revision revision = prepare();
    write(root() / "web/.meta.json.0a1b2c3d.aside", "{");
    write(root() / "web/.meta.json.swp", "an editor's");
    storage().put(newRecord(), revision);
    EXPECT_THAT(listDirectory(root() / "web"),
                UnorderedElementsAre("meta.json", "env", "vm.json", "come", "NOTE", "Folder", ".meta.json.swp"));
}

TEST_F(FilesFaults, ACrashAtAnyStepOfANewPutLeavesTheWholeRecordOrNone) {
    const auto seen = crashEverywhere(
        [&] {
            storage().erase(id("web"));
            return [this] { storage().put(newRecord(), std::nullopt); };
        },
        [&] { return state(/*carried=*/false); });
    EXPECT_GE(seen.size(), 11U) << "failpoints have gone";
    expectOneTurn(seen, "none", "new");
}

TEST_F(FilesFaults, ACrashAtAnyStepOfAnEraseLeavesTheWholeRecordOrNone) {
    const auto seen = crashEverywhere(
        [&] {
            prepare();
            return [this] { storage().erase(id("web")); };
        },
        [&] { return state(/*carried=*/true); });
    EXPECT_GE(seen.size(), 3U) << "failpoints have gone";
    // The rename comes before the first failpoint, and there is no power loss here to take it back.
    EXPECT_THAT(seen, ::testing::Each("none"));
}

TEST_F(FilesFaults, ACrashWhileLeftoversAreClearedIsMadeGoodByTheNextStart) {
    const auto seen = crashEverywhere(
        [&] {
            const Revision revision = prepare();
            const int status = inChild([&] {
                failpoint::arm("storage.files.clearing=crash");  // right after the commit: the old folder stays whole
                storage().put(newRecord(), revision);
            });
            EXPECT_TRUE(WIFSIGNALED(status));
            EXPECT_EQ(names().size(), 2U);
            stop();
            return [this] { start(); };
        },
        [&] { return state(/*carried=*/true); });
    EXPECT_GE(seen.size(), 6U) << "failpoints have gone";
    EXPECT_THAT(seen, ::testing::Each("new"));
}

TEST_F(FilesFaults, StartSaysWhatItClears) {
    const Revision revision = prepare();
    const int status = inChild([&] {
        failpoint::arm("storage.files.aside_synced=crash");
        storage().put(newRecord(), revision);
    });
    EXPECT_TRUE(WIFSIGNALED(status));
    ASSERT_EQ(names().size(), 2U);
    const std::string leftover = names().front();
    EXPECT_THAT(leftover, ::testing::MatchesRegex("\\.web\\.[0-9a-f]+\\.aside"));
    EXPECT_EQ(storage().list(std::nullopt, 10).size(), 1U) << "it is no record";
    start();
    const auto lines = host().log().lines("storage.files.leftover.cleared");
    ASSERT_EQ(lines.size(), 1U);
    EXPECT_EQ(lines.front().fields.at("name"), leftover);
}

// Errors
// ---------------------------------------------------------------------------------------------------------------

class FilesErrors : public FilesFaults, public ::testing::WithParamInterface<const char*> {
protected:
    [[nodiscard]] ErrorKind expectedKind() const {
        return std::string(GetParam()).ends_with("nospace") ? ErrorKind::ResourceExhausted : ErrorKind::Internal;
    }
};

INSTANTIATE_TEST_SUITE_P(Actions, FilesErrors, ::testing::Values("1*error(no)", "1*nospace"), [](const auto& one) {
    return std::string(one.param).ends_with("nospace") ? "Space" : "Other";
});

TEST_P(FilesErrors, AtAnyStepOfAReplacementKeepTheOldRecordOrComeAfterTheNewOne) {
    unsigned refused = 0;
    unsigned survived = 0;
    for (unsigned passed = 0; passed < 100; ++passed) {
        SCOPED_TRACE("error after " + std::to_string(passed) + " failpoints");
        const Revision revision = prepare();
        const std::size_t linesBefore = host().log().lines().size();
        armAfter(passed, GetParam());
        const auto error = errorOf([&] { storage().put(newRecord(), revision); });
        failpoint::arm("");
        const bool warned = host().log().lines().size() > linesBefore;
        if (error) {
            ++refused;
            EXPECT_EQ(error->kind(), expectedKind());
            EXPECT_EQ(state(/*carried=*/true), "old");
            EXPECT_EQ(storage().find(id("web"))->revision, revision);
            expectNoLeftovers();
            EXPECT_FALSE(warned) << "log or throw, never both";
            EXPECT_NO_THROW(storage().put(newRecord(), revision)) << "the next one succeeds";
            continue;
        }
        EXPECT_EQ(storage().find(id("web"))->record.documents, newDocuments);
        start();
        EXPECT_EQ(state(/*carried=*/true), "new");
        expectNoLeftovers();
        if (!warned) break;  // the action was never reached
        ++survived;
    }
    EXPECT_GE(refused, 9U);
    EXPECT_GE(survived, 5U);
}

TEST_P(FilesErrors, AtAnyStepWhereOneDocumentChangesKeepTheOldOne) {
    unsigned refused = 0;
    for (unsigned passed = 0; passed < 100; ++passed) {
        SCOPED_TRACE("error after " + std::to_string(passed) + " failpoints");
        const Revision revision = prepare();
        armAfter(passed, GetParam());
        const auto error = errorOf([&] { storage().put(oneChanged(), revision); });
        failpoint::arm("");
        if (!error) break;
        ++refused;
        EXPECT_EQ(error->kind(), expectedKind());
        EXPECT_EQ(state(/*carried=*/true), "old");
    }
    EXPECT_EQ(refused, 3U);
    EXPECT_EQ(storage().find(id("web"))->record.documents, oneChanged().documents);
}

TEST_P(FilesErrors, AtAnyStepOfANewPutLeaveNothing) {
    unsigned refused = 0;
    for (unsigned passed = 0; passed < 100; ++passed) {
        SCOPED_TRACE("error after " + std::to_string(passed) + " failpoints");
        armAfter(passed, GetParam());
        const auto error = errorOf([&] { storage().put(newRecord(), std::nullopt); });
        failpoint::arm("");
        if (!error) break;
        ++refused;
        EXPECT_EQ(error->kind(), expectedKind());
        EXPECT_THAT(names(), IsEmpty());
    }
    EXPECT_GE(refused, 10U);
    EXPECT_EQ(state(/*carried=*/false), "new");
}

TEST_P(FilesErrors, AtAnyStepOfAnEraseKeepTheRecordOrComeAfterIt) {
    unsigned refused = 0;
    for (unsigned passed = 0; passed < 3; ++passed) {
        prepare();
        armAfter(passed, GetParam());
        const auto error = errorOf([&] { EXPECT_TRUE(storage().erase(id("web"))); });
        failpoint::arm("");
        EXPECT_EQ(state(/*carried=*/true), error ? "old" : "none");
        refused += error ? 1 : 0;
        start();
        expectNoLeftovers();
    }
    EXPECT_EQ(refused, 1U);
}

TEST_P(FilesErrors, OfTheProbeLeaveNothingBehindAndGiveTheFolderBack) {
    stop();
    failpoint::arm(std::string("storage.files.probing=") + GetParam());
    EXPECT_TRUE(errorOf([&] { start(); }));
    EXPECT_THAT(names(), IsEmpty());
    EXPECT_NO_THROW(start()) << "the lock must be free again";
}

// System calls
// ---------------------------------------------------------------------------------------------------------

class FilesCalls : public FilesFaults {
protected:
    ~FilesCalls() override { spy::reset(); }

    /// The calls since the last reset with short paths: "fsync <root>/<aside>/env".
    std::vector<std::string> calls() const {
        std::vector<std::string> all = spy::calls();
        for (std::string& call : all) {
            for (std::size_t at = call.find(root().string()); at != std::string::npos;
                 at = call.find(root().string(), at)) {
                call.replace(at, root().string().size(), "ROOT");
            }
            for (std::size_t at = call.find("/.web."); at != std::string::npos; at = call.find("/.web.")) {
                call.replace(at, std::string("/.web.01234567").size(), "/");
            }
            for (std::size_t at = call.find("/.meta.json."); at != std::string::npos; at = call.find("/.meta.json.")) {
                call.replace(at, std::string("/.meta.json.01234567").size(), "/");
            }
        }
        return all;
    }
    static bool isBefore(const std::vector<std::string>& all, const std::string& one, const std::string& other) {
        const auto first = std::ranges::find(all, one);
        const auto second = std::ranges::find(all, other);
        EXPECT_NE(first, all.end()) << one;
        EXPECT_NE(second, all.end()) << other;
        return first < second;
    }
};

TEST_F(FilesCalls, EverythingOfANewRecordIsSyncedBeforeItsRenameAndItsNameAfterwards) {
    spy::reset();
    storage().put(newRecord(), std::nullopt);
    EXPECT_THAT(calls(), ElementsAre("mkdirat ROOT/.aside", "fsync ROOT/.aside/come", "fsync ROOT/.aside/env",
                                     "fsync ROOT/.aside/meta.json", "fsync ROOT/.aside/vm.json", "fsync ROOT/.aside",
                                     "renameat2 ROOT/.aside ROOT/web", "fsync ROOT"));
}

TEST_F(FilesCalls, EverythingOfAReplacementIsSyncedBeforeItsRenameAndItsNameBeforeTheOldOneGoes) {
    const Revision revision = prepare();
    spy::reset();
    storage().put(newRecord(), revision);
    const auto all = calls();
    const std::string commit = "renameat2 ROOT/.aside ROOT/web";
    for (const char* const call : {"fsync ROOT/.aside/come", "fsync ROOT/.aside/env", "fsync ROOT/.aside/meta.json",
                                   "fdatasync ROOT/web/vm.json", "fsync ROOT/.aside"}) {
        EXPECT_TRUE(isBefore(all, call, commit)) << call;
    }
    EXPECT_TRUE(isBefore(all, "linkat ROOT/web/vm.json ROOT/.aside/vm.json", "fsync ROOT/.aside"));
    EXPECT_TRUE(isBefore(all, commit, "fsync ROOT"));
    EXPECT_TRUE(isBefore(all, "fsync ROOT", "renameat2 ROOT/.aside/NOTE ROOT/web/NOTE"));
    EXPECT_TRUE(isBefore(all, "renameat2 ROOT/.aside/NOTE ROOT/web/NOTE", "fsync ROOT/web"));
}

TEST_F(FilesCalls, OneDocumentThatChangesIsSyncedBeforeItsRenameAndItsFolderAfterwards) {
    const Revision revision = prepare();
    spy::reset();
    storage().put(oneChanged(), revision);
    EXPECT_THAT(calls(),
                ElementsAre("fsync ROOT/web/.aside", "renameat2 ROOT/web/.aside ROOT/web/meta.json", "fsync ROOT/web"));
}

TEST_F(FilesCalls, AnUnchangedDocumentIsSyncedIfSomebodyWroteItSinceItWas) {
    Revision revision = prepare();
    const auto syncedIn = [&](const Record& record) {
        spy::reset();
        revision = storage().put(record, revision);
        auto all = calls();
        std::erase_if(all, [](const std::string& call) { return !call.starts_with("fdatasync"); });
        return all;
    };
    // A file system's clock may tick only a few hundred times a second.
    const auto rewrite = [&](const std::string& name) {
        const fs::path file = root() / "web" / name;
        struct stat before {};
        struct stat now {};
        ASSERT_EQ(::stat(file.c_str(), &before), 0);
        do {
            write(file, slurp(file));
            ASSERT_EQ(::stat(file.c_str(), &now), 0);
        } while (DurableTimes::stampOf(now) == DurableTimes::stampOf(before));
    };
    EXPECT_THAT(syncedIn(oneChanged()), IsEmpty());
    rewrite("vm.json");
    EXPECT_THAT(syncedIn(oldRecord()), ElementsAre("fdatasync ROOT/web/vm.json"));
    EXPECT_THAT(syncedIn(oneChanged()), IsEmpty());
    start();  // another process may have been here meanwhile
    EXPECT_THAT(syncedIn(oldRecord()),
                ElementsAre("fdatasync ROOT/web/env", "fdatasync ROOT/web/gone", "fdatasync ROOT/web/vm.json"));
}

TEST_F(FilesCalls, AnyCallThatFailsWhereOneDocumentChangesKeepsTheOldOne) {
    for (const auto& [function, calls] : {std::pair<std::string, unsigned>{"fsync", 2}, {"renameat2", 1}}) {
        for (unsigned nth = 1; nth <= calls; ++nth) {
            for (const int errnum : {EIO, ENOSPC}) {
                SCOPED_TRACE(function + " number " + std::to_string(nth) + " fails with " + std::to_string(errnum));
                const Revision revision = prepare();
                spy::failNth(function, nth, errnum);
                const auto error = errorOf([&] { storage().put(oneChanged(), revision); });
                EXPECT_TRUE(spy::failed());
                spy::reset();
                ASSERT_TRUE(error);
                EXPECT_EQ(error->kind(), errnum == ENOSPC ? ErrorKind::ResourceExhausted : ErrorKind::Unavailable);
                EXPECT_EQ(state(/*carried=*/true), "old");
                EXPECT_EQ(storage().find(id("web"))->revision, revision);
            }
        }
    }
}

TEST_F(FilesCalls, ADocumentBesideTheOneThatChangesIsWrittenAnewIfItCannotBeSynced) {
    const Revision revision = prepare();
    start();
    spy::failNth("fdatasync", 1, EIO);
    storage().put(oneChanged(), revision);
    EXPECT_EQ(std::ranges::count(calls(), "renameat2 ROOT/.aside ROOT/web"), 1);
    EXPECT_EQ(storage().find(id("web"))->record.documents, oneChanged().documents);
    EXPECT_EQ(slurp(root() / "web/NOTE"), "by hand");
}

TEST_F(FilesCalls, AnEraseIsSynced) {
    prepare();
    spy::reset();
    EXPECT_TRUE(storage().erase(id("web")));
    EXPECT_THAT(calls(), ElementsAre("renameat2 ROOT/web ROOT/.erased", "fsync ROOT"));
}

TEST_F(FilesCalls, AnyCallThatFailsInAReplacementKeepsTheOldRecordOrComesAfterTheNewOne) {
    const std::vector<std::pair<std::string, int>> faults{
        {"fsync", EIO},     {"fsync", ENOSPC},  {"fdatasync", EIO},  {"renameat2", EIO}, {"renameat2", ENOSPC},
        {"linkat", EMLINK}, {"linkat", ENOSPC}, {"mkdirat", ENOSPC}, {"mkdirat", EROFS}};
    for (const auto& [function, errnum] : faults) {
        for (unsigned nth = 1;; ++nth) {
            SCOPED_TRACE(function + " number " + std::to_string(nth) + " fails with " + std::to_string(errnum));
            const Revision revision = prepare();
            spy::failNth(function, nth, errnum);
            const auto error = errorOf([&] { storage().put(newRecord(), revision); });
            const bool failed = spy::failed();
            spy::reset();
            if (error) {
                EXPECT_EQ(error->kind(), errnum == ENOSPC ? ErrorKind::ResourceExhausted : ErrorKind::Unavailable);
                EXPECT_EQ(state(/*carried=*/true), "old");
                expectNoLeftovers();
            }
            start();
            EXPECT_EQ(state(/*carried=*/true), error ? "old" : "new");
            expectNoLeftovers();
            if (!failed) {
                EXPECT_FALSE(error);
                EXPECT_GT(nth, 1U) << function << " is never called";
                break;
            }
        }
    }
}

TEST_F(FilesCalls, ASyncThatFailsIsNotTriedAgain) {
    // After a failed fsync(2) the kernel calls the lost pages clean: a second one succeeds and means nothing.
    const Revision revision = prepare();
    spy::failNth("fsync", 1, EIO);
    EXPECT_TRUE(errorOf([&] { storage().put(newRecord(), revision); }));
    const auto all = calls();
    EXPECT_EQ(std::ranges::count(all, "fsync ROOT/.aside/come"), 1);
    EXPECT_EQ(std::ranges::count(all, "renameat2 ROOT/.aside ROOT/web"), 0);
}

TEST_F(FilesCalls, AnUnchangedDocumentThatCannotBeSyncedIsWrittenAnew) {
    const Revision revision = prepare();
    spy::failNth("fdatasync", 1, EIO);
    EXPECT_NO_THROW(storage().put(newRecord(), revision));
    const auto all = calls();
    EXPECT_EQ(std::ranges::count(all, "fsync ROOT/.aside/vm.json"), 1);
    EXPECT_EQ(std::ranges::count(all, "linkat ROOT/web/vm.json ROOT/.aside/vm.json"), 0);
}

TEST_F(FilesCalls, AFileSystemThatCannotExchangeFoldersIsRefusedAtStart) {
    stop();
    spy::failNth("renameat2", 1, EINVAL);
    const auto error = errorOf([&] { start(); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::NotSupported);
    EXPECT_THAT(error->what(), HasSubstr("cannot exchange two folders"));
    EXPECT_THAT(error->what(), HasSubstr(root().string()));
    EXPECT_THAT(names(), IsEmpty());
}

TEST_F(FilesCalls, AFullDiskDoesNotKeepTheServerFromStarting) {
    prepare();
    for (const unsigned nth : {1U, 2U}) {
        spy::failNth("mkdirat", nth, ENOSPC);
        EXPECT_NO_THROW(start());
        EXPECT_TRUE(spy::failed());
        expectNoLeftovers();
    }
    EXPECT_EQ(host().log().lines("storage.files.probe.skipped").size(), 2U);
    EXPECT_EQ(state(/*carried=*/true), "old");
}

// A medium that is really full
// -------------------------------------------------------------------------------------------

TEST_F(FilesFaults, AWriteThatReachesTheFileSizeLimitKeepsTheOldRecord) {
    const Revision revision = prepare();
    Record larger = newRecord();
    larger.documents["env"] = std::string(100'000, 'x');
    const int status = inChild([&] {
        const rlimit limit{50'000, 50'000};
        if (::setrlimit(RLIMIT_FSIZE, &limit) != 0 || ::signal(SIGXFSZ, SIG_IGN) == SIG_ERR) ::_exit(2);
        const auto error = errorOf([&] { storage().put(larger, revision); });
        if (!error || error->kind() != ErrorKind::ResourceExhausted) ::_exit(3);
    });
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
    EXPECT_EQ(state(/*carried=*/true), "old");
    expectNoLeftovers();
}

TEST_F(FilesFaults, OnADiskThatIsReallyFullRecordsCanBeReadAndErasedButNotPut) {
    stop();
    const int status = inChild([&] {
        if (::unshare(CLONE_NEWNS) != 0) ::_exit(77);
        if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
            ::mount("tmpfs", root().c_str(), "tmpfs", 0, "size=64k,nr_inodes=64,mode=0750") != 0) {
            ::_exit(77);
        }
        start();
        const Revision revision = prepare();
        const auto fill = [&] {
            std::ofstream file(root() / ".filler");
            while (file) file << std::string(4096, 'x') << std::flush;
        };
        fill();
        const auto replaced = errorOf([&] { storage().put(newRecord(), revision); });
        if (!replaced || replaced->kind() != ErrorKind::ResourceExhausted) ::_exit(2);
        const auto added = errorOf([&] { storage().put({id("other"), newDocuments}, std::nullopt); });
        if (!added || added->kind() != ErrorKind::ResourceExhausted) ::_exit(3);
        if (state(/*carried=*/true) != "old" || names() != std::vector<std::string>{".filler", "web"}) ::_exit(4);
        start();
        if (state(/*carried=*/true) != "old" || storage().list(std::nullopt, 10).size() != 1) ::_exit(5);
        if (!storage().erase(id("web")) || names() != std::vector<std::string>{".filler"}) ::_exit(6);
        if (::testing::Test::HasFailure()) ::_exit(7);
    });
    ASSERT_TRUE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "needs root: a small file system of its own (unshare, mount)";
    EXPECT_EQ(WEXITSTATUS(status), 0);
    start();
}

}  // namespace

}  // namespace mergen::storage
