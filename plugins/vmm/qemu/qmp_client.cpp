#include "qmp_client.hpp"

#include <utility>

#include <mergen/base/json.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::vmm {
namespace {

constexpr json::Limits messageLimits{
    .bytes = QmpClient::maxMessageBytes, .depth = 16, .members = 4096, .stringBytes = 64U << 10U};

/// What QEMU is called in errors.
constexpr std::string_view who = "QEMU";

}  // namespace

QmpClient::QmpClient(UnixConnection connection) : connection_(std::move(connection)) {
    agree();
}

QmpClient QmpClient::connect(const std::filesystem::path& socket, std::uint32_t peer, SteadyTime deadline) {
    return QmpClient(UnixConnection::connect(socket, peer, deadline, who));
}

std::optional<QmpClient> QmpClient::tryConnect(const std::filesystem::path& socket, std::uint32_t peer,
                                               SteadyTime deadline) {
    std::optional<UnixConnection> connection = UnixConnection::tryConnect(socket, peer, deadline, who);
    if (!connection) return std::nullopt;
    return QmpClient(std::move(*connection));
}

void QmpClient::agree() {
    if (!receive()->isObject("QMP")) connection_.fail("what answers is not QEMU");
    execute("qmp_capabilities");
}

Poco::JSON::Object::Ptr QmpClient::execute(const std::string& command, const Poco::JSON::Object::Ptr& arguments) {
    const std::int64_t id = ++lastId_;
    Poco::JSON::Object::Ptr request = json::object();
    request->set("execute", command);
    if (arguments) request->set("arguments", arguments);
    request->set("id", id);
    connection_.send(json::render(*request) + "\n");

    while (true) {
        const Poco::JSON::Object::Ptr message = receive();
        // An event, or the late answer to a client before us.
        if (!message->get("id").isInteger() || message->getValue<std::int64_t>("id") != id) continue;
        if (message->isObject("error")) {
            const auto words = message->getObject("error")->get("desc");
            throw Error(
                ErrorKind::FailedPrecondition,
                "QEMU refuses '" + command + "': " + printable(words.isString() ? words.extract<std::string>() : ""));
        }
        if (!message->isObject("return")) connection_.fail("the answer to '" + command + "' has no result");
        return message->getObject("return");
    }
}

std::string QmpClient::queryStatus() {
    const auto status = execute("query-status")->get("status");
    if (!status.isString()) connection_.fail("the answer to 'query-status' has no status");
    return status.extract<std::string>();
}

Poco::JSON::Object::Ptr QmpClient::receive() {
    while (true) {
        const std::size_t end = buffer_.find('\n', searched_);
        if (end != std::string::npos) {
            const std::string line = buffer_.substr(0, end);
            buffer_.erase(0, end + 1);
            searched_ = 0;
            try {
                return json::parseObject(trim(line), messageLimits);
            } catch (const Error& error) {
                connection_.fail("it sent something else than QMP: " + std::string(error.what()));
            }
        }
        searched_ = buffer_.size();
        if (buffer_.size() > maxMessageBytes)
            connection_.fail("it sent more than " + std::to_string(maxMessageBytes) + " bytes in one message");
        connection_.receive(buffer_);
    }
}

}  // namespace mergen::vmm
