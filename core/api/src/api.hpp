#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <mergen/api/api_server.hpp>
#include <mergen/api/vm_service.hpp>

#include "problem.hpp"
#include "target.hpp"

namespace mergen::api {

/// One request as a route sees it: its shape is checked, its body is whole.
struct Call {
    std::string id;                            ///< of the path, checked against RecordId's rule; empty if it has none
    std::map<std::string, std::string> query;  ///< only what the route takes
    std::string body;
};

class Api;
using Result = std::variant<Answer, Problem>;

struct Route {
    std::string_view method;
    std::string_view path;  ///< "/v1/vms/{id}/start", as in docs/openapi.yaml
    bool takesBody;
    std::vector<std::string> parameters;  ///< of the query
    Names names;
    Result (Api::*answer)(const Call& call) const;
};

/// The routes of REST and what they answer; knows nothing of connections. Threads: every method from any at once.
class Api {
public:
    /// `service` is borrowed. `access` tells on the health page who may ask.
    Api(VmService& service, std::function<std::vector<PluginRow>()> plugins,
        std::function<engine::ComponentHealth()> access);

    [[nodiscard]] static const std::vector<Route>& routes();

    /// The route of a method and path; else a problem, 404 or 405 with `Allow`. HEAD finds the route of GET.
    struct Match {
        const Route* route = nullptr;
        std::string id;
        Problem problem;  ///< if there is no route
    };
    [[nodiscard]] static Match match(std::string_view method, const Target& target);

    /// What the route answers. Throws Error as the service does.
    [[nodiscard]] Result answer(const Route& route, const Call& call) const { return (this->*route.answer)(call); }

private:
    [[nodiscard]] Result health(const Call& call) const;
    [[nodiscard]] Result ready(const Call& call) const;
    [[nodiscard]] Result plugins(const Call& call) const;
    [[nodiscard]] Result create(const Call& call) const;
    [[nodiscard]] Result list(const Call& call) const;
    [[nodiscard]] Result get(const Call& call) const;
    [[nodiscard]] Result changeVm(const Call& call) const;
    [[nodiscard]] Result metrics(const Call& call) const;
    [[nodiscard]] Result remove(const Call& call) const;
    [[nodiscard]] Result start(const Call& call) const;
    [[nodiscard]] Result stop(const Call& call) const;
    [[nodiscard]] Result pause(const Call& call) const;
    [[nodiscard]] Result resume(const Call& call) const;
    [[nodiscard]] Result events(const Call& call) const;
    [[nodiscard]] Result console(const Call& call) const;
    [[nodiscard]] Result vmConfig(const Call& call) const;

    /// Runs an operation on a VM, and tells a VM that is not there from something of the host that is not there.
    [[nodiscard]] Result change(const std::string& id, const std::string& done,
                                const std::function<void()>& operation) const;
    /// change() by an operation that says what ended the VM.
    [[nodiscard]] Result end(const std::string& id, const std::string& done,
                             const std::function<std::optional<engine::StoppedBy>()>& operation) const;
    [[nodiscard]] bool knows(const std::string& id) const;

    VmService& service_;
    const std::function<std::vector<PluginRow>()> plugins_;
    const std::function<engine::ComponentHealth()> access_;
};

}  // namespace mergen::api
