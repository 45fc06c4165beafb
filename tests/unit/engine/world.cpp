#include "world.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <fstream>
#include <signal.h>
#include <sys/stat.h>
#include <thread>

#include <mergen/base/file.hpp>

namespace mergen::engine::test {

namespace fs = std::filesystem;

/// The lifecycle, which these tests do not play.
template <typename Interface>
class Fake : public Interface {
public:
    explicit Fake(World& world) : world_(world) {}
    void configure(Host&) override {}
    void start() override {}
    void stop() noexcept override {}

protected:
    World& world_;
};

class FakeStorage final : public Fake<StorageBackend> {
public:
    using Fake::Fake;
    StorageTraits traits() const noexcept override { return {world_.durable, 1U << 20U}; }
    Revision put(const Record& record, std::optional<Revision> expected) override {
        Revision revision;
        world_.effect("storage.put", [&] {
            const auto found = world_.records.find(record.id.str());
            if (!expected && found != world_.records.end()) throw Error(ErrorKind::AlreadyExists, "the id is taken");
            if (expected && found == world_.records.end()) throw Error(ErrorKind::NotFound, "the id is gone");
            if (expected && found->second.revision != *expected) throw Error(ErrorKind::Conflict, "stale revision");
            revision = Revision{++world_.revision_};
            world_.records.insert_or_assign(record.id.str(), StoredRecord{record, revision, {}});
        });
        return revision;
    }
    std::optional<StoredRecord> find(const RecordId& id) const override {
        const std::lock_guard lock(world_.mutex_);
        const auto found = world_.records.find(id.str());
        return found == world_.records.end() ? std::nullopt : std::optional(found->second);
    }
    std::vector<StoredRecord> list(const std::optional<RecordId>& after, std::size_t limit) const override {
        const std::lock_guard lock(world_.mutex_);
        std::vector<StoredRecord> page;
        for (const auto& [id, record] : world_.records) {
            if (page.size() < limit && (!after || id > after->str())) page.push_back(record);
        }
        return page;
    }
    bool erase(const RecordId& id) override {
        bool was = false;
        world_.effect("storage.erase", [&] { was = world_.records.erase(id.str()) > 0; });
        return was;
    }
};

class FakeSupervisor final : public Fake<SupervisorBackend> {
public:
    using Fake::Fake;
    SupervisorTraits traits() const noexcept override { return {true, false}; }
    void setExitListener(ExitListener* listener) noexcept override {
        const std::lock_guard lock(world_.mutex_);
        world_.listener_ = listener;
    }
    ProcessStatus launch(const ProcessSpec& spec) override {
        ProcessStatus status;
        world_.effect("supervisor.launch", [&] {
            if (world_.processes.contains(spec.owner.vm)) throw Error(ErrorKind::AlreadyExists, "it is there already");
            status = ProcessStatus{spec.owner, ProcessState::Running, 4242, {}, {}};
            world_.processes.emplace(spec.owner.vm, status);
            world_.guests[spec.owner.vm] = GuestState::NotStarted;
            world_.plans[spec.owner.vm] = spec.restart;
        });
        return status;
    }
    ProcessStatus status(const OwnerTag& owner) const override {
        const std::lock_guard lock(world_.mutex_);
        const auto found = world_.processes.find(owner.vm);
        return found == world_.processes.end() ? ProcessStatus{owner, ProcessState::Absent, 0, {}, {}} : found->second;
    }
    std::vector<ProcessStatus> list() const override {
        const std::lock_guard lock(world_.mutex_);
        std::vector<ProcessStatus> all;
        for (const auto& [uuid, status] : world_.processes) all.push_back(status);
        return all;
    }
    void permitRestarts(const OwnerTag& owner, bool permitted) override {
        world_.effect(permitted ? "supervisor.permit" : "supervisor.forbid", [&] {
            if (permitted && world_.processes.contains(owner.vm)) {
                world_.restartable.insert(owner.vm);
                return;
            }
            world_.restartable.erase(owner.vm);
            const auto found = world_.processes.find(owner.vm);
            if (found == world_.processes.end() || found->second.state != ProcessState::Running) return;
            if (found->second.pid != 0) return;
            const PastRun waiting = world_.pastRuns.at(owner.vm).back();
            world_.pastRuns.at(owner.vm).pop_back();
            world_.end(owner.vm, waiting.exit, waiting.sent);
        });
    }
    std::vector<PastRun> pastRuns(const OwnerTag& owner) const override {
        const std::lock_guard lock(world_.mutex_);
        const auto found = world_.pastRuns.find(owner.vm);
        return found == world_.pastRuns.end() ? std::vector<PastRun>() : found->second;
    }
    bool signal(const OwnerTag& owner, int signal, std::string_view by) override {
        bool sent = false;
        world_.effect("supervisor.signal", [&] {
            const auto found = world_.processes.find(owner.vm);
            sent = found != world_.processes.end() && found->second.state == ProcessState::Running &&
                   found->second.pid != 0;
            if (sent && ((signal == SIGKILL && world_.diesOnKill) || (signal == SIGTERM && world_.diesOnTerm))) {
                world_.end(owner.vm, ExitStatus{true, signal, {}}, SentSignal{signal, std::string(by)});
            }
        });
        return sent;
    }
    ProcessStatus waitExit(const OwnerTag& owner, std::chrono::milliseconds limit) const override {
        world_.noteWait("exit", limit);
        return status(owner);
    }
    void forget(const OwnerTag& owner) override {
        world_.effect("supervisor.forget", [&] {
            const auto found = world_.processes.find(owner.vm);
            if (found == world_.processes.end()) return;
            if (found->second.state == ProcessState::Running) throw Error(ErrorKind::FailedPrecondition, "it runs");
            world_.processes.erase(found);
            world_.guests.erase(owner.vm);
            world_.plans.erase(owner.vm);
            world_.pastRuns.erase(owner.vm);
            world_.restartable.erase(owner.vm);
        });
    }
};

class FakeNetwork final : public Fake<NetworkBackend> {
public:
    using Fake::Fake;
    NetworkTraits traits() const noexcept override { return {.touchesHost = true, .udp = world_.udp}; }
    void checkNames(const NetworkSpec& spec) const override {
        const std::lock_guard lock(world_.mutex_);
        const auto isForeign = [&](Ipv4Address address) { return world_.foreignAddresses.contains(address); };
        if (isForeign(spec.guest) || std::ranges::any_of(spec.further, isForeign, &FurtherNic::guest))
            throw Error(ErrorKind::AlreadyExists, "routed elsewhere");
    }
    GuestSettings guestSettings() const override { return world_.guestSettings; }
    bool holdPort(Protocol protocol, std::uint16_t port) override {
        const std::lock_guard lock(world_.mutex_);
        if (world_.heldPorts.contains({protocol, port})) return true;
        if (world_.busyPorts.contains(port)) return false;
        return world_.heldPorts.insert({protocol, port}).second;
    }
    void releasePort(Protocol protocol, std::uint16_t port) noexcept override {
        const std::lock_guard lock(world_.mutex_);
        world_.heldPorts.erase({protocol, port});
    }
    NetworkAttachment reserve(const NetworkSpec& spec) override {
        world_.effect("network.reserve", [&] { world_.wires.insert_or_assign(spec.owner.vm, spec); });
        return {fs::path("/run/netns/" + spec.netns), true};
    }
    NetworkAttachment attach(const NetworkSpec& spec) override {
        world_.effect("network.attach", [&] { world_.wires.insert_or_assign(spec.owner.vm, spec); });
        return {fs::path("/run/netns/" + spec.netns), true};
    }
    std::optional<NetworkAttachment> inspect(const NetworkSpec& spec) const override {
        const std::lock_guard lock(world_.mutex_);
        if (!world_.wires.contains(spec.owner.vm)) return std::nullopt;
        return NetworkAttachment{fs::path("/run/netns/" + spec.netns), true};
    }
    void publish(const NetworkSpec& spec) override {
        world_.effect("network.publish", [&] { world_.published[spec.owner.vm] = spec.ports; });
    }
    void unpublish(const NetworkSpec& spec) override {
        world_.effect("network.unpublish", [&] { world_.published.erase(spec.owner.vm); });
    }
    void detach(const NetworkSpec& spec) override { removeStray(spec.owner); }
    std::vector<NetworkFinding> list() const override {
        const std::lock_guard lock(world_.mutex_);
        std::vector<NetworkFinding> findings;
        for (const auto& [uuid, spec] : world_.wires) findings.push_back({spec.owner, {"netns " + spec.netns}});
        for (const OwnerTag& owner : world_.traces) findings.push_back({owner, {"a trace"}});
        return findings;
    }
    void removeStray(const OwnerTag& owner) override {
        world_.effect("network.detach", [&] {
            world_.published.erase(owner.vm);
            world_.wires.erase(owner.vm);
            world_.traces.erase(owner);
        });
    }
};

class FakeVmm : public Fake<VmmBackend> {
public:
    using Fake::Fake;
    VmmTraits traits() const noexcept override { return {world_.pauses}; }
    std::string exitMeaning(const ExitStatus&) const override { return world_.exitMeaning; }
    void check(const GuestSpec& guest) const override {
        if (guest.vcpus > 8) throw Error(ErrorKind::InvalidArgument, "at most 8").about("vcpus");
    }
    void checkStart(const GuestSpec&) const override {
        if (!world_.hostLacks.empty()) throw Error(ErrorKind::FailedPrecondition, world_.hostLacks).about("hugePages");
    }
    void importKernel(const fs::path&) const override {
        if (world_.noRoom != 0) throw Error::fromErrno(world_.noRoom, "cannot write the kernel");
    }
    LaunchPlan plan(const GuestSpec& guest, const VmmPlace& place) const override {
        LaunchPlan plan{{"/bin/vmm"}, {}, {}, {}};
        if (world_.inheritsTap) plan.taps = {InheritedTap{guest.nics.at(0).tap, 3}};
        if (world_.unattended) plan.unattended = {"/bin/vmm", "--unattended"};
        plan.stale = {place.controlSocket};
        return plan;
    }
    void boot(const VmmPlace& place, const GuestSpec&, std::chrono::milliseconds,
              const std::function<bool()>& alive) override {
        world_.effect("vmm.boot", [&] {
            if (!alive()) throw Error(ErrorKind::Unavailable, "the process has ended");
            if (!world_.bootError.empty()) throw Error(ErrorKind::Unavailable, world_.bootError);
            world_.guests[place.owner.vm] = GuestState::Running;
        });
    }
    GuestState query(const VmmPlace& place, std::chrono::milliseconds limit) const override {
        world_.noteWait("query", limit);
        if (world_.onQuery) world_.onQuery(place.owner.vm);
        const std::lock_guard lock(world_.mutex_);
        const auto found = world_.guests.find(place.owner.vm);
        if (found == world_.guests.end()) throw Error(ErrorKind::Unavailable, "nobody listens");
        return found->second;
    }
    void requestStop(const VmmPlace& place, std::chrono::milliseconds limit) override {
        world_.noteWait("requestStop", limit);
        world_.effect("vmm.requestStop", [&] {
            if (world_.guestObeys) world_.end(place.owner.vm, ExitStatus{false, 0, {}});
        });
    }
    void pause(const VmmPlace& place, std::chrono::milliseconds) override {
        world_.effect("vmm.pause", [&] { set(place, GuestState::Paused); });
    }
    void resume(const VmmPlace& place, std::chrono::milliseconds limit) override {
        world_.noteWait("resume", limit);
        world_.effect("vmm.resume", [&] { set(place, GuestState::Running); });
    }
    void prepare(const GuestSpec&, const VmmPlace& place) override {
        world_.effect("vmm.prepare", [&] { world_.jails.insert(place.owner.vm); });
    }
    void cleanUp(const VmmPlace& place) override { removeStray(place.owner.vm); }
    std::vector<Uuid> list() const override {
        const std::lock_guard lock(world_.mutex_);
        return {world_.jails.begin(), world_.jails.end()};
    }
    void removeStray(const Uuid& vm) override {
        const std::lock_guard lock(world_.mutex_);
        world_.jails.erase(vm);
    }

protected:
    /// What keepsForSpeed says of it.
    bool giveUp() {
        const bool any = world_.keepsForSpeed;
        world_.effect("vmm.giveUpRoom", [&] {
            if (any) world_.noRoom = 0;
            world_.keepsForSpeed = false;
        });
        return any;
    }

private:
    void set(const VmmPlace& place, GuestState state) {
        if (!world_.guests.contains(place.owner.vm)) throw Error(ErrorKind::Unavailable, "nobody listens");
        world_.guests[place.owner.vm] = state;
    }
};

/// One that no VM has unless it asks for it.
class SpareVmm final : public FakeVmm {
public:
    using FakeVmm::FakeVmm;
    Health health() const override { return world_.spareHealth; }
    bool giveUpRoom() override { return giveUp(); }
};

World::World()
    : storage_(std::make_unique<FakeStorage>(*this)),
      supervisor_(std::make_unique<FakeSupervisor>(*this)),
      network_(std::make_unique<FakeNetwork>(*this)),
      vmm_(std::make_unique<FakeVmm>(*this)),
      spareVmm_(std::make_unique<SpareVmm>(*this)) {
    std::string pattern = fs::temp_directory_path() / "mergen-engine-XXXXXX";
    root = ::mkdtemp(pattern.data());
    images = root / "images";
    for (const char* folder : {"images", "config", "data", "run"}) fs::create_directory(root / folder);
    std::ofstream(images / "root.ext4") << "a disk";
    std::ofstream(images / "vmlinuz") << "a kernel";
    std::ofstream(images / "data.ext4") << "data";
    config.instance = "0a1b2c3d";
    config.configRoot = root / "config";
    config.dataRoot = root / "data";
    config.runRoot = root / "run";
    config.imageRoots = {images};
    config.vmm = "fake";
    config.probeInterval = std::chrono::milliseconds(0);  // but in the tests that are of it
}

World::~World() {
    static_cast<void>(removeTree(root));
}

std::unique_ptr<Engine> World::boot() {
    heldPorts.clear();  // the sockets of an earlier server ended with it
    auto engine = std::make_unique<Engine>(
        config, Backends{*storage_, *supervisor_, *network_, {{"fake", vmm_.get()}, {"spare", spareVmm_.get()}}}, *log);
    engine->recover();
    return engine;
}

CreateRequest World::request() const {
    CreateRequest request;
    request.rootfs = images / "root.ext4";
    request.kernel = images / "vmlinuz";
    request.ports = {PortRequest{80, 0, Protocol::Tcp}};
    return request;
}

VmView World::runWeb(Engine& engine, std::optional<CreateRequest> wanted) const {
    CreateRequest asked = wanted ? *std::move(wanted) : request();
    asked.id = RecordId::parse("web");
    static_cast<void>(engine.create(asked));
    return engine.start("web");
}

std::vector<std::pair<std::string, std::chrono::milliseconds>> World::waits() const {
    const std::lock_guard lock(mutex_);
    return waits_;
}

void World::clearWaits() {
    const std::lock_guard lock(mutex_);
    waits_.clear();
}

void World::noteWait(const std::string& what, std::chrono::milliseconds limit) const {
    const std::lock_guard lock(mutex_);
    waits_.emplace_back(what, limit);
}

void World::effect(const std::string& name, const std::function<void()>& action) {
    if (onBegin) onBegin(name);
    const std::lock_guard lock(mutex_);
    onEffect(name, "before");
    action();
    onEffect(name, "after");
}

void World::end(const Uuid& vm, ExitStatus exit, std::optional<SentSignal> sent, const std::string& panic) {
    const std::lock_guard lock(mutex_);
    if (exit.at == SystemTime{})
        exit.at = std::chrono::floor<std::chrono::milliseconds>(std::chrono::system_clock::now());
    ProcessStatus& status = processes.at(vm);
    guests.erase(vm);
    const RestartPlan& plan = plans[vm];
    const bool wanted = plan.policy == RestartPolicy::Always || (plan.policy == RestartPolicy::OnFailure &&
                                                                 (exit.signalled || exit.code != 0 || !panic.empty()));
    if (wanted && restartable.contains(vm)) {
        std::vector<PastRun>& past = pastRuns[vm];
        if (plan.maxRestarts == 0 || past.size() < plan.maxRestarts) {
            const auto number = static_cast<unsigned>(past.size() + 1);
            past.push_back(
                PastRun{number, exit, sent, {}, number, std::chrono::milliseconds(number), std::nullopt, panic});
            status.pid = 0;
            if (listener_ != nullptr) listener_->onRestart(status.owner);
            return;
        }
        status.exhausted = true;
    }
    status.state = ProcessState::Exited;
    status.pid = 0;
    status.exit = exit;
    status.sent = sent;
    status.panic = panic;
    if (listener_ != nullptr) listener_->onExit(status);
}

void World::startAgain(const Uuid& vm) {
    const std::lock_guard lock(mutex_);
    ProcessStatus& status = processes.at(vm);
    pastRuns.at(vm).back().restartedAt = std::chrono::system_clock::now();
    ++status.restarts;
    status.pid = 4242 + static_cast<int>(status.restarts);
    guests[vm] = GuestState::Running;
    if (listener_ != nullptr) listener_->onRestart(status.owner);
}

std::string World::contradictions(const Engine& engine) const {
    std::string text;
    const auto say = [&](const std::string& what) { text += what + "\n"; };
    std::set<Uuid> known;
    std::set<std::string> addresses, folders;
    std::set<std::uint16_t> ports;
    std::set<std::pair<Protocol, std::uint16_t>> due;  // ports that must be held
    for (const VmView& vm : engine.list()) {
        const Uuid uuid = Uuid::parse(vm.uuid);
        known.insert(uuid);
        folders.insert(vm.id);
        const bool up = vm.state == VmState::Running || vm.state == VmState::Paused;
        const bool atRest = vm.state == VmState::Created || vm.state == VmState::Stopped || vm.state == VmState::Failed;
        if (!up && !atRest) say(vm.id + " is still " + std::string(toString(vm.state)));
        const std::lock_guard lock(mutex_);
        const auto process = processes.find(uuid);
        const bool runs = process != processes.end() && process->second.state == ProcessState::Running;
        if (runs != up)
            say(vm.id + " is " + std::string(toString(vm.state)) + (runs ? " and" : " but not") + " running");
        if (!up && process != processes.end()) say("the process of " + vm.id + " is not forgotten");
        if (wires.contains(uuid) != up)
            say("the wire of " + vm.id + " does not fit " + std::string(toString(vm.state)));
        if (published.contains(uuid) != up) say("the ports of " + vm.id + " do not fit");
        if (fs::exists(vm.paths.runDir) != up) say("the run directory of " + vm.id + " does not fit");
        if (!fs::exists(vm.paths.dataDir / "rootfs.ext4")) say(vm.id + " has no disk");
        if (!records.contains(vm.id)) say(vm.id + " has no record");
        for (const VmInterface& card : vm.interfaces) {
            for (const std::string& name : {card.guestAddress, card.mac, card.tapName}) {
                if (!addresses.insert(name).second) say("two network cards have " + name);
            }
        }
        if (const auto wire = wires.find(uuid);
            up && wire != wires.end() && wire->second.further.size() + 1 != vm.interfaces.size()) {
            say("the wire of " + vm.id + " is not that of its network cards");
        }
        if (runs && process->second.pid != 0 && vm.restartPolicy != RestartPolicy::No && !restartable.contains(uuid)) {
            say("the restart policy of " + vm.id + " does not hold");
        }
        const auto guest = guests.find(uuid);
        if (guest != guests.end() && up && (guest->second == GuestState::Paused) != (vm.state == VmState::Paused)) {
            say(vm.id + " is " + std::string(toString(vm.state)) + ", and its guest " +
                std::string(toString(guest->second)));
        }
        for (const PortBinding& port : vm.ports) {
            if (!ports.insert(port.host).second) say("two VMs have port " + std::to_string(port.host));
            if (!busyPorts.contains(port.host)) due.emplace(port.protocol, port.host);
        }
    }
    const std::lock_guard lock(mutex_);
    if (heldPorts != due) say("the ports that are held are not those of the VMs");
    for (const auto& [id, record] : records) {
        if (!folders.contains(id)) say("a record of nobody: " + id);
    }
    for (const auto& [uuid, process] : processes) {
        if (!known.contains(uuid)) say("a process of nobody");
    }
    for (const auto& [uuid, wire] : wires) {
        if (!known.contains(uuid)) say("a wire of nobody");
    }
    for (const std::string& name : listDirectory(config.dataRoot)) {
        if (!folders.contains(name)) say("a data folder of nobody: " + name);
    }
    for (const std::string& name : listDirectory(config.runRoot)) {
        if (name.ends_with(".lock")) {
            if (!folders.contains(name.substr(0, name.size() - 5))) say("a lock file of nobody: " + name);
        } else if (!known.contains(Uuid::parse(name))) {
            say("a run directory of nobody: " + name);
        }
    }
    return text;
}

std::string contentOf(const fs::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

bool eventually(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!condition()) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        std::this_thread::yield();
    }
    return true;
}

void whenFree(const std::function<void()>& call) {
    EXPECT_TRUE(eventually([&] {
        try {
            call();
            return true;
        } catch (const Error& error) {
            if (error.kind() != ErrorKind::Conflict) throw;
            return false;
        }
    }));
}

}  // namespace mergen::engine::test
