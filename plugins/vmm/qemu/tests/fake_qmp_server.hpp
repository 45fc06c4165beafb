#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <mergen/base/fd.hpp>

namespace mergen::vmm {

inline constexpr std::string_view qmpGreeting =
    R"({"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}})"
    "\r\n";

/// The other end of a conversation with the code under test, as a script sees it.
class FakePeer {
public:
    explicit FakePeer(UniqueFd connection) : connection_(std::move(connection)) {}

    /// Sends the bytes as they are; false once the other side has gone.
    bool send(std::string_view bytes);
    /// The next line without its end; empty once the other side has gone.
    [[nodiscard]] std::string line();
    /// Reads a command, answers with the id of the question, and gives the command's line. `answer` is what stands in
    /// the object beside the id: `"return": {}`.
    std::string answer(std::string_view answer);
    /// Greets and agrees on capabilities.
    void greet();
    /// Waits until the other side closes, and reads nothing but that.
    void awaitEnd();

private:
    UniqueFd connection_;
    std::string buffer_;
};

/// Listens on a unix socket and runs `script` on its own thread for each connection, one after the other. The end
/// waits for the script, which ends when the code under test closes.
class FakeQmpServer {
public:
    FakeQmpServer(const std::filesystem::path& socket, std::function<void(FakePeer&)> script);
    FakeQmpServer(const FakeQmpServer&) = delete;
    FakeQmpServer& operator=(const FakeQmpServer&) = delete;
    ~FakeQmpServer();

private:
    UniqueFd listener_;
    UniqueFd wake_;
    std::function<void(FakePeer&)> script_;
    std::jthread thread_;
};

}  // namespace mergen::vmm
