#include "views.hpp"

#include <map>
#include <optional>
#include <string_view>

#include <mergen/base/json.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::api {

namespace {

using Poco::Dynamic::Var;
using Poco::JSON::Object;

Var orNull(const std::string& text) {
    return text.empty() ? Var() : Var(text);
}

/// Metadata that was stored as text. Text that cannot be read any more must not hide the VM.
Object::Ptr documentOf(const std::string& text) {
    if (text.empty()) return json::object();
    try {
        return json::parseObject(text);
    } catch (const Error&) {
        return json::object();
    }
}

Object::Ptr stringMap(const std::map<std::string, std::string>& map) {
    auto object = json::object();
    for (const auto& [name, value] : map) object->set(name, value);
    return object;
}

Object::Ptr systemdBlock(const engine::VmView& vm, const std::string& unitPrefix) {
    auto block = json::object();
    block->set("available", false);
    block->set("unit", unitPrefix + "@" + vm.id + ".service");
    block->set("active", false);
    block->set("activeState", std::string("inactive"));
    block->set("subState", std::string("dead"));
    block->set("mainPID", vm.pid);
    return block;
}

Object::Ptr networkBlock(const engine::VmView& vm) {
    Poco::JSON::Array::Ptr ports(new Poco::JSON::Array);
    for (const PortBinding& binding : vm.ports) {
        auto port = json::object();
        port->set("guest", static_cast<unsigned>(binding.guest));
        port->set("host", static_cast<unsigned>(binding.host));
        port->set("protocol", std::string(toString(binding.protocol)));
        ports->add(port);
    }
    auto block = json::object();
    block->set("guestIP", vm.guestAddress);
    block->set("ports", ports);
    block->set("tapName", vm.tapName);
    block->set("netns", vm.netns);
    block->set("mac", vm.mac);
    return block;
}

Object::Ptr pathsBlock(const engine::VmPaths& paths) {
    auto block = json::object();
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

Var holderBlock(const std::optional<engine::Holder>& holder) {
    if (!holder) return {};
    auto block = json::object();
    block->set("name", holder->operation);
    block->set("id", holder->operationId);
    block->set("since", rfc3339(holder->since));
    return block;
}

}  // namespace

Object::Ptr summary(const engine::VmView& vm, const std::string& unitPrefix) {
    auto firecracker = json::object();
    firecracker->set("socketPath", vm.paths.socket.string());
    firecracker->set("socketPresent", vm.socketPresent);

    auto body = json::object();
    body->set("id", vm.id);
    body->set("uuid", vm.uuid);
    body->set("name", vm.name);
    body->set("createdAt", rfc3339(vm.createdAt));
    body->set("state", std::string(engine::toString(vm.state)));
    body->set("failure", orNull(vm.failure));
    body->set("lastExit", exitBlock(vm.lastExit));
    body->set("operation", holderBlock(vm.holder));
    body->set("vmm", vm.vmm);
    body->set("vcpu", vm.vcpus);
    body->set("memMiB", Poco::UInt64{vm.memory.count});
    body->set("rootfs", vm.rootfs.string());
    body->set("kernel", vm.kernel.string());
    body->set("dataDisk", vm.dataDisk ? Var(vm.dataDisk->string()) : Var());
    body->set("bootArgs", vm.bootArguments);
    body->set("httpPort", static_cast<unsigned>(vm.httpPort));
    body->set("autoStart", vm.autoStart);
    body->set("systemd", systemdBlock(vm, unitPrefix));
    body->set("firecracker", firecracker);
    body->set("network", networkBlock(vm));
    body->set("paths", pathsBlock(vm.paths));
    body->set("tags", stringMap(vm.tags));
    body->set("metadata", documentOf(vm.metadata));
    return body;
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
