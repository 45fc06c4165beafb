#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

/// The head of an HTTP/1 request, read as strictly as RFC 9112 allows. Poco 1.11's parser takes bare line feeds, folded
/// and nameless fields, NUL, several lengths, and a length beside a transfer coding: what two programs in a row would
/// read as different requests.
namespace mergen::api::http {

/// Bytes; beyond them 414 and 431.
constexpr std::size_t maxTarget = 8192;
constexpr std::size_t maxHead = 16384;
constexpr std::size_t maxFields = 100;

/// Why a request is not read on: an HTTP status and one sentence. The connection is closed after it, because where the
/// next request would begin is not known.
struct Refusal {
    int status = 400;
    std::string detail;
};

struct Head {
    std::string method;
    std::string target;  ///< origin-form: begins with '/', visible ASCII without '#'
    bool http10 = false;
    std::vector<std::pair<std::string, std::string>> fields;  ///< in order; values without blanks at their ends
    std::uint64_t contentLength = 0;                          ///< of the body that follows
    bool hasContentLength = false;
    bool keepAlive = false;        ///< the client would go on with this connection
    bool expectsContinue = false;  ///< and waits for 100 before it sends the body (RFC 9110, 10.1.1)
};

/// Finds the end of a head that arrives in pieces, looking at every byte once.
class HeadScanner {
public:
    /// `input` is all that has arrived of the message, longer at every call. Gives the length of the head with its
    /// empty line, or 0 while more is needed, or why it cannot become one.
    [[nodiscard]] std::variant<std::size_t, Refusal> scan(std::string_view input);

private:
    std::size_t scanned_ = 0;    // bytes looked at
    std::size_t lineBegin_ = 0;  // of the line that is not complete
};

/// Reads a complete head as HeadScanner gives it.
[[nodiscard]] std::variant<Head, Refusal> parseHead(std::string_view text);

}  // namespace mergen::api::http
