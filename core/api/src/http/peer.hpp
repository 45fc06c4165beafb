#pragma once

#include <string>

#include <Poco/Net/SocketAddress.h>

namespace mergen::api::http {

/// The other end of a connection, as the kernel tells it.
struct Peer {
    bool local = false;  ///< came over the unix socket, whose mode has let it in
    std::string host;    ///< TCP: its address without the port; unix: empty
    std::string text;    ///< for the log: "192.0.2.1:40000", or "uid 1000, gid 1000, pid 4711"
    unsigned uid = 0;    ///< unix only: of the process when it connected
    /// TCP: both ends. Of a unix socket 0.0.0.0:0, as Poco's own address of a unix peer throws where it is asked for a
    /// host.
    Poco::Net::SocketAddress client, server;
};

/// Who sent a request, once it has been let in: "token:ci", "uid:1000", "tcp:127.0.0.1".
struct Caller {
    std::string name;
};

}  // namespace mergen::api::http
