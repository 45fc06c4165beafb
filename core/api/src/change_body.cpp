#include "change_body.hpp"

#include <algorithm>
#include <string>

#include <mergen/base/json.hpp>
#include <mergen/base/text.hpp>
#include <mergen/engine/guest_document.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::api {

namespace {

using engine::ChangeRequest;

constexpr std::size_t maxPath = 4096;  // PATH_MAX of limits.h
constexpr std::size_t maxIdBytes = 32;
constexpr json::Limits limits{.bytes = 1U << 20U, .depth = 24, .members = 4096, .stringBytes = 64U << 10U};

[[noreturn]] void refuse(const std::string& field, const std::string& text) {
    throw Error(ErrorKind::InvalidArgument, field + ": " + text).about(field);
}

template <typename Changes>
void refuseTwice(const Changes& changes, const std::string& field) {
    const std::string& id = changes.back().id;
    if (std::ranges::count(changes, id, &Changes::value_type::id) > 1)
        refuse(field, "\"" + printable(id) + "\" is changed twice");
}

ChangeRequest::Drive driveOf(json::Reader& item) {
    ChangeRequest::Drive drive{item.requiredString("driveId", maxIdBytes), {}, {}};
    if (item.has("pathOnHost")) drive.path = item.requiredString("pathOnHost", maxPath);
    drive.limit = engine::readRateLimiter(item, "rateLimiter");
    return drive;
}

ChangeRequest::Nic nicOf(json::Reader& item) {
    ChangeRequest::Nic nic{item.requiredString("ifaceId", maxIdBytes), {}, {}};
    nic.receive = engine::readRateLimiter(item, "rxRateLimiter");
    nic.transmit = engine::readRateLimiter(item, "txRateLimiter");
    return nic;
}

void readBalloon(json::Reader& body, ChangeRequest& request) {
    const Poco::JSON::Object::Ptr object = body.object("balloon");
    if (object.isNull()) return;
    json::Reader reader(*object, "balloon");
    if (const auto amount = reader.integer("amountMib", 0, 1048576))
        request.balloonAmount = MiB{static_cast<std::uint64_t>(*amount)};
    if (const auto interval = reader.integer("statsPollingIntervalS", 0, 65535))
        request.balloonStatsInterval = std::chrono::seconds(*interval);
    reader.finish();
}

void readMmds(json::Reader& body, ChangeRequest& request) {
    const Poco::JSON::Object::Ptr object = body.object("mmds");
    if (object.isNull()) return;
    json::Reader reader(*object, "mmds");
    request.mmdsContent = engine::readMmdsContent(reader);
    reader.finish();
}

}  // namespace

ChangeRequest parseChangeBody(std::string_view text) {
    const Poco::JSON::Object::Ptr object = json::parseObject(text, limits);
    json::Reader body(*object, "");
    for (const char* name : {"drives", "networkInterfaces", "balloon", "mmds"}) static_cast<void>(body.has(name));
    body.finish();

    ChangeRequest request;
    body.objects("drives", engine::maxDrives, [&](json::Reader& item) {
        request.drives.push_back(driveOf(item));
        refuseTwice(request.drives, item.pathOf("driveId"));
    });
    body.objects("networkInterfaces", engine::maxNics, [&](json::Reader& item) {
        request.nics.push_back(nicOf(item));
        refuseTwice(request.nics, item.pathOf("ifaceId"));
    });
    readBalloon(body, request);
    readMmds(body, request);
    return request;
}

}  // namespace mergen::api
