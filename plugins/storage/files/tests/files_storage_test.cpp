#include "files_storage.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <mergen/base/fd.hpp>

#include "files_fixture.hpp"

namespace mergen::storage {

namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

namespace fs = std::filesystem;

mode_t modeOf(const fs::path& path) {
    struct stat status {};
    EXPECT_EQ(::lstat(path.c_str(), &status), 0) << path;
    return status.st_mode & ALLPERMS;
}

struct stat statusOf(const fs::path& path) {
    struct stat status {};
    EXPECT_EQ(::lstat(path.c_str(), &status), 0) << path;
    return status;
}

/// The process's umask, until the scope is left.
class Umask {
public:
    explicit Umask(mode_t mask) : before_(::umask(mask)) {}
    Umask(const Umask&) = delete;
    Umask& operator=(const Umask&) = delete;
    ~Umask() { ::umask(before_); }

private:
    mode_t before_;
};

class FilesStorageTest : public FilesTest {
protected:
    static Record record(std::string_view name, std::string_view mark = "1") {
        return {id(name),
                {{"meta.json", "{\"mark\": \"" + std::string(mark) + "\"}\n"},
                 {"vm.json", "{\"drives\": []}\n"},
                 {"env", "MARK='1'\n"}}};
    }
    Revision putNew(const Record& one) { return storage().put(one, std::nullopt); }
    std::string corruptionOf(std::string_view name) {
        const auto found = storage().find(id(name));
        EXPECT_TRUE(found) << "a record that cannot be read must not vanish";
        return found ? found->corrupt : "";
    }
};

// The layout
// -----------------------------------------------------------------------------------------------------------

TEST_F(FilesStorageTest, ARecordIsAFolderWithOneFilePerDocument) {
    const Record web = record("web");
    putNew(web);
    EXPECT_THAT(names(), ElementsAre("web"));
    EXPECT_THAT(listDirectory(root() / "web"), ElementsAre("env", "meta.json", "vm.json"));
    for (const auto& [name, content] : web.documents) EXPECT_EQ(slurp(root() / "web" / name), content);
}

TEST_F(FilesStorageTest, ModesAreExactWhateverTheUmask) {
    for (const mode_t mask : {0000U, 0022U, 0077U, 0777U}) {
        const Umask changed(mask);
        Record web = record("web");
        const Revision revision = putNew(web);
        web.documents["meta.json"] = "{}";
        storage().put(web, revision);
        EXPECT_EQ(modeOf(root() / "web"), 0750U);
        for (const auto& [name, content] : web.documents) EXPECT_EQ(modeOf(root() / "web" / name), 0640U) << name;
        EXPECT_TRUE(storage().erase(id("web")));
    }
}

TEST_F(FilesStorageTest, AnUnchangedDocumentStaysTheSameFile) {
    Record web = record("web");
    const Revision revision = putNew(web);
    const struct stat vm = statusOf(root() / "web/vm.json");
    const struct stat meta = statusOf(root() / "web/meta.json");
    web.documents["meta.json"] = "{\"mark\": \"2\"}\n";
    storage().put(web, revision);
    EXPECT_EQ(statusOf(root() / "web/vm.json").st_ino, vm.st_ino);
    EXPECT_NE(statusOf(root() / "web/meta.json").st_ino, meta.st_ino);
    EXPECT_EQ(statusOf(root() / "web/vm.json").st_nlink, 1U) << "the old folder's name of it must be gone";
}

TEST_F(FilesStorageTest, AnUnchangedDocumentOfAnotherModeIsWrittenAnew) {
    Record web = record("web");
    const Revision revision = putNew(web);
    fs::permissions(root() / "web/vm.json", fs::perms(0600));
    web.documents["meta.json"] = "{}";
    storage().put(web, revision);
    EXPECT_EQ(modeOf(root() / "web/vm.json"), 0640U);
}

TEST_F(FilesStorageTest, APutOverAPutLeavesOneFolder) {
    Revision revision = putNew(record("web"));
    for (int i = 0; i < 20; ++i) revision = storage().put(record("web", std::to_string(i)), revision);
    EXPECT_THAT(names(), ElementsAre("web"));
    EXPECT_THAT(host().log().lines(), IsEmpty());
}

TEST_F(FilesStorageTest, DescriptorsAreGivenBack) {
    const auto open = [] { return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator()); };
    const auto round = [&] {
        const Revision revision = putNew(record("web"));
        storage().put(record("web", "2"), revision);
        EXPECT_TRUE(errorOf([&] { putNew(record("web")); }));
        EXPECT_TRUE(storage().find(id("web")));
        EXPECT_THAT(storage().list(std::nullopt, 10), SizeIs(1));
        EXPECT_TRUE(storage().erase(id("web")));
        start();
    };
    round();
    const auto before = open();
    for (int i = 0; i < 10; ++i) round();
    EXPECT_EQ(open(), before);
}

// Edits by hand
// --------------------------------------------------------------------------------------------------------

TEST_F(FilesStorageTest, AnEditByHandIsSeenAsConflict) {
    const Revision revision = putNew(record("web"));
    write(root() / "web/env", "MARK='2'\n");
    const auto error = errorOf([&] { storage().put(record("web", "3"), revision); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::Conflict);
    const auto found = storage().find(id("web"));
    EXPECT_EQ(found->record.documents.at("env"), "MARK='2'\n");
    EXPECT_NO_THROW(storage().put(record("web", "3"), found->revision));
}

TEST_F(FilesStorageTest, ADocumentThatIsAddedOrRemovedByHandIsSeenAsConflict) {
    const Revision revision = putNew(record("web"));
    write(root() / "web/hooks.json", "{}");
    EXPECT_EQ(errorOf([&] { storage().put(record("web", "2"), revision); })->kind(), ErrorKind::Conflict);
    fs::remove(root() / "web/hooks.json");
    fs::remove(root() / "web/vm.json");
    EXPECT_EQ(errorOf([&] { storage().put(record("web", "2"), revision); })->kind(), ErrorKind::Conflict);
}

TEST_F(FilesStorageTest, ARecordMadeByHandIsARecord) {
    fs::create_directory(root() / "web");
    fs::permissions(root() / "web", fs::perms(0750));
    write(root() / "web/meta.json", "{\"mark\": \"1\"}\n");
    const auto found = storage().find(id("web"));
    ASSERT_TRUE(found);
    EXPECT_EQ(found->corrupt, "");
    EXPECT_NO_THROW(storage().put(record("web"), found->revision));
}

TEST_F(FilesStorageTest, WhatIsNoDocumentIsCarriedOver) {
    const Revision revision = putNew(record("web"));
    const fs::path web = root() / "web";
    write(web / "README", "by hand");
    write(web / ".meta.json.swp", "an editor's");
    write(web / "env~", "an editor's, too");
    fs::create_directories(web / "Notes/deep");
    write(web / "Notes/deep/file", "deep");
    fs::create_symlink("nowhere", web / "Link");
    ASSERT_EQ(::mkfifo((web / "Fifo").c_str(), 0600), 0);
    EXPECT_EQ(storage().find(id("web"))->revision, revision) << "it is no part of the record";

    storage().put(record("web", "2"), revision);
    EXPECT_THAT(listDirectory(web), ElementsAre(".meta.json.swp", "Fifo", "Link", "Notes", "README", "env", "env~",
                                                "meta.json", "vm.json"));
    EXPECT_EQ(slurp(web / "README"), "by hand");
    EXPECT_EQ(slurp(web / "Notes/deep/file"), "deep");
    EXPECT_EQ(fs::read_symlink(web / "Link"), "nowhere");
    EXPECT_EQ(storage().find(id("web"))->corrupt, "");
    EXPECT_THAT(names(), ElementsAre("web"));

    EXPECT_TRUE(storage().erase(id("web")));
    EXPECT_THAT(names(), IsEmpty()) << "erase takes the folder with all that is in it";
}

TEST_F(FilesStorageTest, EraseFollowsNoLink) {
    putNew(record("web"));
    fs::create_directory(host().root() / "outside");
    write(host().root() / "outside/file", "precious");
    fs::create_directory_symlink(host().root() / "outside", root() / "web/Out");
    EXPECT_TRUE(storage().erase(id("web")));
    EXPECT_EQ(slurp(host().root() / "outside/file"), "precious");
}

// What is no record
// ----------------------------------------------------------------------------------------------------

TEST_F(FilesStorageTest, WhatIsNoRecordFolderIsIgnoredAndLeftAlone) {
    putNew(record("web"));
    write(root() / "a-file", "x");
    write(root() / "README.md", "x");
    fs::create_directory(root() / ".git");
    fs::create_directory(root() / ".web.aside");
    fs::create_directory(root() / ".Web.01234567.aside");
    fs::create_directory(root() / ".web.0123456G.aside");
    fs::create_directory(root() / "Upper");
    fs::create_directory(root() / "-dash");
    fs::create_directory(root() / "lost+found");
    fs::create_directory_symlink("web", root() / "a-link");
    const auto before = names();
    start();
    EXPECT_EQ(names(), before);
    ASSERT_THAT(storage().list(std::nullopt, 1000), SizeIs(1));
    for (const char* const name : {"a-file", "a-link"}) {
        EXPECT_FALSE(storage().find(id(name))) << name;
        EXPECT_FALSE(storage().erase(id(name))) << name;
        const auto error = errorOf([&] { putNew(record(name)); });
        ASSERT_TRUE(error) << name;
        EXPECT_EQ(error->kind(), ErrorKind::AlreadyExists);
    }
    EXPECT_EQ(names(), before);
    std::vector<std::string> told;
    for (const auto& line : host().log().lines("storage.files.ignored")) told.push_back(line.fields.at("name"));
    EXPECT_THAT(told, ElementsAre("-dash", "README.md", "Upper", "a-file", "a-link", "lost+found"))
        << "a record that somebody hopes to see must not be ignored in silence";
}

// Corrupt records
// ------------------------------------------------------------------------------------------------------

class CorruptRecord : public FilesStorageTest {
protected:
    CorruptRecord() {
        for (const char* const name : {"a", "web", "z"}) putNew(record(name));
    }
    [[nodiscard]] fs::path folder() const { return root() / "web"; }

    /// The record is listed with a sentence that says `why`, hides no other, and can only be erased.
    void expectCorrupt(const std::string& why) {
        const std::string said = corruptionOf("web");
        EXPECT_THAT(said, HasSubstr(why));
        const auto all = storage().list(std::nullopt, 1000);
        ASSERT_THAT(all, SizeIs(3));
        EXPECT_EQ(all[0].corrupt, "");
        EXPECT_EQ(all[0].record.documents, record("a").documents);
        EXPECT_EQ(all[1].record.id.str(), "web");
        EXPECT_EQ(all[1].corrupt, said);
        EXPECT_EQ(all[2].corrupt, "");
        EXPECT_EQ(all[2].record.documents, record("z").documents);

        const auto taken = errorOf([&] { putNew(record("web")); });
        ASSERT_TRUE(taken);
        EXPECT_EQ(taken->kind(), ErrorKind::AlreadyExists);
        const auto conflict = errorOf([&] { storage().put(record("web"), all[1].revision); });
        ASSERT_TRUE(conflict);
        EXPECT_EQ(conflict->kind(), ErrorKind::Conflict);
        EXPECT_THAT(conflict->what(), HasSubstr(why));
        EXPECT_THAT(names(), ElementsAre("a", "web", "z"));
    }
    void expectErasable() {
        EXPECT_TRUE(storage().erase(id("web")));
        EXPECT_FALSE(storage().find(id("web")));
        EXPECT_THAT(names(), ElementsAre("a", "z"));
        putNew(record("web"));
    }
};

TEST_F(CorruptRecord, MetaThatIsMissing) {
    fs::remove(folder() / "meta.json");
    expectCorrupt("meta.json is missing");
    expectErasable();
    for (const char* const name : {"meta.json", "vm.json", "env"}) fs::remove(folder() / name);
    expectCorrupt("meta.json is missing");
    expectErasable();
}

TEST_F(CorruptRecord, MetaThatIsEmpty) {
    write(folder() / "meta.json", "");
    expectCorrupt("meta.json is empty");
    expectErasable();
}

TEST_F(CorruptRecord, MetaCutAtEveryByte) {
    const std::string whole = slurp(folder() / "meta.json");
    const std::size_t end = whole.find_last_of('}');
    for (std::size_t size = 0; size <= end; ++size) {
        write(folder() / "meta.json", whole.substr(0, size));
        SCOPED_TRACE(size);
        expectCorrupt("meta.json is ");
    }
    expectErasable();
}

TEST_F(CorruptRecord, NoBitFlipIsTakenForTheRecordOrEndsTheServer) {
    const auto before = storage().find(id("web"));
    for (const auto& [name, whole] : before->record.documents) {
        for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
            std::string flipped = whole;
            flipped[bit / 8] = static_cast<char>(static_cast<unsigned char>(flipped[bit / 8]) ^ (1U << (bit % 8)));
            write(folder() / name, flipped);
            const auto found = storage().find(id("web"));
            ASSERT_TRUE(found);
            if (found->corrupt.empty()) {
                EXPECT_NE(found->revision, before->revision) << name << " bit " << bit;
            }
        }
        write(folder() / name, whole);
    }
    EXPECT_EQ(storage().find(id("web"))->revision, before->revision);
}

TEST_F(CorruptRecord, JsonThatIsNotOneObject) {
    for (const char* const text : {"[]", "null", "{} {}", "{\"a\": 1, \"a\": 2}", "\xef\xbb\xbf", "{\"a\": }"}) {
        SCOPED_TRACE(text);
        write(folder() / "vm.json", text);
        expectCorrupt("vm.json is not one JSON object");
    }
    expectErasable();
}

TEST_F(CorruptRecord, DocumentsThatAreNotCleanText) {
    using namespace std::string_literals;
    for (const std::string& text : {"{\"a\": \"\xff\"}"s, "{}\0"s, "\0"s}) {
        write(folder() / "meta.json", text);
        expectCorrupt("meta.json is not UTF-8 text");
    }
    write(folder() / "meta.json", "{}");
    write(folder() / "env", "\xff");
    expectCorrupt("env is not UTF-8 text");
    expectErasable();
}

TEST_F(CorruptRecord, ADocumentBeyondTheLimit) {
    write(folder() / "meta.json", std::string(5U << 20U, ' ') + "{}");
    expectCorrupt("meta.json is larger than 1048576 bytes");
    // A sparse one of a terabyte must not be read either.
    fs::resize_file(folder() / "meta.json", std::uintmax_t{1} << 40U);
    expectCorrupt("meta.json is larger than 1048576 bytes");
    expectErasable();
}

TEST_F(CorruptRecord, DeeplyNestedJson) {
    write(folder() / "meta.json", "{\"a\": " + std::string(400'000, '[') + std::string(400'000, ']') + "}");
    expectCorrupt("meta.json is not one JSON object");
    expectErasable();
}

TEST_F(CorruptRecord, AFifoDoesNotHang) {
    fs::remove(folder() / "meta.json");
    ASSERT_EQ(::mkfifo((folder() / "meta.json").c_str(), 0640), 0);
    expectCorrupt("meta.json is a FIFO");
    expectErasable();
}

TEST_F(CorruptRecord, ALinkIsNotFollowed) {
    fs::rename(folder() / "meta.json", host().root() / "elsewhere.json");
    fs::create_symlink(host().root() / "elsewhere.json", folder() / "meta.json");
    expectCorrupt("meta.json is a symbolic link");
    fs::remove(folder() / "meta.json");
    fs::create_symlink("meta.json", folder() / "meta.json");
    expectCorrupt("meta.json is a symbolic link");
    expectErasable();
    EXPECT_TRUE(fs::exists(host().root() / "elsewhere.json"));
}

TEST_F(CorruptRecord, AFolderInTheDocumentsPlace) {
    fs::remove(folder() / "env");
    fs::create_directories(folder() / "env/deep");
    write(folder() / "env/deep/file", "x");
    expectCorrupt("env is a folder");
    expectErasable();
}

TEST_F(CorruptRecord, ASocketInTheDocumentsPlace) {
    fs::remove(folder() / "vm.json");
    const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_TRUE(socket);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = folder() / "vm.json";
    ASSERT_LT(path.size(), sizeof address.sun_path);
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    expectCorrupt("vm.json is a socket");
    expectErasable();
}

TEST_F(CorruptRecord, ADeviceInTheDocumentsPlaceIsNotOpened) {
    fs::remove(folder() / "vm.json");
    if (::mknod((folder() / "vm.json").c_str(), S_IFCHR | 0640, makedev(1, 5)) != 0) {
        ASSERT_EQ(errno, EPERM);
        GTEST_SKIP() << "needs the right to make a device (CAP_MKNOD)";
    }
    expectCorrupt("vm.json is a device");
    expectErasable();
}

TEST_F(CorruptRecord, AFolderOrDocumentThatEveryoneCanWrite) {
    fs::permissions(folder(), fs::perms(0777));
    expectCorrupt("the folder can be written by every user");
    EXPECT_THAT(storage().find(id("web"))->record.documents, IsEmpty()) << "what it says is not to be believed";
    fs::permissions(folder(), fs::perms(0750));
    fs::permissions(folder() / "vm.json", fs::perms(0642));
    expectCorrupt("vm.json can be written by every user");
    expectErasable();
}

TEST_F(CorruptRecord, AFolderOrDocumentOfAnotherUser) {
    if (::chown((folder() / "env").c_str(), 12345, static_cast<gid_t>(-1)) != 0) {
        ASSERT_EQ(errno, EPERM);
        GTEST_SKIP() << "needs the right to give a file away (CAP_CHOWN)";
    }
    expectCorrupt("env belongs to uid 12345, not to uid 0");
    ASSERT_EQ(::chown((folder() / "env").c_str(), 0, static_cast<gid_t>(-1)), 0);
    ASSERT_EQ(::chown(folder().c_str(), 12345, static_cast<gid_t>(-1)), 0);
    expectCorrupt("the folder belongs to uid 12345, not to uid 0");
    expectErasable();
}

TEST_F(CorruptRecord, AFileThatMayNotBeRead) {
    if (::geteuid() == 0) GTEST_SKIP() << "needs an ordinary user: root may read everything";
    fs::permissions(folder() / "meta.json", fs::perms(0000));
    expectCorrupt("meta.json: Permission denied");
    fs::permissions(folder(), fs::perms(0000));
    expectCorrupt("Permission denied");
    fs::permissions(folder(), fs::perms(0750));
    expectErasable();
}

TEST_F(CorruptRecord, HealthyDocumentsOfACorruptRecordAreGiven) {
    write(folder() / "vm.json", "");
    const auto found = storage().find(id("web"));
    EXPECT_EQ(found->record.documents.at("meta.json"), record("web").documents.at("meta.json"));
    EXPECT_FALSE(found->record.documents.contains("vm.json"));
}

TEST_F(CorruptRecord, IsHealthyAgainWhenTheCauseIsTakenAway) {
    const auto before = storage().find(id("web"));
    fs::rename(folder() / "meta.json", folder() / "Away");
    expectCorrupt("meta.json is missing");
    fs::rename(folder() / "Away", folder() / "meta.json");
    EXPECT_EQ(storage().find(id("web"))->corrupt, "");
    EXPECT_EQ(storage().find(id("web"))->revision, before->revision);
}

// start()
// --------------------------------------------------------------------------------------------------------------

TEST_F(FilesStorageTest, ASecondServerOnTheSameFolderIsRefused) {
    FilesStorage second;
    second.configure(host());
    const auto error = errorOf([&] { second.start(); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::FailedPrecondition);
    EXPECT_THAT(error->what(), AllOf(HasSubstr("another process"), HasSubstr(root().string())));
    storage().stop();
    EXPECT_NO_THROW(second.start());
}

TEST_F(FilesStorageTest, StartRefusesAFolderThatEveryoneCanWrite) {
    fs::permissions(root(), fs::perms(0777));
    stop();
    const auto error = errorOf([&] { start(); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::FailedPrecondition);
    EXPECT_THAT(error->what(), HasSubstr("can be written by every user"));
}

TEST_F(FilesStorageTest, StartWithoutFolderIsAClearError) {
    stop();
    fs::remove(root());
    const auto error = errorOf([&] { start(); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::Unavailable);
    EXPECT_THAT(error->what(), HasSubstr(root().string()));
}

TEST_F(FilesStorageTest, AFolderThatIsGoneIsAnErrorAndNotAnEmptyList) {
    putNew(record("web"));
    fs::remove_all(root());
    EXPECT_FALSE(storage().health().ok);
    for (const std::function<void()>& action : std::vector<std::function<void()>>{
             [&] { static_cast<void>(storage().list(std::nullopt, 1)); },
             [&] { static_cast<void>(storage().find(id("web"))); }, [&] { storage().erase(id("web")); },
             [&] { putNew(record("db")); }, [&] { storage().put(record("web"), Revision{1}); }}) {
        const auto error = errorOf(action);
        ASSERT_TRUE(error);
        EXPECT_EQ(error->kind(), ErrorKind::Unavailable) << error->what();
    }
}

TEST_F(FilesStorageTest, ConfigureRefusesLimitsOutOfBounds) {
    for (const char* const value : {"4095", "16777217"}) {
        test::TestHost other(FilesStorage::keys, {{"document_limit", value}});
        FilesStorage storage;
        const auto error = errorOf([&] { storage.configure(other); });
        ASSERT_TRUE(error) << value;
        EXPECT_EQ(error->kind(), ErrorKind::InvalidArgument);
        EXPECT_THAT(error->what(), HasSubstr("document_limit"));
    }
}

TEST_F(FilesStorageTest, TheLimitOfTheSettingsIsTheLimit) {
    test::TestHost other(FilesStorage::keys, {{"document_limit", "4KiB"}});
    FilesStorage storage;
    storage.configure(other);
    storage.start();
    EXPECT_EQ(storage.traits().documentLimit, 4096U);
    EXPECT_TRUE(storage.traits().durable);
    Record web = record("web");
    web.documents["env"] = std::string(4097, 'x');
    EXPECT_EQ(errorOf([&] { storage.put(web, std::nullopt); })->kind(), ErrorKind::InvalidArgument);
}

}  // namespace

}  // namespace mergen::storage
