#include "storage_contract.hpp"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <filesystem>
#include <future>
#include <latch>
#include <map>
#include <set>
#include <stdexcept>
#include <string_view>

namespace mergen {

namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

using Documents = std::map<std::string, std::string, std::less<>>;

RecordId id(std::string_view text) {
    return RecordId::parse(text);
}

/// A record whose documents all bear `mark`.
Record record(std::string_view name, std::string_view mark = "1") {
    const std::string text(mark);
    return {id(name), {{"meta.json", "{\"mark\": \"" + text + "\"}\n"}, {"env", "MARK='" + text + "'\n"}}};
}

/// Everything below `folder` with its size, to tell whether something was touched.
std::set<std::string> treeOf(const std::filesystem::path& folder) {
    std::set<std::string> found;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
        const std::string size = entry.is_regular_file() ? std::to_string(entry.file_size()) : "";
        found.insert(entry.path().string() + " " + size);
    }
    return found;
}

/// Runs `work(0)` ... `work(count - 1)` at once and gives their results; an exception of one is thrown here.
template <typename Work>
auto inParallel(int count, const Work& work) {
    std::latch ready(count);
    std::vector<std::future<decltype(work(0))>> running;
    running.reserve(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) {
        running.push_back(std::async(std::launch::async, [&ready, &work, i] {
            ready.arrive_and_wait();
            return work(i);
        }));
    }
    std::vector<decltype(work(0))> results;
    for (auto& one : running) one.wait();  // all of them, before an exception takes `work` away
    for (auto& one : running) results.push_back(one.get());
    return results;
}

}  // namespace

StorageContract::StorageContract() : host_(GetParam().keys, GetParam().settings, GetParam().libexec), storage_(make()) {
    storage_->configure(host_);
    storage_->start();
}

StorageContract::~StorageContract() {
    storage_->stop();
}

void StorageContract::restart() {
    storage_->stop();
    storage_ = make();
    storage_->configure(host_);
    storage_->start();
}

std::vector<std::string> StorageContract::ids(std::size_t pageSize) {
    std::vector<std::string> found;
    std::optional<RecordId> after;
    for (;;) {
        const std::vector<StoredRecord> page = storage().list(after, pageSize);
        EXPECT_LE(page.size(), pageSize);
        for (const StoredRecord& one : page) found.push_back(one.record.id.str());
        if (page.size() < pageSize) return found;
        after = page.back().record.id;
    }
}

std::optional<ErrorKind> StorageContract::kindOf(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        EXPECT_STRNE(error.what(), "");
        return error.kind();
    }
    ADD_FAILURE() << "nothing was thrown";
    return std::nullopt;
}

// Life
// -----------------------------------------------------------------------------------------------------------------

TEST_P(StorageContract, ConfigureTouchesNothing) {
    const auto before = treeOf(host().root());
    const auto other = make();
    other->configure(host());
    EXPECT_EQ(treeOf(host().root()), before);
}

TEST_P(StorageContract, StopMayComeWithoutStartAndTwice) {
    const auto unconfigured = make();
    unconfigured->stop();
    const auto configured = make();
    configured->configure(host());
    configured->stop();
    configured->stop();
    storage().stop();
    storage().stop();
}

TEST_P(StorageContract, AStartedBackendIsHealthyAndEmpty) {
    const Health health = storage().health();
    EXPECT_TRUE(health.ok) << health.detail;
    EXPECT_THAT(storage().list(std::nullopt, 1000), IsEmpty());
}

TEST_P(StorageContract, TraitsAreConstantAndLeaveRoomForDocuments) {
    const StorageTraits before = storage().traits();
    EXPECT_GE(before.documentLimit, 64U << 10U);
    static_cast<void>(storage().put(record("web"), std::nullopt));
    EXPECT_EQ(storage().traits().durable, before.durable);
    EXPECT_EQ(storage().traits().documentLimit, before.documentLimit);
}

TEST_P(StorageContract, RecordsSurviveARestartExactlyIfDurable) {
    const Record web = record("web");
    const Revision revision = storage().put(web, std::nullopt);
    restart();
    const auto found = storage().find(web.id);
    ASSERT_EQ(found.has_value(), storage().traits().durable);
    if (!found) return;
    EXPECT_EQ(found->record.documents, web.documents);
    EXPECT_EQ(found->corrupt, "");
    EXPECT_EQ(found->revision, revision);
    EXPECT_NO_THROW(static_cast<void>(storage().put(record("web", "2"), revision)))
        << "a revision of the server's former life is still good";
}

TEST_P(StorageContract, AnEraseSurvivesARestart) {
    static_cast<void>(storage().put(record("web"), std::nullopt));
    EXPECT_TRUE(storage().erase(id("web")));
    restart();
    EXPECT_FALSE(storage().find(id("web"))) << "an erased record came back";
}

TEST_P(StorageContract, ARestartLeavesNothingButRecords) {
    static_cast<void>(storage().put(record("web"), std::nullopt));
    const auto before = treeOf(host().root());
    restart();
    EXPECT_EQ(treeOf(host().root()), before);
}

// put: a new record
// ----------------------------------------------------------------------------------------------------

TEST_P(StorageContract, PutThenFindGivesTheSameRecord) {
    const Record web = record("web");
    static_cast<void>(storage().put(web, std::nullopt));
    const auto found = storage().find(web.id);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->record.id, web.id);
    EXPECT_EQ(found->record.documents, web.documents);
    EXPECT_EQ(found->corrupt, "");
}

TEST_P(StorageContract, PutGivesTheRevisionThatFindAndListGive) {
    const Revision revision = storage().put(record("web"), std::nullopt);
    EXPECT_EQ(storage().find(id("web"))->revision, revision);
    EXPECT_EQ(storage().find(id("web"))->revision, revision) << "reading changes no revision";
    EXPECT_EQ(storage().list(std::nullopt, 1).at(0).revision, revision);
}

TEST_P(StorageContract, PutOfATakenIdIsAlreadyExistsAndChangesNothing) {
    const Revision revision = storage().put(record("web", "first"), std::nullopt);
    EXPECT_EQ(kindOf([&] { static_cast<void>(storage().put(record("web", "second"), std::nullopt)); }),
              ErrorKind::AlreadyExists);
    const auto found = storage().find(id("web"));
    ASSERT_TRUE(found);
    EXPECT_EQ(found->record.documents, record("web", "first").documents);
    EXPECT_EQ(found->revision, revision);
}

TEST_P(StorageContract, DocumentsAreKeptToTheByte) {
    Record web = record("web");
    web.documents["vm.json"] = " {\r\n\t\"z\" : 1.50 ,\"a\":\"\\u00e4\"}  ";
    web.documents["env"] = "\r\nA='\xc3\xa4 \xf0\x9f\x9a\x80'\n\n\x01\x7f";
    web.documents["empty"] = "";
    web.documents["no-newline"] = "x";
    static_cast<void>(storage().put(web, std::nullopt));
    EXPECT_EQ(storage().find(web.id)->record.documents, web.documents);
}

TEST_P(StorageContract, PutTakesIdsOfEveryShape) {
    const std::vector<std::string> shapes = {"0",    "a",    std::string(63, 'z'),
                                             "web-", "a--b", "7f3a9c01-2b4d-4e6f-8a1b-0c2d3e4f5a6b"};
    for (const std::string& shape : shapes) static_cast<void>(storage().put(record(shape, shape), std::nullopt));
    for (const std::string& shape : shapes) {
        const auto found = storage().find(id(shape));
        ASSERT_TRUE(found) << shape;
        EXPECT_EQ(found->record.documents, record(shape, shape).documents);
    }
}

TEST_P(StorageContract, PutTakesDocumentNamesOfEveryAllowedShape) {
    Record web = record("web");
    for (const std::string& name : {std::string("a"), std::string(64, 'a'), std::string("a..b"), std::string("z-_.9"),
                                    std::string("meta.json2"), std::string("meta")}) {
        web.documents[name] = "text of " + name;
    }
    static_cast<void>(storage().put(web, std::nullopt));
    EXPECT_EQ(storage().find(web.id)->record.documents, web.documents);
}

TEST_P(StorageContract, PutRefusesEveryOtherDocumentName) {
    using namespace std::string_literals;
    for (const std::string& name :
         {""s, "."s, ".."s, ".hidden"s, "-a"s, "_a"s, "1a"s, "A"s, "metA.json"s, "a/b"s, "../meta.json"s,
          "/etc/passwd"s, "a b"s, "a\n"s, "a\0b"s, "\xc3\xa4"s, "a\xc3\xa4"s, std::string(65, 'a')}) {
        Record web = record("web");
        web.documents[name] = "x";
        EXPECT_EQ(kindOf([&] { static_cast<void>(storage().put(web, std::nullopt)); }), ErrorKind::InvalidArgument)
            << ::testing::PrintToString(name);
    }
    EXPECT_THAT(ids(), IsEmpty());
}

TEST_P(StorageContract, PutRefusesARecordWithoutMetaDocument) {
    const Record web{id("web"), {{"vm.json", "{}"}, {"meta", "{}"}}};
    EXPECT_EQ(kindOf([&] { static_cast<void>(storage().put(web, std::nullopt)); }), ErrorKind::InvalidArgument);
    EXPECT_EQ(kindOf([&] {
                  static_cast<void>(storage().put({id("web"), {}}, std::nullopt));
              }),
              ErrorKind::InvalidArgument);
    EXPECT_THAT(ids(), IsEmpty());
}

TEST_P(StorageContract, PutTakesADocumentOfTheLimitAndRefusesOneByteMore) {
    Record web = record("web");
    web.documents["env"] = std::string(storage().traits().documentLimit, 'x');
    const Revision revision = storage().put(web, std::nullopt);
    EXPECT_EQ(storage().find(web.id)->record.documents, web.documents);

    Record larger = web;
    larger.documents["env"] += 'x';
    EXPECT_EQ(kindOf([&] { static_cast<void>(storage().put(larger, revision)); }), ErrorKind::InvalidArgument);
    larger.id = id("other");
    EXPECT_EQ(kindOf([&] { static_cast<void>(storage().put(larger, std::nullopt)); }), ErrorKind::InvalidArgument);
    EXPECT_THAT(ids(), ElementsAre("web"));
    EXPECT_EQ(storage().find(web.id)->record.documents, web.documents);
}

TEST_P(StorageContract, PutRefusesJsonDocumentsThatAreNotOneObject) {
    for (const char* const text :
         {"", " ", "{", "[]", "1", "null", "\"text\"", "{} {}", "{}x", "{\"a\":1,\"a\":2}", "{'a':1}", "{\"a\":}"}) {
        for (const char* const name : {"meta.json", "hooks.json"}) {
            Record web = record("web");
            web.documents[name] = text;
            EXPECT_EQ(kindOf([&] { static_cast<void>(storage().put(web, std::nullopt)); }), ErrorKind::InvalidArgument)
                << name << ": " << text;
        }
    }
    EXPECT_THAT(ids(), IsEmpty());
}

TEST_P(StorageContract, PutRefusesDocumentsThatAreNotCleanText) {
    using namespace std::string_literals;
    for (const std::string& text : {"a\0b"s, "\0"s, "\xff"s, "\xc3"s, "\xed\xa0\x80"s, "\xc0\xaf"s}) {
        Record web = record("web");
        web.documents["env"] = text;
        EXPECT_EQ(kindOf([&] { static_cast<void>(storage().put(web, std::nullopt)); }), ErrorKind::InvalidArgument)
            << ::testing::PrintToString(text);
    }
    EXPECT_THAT(ids(), IsEmpty());
}

TEST_P(StorageContract, ArgumentsAreOnlyBorrowed) {
    Record web = record("web");
    const Documents before = web.documents;
    static_cast<void>(storage().put(web, std::nullopt));
    for (auto& [name, content] : web.documents) std::ranges::fill(content, '!');
    EXPECT_EQ(storage().find(web.id)->record.documents, before);
    auto mine = storage().find(web.id);
    mine->record.documents.clear();
    EXPECT_EQ(storage().find(web.id)->record.documents, before) << "results belong to the caller";
}

// put: a replacement
// ---------------------------------------------------------------------------------------------------

TEST_P(StorageContract, PutWithTheCurrentRevisionReplacesTheWholeRecord) {
    const Revision first = storage().put(record("web", "1"), std::nullopt);
    const Revision second = storage().put(record("web", "2"), first);
    EXPECT_NE(first, second);
    const auto found = storage().find(id("web"));
    EXPECT_EQ(found->record.documents, record("web", "2").documents);
    EXPECT_EQ(found->revision, second);
    EXPECT_THAT(ids(), ElementsAre("web"));
}

TEST_P(StorageContract, PutWithStaleRevisionChangesNothing) {
    const Revision first = storage().put(record("web", "1"), std::nullopt);
    const Revision second = storage().put(record("web", "2"), first);
    EXPECT_EQ(kindOf([&] { static_cast<void>(storage().put(record("web", "3"), first)); }), ErrorKind::Conflict);
    const auto found = storage().find(id("web"));
    EXPECT_EQ(found->record.documents, record("web", "2").documents);
    EXPECT_EQ(found->revision, second);
}

TEST_P(StorageContract, PutWithARevisionOfAnotherRecordIsConflict) {
    static_cast<void>(storage().put(record("web", "1"), std::nullopt));
    const Revision other = storage().put(record("db", "2"), std::nullopt);
    EXPECT_EQ(kindOf([&] { static_cast<void>(storage().put(record("web", "3"), other)); }), ErrorKind::Conflict);
    EXPECT_EQ(storage().find(id("web"))->record.documents, record("web", "1").documents);
}

TEST_P(StorageContract, PutWithARevisionOfAnUnknownIdIsNotFoundAndMakesNothing) {
    const Revision revision = storage().put(record("web"), std::nullopt);
    EXPECT_EQ(kindOf([&] { static_cast<void>(storage().put(record("db"), revision)); }), ErrorKind::NotFound);
    EXPECT_EQ(kindOf([&] { static_cast<void>(storage().put(record("db"), Revision{})); }), ErrorKind::NotFound);
    EXPECT_THAT(ids(), ElementsAre("web"));
}

TEST_P(StorageContract, PutWithTheRevisionOfAnErasedRecordIsNotFound) {
    const Revision revision = storage().put(record("web"), std::nullopt);
    EXPECT_TRUE(storage().erase(id("web")));
    EXPECT_EQ(kindOf([&] { static_cast<void>(storage().put(record("web"), revision)); }), ErrorKind::NotFound);
    EXPECT_THAT(ids(), IsEmpty());
}

TEST_P(StorageContract, AReplacementDropsDocumentsThatItLacksAndAddsNewOnes) {
    Record web = record("web");
    web.documents["hooks.json"] = "{}";
    const Revision first = storage().put(web, std::nullopt);
    web.documents.erase("hooks.json");
    web.documents["vm.json"] = "{\"drives\": []}";
    static_cast<void>(storage().put(web, first));
    EXPECT_EQ(storage().find(web.id)->record.documents, web.documents);
}

TEST_P(StorageContract, AReplacementMayChangeOneDocumentAtATime) {
    Record web = record("web");
    Revision revision = storage().put(web, std::nullopt);
    for (int i = 0; i < 5; ++i) {
        web.documents[i % 2 == 0 ? "env" : "vm.json"] = "{\"round\": " + std::to_string(i) + "}";
        revision = storage().put(web, revision);
        EXPECT_EQ(storage().find(web.id)->record.documents, web.documents);
    }
}

TEST_P(StorageContract, ARefusedReplacementKeepsRecordAndRevision) {
    const Revision revision = storage().put(record("web"), std::nullopt);
    Record bad = record("web", "2");
    bad.documents["meta.json"] = "no JSON";
    EXPECT_EQ(kindOf([&] { static_cast<void>(storage().put(bad, revision)); }), ErrorKind::InvalidArgument);
    bad.documents.erase("meta.json");
    EXPECT_EQ(kindOf([&] { static_cast<void>(storage().put(bad, revision)); }), ErrorKind::InvalidArgument);
    const auto found = storage().find(id("web"));
    EXPECT_EQ(found->record.documents, record("web").documents);
    EXPECT_EQ(found->revision, revision);
}

TEST_P(StorageContract, TheRevisionThatPutGivesIsGoodForTheNextPut) {
    Revision revision = storage().put(record("web", "0"), std::nullopt);
    for (int i = 1; i <= 10; ++i) revision = storage().put(record("web", std::to_string(i)), revision);
    EXPECT_EQ(storage().find(id("web"))->record.documents, record("web", "10").documents);
    revision = storage().put(record("web", "10"), revision);
    EXPECT_EQ(storage().find(id("web"))->revision, revision) << "equal documents may be put again";
}

TEST_P(StorageContract, EqualRevisionsMeanEqualDocuments) {
    // Every pair differs, some by where a byte stands alone.
    const std::vector<Documents> all = {
        {{"meta.json", "{}"}},
        {{"meta.json", "{ }"}},
        {{"meta.json", "{}"}, {"a", ""}},
        {{"meta.json", "{}"}, {"b", ""}},
        {{"meta.json", "{}"}, {"a", "b"}},
        {{"meta.json", "{}"}, {"a", ""}, {"b", ""}},
        {{"meta.json", "{}"}, {"ab", ""}},
        {{"meta.json", "{}"}, {"a", "x"}, {"b", "y"}},
        {{"meta.json", "{}"}, {"a", "xy"}, {"b", ""}},
        {{"meta.json", "{}"}, {"a", ""}, {"b", "xy"}},
        {{"meta.json", "{}"}, {"a", "y"}, {"b", "x"}},
    };
    std::map<Revision, Documents> seen;
    std::optional<Revision> last;
    for (int round = 0; round < 2; ++round) {
        for (const Documents& documents : all) {
            last = storage().put({id("web"), documents}, last);
            const auto [entry, isNew] = seen.try_emplace(*last, documents);
            EXPECT_EQ(entry->second, documents) << "one revision for two states";
        }
    }
}

// find
// -----------------------------------------------------------------------------------------------------------------

TEST_P(StorageContract, FindOfAnUnknownIdIsNothing) {
    static_cast<void>(storage().put(record("web-1"), std::nullopt));
    EXPECT_FALSE(storage().find(id("web")));
    EXPECT_FALSE(storage().find(id("web-1-")));
    EXPECT_FALSE(storage().find(id("web-")));
    EXPECT_TRUE(storage().find(id("web-1")));
}

// list
// -----------------------------------------------------------------------------------------------------------------

TEST_P(StorageContract, ListIsInAscendingByteOrderOfId) {
    for (const char* const name : {"b", "a-1", "a", "10", "9", "ab", "a1", "a-"}) {
        static_cast<void>(storage().put(record(name), std::nullopt));
    }
    EXPECT_THAT(ids(), ElementsAre("10", "9", "a", "a-", "a-1", "a1", "ab", "b"));
}

TEST_P(StorageContract, ListGivesWholeRecords) {
    for (const char* const name : {"a", "b", "c"}) static_cast<void>(storage().put(record(name, name), std::nullopt));
    for (const StoredRecord& one : storage().list(std::nullopt, 1000)) {
        const auto found = storage().find(one.record.id);
        ASSERT_TRUE(found);
        EXPECT_EQ(one.record.documents, found->record.documents);
        EXPECT_EQ(one.revision, found->revision);
        EXPECT_EQ(one.corrupt, "");
    }
}

TEST_P(StorageContract, ListLimitIsOneToAThousand) {
    static_cast<void>(storage().put(record("web"), std::nullopt));
    EXPECT_EQ(storage().list(std::nullopt, 1).size(), 1U);
    EXPECT_EQ(storage().list(std::nullopt, 1000).size(), 1U);
    for (const std::size_t limit : {std::size_t{0}, std::size_t{1001}, static_cast<std::size_t>(-1)}) {
        EXPECT_EQ(kindOf([&] { static_cast<void>(storage().list(std::nullopt, limit)); }), ErrorKind::InvalidArgument)
            << limit;
    }
}

TEST_P(StorageContract, ListGivesNoMoreThanItsLimit) {
    for (const char* const name : {"a", "b", "c"}) static_cast<void>(storage().put(record(name), std::nullopt));
    EXPECT_EQ(storage().list(std::nullopt, 2).size(), 2U);
    EXPECT_EQ(storage().list(std::nullopt, 3).size(), 3U);
    EXPECT_EQ(storage().list(std::nullopt, 4).size(), 3U);
}

TEST_P(StorageContract, ListAfterGivesOnlyGreaterIds) {
    for (const char* const name : {"b", "d", "f"}) static_cast<void>(storage().put(record(name), std::nullopt));
    const auto after = [&](const char* name) {
        std::string found;
        for (const StoredRecord& one : storage().list(id(name), 1000)) found += one.record.id.str();
        return found;
    };
    EXPECT_EQ(after("a"), "bdf");
    EXPECT_EQ(after("b"), "df");
    EXPECT_EQ(after("c"), "df") << "'after' need not be a record";
    EXPECT_EQ(after("d"), "f");
    EXPECT_EQ(after("f"), "");
    EXPECT_EQ(after("z"), "");
}

TEST_P(StorageContract, PagesOfEverySizeGiveEveryRecordOnce) {
    std::vector<std::string> all;
    for (int i = 10; i < 33; ++i) {
        all.push_back("vm-" + std::to_string(i));
        static_cast<void>(storage().put(record(all.back()), std::nullopt));
    }
    for (const std::size_t size : {1U, 2U, 7U, 22U, 23U, 24U, 1000U}) EXPECT_EQ(ids(size), all) << size;
}

TEST_P(StorageContract, PagesStandWhenRecordsComeAndGoInBetween) {
    for (const char* const name : {"a", "b", "c", "d"}) static_cast<void>(storage().put(record(name), std::nullopt));
    const auto first = storage().list(std::nullopt, 2);
    ASSERT_EQ(first.back().record.id, id("b"));
    EXPECT_TRUE(storage().erase(id("b")));
    static_cast<void>(storage().put(record("aa"), std::nullopt));
    static_cast<void>(storage().put(record("bb"), std::nullopt));
    std::vector<std::string> second;
    for (const StoredRecord& one : storage().list(id("b"), 1000)) second.push_back(one.record.id.str());
    EXPECT_THAT(second, ElementsAre("bb", "c", "d"));
}

// erase
// ----------------------------------------------------------------------------------------------------------------

TEST_P(StorageContract, EraseRemovesTheRecordAndNoOther) {
    for (const char* const name : {"web", "web-1", "we"}) static_cast<void>(storage().put(record(name), std::nullopt));
    EXPECT_TRUE(storage().erase(id("web")));
    EXPECT_FALSE(storage().find(id("web")));
    EXPECT_THAT(ids(), ElementsAre("we", "web-1"));
    EXPECT_EQ(storage().find(id("web-1"))->record.documents, record("web-1").documents);
}

TEST_P(StorageContract, ARepeatedEraseIsFalse) {
    EXPECT_FALSE(storage().erase(id("web")));
    static_cast<void>(storage().put(record("web"), std::nullopt));
    EXPECT_TRUE(storage().erase(id("web")));
    EXPECT_FALSE(storage().erase(id("web")));
}

TEST_P(StorageContract, AnErasedIdCanBeUsedAgain) {
    for (int i = 0; i < 3; ++i) {
        const std::string mark = std::to_string(i);
        static_cast<void>(storage().put(record("web", mark), std::nullopt));
        EXPECT_EQ(storage().find(id("web"))->record.documents, record("web", mark).documents);
        EXPECT_TRUE(storage().erase(id("web")));
    }
}

// Threads
// --------------------------------------------------------------------------------------------------------------

TEST_P(StorageContract, PutsOfManyIdsFromManyThreadsAllArrive) {
    constexpr int threads = 8;
    constexpr int each = 12;
    const auto name = [](int thread, int i) { return "vm-" + std::to_string(thread) + "-" + std::to_string(i); };
    const auto revisions = inParallel(threads, [&](int thread) {
        std::vector<Revision> mine;
        for (int i = 0; i < each; ++i) {
            const Revision first = storage().put(record(name(thread, i), "old"), std::nullopt);
            mine.push_back(storage().put(record(name(thread, i), name(thread, i)), first));
        }
        return mine;
    });
    EXPECT_EQ(ids(10).size(), static_cast<std::size_t>(threads * each));
    for (int thread = 0; thread < threads; ++thread) {
        for (int i = 0; i < each; ++i) {
            const auto found = storage().find(id(name(thread, i)));
            ASSERT_TRUE(found) << name(thread, i);
            EXPECT_EQ(found->record.documents, record(name(thread, i), name(thread, i)).documents);
            EXPECT_EQ(found->revision, revisions.at(static_cast<std::size_t>(thread)).at(static_cast<std::size_t>(i)));
        }
    }
}

TEST_P(StorageContract, OfManyPutsOfOneNewIdExactlyOneWins) {
    for (int round = 0; round < 10; ++round) {
        const std::string name = "vm-" + std::to_string(round);
        const auto won = inParallel(6, [&](int thread) {
            try {
                static_cast<void>(storage().put(record(name, std::to_string(thread)), std::nullopt));
                return true;
            } catch (const Error& error) {
                EXPECT_EQ(error.kind(), ErrorKind::AlreadyExists) << error.what();
                return false;
            }
        });
        ASSERT_EQ(std::ranges::count(won, true), 1);
        const auto winner = std::ranges::find(won, true) - won.begin();
        EXPECT_EQ(storage().find(id(name))->record.documents, record(name, std::to_string(winner)).documents);
    }
}

TEST_P(StorageContract, OfManyPutsWithOneRevisionExactlyOneWins) {
    Revision revision = storage().put(record("web", "start"), std::nullopt);
    for (int round = 0; round < 10; ++round) {
        const auto mark = [&](std::ptrdiff_t thread) { return std::to_string(round) + "." + std::to_string(thread); };
        const auto won = inParallel(6, [&](int thread) -> std::optional<Revision> {
            try {
                return storage().put(record("web", mark(thread)), revision);
            } catch (const Error& error) {
                EXPECT_EQ(error.kind(), ErrorKind::Conflict) << error.what();
                return std::nullopt;
            }
        });
        ASSERT_EQ(std::ranges::count_if(won, [](const auto& one) { return one.has_value(); }), 1);
        const auto winner = std::ranges::find_if(won, [](const auto& one) { return one.has_value(); });
        const auto found = storage().find(id("web"));
        EXPECT_EQ(found->record.documents, record("web", mark(winner - won.begin())).documents);
        EXPECT_EQ(found->revision, **winner);
        revision = found->revision;
    }
}

TEST_P(StorageContract, NoUpdateIsLostWhenWritersRetryOnConflict) {
    constexpr int threads = 4;
    constexpr std::size_t each = 10;
    const auto withCount = [](std::size_t count) {
        return Record{id("web"), {{"meta.json", "{}"}, {"count", std::string(count, '+')}}};
    };
    static_cast<void>(storage().put(withCount(0), std::nullopt));
    inParallel(threads, [&](int) {
        for (std::size_t done = 0; done < each;) {
            const auto now = storage().find(id("web"));
            try {
                static_cast<void>(
                    storage().put(withCount(now->record.documents.at("count").size() + 1), now->revision));
                ++done;
            } catch (const Error& error) {
                if (error.kind() != ErrorKind::Conflict) throw;
            }
        }
        return true;
    });
    EXPECT_EQ(storage().find(id("web"))->record.documents.at("count").size(), threads * each);
}

TEST_P(StorageContract, AReaderSeesWholeRecordsWhileTheyAreReplaced) {
    Revision revision = storage().put(record("web", "0"), std::nullopt);
    std::atomic<bool> ended{false};
    inParallel(3, [&](int thread) {
        if (thread == 0) {
            for (int i = 1; i <= 60; ++i) revision = storage().put(record("web", std::to_string(i)), revision);
            ended = true;
            return true;
        }
        do {
            const auto found = thread == 1 ? storage().find(id("web")) : storage().list(std::nullopt, 1).at(0);
            if (!found) throw std::runtime_error("the record was away");
            const std::string& env = found->record.documents.at("env");
            const std::string mark = env.substr(6, env.size() - 8);
            EXPECT_EQ(found->corrupt, "");
            EXPECT_EQ(found->record.documents, record("web", mark).documents) << "parts of two states";
        } while (!ended);
        return true;
    });
}

TEST_P(StorageContract, AListNeverLacksARecordThatIsThereAllTheTime) {
    for (const char* const name : {"a", "m", "z"}) static_cast<void>(storage().put(record(name), std::nullopt));
    std::atomic<bool> ended{false};
    inParallel(2, [&](int thread) {
        if (thread == 0) {
            for (int i = 0; i < 30; ++i) {
                const std::string name = "n-" + std::to_string(i % 3);
                static_cast<void>(storage().put(record(name), std::nullopt));
                EXPECT_TRUE(storage().erase(id(name)));
            }
            ended = true;
            return true;
        }
        do {
            const std::vector<std::string> found = ids(2);
            for (const char* const name : {"a", "m", "z"}) EXPECT_THAT(found, Contains(name));
            EXPECT_TRUE(std::ranges::is_sorted(found));
        } while (!ended);
        return true;
    });
    EXPECT_THAT(ids(), ElementsAre("a", "m", "z"));
}

TEST_P(StorageContract, OfManyErasesOfOneRecordExactlyOneIsTrue) {
    for (int round = 0; round < 10; ++round) {
        static_cast<void>(storage().put(record("web"), std::nullopt));
        const auto erased = inParallel(6, [&](int) { return storage().erase(id("web")); });
        EXPECT_EQ(std::ranges::count(erased, true), 1);
        EXPECT_FALSE(storage().find(id("web")));
    }
}

TEST_P(StorageContract, PutAndEraseOfOneIdLeaveAWholeRecordOrNone) {
    for (int round = 0; round < 10; ++round) {
        const Revision revision = storage().put(record("web", "old"), std::nullopt);
        const auto done = inParallel(2, [&](int thread) {
            if (thread == 0) return storage().erase(id("web"));
            try {
                static_cast<void>(storage().put(record("web", "new"), revision));
                return true;
            } catch (const Error& error) {
                EXPECT_EQ(error.kind(), ErrorKind::NotFound) << error.what();
                return false;
            }
        });
        EXPECT_TRUE(done.at(0)) << "there was a record all the time";
        EXPECT_FALSE(storage().find(id("web")));
        EXPECT_THAT(ids(), Not(Contains("web")));
    }
}

}  // namespace mergen
