#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "scripted_server.hpp"

namespace mergen::vmm {

inline constexpr std::string_view qmpGreeting =
    R"({"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}})"
    "\r\n";

/// The other end of a conversation with the code under test, as a script sees it.
class FakePeer {
public:
    explicit FakePeer(test::ScriptedPeer& peer) : peer_(peer) {}

    /// Sends the bytes as they are; false once the other side has gone.
    bool send(std::string_view bytes) { return peer_.send(bytes); }
    /// The next line without its end; empty once the other side has gone.
    [[nodiscard]] std::string line() { return peer_.until("\n"); }
    /// Reads a command, answers with the id of the question, and gives the command's line. `answer` is what stands in
    /// the object beside the id: `"return": {}`.
    std::string answer(std::string_view answer);
    /// Greets and agrees on capabilities.
    void greet();
    /// Waits until the other side closes, and reads nothing but that.
    void awaitEnd() { peer_.awaitEnd(); }

private:
    test::ScriptedPeer& peer_;
};

/// Runs `script` for each connection, one after the other.
class FakeQmpServer {
public:
    FakeQmpServer(const std::filesystem::path& socket, std::function<void(FakePeer&)> script)
        : server_(socket, [script = std::move(script)](test::ScriptedPeer& connection) {
              FakePeer peer(connection);
              script(peer);
          }) {}

private:
    test::ScriptedServer server_;
};

}  // namespace mergen::vmm
