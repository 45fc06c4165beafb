#pragma once

#include <array>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Bearer tokens (RFC 6750). A token is `mergen_` and 32 random bytes in base64url; only its SHA-256 is kept, which is
/// enough, because nobody can try 2^256 tokens. A password in its place could be guessed, so nothing of another shape
/// is ever taken for a token.
namespace mergen::api {

/// The tokens of one reading of a token file. Never changes. Threads: any.
class TokenSet {
public:
    static constexpr std::size_t maxTokens = 256;

    /// Reads lines of the form `NAME:sha256:HEX`. NAME has 1 to 64 of `A-Z a-z 0-9 . _ -`, `mergen_` not among them,
    /// and is what the log and the timelines say; HEX is the SHA-256 of the whole token in 64 small digits. Blank lines
    /// and lines that begin with '#' mean nothing. Throws Error(InvalidArgument) with the number of the line, never
    /// with its content: for another form, a name or hash that stands twice, and too many tokens.
    [[nodiscard]] static TokenSet parse(std::string_view text);

    /// The name of the token that `presented` is; nothing if it is none. Every token of the set is compared in full,
    /// with the same steps whether and where one fits.
    [[nodiscard]] std::optional<std::string> find(std::string_view presented) const;

    [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }

private:
    using Hash = std::array<unsigned char, 32>;
    struct Entry {
        std::string name;
        Hash hash{};
    };
    static Entry parseLine(std::string_view line);

    std::vector<Entry> entries_;
};

/// A token file and the set that was read from it last. Threads: any.
class TokenFile {
public:
    /// The most that a token file may have, in bytes.
    static constexpr std::size_t maxBytes = 64U << 10U;

    /// Reads the file. Throws Error with its path if it is missing, no regular file, a link, larger than maxBytes, not
    /// in order, without any token, or open to others: only root and this process's user may be able to write it or to
    /// put another in its place, and only they and its group to read it (0600, 0400, 0640).
    explicit TokenFile(std::filesystem::path path);

    /// Reads it again. From then on the new set counts, also for connections that are open. If the file cannot be used,
    /// throws as the constructor does, and the old set stays. A file that is in order and holds no token is taken here:
    /// that is how the last token is withdrawn.
    void reload();

    [[nodiscard]] std::shared_ptr<const TokenSet> current() const;
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

private:
    [[nodiscard]] std::shared_ptr<const TokenSet> read() const;

    const std::filesystem::path path_;
    mutable std::mutex mutex_;
    std::shared_ptr<const TokenSet> current_;  // guarded by mutex_
};

/// A new token and the line of a token file that lets it in.
struct NewToken {
    std::string token, line;
};
/// Draws one from the kernel's random source; keeps nothing. Throws Error(InvalidArgument) if `name` is none that a
/// line may have.
[[nodiscard]] NewToken newToken(std::string_view name);

/// `text` with "mergen_***" in place of everything that may be a token or its beginning: for what goes into a log.
[[nodiscard]] std::string withoutTokens(std::string_view text);

}  // namespace mergen::api
