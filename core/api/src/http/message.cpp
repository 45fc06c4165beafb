#include "message.hpp"

#include <fstream>

#include <Poco/Exception.h>
#include <Poco/Timestamp.h>

namespace mergen::api::http {

using Poco::Net::HTTPRequest;
using Poco::Net::HTTPResponse;

std::ostream& MemoryResponse::send() {
    sent_ = true;
    return body_;
}

void MemoryResponse::sendFile(const std::string& path, const std::string& mediaType) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw Poco::OpenFileException(path);
    setContentType(mediaType);
    send() << file.rdbuf();
}

void MemoryResponse::sendBuffer(const void* buffer, std::size_t length) {
    send().write(static_cast<const char*>(buffer), static_cast<std::streamsize>(length));
}

void MemoryResponse::redirect(const std::string& uri, HTTPStatus status) {
    setStatusAndReason(status);
    set("Location", uri);
    send();
}

void MemoryResponse::requireAuthentication(const std::string& realm) {
    setStatusAndReason(HTTPResponse::HTTP_UNAUTHORIZED);
    set("WWW-Authenticate", "Basic realm=\"" + realm + "\"");
}

std::string MemoryResponse::serialise(bool toHead) {
    const std::string body = body_.str();
    setChunkedTransferEncoding(false);
    const bool bodiless = getStatus() == HTTP_NO_CONTENT || getStatus() == HTTP_NOT_MODIFIED;
    if (bodiless) {
        setContentLength(UNKNOWN_CONTENT_LENGTH);
    } else {
        setContentLength64(static_cast<Poco::Int64>(body.size()));
    }
    setVersion(HTTP_1_1);
    setDate(Poco::Timestamp());
    std::ostringstream text;
    write(text);
    if (!toHead && !bodiless) text << body;
    return text.str();
}

MemoryRequest::MemoryRequest(const Head& head, std::string body, Peer peer, Caller caller,
                             Poco::Net::HTTPServerResponse& response)
    : body_(std::move(body)),
      peer_(std::move(peer)),
      caller_(std::move(caller)),
      params_(new Poco::Net::HTTPServerParams),
      response_(response) {
    setMethod(head.method);
    setURI(head.target);
    setVersion(head.http10 ? HTTP_1_0 : HTTP_1_1);
    for (const auto& [name, value] : head.fields) add(name, value);
}

}  // namespace mergen::api::http
