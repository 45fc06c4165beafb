#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <ostream>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

#include <mergen/base/file.hpp>
#include <mergen/base/folder_watches.hpp>
#include <mergen/base/unix_socket.hpp>

#include "test_host.hpp"
#include "vmm_process.hpp"

/// A Firecracker, the fake or a real one, whose API tests call byte by byte.
namespace mergen::vmm {

using namespace std::chrono_literals;

inline constexpr auto plenty = 60s;

/// A call: method, path, body. Where FILE stands in the body, the folder of the test's files is put: `FILE/kernel`
/// begins like one and is none, `FILE/guest` is the tiny guest, `FILE/disk` is 4 KiB, `FILE/odd` no whole number of
/// sectors.
struct Call {
    std::string method, path;
    std::optional<std::string> body{};
};

struct Answer {
    std::string status, body;
    bool operator==(const Answer&) const = default;
};

inline std::ostream& operator<<(std::ostream& out, const Answer& answer) {
    return out << answer.status << " " << answer.body;
}

/// A Firecracker of either kind, and one connection to it.
class Program {
public:
    explicit Program(const std::filesystem::path& program) : process_(plan(program)) {
        awaitSocket(
            watches_, socket(), "it", std::chrono::steady_clock::now() + plenty, [this] { return process_.alive(); },
            [this] {
                connection_ =
                    UnixConnection::tryConnect(socket(), ::geteuid(), std::chrono::steady_clock::now() + plenty, "it");
                return connection_.has_value();
            });
        writeFileAtomically(files() / "kernel",
                            "\x7f"
                            "ELF, and nothing more",
                            0600);
        writeFileAtomically(files() / "disk", std::string(4096, '\0'), 0600);
        writeFileAtomically(files() / "odd", std::string(5000, '\0'), 0600);
        std::filesystem::create_symlink(MERGEN_TINY_GUEST, files() / "guest");
    }

    Answer ask(const Call& call) {
        std::string body = call.body.value_or("");
        for (std::size_t at = 0; (at = body.find("FILE/")) != std::string::npos;) body.replace(at, 4, files().string());
        std::string text = call.method + " " + call.path + " HTTP/1.1\r\n";
        if (call.body) text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
        return exchange(text + "\r\n" + body);
    }

    Answer exchange(const std::string& bytes) {
        connection_->send(bytes);
        std::string reply;
        while (reply.find("\r\n\r\n") == std::string::npos) connection_->receive(reply);
        const std::size_t end = reply.find("\r\n\r\n");
        Answer answer{reply.substr(0, reply.find("\r\n")), reply.substr(end + 4)};
        if (const std::size_t at = reply.find("Content-Length: "); at < end) {
            const std::size_t length = std::stoul(reply.substr(at + 16));
            while (answer.body.size() < length) connection_->receive(answer.body);
            answer.body.resize(length);  // the real one says more about what stands behind a line that is too long
        }
        // What differs from one to the other and from run to run.
        for (const auto& [text, stands] : {std::pair(files().string(), std::string("FILE"))}) {
            for (std::size_t at = 0; (at = answer.body.find(text)) != std::string::npos;)
                answer.body.replace(at, text.size(), stands);
        }
        if (const std::size_t at = answer.body.find("\"vmm_version\":\""); at != std::string::npos)
            answer.body.erase(at, answer.body.find("\",", at) + 2 - at);
        return answer;
    }

    [[nodiscard]] std::filesystem::path files() const { return host_.paths().dataRoot; }
    [[nodiscard]] std::filesystem::path socket() const { return host_.paths().runRoot / "api.sock"; }
    [[nodiscard]] test::VmmProcess& process() { return process_; }

private:
    [[nodiscard]] LaunchPlan plan(const std::filesystem::path& program) const {
        LaunchPlan plan;
        plan.arguments = {program.string(), "--api-sock", socket().string(), "--id", "vm-1"};
        return plan;
    }

    test::TestHost host_{nullptr};
    FolderWatches watches_;
    test::VmmProcess process_;
    std::optional<UnixConnection> connection_;
};

}  // namespace mergen::vmm
