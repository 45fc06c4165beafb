// The unix socket beside TCP.
#include <fcntl.h>
#include <memory>
#include <string>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <system_error>
#include <unistd.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/fd.hpp>
#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "http/listener.hpp"
#include "raw_client.hpp"
#include "test_host.hpp"

namespace mergen::api {
namespace {

namespace fs = std::filesystem;
using http::Listener;
using std::chrono::milliseconds;
using test::RawClient;
using test::requestText;
using test::ServerFixture;
using testing::HasSubstr;

class ApiSocket : public testing::Test {
protected:
    [[nodiscard]] fs::path socket() const { return host_.root() / "s"; }
    [[nodiscard]] const fs::path& folder() const { return host_.root(); }
    [[nodiscard]] ApiConfig config() const {
        ApiConfig made;
        made.socket = socket();
        return made;
    }

    static int ask(RawClient& client) {
        client.send(requestText("GET", "/v1/vms"));
        return client.receive()->status;
    }

    static UniqueFd bindAt(const fs::path& path, int type) {
        UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path.native().copy(address.sun_path, sizeof address.sun_path - 1);
        EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
        return fd;
    }

    static ErrorKind refusalAt(const fs::path& path) {
        try {
            const Listener listener = Listener::unixSocket(path, ::getegid());
        } catch (const Error& error) {
            EXPECT_THAT(error.what(), HasSubstr(path.parent_path().string()));
            return error.kind();
        }
        ADD_FAILURE() << path << " was taken";
        return ErrorKind::Internal;
    }

private:
    mergen::test::TestHost host_{nullptr};
};

struct stat statusOf(const fs::path& path) {
    struct stat status {};
    EXPECT_EQ(::lstat(path.c_str(), &status), 0) << path;
    return status;
}

TEST_F(ApiSocket, ServesBesideTcpWithModeAndGroupAndGoesWithTheServer) {
    const mode_t before = ::umask(0);  // the widest: what the file has is not the umask's doing
    ServerFixture fixture(config());
    ::umask(before);
    const struct stat status = statusOf(socket());
    EXPECT_TRUE(S_ISSOCK(status.st_mode));
    EXPECT_EQ(status.st_mode & 07777U, 0660U);
    EXPECT_EQ(status.st_uid, ::geteuid());
    EXPECT_EQ(status.st_gid, ::getegid());
    RawClient local(socket());
    EXPECT_EQ(ask(local), 200);
    EXPECT_EQ(ask(local), 200) << "the connection goes on";
    EXPECT_EQ(fixture.request("GET", "/v1/vms").status, 200);
    EXPECT_THAT(fixture.request("GET", "/readyz").body,
                HasSubstr("; " + socket().string() + ", for its owner and group"));
    fixture.server().stop(milliseconds(0));
    EXPECT_FALSE(fs::exists(socket()));
}

TEST_F(ApiSocket, MayBeTheOnlyWay) {
    ApiConfig only = config();
    only.host.clear();
    ServerFixture fixture(only);
    EXPECT_EQ(fixture.port(), 0);
    RawClient local(socket());
    EXPECT_EQ(ask(local), 200);
}

TEST_F(ApiSocket, GivesItsGroupTheRightToConnect) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root to give a file to another group";
    ApiConfig grouped = config();
    grouped.socketGroup = 65533;
    const ServerFixture fixture(grouped);
    EXPECT_EQ(statusOf(socket()).st_gid, 65533U);
    EXPECT_EQ(statusOf(socket()).st_mode & 07777U, 0660U);
}

TEST_F(ApiSocket, AGroupThatWeMayNotGiveEndsTheStartAndLeavesNothing) {
    // chown(2) fails after bind(2).
    if (::geteuid() == 0) GTEST_SKIP() << "root may give every group";
    EXPECT_THROW(static_cast<void>(Listener::unixSocket(socket(), 0)), Error);
    EXPECT_FALSE(fs::exists(socket()));
}

TEST_F(ApiSocket, AStaleOneIsReplaced) {
    bindAt(socket(), SOCK_STREAM).reset();  // as after a kill -9
    ASSERT_TRUE(fs::exists(socket()));
    ServerFixture fixture(config());
    RawClient local(socket());
    EXPECT_EQ(ask(local), 200);
}

TEST_F(ApiSocket, OneThatAProcessHasIsLeftToIt) {
    for (const int type : {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}) {
        const UniqueFd holder = bindAt(socket(), type);
        if (type != SOCK_DGRAM) {
            ASSERT_EQ(::listen(holder.get(), 1), 0);
        }
        const ino_t inode = statusOf(socket()).st_ino;
        EXPECT_EQ(refusalAt(socket()), ErrorKind::AlreadyExists) << type;
        EXPECT_EQ(statusOf(socket()).st_ino, inode);
        fs::remove(socket());
    }
    ServerFixture first(config());
    EXPECT_THROW(const ServerFixture second(config()), Error);
    RawClient local(socket());
    EXPECT_EQ(ask(local), 200) << "the first one's, still";
}

TEST_F(ApiSocket, OneWhoseQueueIsFullIsNotStale) {
    const UniqueFd holder = bindAt(socket(), SOCK_STREAM);
    ASSERT_EQ(::listen(holder.get(), 0), 0);
    std::vector<std::unique_ptr<RawClient>> waiting;
    waiting.push_back(std::make_unique<RawClient>(socket()));  // a queue of 0 has room for one
    EXPECT_EQ(refusalAt(socket()), ErrorKind::AlreadyExists);
}

TEST_F(ApiSocket, WhateverElseStandsThereStays) {
    writeFileAtomically(folder() / "file", "content", 0600);
    fs::create_directory(folder() / "directory");
    ASSERT_EQ(::mkfifo((folder() / "fifo").c_str(), 0600), 0);
    bindAt(folder() / "stale", SOCK_STREAM).reset();
    fs::create_symlink("stale", folder() / "link");  // even to a socket that could go
    fs::create_symlink("nowhere", folder() / "dangling");
    for (const char* const name : {"file", "directory", "fifo", "link", "dangling"}) {
        const struct stat before = statusOf(folder() / name);
        EXPECT_EQ(refusalAt(folder() / name), ErrorKind::FailedPrecondition) << name;
        EXPECT_EQ(statusOf(folder() / name).st_ino, before.st_ino) << name;
    }
    EXPECT_TRUE(fs::exists(folder() / "stale"));
    EXPECT_EQ(readFile(folder() / "file", 100), "content");
}

TEST_F(ApiSocket, APathThatDoesNotFitIsRefused) {
    const std::string room(http::maxSocketPath - folder().native().size() - 1, 'a');
    EXPECT_NO_THROW(static_cast<void>(Listener::unixSocket(folder() / room, ::getegid())));
    EXPECT_EQ(refusalAt(folder() / (room + "a")), ErrorKind::InvalidArgument);
}

TEST_F(ApiSocket, AFolderThatOthersCanWriteToIsRefused) {
    fs::create_directory(folder() / "open");
    for (const mode_t mode : {0777, 01777, 0775, 0707}) {
        ASSERT_EQ(::chmod((folder() / "open").c_str(), mode), 0);
        EXPECT_EQ(refusalAt(folder() / "open" / "s"), ErrorKind::PermissionDenied) << std::oct << mode;
    }
    EXPECT_EQ(refusalAt(folder() / "none" / "s"), ErrorKind::NotFound);
}

TEST_F(ApiSocket, WhatTookItsPlaceIsNotRemovedWithIt) {
    ServerFixture fixture(config());
    fs::remove(socket());
    writeFileAtomically(socket(), "mine", 0600);
    fixture.end();
    EXPECT_EQ(readFile(socket(), 100), "mine");
}

TEST_F(ApiSocket, SlowClientsHaveTheSameDeadline) {
    ApiConfig quick = config();
    quick.readTimeout = milliseconds(300);
    ServerFixture fixture(quick);
    RawClient head(socket());
    head.send("GET /healthz HTTP/1.1\r\n");
    RawClient body(socket());
    body.send("POST /v1/vms HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{");
    RawClient silent(socket());
    EXPECT_EQ(head.receive()->status, 408);
    EXPECT_EQ(body.receive()->status, 408);
    EXPECT_TRUE(silent.closed());
}

TEST_F(ApiSocket, TheCapCountsConnectionsOfBothKinds) {
    ServerFixture fixture(config());
    RawClient first(fixture.port());
    first.send("GET /heal");
    std::vector<std::unique_ptr<RawClient>> others;
    for (int i = 0; i < 256; ++i) {
        others.push_back(std::make_unique<RawClient>(socket()));
        others.push_back(std::make_unique<RawClient>(fixture.port()));
    }
    EXPECT_TRUE(first.closed());
    RawClient last(socket());
    EXPECT_EQ(ask(last), 200);
}

TEST_F(ApiSocket, SlowClientsOfOneKindDoNotKeepThoseOfTheOtherWaiting) {
    ApiConfig few = config();
    few.threads = 2;
    ServerFixture fixture(few);
    std::vector<std::unique_ptr<RawClient>> slow;
    for (int i = 0; i < 100; ++i) {
        slow.push_back(std::make_unique<RawClient>(socket()));
        slow.back()->send("POST /v1/vms HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{");
    }
    EXPECT_EQ(fixture.request("GET", "/healthz").status, 200);
}

TEST_F(ApiSocket, RequestsAreReadAsStrictlyAsOverTcp) {
    ServerFixture fixture(config());
    RawClient wrong(socket());
    wrong.send("GET /healthz HTTP/1.1\nHost: localhost\r\n\r\n");
    EXPECT_EQ(wrong.receive()->status, 400);
    RawClient page(socket());
    page.send(requestText("GET", "/v1/vms", "", "Origin: http://evil.example\r\n"));
    EXPECT_EQ(page.receive()->status, 403);
    RawClient named(socket());
    named.send("GET /v1/vms HTTP/1.1\r\nHost: mergen.example\r\n\r\n");
    EXPECT_EQ(named.receive()->status, 200);
}

}  // namespace
}  // namespace mergen::api
