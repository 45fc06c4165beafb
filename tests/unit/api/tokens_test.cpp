#include <filesystem>
#include <set>
#include <string>
#include <sys/stat.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/api/tokens.hpp>
#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "test_host.hpp"

namespace mergen::api {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

// Made with coreutils: printf %s TOKEN | sha256sum
const std::string knownToken = "mergen_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const std::string knownHash = "dc537f5643c3e2ede91e789447deefcf1175d57335fccb1e0a54748d664022d8";

std::string refusalOf(const std::string& text) {
    try {
        static_cast<void>(TokenSet::parse(text));
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument);
        return error.what();
    }
    return "accepted";
}

TEST(Tokens, ANewOneIsPrefixAnd256RandomBitsAndItsLineLetsItIn) {
    std::set<std::string> seen;
    for (int i = 0; i < 100; ++i) {
        const NewToken made = newToken("ci");
        EXPECT_THAT(made.token, testing::MatchesRegex("mergen_[A-Za-z0-9_-]{43}"));
        EXPECT_THAT(made.line, testing::MatchesRegex("ci:sha256:[0-9a-f]{64}"));
        EXPECT_THAT(made.line, Not(HasSubstr(made.token)));
        EXPECT_EQ(TokenSet::parse(made.line + "\n").find(made.token), "ci");
        EXPECT_TRUE(seen.insert(made.token).second);
    }
}

TEST(Tokens, TheHashIsPlainSha256) {
    EXPECT_EQ(TokenSet::parse("known:sha256:" + knownHash).find(knownToken), "known");
}

TEST(Tokens, EachOfSeveralIsFoundByItsOwnNameWhereverItStands) {
    std::string text = "# rotation\n\n";
    std::vector<std::string> tokens;
    for (int i = 0; i < 20; ++i) {
        const NewToken made = newToken("t" + std::to_string(i));
        tokens.push_back(made.token);
        text += "  " + made.line + " \r\n";
    }
    const TokenSet set = TokenSet::parse(text);
    EXPECT_EQ(set.size(), 20U);
    for (int i = 0; i < 20; ++i) EXPECT_EQ(set.find(tokens[static_cast<std::size_t>(i)]), "t" + std::to_string(i));
    EXPECT_FALSE(set.find(newToken("x").token));
}

TEST(Tokens, NothingButTheWholeTokenIsOne) {
    const NewToken made = newToken("ci");
    const TokenSet set = TokenSet::parse(made.line);
    const std::string& token = made.token;
    std::vector<std::string> wrong = {"",
                                      "mergen_",
                                      token.substr(0, token.size() - 1),
                                      token + "A",
                                      " " + token,
                                      token + " ",
                                      token + "\n",
                                      made.line,
                                      made.line.substr(10),
                                      token.substr(7)};
    for (std::size_t i = 0; i < token.size(); ++i) {
        std::string other = token;
        other[i] = other[i] == 'A' ? 'B' : 'A';
        wrong.push_back(other);
    }
    for (const std::string& each : wrong) EXPECT_FALSE(set.find(each)) << each;
    EXPECT_FALSE(TokenSet().find(token));
}

TEST(Tokens, APasswordIsNeverTakenForATokenThoughItsHashIsThere) {
    // sha256 of "hunter2": who has the file could guess it.
    const TokenSet set =
        TokenSet::parse("ops:sha256:f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7\n");
    EXPECT_FALSE(set.find("hunter2"));
}

TEST(Tokens, AWrongLineIsRefusedByItsNumberAndNeverQuoted) {
    const std::string good = newToken("ci").line;
    const std::string secret = newToken("x").token;
    const std::pair<std::string, std::string> cases[] = {
        {"x\n", "line 1 is not of the form NAME:sha256:HEX"},
        {"\n# c\n" + secret + "\n", "line 3 is not of the form NAME:sha256:HEX"},
        {secret + ":sha256:" + knownHash, "line 1 has no name: a token's name has 1 to 64 of"},
        {":sha256:" + knownHash, "line 1 has no name"},
        {"a b:sha256:" + knownHash, "line 1 has no name"},
        {std::string(65, 'a') + ":sha256:" + knownHash, "line 1 has no name"},
        {"a:sha512:" + knownHash, "line 1 names another hash than sha256"},
        {"a:sha256:" + knownHash.substr(1), "line 1 does not end with the 64 hexadecimal digits"},
        {"a:sha256:" + knownHash + "0", "line 1 does not end with the 64 hexadecimal digits"},
        {"a:sha256:G" + knownHash.substr(1), "line 1 does not end with the 64 hexadecimal digits"},
        {"a:sha256:" + secret, "line 1 does not end with the 64 hexadecimal digits"},
        {"a:sha256:" + knownHash + ":x", "line 1 is not of the form"},
        {good + "\n" + good + "\n", "line 2 has a name that stands twice"},
        {good + "\nb" + good.substr(2) + "\n", "line 2 has a hash that stands twice"},
    };
    for (const auto& [text, words] : cases) {
        EXPECT_THAT(refusalOf(text), HasSubstr(words)) << text;
        EXPECT_THAT(refusalOf(text), Not(HasSubstr(secret.substr(7, 12)))) << text;
    }
}

TEST(Tokens, AFileMayHave256) {
    std::string text;
    for (std::size_t i = 0; i < TokenSet::maxTokens; ++i) text += newToken("t" + std::to_string(i)).line + "\n";
    EXPECT_EQ(TokenSet::parse(text).size(), TokenSet::maxTokens);
    EXPECT_THAT(refusalOf(text + newToken("more").line), HasSubstr("line 257 is one token more than the 256"));
}

TEST(Tokens, NamesAreRefusedWhereANewOneIsMade) {
    for (const char* const name : {"", "a b", "a:b", "ü", "mergen_x", "a\nb"}) {
        EXPECT_THROW(static_cast<void>(newToken(name)), Error) << name;
    }
}

TEST(Tokens, AreTakenOutOfWhatGoesIntoALog) {
    const std::string token = newToken("x").token;
    EXPECT_EQ(withoutTokens("/v1/vms?t=" + token + "&a=" + token), "/v1/vms?t=mergen_***&a=mergen_***");
    EXPECT_EQ(withoutTokens(token.substr(0, 20)), "mergen_***");
    EXPECT_EQ(withoutTokens(token + token), "mergen_***");
    EXPECT_EQ(withoutTokens("mergen_unit mergen_"), "mergen_unit mergen_");
    EXPECT_EQ(withoutTokens(""), "");
}

// The file.

class TokenFiles : public testing::Test {
protected:
    [[nodiscard]] const fs::path& folder() const { return host_.root(); }
    [[nodiscard]] fs::path write(const std::string& name, const std::string& text, mode_t mode = 0600) const {
        writeFileAtomically(folder() / name, text, mode);
        return folder() / name;
    }

private:
    const mergen::test::TestHost host_{nullptr};
};

std::string refusalOfFile(const fs::path& file) {
    try {
        const TokenFile tokens(file);
    } catch (const Error& error) {
        return error.what();
    }
    return "accepted";
}

TEST_F(TokenFiles, MustBeARegularFileThatOthersCannotRead) {
    const fs::path file = write("tokens", newToken("ci").line + "\n");
    for (const mode_t mode : {0600, 0400, 0640, 0440}) {
        ASSERT_EQ(::chmod(file.c_str(), mode), 0);
        EXPECT_EQ(refusalOfFile(file), "accepted") << std::oct << mode;
    }
    for (const mode_t mode : {0644, 0604, 0601}) {
        ASSERT_EQ(::chmod(file.c_str(), mode), 0);
        EXPECT_THAT(refusalOfFile(file), HasSubstr("can be read by others")) << std::oct << mode;
    }
    for (const mode_t mode : {0660, 0620, 0602}) {
        ASSERT_EQ(::chmod(file.c_str(), mode), 0);
        EXPECT_THAT(refusalOfFile(file), HasSubstr("so others than its owner can write it")) << std::oct << mode;
    }
    ASSERT_EQ(::chmod(file.c_str(), 0600), 0);
    fs::create_symlink(file, folder() / "link");
    EXPECT_NE(refusalOfFile(folder() / "link"), "accepted");
    ASSERT_EQ(::mkfifo((folder() / "fifo").c_str(), 0600), 0);
    EXPECT_THAT(refusalOfFile(folder() / "fifo"), HasSubstr("not a regular file"));
    EXPECT_THAT(refusalOfFile(folder()), HasSubstr("not a regular file"));
    EXPECT_THAT(refusalOfFile(folder() / "none"), HasSubstr("No such file"));
    ASSERT_EQ(::chmod(folder().c_str(), 0777), 0);
    EXPECT_THAT(refusalOfFile(file), HasSubstr("the folder " + folder().string() + " of the token file"));
}

TEST_F(TokenFiles, IsBoundedAndHoldsAtLeastOneToken) {
    const std::string comment(TokenFile::maxBytes, '#');
    EXPECT_THAT(refusalOfFile(write("large", comment + "\n" + newToken("ci").line)),
                HasSubstr("larger than 65536 bytes"));
    EXPECT_THAT(refusalOfFile(write("empty", "# none yet\n")), HasSubstr("holds no token"));
    EXPECT_THAT(refusalOfFile(write("wrong", "ci\n")), HasSubstr("wrong: line 1 is not of the form"));
}

TEST_F(TokenFiles, AReloadTakesTheNewOnesAndABadFileKeepsTheOldOnes) {
    const NewToken first = newToken("first");
    const NewToken second = newToken("second");
    const fs::path path = write("tokens", first.line + "\n");
    TokenFile file(path);
    const auto before = file.current();

    static_cast<void>(write("tokens", second.line + "\n"));
    EXPECT_EQ(file.current()->find(first.token), "first");  // not before it is asked to
    file.reload();
    EXPECT_FALSE(file.current()->find(first.token));
    EXPECT_EQ(file.current()->find(second.token), "second");
    EXPECT_EQ(before->find(first.token), "first");  // whoever works with it

    static_cast<void>(write("tokens", first.line + "\nnonsense\n"));
    EXPECT_THROW(file.reload(), Error);
    fs::remove(path);
    EXPECT_THROW(file.reload(), Error);
    static_cast<void>(write("tokens", first.line + "\n", 0644));
    EXPECT_THROW(file.reload(), Error);
    EXPECT_EQ(file.current()->find(second.token), "second");
    EXPECT_FALSE(file.current()->find(first.token));
}

TEST_F(TokenFiles, AReloadOfAFileWithoutTokensWithdrawsTheLastOne) {
    const NewToken only = newToken("only");
    TokenFile file(write("tokens", only.line));
    static_cast<void>(write("tokens", "# " + only.line + "\n"));
    file.reload();
    EXPECT_FALSE(file.current()->find(only.token));
    EXPECT_EQ(file.current()->size(), 0U);
}

}  // namespace
}  // namespace mergen::api
