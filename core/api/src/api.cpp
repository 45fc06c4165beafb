#include "api.hpp"

#include <algorithm>
#include <optional>
#include <set>

#include <mergen/base/json.hpp>
#include <mergen/base/json_text.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

#include "change_body.hpp"
#include "create_body.hpp"
#include "views.hpp"

namespace mergen::api {

namespace {

constexpr std::uint64_t defaultTail = 64U << 10U;  // bytes of a console
constexpr std::uint64_t maxTail = 16U << 20U;
constexpr std::uint64_t maxLines = 100'000;
constexpr std::string_view idPlaceholder = "{id}";

Answer json200(const Poco::JSON::Object& body) {
    return {200, "application/json", json::render(body), {}};
}

/// mergen-fire's answer to whatever changes a VM.
/// `by`: where it was to end the VM.
Answer changed(int status, const std::string& id, const std::string& what,
               const std::optional<engine::StoppedBy>& by = {}) {
    auto body = json::object();
    body->set("id", id);
    body->set("status", what);
    if (by) body->set("endedBy", std::string(engine::toString(*by)));
    return {status, "application/json", json::render(*body), {}};
}

/// The text that stands for {id}, or nothing if the path is another; "" if the path matches without an id.
std::optional<std::string> matchPath(std::string_view pattern, const std::vector<std::string>& segments) {
    const std::vector<std::string> wanted = split(pattern.substr(1), '/');
    if (wanted.size() != segments.size()) return std::nullopt;
    std::string id;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        if (wanted[i] == idPlaceholder) {
            if (segments[i].empty()) return std::nullopt;
            id = segments[i];
        } else if (wanted[i] != segments[i]) {
            return std::nullopt;
        }
    }
    return id;
}

}  // namespace

Api::Api(VmService& service, std::function<std::vector<PluginRow>()> plugins,
         std::function<engine::ComponentHealth()> access)
    : service_(service), plugins_(std::move(plugins)), access_(std::move(access)) {}

const std::vector<Route>& Api::routes() {
    static const std::vector<Route> table{
        {"GET", "/healthz", false, {}, Names::Vm, &Api::health},
        {"GET", "/readyz", false, {}, Names::Vm, &Api::ready},
        {"GET", "/v1/plugins", false, {}, Names::Vm, &Api::plugins},
        {"POST", "/v1/vms", true, {}, Names::HostFiles, &Api::create},
        {"GET", "/v1/vms", false, {}, Names::Vm, &Api::list},
        {"GET", "/v1/vms/{id}", false, {}, Names::Vm, &Api::get},
        {"PATCH", "/v1/vms/{id}", true, {}, Names::Vm, &Api::changeVm},
        {"DELETE", "/v1/vms/{id}", false, {"retainData"}, Names::Vm, &Api::remove},
        {"POST", "/v1/vms/{id}/start", false, {}, Names::Vm, &Api::start},
        {"POST", "/v1/vms/{id}/stop", false, {}, Names::Vm, &Api::stop},
        {"POST", "/v1/vms/{id}/pause", false, {}, Names::Vm, &Api::pause},
        {"POST", "/v1/vms/{id}/resume", false, {}, Names::Vm, &Api::resume},
        {"GET", "/v1/vms/{id}/events", false, {}, Names::Vm, &Api::events},
        {"GET", "/v1/vms/{id}/console", false, {"tail", "lines"}, Names::Vm, &Api::console},
        {"GET", "/v1/vms/{id}/metrics", false, {}, Names::Vm, &Api::metrics},
        {"GET", "/v1/vms/{id}/vmm-config", false, {}, Names::Vm, &Api::vmConfig},
    };
    return table;
}

Api::Match Api::match(std::string_view method, const Target& target) {
    const std::string_view wanted = method == "HEAD" ? "GET" : method;
    std::set<std::string> allowed;
    for (const Route& route : routes()) {
        std::optional<std::string> id = matchPath(route.path, target.segments);
        if (!id) continue;
        if (route.method == wanted) return {&route, *std::move(id), {}};
        allowed.emplace(route.method);
        if (route.method == "GET") allowed.emplace("HEAD");
    }
    Match none;
    if (allowed.empty()) {
        none.problem.status = 404;
        none.problem.detail = "there is no such route";
        return none;
    }
    std::string list;
    for (const std::string& one : allowed) list += (list.empty() ? "" : ", ") + one;
    none.problem.status = 405;
    none.problem.detail = printable(method, 40) + " is not among the methods of this route: " + list;
    none.problem.headers.emplace_back("Allow", list);
    return none;
}

Result Api::health(const Call&) const {
    auto body = json::object();
    body->set("status", std::string("ok"));
    return json200(*body);
}

Result Api::ready(const Call&) const {
    std::vector<engine::ComponentHealth> components = service_.health();
    components.push_back(access_());
    const bool ok = std::ranges::all_of(components, &engine::ComponentHealth::ok);
    Poco::JSON::Array::Ptr list(new Poco::JSON::Array);
    for (const engine::ComponentHealth& component : components) list->add(componentView(component));
    auto body = json::object();
    body->set("status", std::string(ok ? "ok" : "unavailable"));
    body->set("components", list);
    Answer answer = json200(*body);
    answer.status = ok ? 200 : 503;
    return answer;
}

Result Api::plugins(const Call&) const {
    return json200(*itemsOf(plugins_(), pluginView));
}

Result Api::create(const Call& call) const {
    const VmService::Created created = service_.create(parseCreateBody(call.body));
    if (created.startFailure) {
        Problem problem = problemOf(*created.startFailure, Names::Host);
        problem.vm = created.id;
        return problem;
    }
    Answer answer = changed(201, created.id, "created");
    answer.headers.emplace_back("Location", "/v1/vms/" + created.id);
    return answer;
}

Result Api::list(const Call&) const {
    const std::string prefix = service_.unitPrefix();
    json::ArrayText items;
    for (const engine::VmView& vm : service_.list()) items.addText(summary(vm, prefix));
    return Answer{200, "application/json", "{\"items\":" + items.str() + "}", {}};
}

Result Api::get(const Call& call) const {
    return Answer{200, "application/json", summary(service_.get(call.id), service_.unitPrefix()), {}};
}

bool Api::knows(const std::string& id) const {
    try {
        static_cast<void>(service_.get(id));
        return true;
    } catch (const Error& error) {
        static_cast<void>(error);  // the operation's own error is the one to tell
        return false;
    }
}

Result Api::change(const std::string& id, const std::string& done, const std::function<void()>& operation) const {
    return end(id, done, [&]() -> std::optional<engine::StoppedBy> {
        operation();
        return std::nullopt;
    });
}

Result Api::end(const std::string& id, const std::string& done,
                const std::function<std::optional<engine::StoppedBy>()>& operation) const {
    std::optional<engine::StoppedBy> by;
    try {
        by = operation();
    } catch (const Error& error) {
        if (!knows(id)) throw;
        return problemOf(error, Names::Host);
    }
    return changed(200, id, done, by);
}

Result Api::remove(const Call& call) const {
    const auto given = call.query.find("retainData");
    const bool retainData = given != call.query.end() && parseBool(given->first, given->second);
    return end(call.id, "deleted", [&] { return service_.remove(call.id, retainData); });
}

Result Api::changeVm(const Call& call) const {
    const engine::ChangeRequest request = parseChangeBody(call.body);
    return change(call.id, "changed", [&] { service_.change(call.id, request); });
}

Result Api::metrics(const Call& call) const {
    return Answer{200, "application/json", service_.metrics(call.id), {}};
}

Result Api::start(const Call& call) const {
    return change(call.id, "started", [&] { service_.start(call.id); });
}

Result Api::stop(const Call& call) const {
    return end(call.id, "stopped", [&] { return service_.stop(call.id); });
}

Result Api::pause(const Call& call) const {
    return change(call.id, "paused", [&] { service_.pause(call.id); });
}

Result Api::resume(const Call& call) const {
    return change(call.id, "resumed", [&] { service_.resume(call.id); });
}

Result Api::events(const Call& call) const {
    return json200(*itemsOf(service_.events(call.id), eventView));
}

Result Api::console(const Call& call) const {
    const auto number = [&](const std::string& name, std::uint64_t most) -> std::optional<std::size_t> {
        const auto given = call.query.find(name);
        if (given == call.query.end()) return std::nullopt;
        return static_cast<std::size_t>(parseNumber(given->first, given->second, 1, most));
    };
    engine::ConsoleTail tail;
    tail.lines = number("lines", maxLines);
    tail.bytes = number("tail", maxTail).value_or(tail.lines ? maxTail : defaultTail);
    // The guest's own bytes, control characters and all: a browser must not take them for anything but text.
    return Answer{200, "text/plain; charset=utf-8", service_.console(call.id, tail), {}};
}

Result Api::vmConfig(const Call& call) const {
    return Answer{200, "application/json", service_.vmConfig(call.id), {}};
}

}  // namespace mergen::api
