#include "views.hpp"

#include <map>
#include <memory>
#include <optional>
#include <string_view>

#include <mergen/base/json.hpp>
#include <mergen/base/json_text.hpp>
#include <mergen/base/text.hpp>
#include <mergen/engine/guest_document.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::api {

namespace {

using Poco::Dynamic::Var;
using Poco::JSON::Object;

Var orNull(const std::string& text) {
    return text.empty() ? Var() : Var(text);
}

using Text = std::unique_ptr<json::ObjectText>;

/// Metadata that was stored as text. Text that cannot be read any more must not hide the VM.
Var documentOf(const std::string& text) {
    if (text.empty() || text == "{}") return json::object();
    try {
        return json::parseObject(text);
    } catch (const Error&) {
        return json::object();
    }
}

Text stringMap(const std::map<std::string, std::string>& map) {
    auto object = json::objectText();
    for (const auto& [name, value] : map) object->set(name, value);
    return object;
}

Text systemdBlock(const engine::VmView& vm, const std::string& unitPrefix) {
    auto block = json::objectText();
    block->set("available", false);
    block->set("unit", unitPrefix + "@" + vm.id + ".service");
    block->set("active", false);
    block->set("activeState", std::string("inactive"));
    block->set("subState", std::string("dead"));
    block->set("mainPID", vm.pid);
    return block;
}

Text networkBlock(const engine::VmView& vm) {
    const auto ports = json::arrayText();
    for (const PortBinding& binding : vm.ports) {
        auto port = json::objectText();
        port->set("guest", static_cast<unsigned>(binding.guest));
        port->set("host", static_cast<unsigned>(binding.host));
        port->set("protocol", std::string(toString(binding.protocol)));
        ports->add(port);
    }
    const auto interfaces = json::arrayText();
    for (const engine::VmInterface& card : vm.interfaces) {
        auto interface = json::objectText();
        interface->set("ifaceId", card.id);
        interface->set("guestIP", card.guestAddress);
        interface->set("mac", card.mac);
        interface->set("tapName", card.tapName);
        interfaces->add(interface);
    }
    auto block = json::objectText();
    block->set("guestIP", vm.guestAddress);
    block->set("ports", ports);
    block->set("tapName", vm.tapName);
    block->set("netns", vm.netns);
    block->set("mac", vm.mac);
    block->set("interfaces", interfaces);
    return block;
}

Text pathsBlock(const engine::VmPaths& paths) {
    auto block = json::objectText();
    block->set("configDir", paths.configDir.string());
    block->set("vmConfigPath", paths.vmConfig.string());
    block->set("metaPath", paths.meta.string());
    block->set("hooksPath", paths.hooks.string());
    block->set("envPath", paths.env.string());
    block->set("runDir", paths.runDir.string());
    block->set("socketPath", paths.socket.string());
    block->set("lockPath", paths.lock.string());
    block->set("dataDir", paths.dataDir.string());
    block->set("logsDir", paths.logsDir.string());
    return block;
}

Var exitBlock(const std::optional<ExitStatus>& exit) {
    if (!exit) return {};
    auto block = json::object();
    block->set("signalled", exit->signalled);
    block->set("code", exit->code);
    block->set("at", rfc3339(exit->at));
    return block;
}

Var endBlock(const std::optional<engine::VmEnd>& end) {
    if (!end) return {};
    const auto code = [&](bool signalled) {
        return end->exit && end->exit->signalled == signalled ? Var(end->exit->code) : Var();
    };
    auto block = json::object();
    block->set("by", std::string(engine::toString(end->by)));
    block->set("status", code(false));
    block->set("signal", code(true));
    block->set("operation", orNull(end->operation));
    block->set("at", rfc3339(end->at));
    block->set("detail", end->detail);
    return block;
}

Var unresponsiveBlock(const std::optional<engine::Unresponsive>& unresponsive) {
    if (!unresponsive) return {};
    auto block = json::object();
    block->set("since", rfc3339(unresponsive->since));
    block->set("cause", unresponsive->cause);
    return block;
}

Var holderBlock(const std::optional<engine::Holder>& holder) {
    if (!holder) return {};
    auto block = json::object();
    block->set("name", holder->operation);
    block->set("id", holder->operationId);
    block->set("since", rfc3339(holder->since));
    return block;
}

Var vsockBlock(const engine::VmView& vm) {
    if (!vm.options.vsock) return {};
    auto block = engine::vsockDocument(*vm.options.vsock);
    block->set("udsPath", orNull(vm.vsock.string()));
    return block;
}

Text machineBlock(const engine::VmView& vm) {
    auto block = json::objectText();
    block->set("vcpuCount", vm.vcpus);
    block->set("memSizeMib", Poco::UInt64{vm.memory.count});
    block->set("smt", vm.options.smt);
    block->set("hugePages", engine::hugePagesWord(vm.options));
    block->set("cpuTemplate", engine::cpuTemplateWord(vm.options));
    return block;
}

/// What a VM has beside what every VM has, null for what it has not.
void setDevices(json::ObjectText& body, const engine::VmView& vm) {
    const engine::GuestOptions& options = vm.options;
    body.set("machineConfig", machineBlock(vm));
    if (vm.drives.empty()) {
        body.set("drives", json::arrayText());
    } else {
        body.set("drives", Var(engine::drivesDocument(vm.drives)));
    }
    if (vm.nics.empty()) {
        body.set("networkInterfaces", json::arrayText());
    } else {
        body.set("networkInterfaces", Var(engine::nicsDocument(vm.nics)));
    }
    body.set("vsock", vsockBlock(vm));
    body.set("balloon", options.balloon ? Var(engine::balloonDocument(*options.balloon)) : Var());
    body.set("entropy", options.entropy ? Var(engine::entropyDocument(*options.entropy)) : Var());
    body.set("mmds", options.mmds ? Var(engine::mmdsDocument(*options.mmds, /*content=*/false)) : Var());
    body.set("metrics", options.metrics);
}

}  // namespace

std::string summary(const engine::VmView& vm, const std::string& unitPrefix) {
    auto firecracker = json::objectText();
    firecracker->set("socketPath", vm.paths.socket.string());
    firecracker->set("socketPresent", vm.socketPresent);

    auto body = json::objectText();
    body->set("id", vm.id);
    body->set("uuid", vm.uuid);
    body->set("name", vm.name);
    body->set("createdAt", rfc3339(vm.createdAt));
    body->set("state", std::string(engine::toString(vm.state)));
    body->set("failure", orNull(vm.failure));
    body->set("lastExit", exitBlock(vm.lastExit));
    body->set("lastEnd", endBlock(vm.lastEnd));
    body->set("unresponsive", unresponsiveBlock(vm.unresponsive));
    body->set("restarts", vm.restarts);
    body->set("operation", holderBlock(vm.holder));
    body->set("vmm", vm.vmm);
    body->set("vcpu", vm.vcpus);
    body->set("memMiB", Poco::UInt64{vm.memory.count});
    body->set("rootfs", vm.rootfs.string());
    body->set("kernel", vm.kernel.string());
    body->set("initrd", vm.initrd ? Var(vm.initrd->string()) : Var());
    body->set("dataDisk", vm.dataDisk ? Var(vm.dataDisk->string()) : Var());
    body->set("bootArgs", vm.bootArguments);
    body->set("httpPort", static_cast<unsigned>(vm.httpPort));
    body->set("autoStart", vm.autoStart);
    body->set("restartPolicy", std::string(toString(vm.restartPolicy)));
    body->set("maxRestarts", vm.maxRestarts);
    body->set("onUnresponsive", std::string(engine::toString(vm.onUnresponsive)));
    setDevices(*body, vm);
    body->set("systemd", systemdBlock(vm, unitPrefix));
    body->set("firecracker", firecracker);
    body->set("network", networkBlock(vm));
    body->set("paths", pathsBlock(vm.paths));
    body->set("tags", stringMap(vm.tags));
    body->set("metadata", documentOf(vm.metadata));
    return body->str();
}

Object::Ptr eventView(const engine::Event& event) {
    auto body = json::object();
    body->set("sequence", Poco::UInt64{event.sequence});
    body->set("at", rfc3339(event.at));
    body->set("vm", event.vm);
    body->set("operation", event.operation);
    body->set("operationId", event.operationId);
    body->set("step", event.step);
    body->set("outcome", event.outcome);
    body->set("durationUs", Poco::Int64{event.duration.count()});
    body->set("cause", orNull(event.cause));
    body->set("by", orNull(event.by));
    return body;
}

Object::Ptr pluginView(const PluginRow& row) {
    auto settings = json::object();
    for (const auto& [key, value] : row.settings) settings->set(key, value);
    auto body = json::object();
    body->set("kind", row.kind);
    body->set("name", row.name);
    body->set("version", row.version);
    body->set("file", row.file);
    body->set("state", row.state);
    body->set("detail", row.detail);
    body->set("settings", settings);
    return body;
}

Object::Ptr componentView(const engine::ComponentHealth& component) {
    auto body = json::object();
    body->set("kind", component.kind);
    body->set("name", component.name);
    body->set("ok", component.ok);
    body->set("detail", component.detail);
    return body;
}

}  // namespace mergen::api
