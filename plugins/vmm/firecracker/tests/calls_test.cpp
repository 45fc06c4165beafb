/// The same calls on the fake Firecracker and, where there is one, on a real one: what the fake answers is what the
/// real one answers, status and body.
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <poll.h>
#include <string>
#include <unistd.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/base/unix_socket.hpp>
#include <mergen/sdk/error.hpp>

#include "called_program.hpp"
#include "comparison.hpp"
#include "test_host.hpp"
#include "vmm_process.hpp"

namespace mergen::vmm {
namespace {

using namespace std::chrono_literals;

std::vector<Call> calls() {
    const std::string longArguments(2100, 'x');
    std::vector<Call> all;
    const auto get = [&](const char* path) { all.push_back({"GET", path}); };
    const auto put = [&](const char* path, std::string body) { all.push_back({"PUT", path, std::move(body)}); };
    const auto patch = [&](const char* path, std::string body) { all.push_back({"PATCH", path, std::move(body)}); };
    const auto both = [&] {
        get("/");
        get("/machine-config");
        get("/vm/config");
        get("/nothing");
        all.push_back({"GET", "/", "{}"});
        all.push_back({"PUT", "/actions"});
        all.push_back({"PATCH", "/vm"});
        all.push_back({"DELETE", "/drives/x"});
        all.push_back({"DELETE", "/drives/x-y"});
        all.push_back({"DELETE", "/drives"});
        all.push_back({"DELETE", "/drives/x", "{}"});
        all.push_back({"DELETE", "/nothing"});
        put("/nothing", "{}");
        patch("/nothing", "{}");
    };
    both();
    // Bodies that cannot be read.
    for (const char* body : {"{}",
                             "nonsense",
                             R"({"action_type")",
                             R"({"action_type":)",
                             "[]",
                             R"("x")",
                             "1",
                             "null",
                             R"({"action_type":"InstanceStart"} x)",
                             "",
                             " ",
                             R"({"action_type":"Instance)",
                             R"({"action_type":"\q"})",
                             R"({"action_type":"InstanceStart","action_type":"InstanceStart"})",
                             "{",
                             "-",
                             "tru",
                             "1.5",
                             "{}}",
                             R"({"action_type":"Foo"})",
                             R"({"action_type":1})",
                             R"({"action_type":"InstanceStart","x":1})",
                             R"({"action_type":"InstanceStart",})",
                             R"({action_type:1})",
                             R"({"action_type" "InstanceStart"})",
                             "{\n  \"action_type\":\n    \"Foo\"}"}) {
        put("/actions", body);
    }
    put("/actions", R"({"action_type":"InstanceStart"})");
    put("/actions", R"({"action_type":"SendCtrlAltDel"})");
    patch("/vm", R"({"state":"Paused"})");
    patch("/vm", R"({"state":"Sleeping"})");
    patch("/vm", "{}");
    for (const char* body : {"{}",
                             R"({"vcpu_count":0,"mem_size_mib":128})",
                             R"({"vcpu_count":33,"mem_size_mib":128})",
                             R"({"vcpu_count":3,"mem_size_mib":128,"smt":true})",
                             R"({"vcpu_count":2,"mem_size_mib":0})",
                             R"({"vcpu_count":"2","mem_size_mib":128})",
                             R"({"vcpu_count":300,"mem_size_mib":128})",
                             R"({"vcpu_count":-1,"mem_size_mib":128})",
                             R"({"vcpu_count":1.5,"mem_size_mib":128})",
                             R"({"vcpu_count":null,"mem_size_mib":128})",
                             R"({"vcpu_count":true,"mem_size_mib":128})",
                             R"({"vcpu_count":[],"mem_size_mib":128})",
                             R"({"vcpu_count":{},"mem_size_mib":128})",
                             R"({"vcpu_count":1,"mem_size_mib":128,"smt":"no"})",
                             R"({"vcpu_count":1,"mem_size_mib":128,"foo":1})",
                             R"({"vcpu_count":1,"vcpu_count":1,"mem_size_mib":128})",
                             R"({"vcpu_count":1})",
                             R"({"vcpu_count":1,"mem_size_mib":3,"huge_pages":"2M"})",
                             R"({"vcpu_count":1,"mem_size_mib":4,"huge_pages":"4M"})",
                             R"({"vcpu_count":2,"mem_size_mib":64,"smt":false})"}) {
        put("/machine-config", body);
    }
    patch("/machine-config", "{}");
    patch("/machine-config", R"({"vcpu_count":1})");
    patch("/machine-config", R"({"mem_size_mib":0})");
    patch("/machine-config", R"({"mem_size_mib":32})");
    get("/machine-config");
    for (const std::string& body :
         std::vector<std::string>{"{}", R"({"kernel_image_path":"/nonexistent/kernel"})", R"({"kernel_image_path":1})",
                                  R"({"kernel_image_path":"FILE/kernel","initrd_path":"/nonexistent/initrd"})",
                                  R"({"kernel_image_path":"FILE/kernel","boot_args":")" + longArguments + R"("})",
                                  R"({"kernel_image_path":"FILE/kernel","kernel":1})",
                                  R"({"kernel_image_path":"FILE/kernel","boot_args":null})",
                                  R"({"kernel_image_path":"FILE/kernel","boot_args":"console=ttyS0"})"}) {
        put("/boot-source", body);
    }
    put("/drives", R"({"drive_id":"x"})");
    put("/drives/root-fs", R"({"drive_id":"root-fs","is_root_device":true})");
    for (
        const char* body :
        {"{}", R"({"drive_id":"rootfs"})", R"({"drive_id":"other","is_root_device":true,"path_on_host":"FILE/disk"})",
         R"({"drive_id":"rootfs","is_root_device":true})",
         R"({"drive_id":"rootfs","is_root_device":true,"path_on_host":"/nonexistent/disk"})",
         R"({"drive_id":"rootfs","is_root_device":true,"path_on_host":"FILE/disk","cache_type":"Fast"})",
         R"({"drive_id":"rootfs","is_root_device":true,"path_on_host":"FILE/disk","io_engine":"Fast"})",
         R"({"drive_id":"rootfs","is_root_device":true,"path_on_host":"FILE/disk","socket":"/x"})",
         R"({"drive_id":"rootfs","is_root_device":"yes","path_on_host":"FILE/disk"})",
         R"({"drive_id":"rootfs","is_root_device":true,"path_on_host":"FILE/disk","readonly":true})",
         R"({"drive_id":"rootfs","is_root_device":true,"path_on_host":"FILE/disk","is_read_only":false,"cache_type":"Writeback"})"}) {
        put("/drives/rootfs", body);
    }
    put("/drives/second", R"({"drive_id":"second","is_root_device":true,"path_on_host":"FILE/disk"})");
    patch("/drives/rootfs", R"({"drive_id":"rootfs","path_on_host":"FILE/disk"})");
    for (const char* body : {"{}", R"({"iface_id":"eth0"})", R"({"iface_id":"eth1","host_dev_name":"lo"})",
                             R"({"iface_id":"eth0","host_dev_name":"a-name-that-is-too-long"})",
                             R"({"iface_id":"eth0","host_dev_name":"lo"})",
                             R"({"iface_id":"eth0","host_dev_name":"lo","guest_mac":"nonsense"})",
                             R"({"iface_id":"eth0","host_dev_name":"lo","guest_mac":"02:FC:00:00:00:01","mtu":70000})",
                             R"({"iface_id":"eth0","host_dev_name":"lo","name":"x"})"}) {
        put("/network-interfaces/eth0", body);
    }
    put("/network-interfaces/eth-0", R"({"iface_id":"eth-0","host_dev_name":"lo"})");
    patch("/network-interfaces/eth0", R"({"iface_id":"eth0"})");
    put("/snapshot", "{}");
    put("/snapshot/shoot", "{}");
    get("/vm/config");
    // A kernel that is none, and then the test's own ELF file, which the real one loads where it has KVM.
    put("/boot-source", R"({"kernel_image_path":"FILE/disk"})");
    put("/actions", R"({"action_type":"InstanceStart"})");
    return all;
}

TEST(FirecrackerCalls, FakeAnswersEveryCallAsAnApiDoes) {
    Program fake(MERGEN_FAKE_FIRECRACKER);
    std::size_t refused = 0;
    for (const Call& call : calls()) {
        const Answer answer = fake.ask(call);
        SCOPED_TRACE(call.method + " " + call.path + " " + call.body.value_or(""));
        if (call.method == "GET" && answer.status == "HTTP/1.1 200 ") continue;
        if (answer.status == "HTTP/1.1 204 ") {
            EXPECT_EQ(answer.body, "");
            continue;
        }
        EXPECT_EQ(answer.status, "HTTP/1.1 400 ");
        EXPECT_THAT(answer.body, ::testing::StartsWith("{\"fault_message\":\""));
        ++refused;
    }
    EXPECT_GT(refused, 80U);
    EXPECT_GE(calls().size(), 100U);
}

TEST(FirecrackerCalls, FakeAnswersAsTheRealOne) {
    expectAnswersOfTheRealOne(calls());
}

/// Bytes that are no request.
std::vector<std::string> badRequests() {
    return {"POST / HTTP/1.1\r\n\r\n",
            "GET / HTTP/2\r\n\r\n",
            "GET\r\n\r\n",
            "GET /" + std::string(2000, 'x') + " HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nno header\r\n\r\n",
            "PUT /actions HTTP/1.1\r\nContent-Length: many\r\n\r\n",
            "PUT /actions HTTP/1.1\r\nContent-Length: 51201\r\n\r\n"};
}

TEST(FirecrackerCalls, ServerBelowRefusesWhatIsNoRequestAsTheRealOne) {
    const auto program = realPrograms().firecracker;
    for (const std::string& bytes : badRequests()) {
        const Answer answer = Program(MERGEN_FAKE_FIRECRACKER).exchange(bytes);
        EXPECT_EQ(answer.status, "HTTP/1.1 400 ") << bytes;
        EXPECT_THAT(answer.body, ::testing::StartsWith("{ \"error\": \""));
        if (program) {
            EXPECT_EQ(answer, Program(*program).exchange(bytes)) << printable(bytes);
            countComparison(1);
        }
    }
}

TEST(FirecrackerCalls, EleventhConnectionIsTurnedAway) {
    std::vector<std::filesystem::path> programs{MERGEN_FAKE_FIRECRACKER};
    if (const auto program = realPrograms().firecracker) programs.push_back(*program);
    for (const std::filesystem::path& each : programs) {
        Program program(each);
        static_cast<void>(program.ask({"GET", "/"}));
        std::vector<UnixConnection> more;
        std::string said;
        // The first one is the program's; one that has been accepted says nothing until it is asked.
        for (int i = 0; i < 10; ++i) {
            more.push_back(UnixConnection::connect(program.socket(), ::geteuid(),
                                                   std::chrono::steady_clock::now() + plenty, "it"));
        }
        while (said.find("}") == std::string::npos) more.back().receive(said);
        EXPECT_THAT(said, ::testing::StartsWith("HTTP/1.1 503\r\n"));
        EXPECT_THAT(said, ::testing::HasSubstr(R"({ "error": "Too many open connections" })"));
        EXPECT_THROW(more.back().receive(said), Error) << "it is closed";
        EXPECT_EQ(program.ask({"GET", "/version"}).status, "HTTP/1.1 200 ") << "the others go on";
    }
}

/// How a command line ends, and a word of what it prints.
struct Ending {
    std::vector<std::string> arguments;
    int status;
    std::string words;
};

TEST(FirecrackerCalls, CommandLinesEndAsThoseOfTheRealOne) {
    test::TestHost host(nullptr);
    const std::string folder = host.paths().runRoot.string();
    writeFileAtomically(folder + "/nothing.json", "{}", 0600);
    writeFileAtomically(folder + "/no.json", "no", 0600);
    writeFileAtomically(folder + "/kernel.json", R"({"boot-source":{"kernel_image_path":"/nonexistent"},"drives":[]})",
                        0600);
    writeFileAtomically(folder + "/taken", "", 0600);
    const std::vector<Ending> endings{
        {{"--version"}, 0, "Firecracker v"},
        {{"--nonsense"}, 153, "Found argument 'nonsense' which wasn't expected"},
        {{"nonsense"}, 153, "Found argument 'nonsense' which wasn't expected"},
        {{"--api-sock"}, 153, "The argument 'api-sock' requires a value"},
        {{"--no-api"}, 153, "Argument 'config-file' required, but not found"},
        {{"--id", "a", "--id", "b"}, 153, "was provided more than once"},
        {{"--level", "loud", "--api-sock", folder + "/s0"}, 152, "Invalid value for logger level"},
        {{"--api-sock", folder + "/taken"}, 1, "Check that it is not already used"},
        {{"--api-sock", folder + "/none/s"}, 1, "IO error: No such file or directory (os error 2)"},
        {{"--api-sock", folder + "/s1", "--config-file", folder + "/nothing.json"},
         1,
         "Invalid JSON: missing field `drives` at line 1 column 2"},
        {{"--api-sock", folder + "/s2", "--config-file", folder + "/no.json"}, 1, "Invalid JSON: expected ident"},
        {{"--no-api", "--config-file", folder + "/kernel.json"},
         1,
         "Boot source error: The kernel file cannot be opened: No such file or directory (os error 2)"}};
    std::vector<std::filesystem::path> programs{MERGEN_FAKE_FIRECRACKER};
    if (const auto program = realPrograms().firecracker) programs.push_back(*program);
    for (const std::filesystem::path& program : programs) {
        for (const Ending& ending : endings) {
            LaunchPlan plan;
            plan.arguments = {program.string()};
            plan.arguments.insert(plan.arguments.end(), ending.arguments.begin(), ending.arguments.end());
            test::VmmProcess process(plan);
            const std::optional<int> status = process.awaitExit();
            ASSERT_TRUE(status.has_value()) << program << " " << ending.arguments[0];
            EXPECT_EQ(WEXITSTATUS(*status), ending.status) << program << ": " << process.console();
            EXPECT_THAT(process.console(), ::testing::HasSubstr(ending.words)) << program;
            for (const char* name : {"/s0", "/s1", "/s2"}) removeTree(folder + name);
        }
    }
}

}  // namespace
}  // namespace mergen::vmm
