#include "api_client.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include <mergen/base/json.hpp>
#include <mergen/base/text.hpp>

namespace mergen::vmm {
namespace {

/// What Firecracker is called in errors.
constexpr std::string_view who = "Firecracker";
constexpr std::size_t maxFaultBytes = 1000;

constexpr json::Limits answerLimits{
    .bytes = ApiClient::maxAnswerBytes, .depth = 16, .members = 4096, .stringBytes = 16U << 10U};

/// A header's name as it is compared.
std::string lowered(std::string_view name) {
    std::string lower(name);
    std::ranges::transform(lower, lower.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; });
    return lower;
}

/// A number that is all of `text`; nothing if it is none or too large.
std::optional<std::size_t> wholeNumber(std::string_view text) {
    std::size_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

/// "HTTP/1.1 204 ": the three digits.
std::optional<unsigned> statusOf(std::string_view line) {
    if (!line.starts_with("HTTP/1.1 ") && !line.starts_with("HTTP/1.0 ")) return std::nullopt;
    line.remove_prefix(9);
    if (line.size() < 3 || (line.size() > 3 && line[3] != ' ')) return std::nullopt;
    const auto status = wholeNumber(line.substr(0, 3));
    if (!status || *status < 200 || *status > 599) return std::nullopt;
    return static_cast<unsigned>(*status);
}

/// What a refusal says: "fault_message", or "error" where not the API but the server below it refuses. That one's text
/// may have a line break in it, which is no JSON, so that then the body is shown as it is.
std::string faultOf(const std::string& body) {
    try {
        const Poco::JSON::Object::Ptr object = json::parseObject(body, answerLimits);
        for (const char* key : {"fault_message", "error"}) {
            const auto text = object->get(key);
            if (text.isString()) return printable(text.extract<std::string>(), maxFaultBytes);
        }
    } catch (const Error& error) {
        static_cast<void>(error);
    }
    return printable(trim(body), maxFaultBytes);
}

ErrorKind kindOf(unsigned status) {
    switch (status) {
        case 400:
            return ErrorKind::FailedPrecondition;
        case 413:
            return ErrorKind::ResourceExhausted;
        default:
            return ErrorKind::Unavailable;
    }
}

}  // namespace

ApiClient ApiClient::connect(const std::filesystem::path& socket, std::uint32_t peer, SteadyTime deadline,
                             std::chrono::milliseconds patience) {
    return {UnixConnection::connect(socket, peer, deadline, who), deadline, patience};
}

std::optional<ApiClient> ApiClient::tryConnect(const std::filesystem::path& socket, std::uint32_t peer,
                                               SteadyTime deadline, std::chrono::milliseconds patience) {
    std::optional<UnixConnection> connection = UnixConnection::tryConnect(socket, peer, deadline, who);
    if (!connection) return std::nullopt;
    return ApiClient(std::move(*connection), deadline, patience);
}

Poco::JSON::Object::Ptr ApiClient::get(const std::string& path) {
    const Reply reply = call("GET", path, {});
    try {
        return json::parseObject(reply.body, answerLimits);
    } catch (const Error& error) {
        connection_.fail("GET " + path + ": its answer is no JSON object: " + error.what());
    }
}

void ApiClient::put(const std::string& path, const Poco::JSON::Object& body) {
    change("PUT", path, body);
}

void ApiClient::patch(const std::string& path, const Poco::JSON::Object& body) {
    change("PATCH", path, body);
}

void ApiClient::change(std::string_view method, const std::string& path, const Poco::JSON::Object& body) {
    static_cast<void>(call(method, path, json::render(body)));
}

ApiClient::Instance ApiClient::instance() {
    const Poco::JSON::Object::Ptr told = get("/");
    const auto textOf = [&](const char* member) {
        const auto value = told->get(member);
        return value.isString() ? value.extract<std::string>() : "";
    };
    const std::string text = textOf("state");
    static constexpr std::array<std::pair<std::string_view, GuestState>, 3> states{
        {{"Not started", GuestState::NotStarted}, {"Running", GuestState::Running}, {"Paused", GuestState::Paused}}};
    const auto* const found = std::ranges::find(states, text, &std::pair<std::string_view, GuestState>::first);
    if (found == states.end()) connection_.fail("GET /: its guest is '" + printable(text) + "', which is unknown");
    return {found->second, textOf("vmm_version")};
}

ApiClient::Reply ApiClient::call(std::string_view method, const std::string& path, const std::string& body) {
    const std::string name = std::string(method) + " " + path;
    const std::string requestLine = name + " HTTP/1.1\r\n";
    if (requestLine.size() > maxLineBytes || body.size() > maxBodyBytes) {
        throw Error(ErrorKind::ResourceExhausted, printable(name) + ": Firecracker takes lines of " +
                                                      std::to_string(maxLineBytes) + " bytes and bodies of " +
                                                      std::to_string(maxBodyBytes) + " at most");
    }
    std::string request = requestLine + "Host: localhost\r\nAccept: application/json\r\n";
    if (!body.empty()) {
        request += "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
    }
    request += "\r\n" + body;

    connection_.setDeadline(std::min(deadline_, std::chrono::steady_clock::now() + patience_));
    try {
        connection_.send(request);
        Reply reply = receive();
        if (reply.status < 300) return reply;
        throw Error(kindOf(reply.status),
                    "it refuses: " + faultOf(reply.body) +
                        (reply.status == 400 ? "" : " (status " + std::to_string(reply.status) + ")"));
    } catch (const Error& error) {
        throw error.within(printable(name));
    }
}

ApiClient::Reply ApiClient::receive() {
    constexpr std::string_view lineEnd = "\r\n", headEnd = "\r\n\r\n";
    std::size_t end = std::string::npos;
    for (std::size_t searched = 0; (end = buffer_.find(headEnd, searched)) == std::string::npos;) {
        if (buffer_.size() > maxHeadBytes)
            connection_.fail("its answer's head has more than " + std::to_string(maxHeadBytes) + " bytes");
        searched = buffer_.size() < headEnd.size() ? 0 : buffer_.size() - headEnd.size() + 1;
        connection_.receive(buffer_);
    }
    std::string head = buffer_.substr(0, end + lineEnd.size());
    buffer_.erase(0, end + headEnd.size());
    if (head.size() > maxHeadBytes)
        connection_.fail("its answer's head has more than " + std::to_string(maxHeadBytes) + " bytes");

    Reply reply;
    std::optional<std::size_t> length;
    bool first = true;
    for (std::string_view rest = head; !rest.empty();) {
        const std::size_t at = rest.find(lineEnd);
        const std::string_view line = rest.substr(0, at);
        rest.remove_prefix(at + lineEnd.size());
        if (std::exchange(first, false)) {
            const auto status = statusOf(line);
            if (!status) connection_.fail("what answers is not Firecracker: '" + printable(line) + "'");
            reply.status = *status;
            continue;
        }
        const std::size_t colon = line.find(':');
        if (colon == std::string_view::npos) connection_.fail("its answer has a line that is no header");
        const std::string name = lowered(line.substr(0, colon));
        if (name == "transfer-encoding") connection_.fail("its answer has no length that is known in advance");
        if (name != "content-length") continue;
        if (length) connection_.fail("its answer has two lengths");
        length = wholeNumber(trim(line.substr(colon + 1)));
        if (!length) connection_.fail("its answer's length is no number");
    }
    if (reply.status == 204) {
        if (length.value_or(0) != 0) connection_.fail("its answer has content although it says that it has none");
        length = 0;
    }
    if (!length) connection_.fail("its answer does not say how long it is");
    if (*length > maxAnswerBytes) {
        connection_.fail("its answer has " + std::to_string(*length) + " bytes, more than " +
                         std::to_string(maxAnswerBytes));
    }
    while (buffer_.size() < *length) connection_.receive(buffer_);
    reply.body = buffer_.substr(0, *length);
    buffer_.erase(0, *length);
    if (!buffer_.empty()) connection_.fail("it sent more than it was asked for");
    return reply;
}

}  // namespace mergen::vmm
