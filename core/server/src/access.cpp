#include <algorithm>
#include <cerrno>
#include <charconv>
#include <grp.h>
#include <limits>
#include <string>
#include <vector>

#include <mergen/sdk/error.hpp>
#include <mergen/server/access.hpp>

namespace mergen::server {

namespace {

gid_t groupOf(const std::string& text) {
    if (std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; })) {
        gid_t number = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
        // The highest means "no change" to chown(2).
        if (error != std::errc() || number == std::numeric_limits<gid_t>::max()) {
            throw Error(ErrorKind::InvalidArgument, "'" + text + "' is not the number of a group");
        }
        return number;
    }
    group entry{};
    group* found = nullptr;
    std::vector<char> room(1024);
    int cause = ERANGE;
    while (cause == ERANGE && room.size() <= 1U << 20U) {  // a group of many members needs more
        room.resize(room.size() * 2);
        cause = ::getgrnam_r(text.c_str(), &entry, room.data(), room.size(), &found);
    }
    if (found != nullptr) return entry.gr_gid;
    if (cause != 0 && cause != ENOENT) throw Error::fromErrno(cause, "cannot look up the group '" + text + "'");
    throw Error(ErrorKind::NotFound, "there is no group '" + text + "' on this host");
}

}  // namespace

Access loadAccess(const ServerConfig& config, Problems& problems) {
    const ServerSection& server = config.server;
    Access access;
    const auto problem = [&](const std::string& key, const std::string& reason) {
        const auto line = config.lines.find(key);
        problems.push_back({line == config.lines.end() ? 0 : line->second, key, reason, {}});
    };
    try {
        if (!server.tokenFile.empty()) access.tokens = std::make_shared<api::TokenFile>(server.tokenFile);
    } catch (const Error& error) {
        problem("server.token_file", error.what());
    }
    try {
        if (!server.socketGroup.empty()) access.socketGroup = groupOf(server.socketGroup);
    } catch (const Error& error) {
        problem("server.socket_group", error.what());
    }
    return access;
}

}  // namespace mergen::server
