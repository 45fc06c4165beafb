#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <fcntl.h>
#include <span>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include <Poco/SHA2Engine.h>

#include <mergen/api/tokens.hpp>
#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/base/trust.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::api {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view prefix = "mergen_";
constexpr std::string_view base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
constexpr std::string_view hexDigits = "0123456789abcdef";
constexpr std::size_t secretBytes = 32;
constexpr std::size_t secretCharacters = 43;  // of base64url without padding
constexpr std::size_t maxName = 64;

/// Beyond so many characters after the prefix a text is taken for a token or the beginning of one.
constexpr std::size_t revealing = 8;

Error wrong(const std::string& why) {
    return {ErrorKind::InvalidArgument, why};
}

bool isName(std::string_view text) {
    if (text.find(prefix) != std::string_view::npos) return false;  // a token in its place must not get into a log
    return !text.empty() && text.size() <= maxName && std::ranges::all_of(text, [](char c) {
        return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
               c == '-';
    });
}

bool isToken(std::string_view text) {
    return text.size() == prefix.size() + secretCharacters && text.starts_with(prefix) &&
           text.find_first_not_of(base64url, prefix.size()) == std::string_view::npos;
}

constexpr std::string_view nameRule = "a token's name has 1 to 64 of A-Z a-z 0-9 . _ - and not 'mergen_'";

std::string encode(std::string_view bytes) {
    std::string text;
    std::uint32_t bits = 0;
    int count = 0;
    for (const char byte : bytes) {
        bits = (bits << 8U) | static_cast<unsigned char>(byte);
        for (count += 8; count >= 6;) {
            count -= 6;
            text += base64url[(bits >> static_cast<unsigned>(count)) & 63U];
        }
    }
    if (count > 0) text += base64url[(bits << static_cast<unsigned>(6 - count)) & 63U];
    return text;
}

std::string hex(std::span<const unsigned char> bytes) {
    std::string text;
    for (const unsigned char byte : bytes) {
        text += hexDigits[byte >> 4U];
        text += hexDigits[byte & 15U];
    }
    return text;
}

std::array<unsigned char, 32> sha256(std::string_view text) {
    Poco::SHA2Engine engine(Poco::SHA2Engine::SHA_256);
    engine.update(text.data(), text.size());
    std::array<unsigned char, 32> hash{};
    std::ranges::copy(engine.digest(), hash.begin());
    return hash;
}

}  // namespace

TokenSet::Entry TokenSet::parseLine(std::string_view line) {
    const std::vector<std::string> parts = split(line, ':');
    if (parts.size() != 3) throw wrong("is not of the form NAME:sha256:HEX");
    if (!isName(parts[0])) throw wrong("has no name: " + std::string(nameRule));
    if (parts[1] != "sha256") throw wrong("names another hash than sha256");
    const std::string& digits = parts[2];
    Entry entry{parts[0], {}};
    if (digits.size() != 2 * entry.hash.size() || digits.find_first_not_of(hexDigits) != std::string::npos) {
        throw wrong("does not end with the 64 hexadecimal digits, in small letters, of a SHA-256");
    }
    for (std::size_t i = 0; i < entry.hash.size(); ++i) {
        entry.hash[i] =
            static_cast<unsigned char>(hexDigits.find(digits[2 * i]) << 4U | hexDigits.find(digits[2 * i + 1]));
    }
    return entry;
}

TokenSet TokenSet::parse(std::string_view text) {
    TokenSet set;
    std::size_t number = 0;
    for (const std::string& raw : split(text, '\n')) {
        ++number;
        const std::string_view line = trim(raw);
        if (line.empty() || line.front() == '#') continue;
        try {
            Entry entry = parseLine(line);
            for (const Entry& other : set.entries_) {
                if (other.name == entry.name) throw wrong("has a name that stands twice");
                if (other.hash == entry.hash) throw wrong("has a hash that stands twice");
            }
            if (set.entries_.size() == maxTokens) throw wrong("is one token more than the 256 that a file may have");
            set.entries_.push_back(std::move(entry));
        } catch (const Error& error) {
            throw wrong("line " + std::to_string(number) + " " + error.what());
        }
    }
    return set;
}

std::optional<std::string> TokenSet::find(std::string_view presented) const {
    if (!isToken(presented)) return std::nullopt;  // the shape is no secret
    const Hash hash = sha256(presented);
    std::size_t place = entries_.size();
    for (std::size_t i = 0; i < entries_.size(); ++i) {
        unsigned difference = 0;
        for (std::size_t byte = 0; byte < hash.size(); ++byte) difference |= hash[byte] ^ entries_[i].hash[byte];
        // All ones where every byte is equal, without a branch: 0 - 1 borrows into the upper bits, 1..255 - 1 does not.
        const std::size_t equal = std::size_t{0} - (((difference - 1U) >> 8U) & 1U);
        place = (i & equal) | (place & ~equal);
    }
    if (place == entries_.size()) return std::nullopt;
    return entries_[place].name;
}

TokenFile::TokenFile(fs::path path) : path_(std::move(path)), current_(read()) {
    if (current_->size() == 0) {
        throw Error(ErrorKind::FailedPrecondition, "the token file " + path_.string() +
                                                       " holds no token, so nobody could use the API over TCP; "
                                                       "'mergend --new-token NAME' prints a token and its line");
    }
}

std::shared_ptr<const TokenSet> TokenFile::read() const {
    // O_NONBLOCK: opening a FIFO must not wait for a writer; it is then refused as no regular file.
    const UniqueFd fd = openFile(path_, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) throw Error::fromErrno(errno, "cannot inspect " + path_.string());
    if (S_ISREG(status.st_mode)) {  // readOpenFile() refuses the others
        const std::string shown = "the token file " + path_.string();
        checkTrusted(status, shown);
        const fs::path folder = path_.parent_path();
        static_cast<void>(trustedDirectory(folder, "the folder " + folder.string() + " of the token file"));
        if ((status.st_mode & S_IRWXO) != 0) {
            throw Error(ErrorKind::PermissionDenied,
                        shown + " can be read by others; run 'chmod o= " + path_.string() + "'");
        }
    }
    const std::string text = readOpenFile(fd.get(), path_, maxBytes);
    try {
        return std::make_shared<const TokenSet>(TokenSet::parse(text));
    } catch (const Error& error) {
        throw Error(error.kind(), "the token file " + path_.string() + ": " + error.what());
    }
}

void TokenFile::reload() {
    std::shared_ptr<const TokenSet> fresh = read();
    const std::lock_guard lock(mutex_);
    current_ = std::move(fresh);
}

std::shared_ptr<const TokenSet> TokenFile::current() const {
    const std::lock_guard lock(mutex_);
    return current_;
}

NewToken newToken(std::string_view name) {
    if (!isName(name)) throw wrong("'" + printable(name, 80) + "': " + std::string(nameRule));
    std::string secret(secretBytes, '\0');
    if (::getrandom(secret.data(), secret.size(), 0) != static_cast<ssize_t>(secret.size())) {
        throw Error::fromErrno(errno, "cannot draw a token from the kernel's random source");
    }
    NewToken made;
    made.token = std::string(prefix) + encode(secret);
    made.line = std::string(name) + ":sha256:" + hex(sha256(made.token));
    return made;
}

std::string withoutTokens(std::string_view text) {
    std::string result;
    while (!text.empty()) {
        const std::size_t begin = text.find(prefix);
        result += text.substr(0, begin);
        if (begin == std::string_view::npos) break;
        text.remove_prefix(begin + prefix.size());
        const std::size_t end = std::min(text.find_first_not_of(base64url), text.size());
        result += prefix;
        result += end < revealing ? text.substr(0, end) : "***";
        text.remove_prefix(end);
    }
    return result;
}

}  // namespace mergen::api
