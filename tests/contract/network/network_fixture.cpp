#include "network_fixture.hpp"

#include <array>
#include <chrono>
#include <filesystem>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <poll.h>
#include <set>
#include <string_view>
#include <sys/socket.h>
#include <system_error>

#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/base/process.hpp>
#include <mergen/base/text.hpp>

namespace mergen::test {

namespace {

constexpr std::size_t outputLimit = 16U << 20U;

RunResult tool(const std::vector<std::string>& arguments) {
    SpawnOptions options;
    options.arguments = arguments;
    return run(options, std::chrono::seconds(60), outputLimit);
}

/// Without what the kernel works out on its own after a link was made or set up: carrier and operational state.
std::string settled(const std::string& links) {
    std::string text;
    bool state = false;
    for (std::string word : split(links, ' ')) {
        if (state) word = "-";
        state = word == "state";
        for (const std::string_view flag : {"NO-CARRIER,", ",LOWER_UP"}) {
            if (const std::size_t at = word.find(flag); at != std::string::npos) word.erase(at, flag.size());
        }
        text += word + " ";
    }
    return text;
}

}  // namespace

NetworkSpec networkSpec(const std::string& instance, std::uint32_t number) {
    const Uuid id = Uuid::random();
    const Ipv4Network network = Ipv4Network::parse("172.30.0.0/24");
    return {.owner = {instance, id},
            .netns = "mergen-" + id.short8(),
            .tap = IfName::parse("tap-" + id.short8()),
            .mac = MacAddress::of(id),
            .guest = network.host(number),
            .gateway = network.host(1),
            .network = network,
            .tapOwner = 1'900'000'000,
            .ports = {}};
}

NetworkSpec withCards(NetworkSpec spec, std::uint8_t count) {
    const Uuid& id = spec.owner.vm;
    for (std::uint8_t card = 1; card < count; ++card) {
        spec.further.push_back({.tap = IfName::parse("tap" + std::to_string(card) + "-" + id.short8()),
                                .mac = MacAddress::of(id, card),
                                .guest = Ipv4Address(spec.guest.value() + card)});
    }
    return spec;
}

std::string runTool(const std::vector<std::string>& arguments) {
    const RunResult result = tool(arguments);
    if (result.status != 0) {
        std::string line;
        for (const std::string& argument : arguments) line += argument + " ";
        ADD_FAILURE() << line << "failed: " << describeStatus(result.status) << " " << result.errors;
    }
    return result.output;
}

std::string hostSnapshot() {
    std::string text;
    const auto add = [&](const std::string& title, const std::string& content) {
        text += "== " + title + "\n" + content + "\n";
    };
    add("links", settled(runTool({"/usr/sbin/ip", "-d", "-o", "link", "show"})));
    add("addresses", runTool({"/usr/sbin/ip", "-o", "address", "show"}));
    add("routes", runTool({"/usr/sbin/ip", "route", "show", "table", "all"}));
    add("neighbours", runTool({"/usr/sbin/ip", "neighbour", "show", "nud", "permanent"}));
    // Without the counters' values. As an ordinary user it fails, and has nothing to say.
    add("rules", tool({"/usr/sbin/nft", "--stateless", "list", "ruleset"}).output);
    std::string names;
    for (const std::string& name : listDirectory("/run/netns")) names += name + "\n";
    add("names", names);
    std::string mounts;
    for (const std::string& line : split(readFile("/proc/self/mountinfo", outputLimit).value_or(""), '\n')) {
        const std::vector<std::string> fields = split(line, ' ');
        if (fields.size() > 4 && fields[4].starts_with("/run/netns")) mounts += fields[4] + "\n";
    }
    add("mounts", mounts);
    add("forwarding", readFile("/proc/sys/net/ipv4/ip_forward", 64).value_or("none"));
    return text;
}

std::multiset<std::string> openNamespaces() {
    std::multiset<std::string> open;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code gone;  // the descriptor of this very listing
        const std::string target = std::filesystem::read_symlink(entry, gone).string();
        if (target.starts_with("net:")) open.insert(target);
    }
    return open;
}

std::string difference(const std::string& before, const std::string& after) {
    std::multiset<std::string> old;
    for (const std::string& line : split(before, '\n')) old.insert(line);
    std::string text;
    for (const std::string& line : split(after, '\n')) {
        if (const auto same = old.find(line); same != old.end()) {
            old.erase(same);
        } else {
            text += "+" + line + "\n";
        }
    }
    for (const std::string& line : old) text += "-" + line + "\n";
    return text;
}

namespace {

/// A socket that becomes readable when something of these multicast groups changes; null if we may not listen.
UniqueFd changesOf(int protocol, std::uint32_t groups) {
    UniqueFd events(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol));
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    address.nl_groups = groups;
    if (::bind(events.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return {};
    return events;
}

}  // namespace

std::string settledSnapshot(const std::string& expected) {
    using Clock = std::chrono::steady_clock;
    const UniqueFd links = changesOf(NETLINK_ROUTE, RTMGRP_LINK | RTMGRP_IPV4_ROUTE | RTMGRP_IPV4_IFADDR);
    if (!links) throw Error::fromErrno(errno, "cannot listen to the kernel's link events");
    // Who may not listen to these does not see the rules either.
    const UniqueFd rules = changesOf(NETLINK_NETFILTER, 1U << (NFNLGRP_NFTABLES - 1U));
    const auto deadline = Clock::now() + std::chrono::seconds(10);
    for (;;) {
        std::string now = hostSnapshot();
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
        if (now == expected || left.count() <= 0) return now;
        std::array<pollfd, 2> wait{pollfd{links.get(), POLLIN, 0}, pollfd{rules.get(), POLLIN, 0}};
        ::poll(wait.data(), wait.size(), static_cast<int>(left.count()));
        std::array<char, 65536> buffer{};
        for (const pollfd& entry : wait) {
            while (entry.fd >= 0 && ::recv(entry.fd, buffer.data(), buffer.size(), 0) > 0) {
            }
        }
    }
}

UniqueFd bindPort(Protocol protocol, std::uint16_t port) {
    const int type = protocol == Protocol::Tcp ? SOCK_STREAM : SOCK_DGRAM;
    UniqueFd fd(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_port = htons(port);
    if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), sizeof(any)) == 0) return fd;
    EXPECT_EQ(errno, EADDRINUSE);
    return {};
}

std::optional<Error> errorOf(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        return error;
    }
    ADD_FAILURE() << "nothing was thrown";
    return std::nullopt;
}

}  // namespace mergen::test
