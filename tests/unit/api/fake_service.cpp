#include "fake_service.hpp"

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

#include <mergen/base/text.hpp>
#include <mergen/engine/asked_by.hpp>

namespace mergen::api::test {

engine::VmView sampleVm(const std::string& id) {
    const std::string uuid = "7f3a9c01-1b2c-4d3e-8f40-0123456789ab";
    engine::VmView vm;
    vm.id = id;
    vm.uuid = uuid;
    vm.name = "web 1";
    vm.state = engine::VmState::Failed;
    vm.failure = "the VMM ended with exit status 1";
    vm.createdAt = parseRfc3339("2026-11-22T04:52:00.123Z");
    vm.vmm = "qemu";
    vm.rootfs = "/srv/rootfs.ext4";
    vm.kernel = "/srv/vmlinux";
    vm.initrd = "/srv/initrd.img";
    vm.dataDisk = "/srv/data.img";
    vm.vcpus = 2;
    vm.memory = MiB{256};
    vm.drives = {{.id = "rootfs",
                  .path = {},
                  .readOnly = true,
                  .engine = IoEngine::Async,
                  .limit = {.bandwidth = TokenBucket{1000, 10, std::chrono::milliseconds(100)}}}};
    vm.nics = {{.id = "eth0"}};
    vm.options.hugePages = HugePages::TwoMiB;
    vm.options.vsock = VsockSpec{7};
    vm.vsock = "/run/firecracker/" + id + "/vsock.sock";
    vm.options.balloon = BalloonSpec{MiB{64}, true, {}};
    vm.options.entropy = EntropySpec{};
    vm.options.mmds = MmdsSpec{.content = R"({"secret":"s3cret"})"};
    vm.options.metrics = true;
    vm.ports = {{20000, Protocol::Tcp, 80}, {20001, Protocol::Udp, 53}};
    vm.httpPort = 80;
    vm.autoStart = true;
    vm.guestAddress = "172.30.0.2";
    vm.mac = "02:fc:7f:3a:9c:01";
    vm.tapName = "tap-7f3a9c01";
    vm.netns = "mergen-7f3a9c01";
    vm.interfaces = {{"eth0", "172.30.0.2", "02:fc:7f:3a:9c:01", "tap-7f3a9c01"},
                     {"eth1", "172.30.0.3", "02:fc:7f:3a:9c:02", "tap1-7f3a9c01"}};
    vm.extraEnv = {{"SECRET", "s3cret"}};
    vm.tags = {{"app", "web"}};
    vm.metadata = R"({"owner":{"team":"a"},"n":1})";
    vm.bootArguments = "console=ttyS0";
    vm.paths = {"/etc/firecracker/vm.d/" + id,
                "/etc/firecracker/vm.d/" + id + "/vm.json",
                "/etc/firecracker/vm.d/" + id + "/meta.json",
                "/etc/firecracker/vm.d/" + id + "/hooks.json",
                "/etc/firecracker/vm.d/" + id + "/env",
                "/run/firecracker/" + id,
                "/run/firecracker/" + id + "/mergen.socket",
                "/run/firecracker/" + id + ".lock",
                "/var/lib/firecracker/" + id,
                "/var/lib/firecracker/" + id + "/logs"};
    vm.pid = 4711;
    vm.lastExit = ExitStatus{true, 9, parseRfc3339("2026-11-22T05:00:00Z")};
    vm.lastEnd = engine::VmEnd{engine::EndedBy::Mergen, vm.lastExit, "stop", vm.lastExit->at, "ended by stop"};
    vm.restartPolicy = RestartPolicy::OnFailure;
    vm.maxRestarts = 5;
    vm.onUnresponsive = engine::OnUnresponsive::Restart;
    vm.unresponsive = engine::Unresponsive{parseRfc3339("2026-11-22T04:58:00Z"), "no answer within 2000 ms"};
    vm.restarts = 2;
    vm.holder = engine::Holder{"start", "op-1", parseRfc3339("2026-11-22T05:00:01Z")};
    vm.socketPresent = true;
    return vm;
}

void FakeService::enter(const std::string& call) const {
    state_->calls.push_back(call);
    state_->askers.push_back(engine::AskedBy::current());
    if (state_->failure) throw *state_->failure;
}

engine::VmView& FakeService::need(const std::string& id) const {
    const auto found = state_->vms.find(id);
    if (found == state_->vms.end()) throw Error(ErrorKind::NotFound, "there is no VM '" + id + "'");
    return found->second;
}

VmService::Created FakeService::create(const engine::CreateRequest& request) {
    const std::lock_guard lock(state_->mutex);
    enter("create");
    state_->asked = request;
    const unsigned number = ++state_->made;
    engine::VmView vm = sampleVm(request.id ? request.id->str() : "vm-" + std::to_string(number));
    vm.createdAt += std::chrono::seconds(number);
    vm.state = request.autoStart ? engine::VmState::Running : engine::VmState::Created;
    Created created{vm.id, std::nullopt};
    if (request.autoStart) created.startFailure = state_->startFailure;
    state_->vms.insert_or_assign(vm.id, vm);
    return created;
}

void FakeService::start(const std::string& id) {
    std::function<void()> during;
    {
        const std::lock_guard lock(state_->mutex);
        enter("start " + id);
        need(id).state = engine::VmState::Running;
        during = state_->during;
    }
    state_->changed.notify_all();
    if (during) during();
}

engine::StoppedBy FakeService::stop(const std::string& id) {
    const std::lock_guard lock(state_->mutex);
    enter("stop " + id);
    const engine::VmState before = std::exchange(need(id).state, engine::VmState::Stopped);
    return before == engine::VmState::Running ? engine::StoppedBy::Sigterm : engine::StoppedBy::Nothing;
}

void FakeService::pause(const std::string& id) {
    const std::lock_guard lock(state_->mutex);
    enter("pause " + id);
    need(id).state = engine::VmState::Paused;
}

void FakeService::resume(const std::string& id) {
    const std::lock_guard lock(state_->mutex);
    enter("resume " + id);
    need(id).state = engine::VmState::Running;
}

void FakeService::change(const std::string& id, const engine::ChangeRequest& request) {
    const std::lock_guard lock(state_->mutex);
    enter("change " + id);
    static_cast<void>(need(id));
    state_->changeAsked = request;
}

std::string FakeService::metrics(const std::string& id) const {
    const std::lock_guard lock(state_->mutex);
    enter("metrics " + id);
    static_cast<void>(need(id));
    return R"({"vmm":{"panic_count":0}})";
}

engine::StoppedBy FakeService::remove(const std::string& id, bool retainData) {
    const std::lock_guard lock(state_->mutex);
    enter("delete " + id + (retainData ? " retain" : ""));
    const engine::VmState before = need(id).state;
    state_->vms.erase(id);
    return before == engine::VmState::Running ? engine::StoppedBy::Sigkill : engine::StoppedBy::Nothing;
}

engine::VmView FakeService::get(const std::string& id) const {
    const std::lock_guard lock(state_->mutex);
    enter("get " + id);
    return need(id);
}

std::vector<engine::VmView> FakeService::list() const {
    const std::lock_guard lock(state_->mutex);
    enter("list");
    std::vector<engine::VmView> vms;
    for (const auto& [id, vm] : state_->vms) vms.push_back(vm);
    std::ranges::sort(vms, std::greater(), &engine::VmView::createdAt);
    return vms;
}

std::vector<engine::Event> FakeService::events(const std::string& id) const {
    const std::lock_guard lock(state_->mutex);
    enter("events " + id);
    static_cast<void>(need(id));
    const SystemTime at = parseRfc3339("2026-11-22T04:52:01Z");
    return {{1, at, id, "start", "op-1", "", "started", std::chrono::microseconds(0), ""},
            {2, at, id, "start", "op-1", "network", "failed", std::chrono::microseconds(1500), "no tap"}};
}

std::string FakeService::console(const std::string& id, const engine::ConsoleTail& tail) const {
    const std::lock_guard lock(state_->mutex);
    enter("console " + id);
    static_cast<void>(need(id));
    state_->tail = tail;
    const std::string& text = state_->consoleText;
    return text.size() <= tail.bytes ? text : text.substr(text.size() - tail.bytes);
}

std::string FakeService::vmConfig(const std::string& id) const {
    const std::lock_guard lock(state_->mutex);
    enter("vmm-config " + id);
    static_cast<void>(need(id));
    return "{\n  \"drives\": []\n}\n";
}

std::vector<engine::ComponentHealth> FakeService::health() const {
    const std::lock_guard lock(state_->mutex);
    return state_->components;
}

}  // namespace mergen::api::test
