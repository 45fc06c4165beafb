#pragma once

#include <istream>
#include <sstream>
#include <string>

#include <Poco/Net/HTTPServerParams.h>
#include <Poco/Net/HTTPServerRequest.h>
#include <Poco/Net/HTTPServerResponse.h>
#include <Poco/Net/SocketAddress.h>

#include "head.hpp"
#include "peer.hpp"

/// Poco's request and response over messages that are whole in memory, so that Poco's handlers work behind our front.
namespace mergen::api::http {

/// Collects what a handler answers. Threads: one.
class MemoryResponse final : public Poco::Net::HTTPServerResponse {
public:
    void sendContinue() override {}  // the front has done it where it was asked for: the body is here already
    std::ostream& send() override;
    void sendFile(const std::string& path, const std::string& mediaType) override;
    void sendBuffer(const void* buffer, std::size_t length) override;
    void redirect(const std::string& uri, HTTPStatus status) override;
    void requireAuthentication(const std::string& realm) override;
    [[nodiscard]] bool sent() const override { return sent_; }

    /// The whole message as it goes over the wire; without the body if it answers a HEAD request. Its framing is ours:
    /// Content-Length, whatever the handler said.
    [[nodiscard]] std::string serialise(bool toHead);

private:
    std::ostringstream body_;
    bool sent_ = false;
};

/// A request with its whole body. Threads: one. `response` is borrowed.
class MemoryRequest final : public Poco::Net::HTTPServerRequest {
public:
    MemoryRequest(const Head& head, std::string body, Peer peer, Caller caller,
                  Poco::Net::HTTPServerResponse& response);

    [[nodiscard]] const Peer& peer() const noexcept { return peer_; }
    /// As the gate let it in.
    [[nodiscard]] const Caller& caller() const noexcept { return caller_; }

    std::istream& stream() override { return body_; }
    [[nodiscard]] const Poco::Net::SocketAddress& clientAddress() const override { return peer_.client; }
    [[nodiscard]] const Poco::Net::SocketAddress& serverAddress() const override { return peer_.server; }
    [[nodiscard]] const Poco::Net::HTTPServerParams& serverParams() const override { return *params_; }
    [[nodiscard]] Poco::Net::HTTPServerResponse& response() const override { return response_; }
    [[nodiscard]] bool secure() const override { return false; }

private:
    std::istringstream body_;
    Peer peer_;
    Caller caller_;
    Poco::Net::HTTPServerParams::Ptr params_;
    Poco::Net::HTTPServerResponse& response_;
};

}  // namespace mergen::api::http
