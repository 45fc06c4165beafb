#include <arpa/inet.h>
#include <netinet/in.h>

#include <mergen/api/access.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::api {

bool isLoopback(const std::string& host) {
    in_addr v4{};
    if (::inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24U) == IN_LOOPBACKNET;
    // An IPv4 address in the clothes of IPv6 (::ffff:127.0.0.1) is none: rather one token too many.
    in6_addr v6{};
    if (::inet_pton(AF_INET6, host.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6);
    throw Error(ErrorKind::InvalidArgument, "'" + printable(host) + "' is no IPv4 or IPv6 address");
}

void requireAccessControl(const std::string& host, bool hasTokens, bool insecure) {
    if (isLoopback(host) || hasTokens || insecure) return;
    throw Error(ErrorKind::InvalidArgument,
                "'" + printable(host) +
                    "' can be reached from other hosts, and whoever reaches it could do all that the server can: set "
                    "token_file ('mergend --new-token NAME' makes a token), or insecure = true if that is meant");
}

}  // namespace mergen::api
