#include <gtest/gtest.h>

#include <mergen/server/ini.hpp>

namespace mergen::server {
namespace {

const Origin file{Origin::Kind::File, "f.ini", 0, 1};

std::vector<std::string> describeAll(std::string_view text) {
    Problems problems;
    static_cast<void>(parseIni(text, file, problems));
    std::vector<std::string> lines;
    for (const Problem& problem : problems) lines.push_back(describe(problem));
    return lines;
}

TEST(Ini, KeepsSectionsKeysValuesAndLines) {
    Problems problems;
    const auto sections =
        parseIni("# head\n\n[server]\n  listen =  :80 \r\n;x\nthreads=4\n[storage.files]\n", file, problems);
    EXPECT_TRUE(problems.empty());
    ASSERT_EQ(sections.size(), 2U);
    EXPECT_EQ(sections[0].name, "server");
    EXPECT_EQ(sections[0].origin.line, 3U);
    ASSERT_EQ(sections[0].entries.size(), 2U);
    EXPECT_EQ(sections[0].entries[0].key, "listen");
    EXPECT_EQ(sections[0].entries[0].value, ":80");
    EXPECT_EQ(sections[0].entries[0].origin.line, 4U);
    EXPECT_EQ(sections[0].entries[1].origin.line, 6U);
    EXPECT_EQ(sections[1].name, "storage.files");
    EXPECT_TRUE(sections[1].entries.empty());
}

TEST(Ini, AnEmptyTextHasNoSections) {
    Problems problems;
    EXPECT_TRUE(parseIni("", file, problems).empty());
    EXPECT_TRUE(parseIni("\xef\xbb\xbf# a byte order mark\n", file, problems).empty());
    EXPECT_TRUE(problems.empty());
}

TEST(Ini, AValueKeepsEverythingThatFollowsTheFirstEqualsSign) {
    Problems problems;
    const auto sections = parseIni("[a]\nb = c=d # e ; ${f} \"g\"\nempty =\n", file, problems);
    ASSERT_TRUE(problems.empty());
    EXPECT_EQ(sections[0].entries[0].value, "c=d # e ; ${f} \"g\"");
    EXPECT_EQ(sections[0].entries[1].value, "");
}

struct Refused {
    const char* name;
    std::string text;
    std::vector<std::string> problems;
};

class IniRefuses : public testing::TestWithParam<Refused> {};

TEST_P(IniRefuses, WithLineAndReason) {
    EXPECT_EQ(describeAll(GetParam().text), GetParam().problems);
}

INSTANTIATE_TEST_SUITE_P(
    All, IniRefuses,
    testing::Values(
        Refused{"MissingEquals",
                "[server]\nlisten :80\n",
                {"f.ini:2: server: 'listen :80' lacks '=': a line is 'key = value', a [section] or a comment"}},
        Refused{"DuplicateKey",
                "[server]\nthreads = 1\n\nthreads = 1\n",
                {"f.ini:4: server.threads: the key is given already in line 2"}},
        Refused{"DuplicateSection",
                "[server]\n[log]\n[server]\nthreads = 1\n",
                {"f.ini:3: [server]: the section stands already in line 1"}},
        Refused{"KeyOutsideAnySection", "threads = 1\n", {"f.ini:1: threads: the key stands before any [section]"}},
        Refused{"SectionWithoutBracket",
                "[server\nthreads = 1\n",
                {"f.ini:1: '[server' is no section: a line such as [server], and nothing after it"}},
        Refused{"TextBehindASection",
                "[server] # x\n",
                {"f.ini:1: '[server] # x' is no section: a line such as [server], and nothing after it"}},
        Refused{"EmptySectionName",
                "[]\n",
                {"f.ini:1: '' is no name of a section: lower-case letters, digits, '-', '_' and '.'"}},
        Refused{"UpperCaseSection",
                "[Server]\n",
                {"f.ini:1: 'Server' is no name of a section: lower-case letters, digits, '-', '_' and '.'"}},
        Refused{"EmptyKey",
                "[server]\n= 1\n",
                {"f.ini:2: server: '' is no name of a key: lower-case letters, digits, '-' and '_'"}},
        Refused{"KeyWithBlank",
                "[server]\nmax body = 1\n",
                {"f.ini:2: server: 'max body' is no name of a key: lower-case letters, digits, '-' and '_'"}},
        Refused{"UpperCaseKey",
                "[server]\nListen = :80\n",
                {"f.ini:2: server: 'Listen' is no name of a key: lower-case letters, digits, '-' and '_'"}},
        Refused{"NotUtf8", "[server]\nthreads = \xff\n", {"f.ini:2: server: the line is not UTF-8 text"}},
        Refused{"Nul", std::string("[server]\nthreads = 1\0 2\n", 24), {"f.ini:2: server: the line is not UTF-8 text"}},
        Refused{"ControlCharacter",
                "[server]\nthreads = 1\x1b[0m\n",
                {"f.ini:2: server: the line holds control characters"}},
        Refused{"SeveralAtOnce",
                "x\n[a]\nb\nc = 1\nc = 2\n",
                {"f.ini:1: 'x' lacks '=': a line is 'key = value', a [section] or a comment",
                 "f.ini:3: a: 'b' lacks '=': a line is 'key = value', a [section] or a comment",
                 "f.ini:5: a.c: the key is given already in line 4"}}),
    [](const auto& instance) { return std::string(instance.param.name); });

TEST(Ini, RefusesAFileBeyondTheLimitAndReadsOneAtIt) {
    std::string text = "[a]\nb = 1\n#";
    text.append(maxIniBytes - text.size(), 'x');
    Problems problems;
    EXPECT_EQ(parseIni(text, file, problems).size(), 1U);
    EXPECT_TRUE(problems.empty());
    text += 'x';
    EXPECT_TRUE(parseIni(text, file, problems).empty());
    EXPECT_EQ(problems.size(), 1U);
}

TEST(Ini, AProblemIsOneLineWhateverTheFileHolds) {
    for (const std::string& line : describeAll("[server]\nthre\tads \x01 = 1\nb\v\n")) {
        EXPECT_EQ(line.find_first_of("\n\x01\v\t"), std::string::npos) << line;
    }
}

TEST(Ini, KeysOfARefusedSectionBringNoErrorsOfTheirOwn) {
    EXPECT_EQ(describeAll("[Server]\nlisten = 1\nlisten = 1\n[log]\nlevel = info\n").size(), 1U);
}

}  // namespace
}  // namespace mergen::server
