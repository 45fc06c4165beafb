#pragma once

#include <string>
#include <vector>

#include <Poco/JSON/Array.h>
#include <Poco/JSON/Object.h>

#include <mergen/api/api_server.hpp>
#include <mergen/engine/vm.hpp>

/// The shapes of replies. docs/openapi.yaml describes every member.
namespace mergen::api {

/// One VM: mergen-fire's summary and what Mergen adds to it. There are no units before the systemd supervisor comes, so
/// its block says that none is available and none active; a client of mergen-fire that looks for the process finds it
/// in `mainPID`, and one that asks whether the VM runs asks `state`. Text and no tree: a list has thousands of them.
[[nodiscard]] std::string summary(const engine::VmView& vm, const std::string& unitPrefix);

[[nodiscard]] Poco::JSON::Object::Ptr eventView(const engine::Event& event);
[[nodiscard]] Poco::JSON::Object::Ptr pluginView(const PluginRow& row);
[[nodiscard]] Poco::JSON::Object::Ptr componentView(const engine::ComponentHealth& component);

/// {"items":[...]}
template <typename Items, typename Each>
[[nodiscard]] Poco::JSON::Object::Ptr itemsOf(const Items& items, const Each& each) {
    Poco::JSON::Array::Ptr array(new Poco::JSON::Array);
    for (const auto& item : items) array->add(each(item));
    Poco::JSON::Object::Ptr object(new Poco::JSON::Object(Poco::JSON_PRESERVE_KEY_ORDER));
    object->set("items", array);
    return object;
}

}  // namespace mergen::api
