#include <fstream>
#include <map>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include <mergen/base/json.hpp>

#include "api.hpp"
#include "fake_service.hpp"
#include "problem.hpp"
#include "views.hpp"

namespace mergen::api {
namespace {

/// docs/openapi.yaml as this test sees it: no YAML is parsed, only lines of the shape that the file keeps to: paths at
/// two blanks, methods at four, names of schemas at four and of their members at eight.
struct Document {
    std::set<std::pair<std::string, std::string>> routes;                   // method, path
    std::map<std::string, std::set<std::string>> schemas;                   // members by schema
    std::map<std::pair<std::string, std::string>, std::set<int>> statuses;  // by route
};

std::size_t indentOf(const std::string& line) {
    return std::min(line.find_first_not_of(' '), line.size());
}

Document readDocument() {
    Document document;
    std::ifstream file(MERGEN_OPENAPI);
    EXPECT_TRUE(file) << MERGEN_OPENAPI;
    std::string section;
    std::string part;
    std::string path;
    std::string method;
    std::string schema;
    bool inMembers = false;
    for (std::string line; std::getline(file, line);) {
        const std::size_t indent = indentOf(line);
        const std::size_t colon = line.find(':');
        if (line.empty() || line[indent] == '#' || colon == std::string::npos) continue;
        std::string word = line.substr(indent, colon - indent);
        std::erase(word, '"');
        if (indent == 0) {
            section = word;
        } else if (section == "paths") {
            if (indent == 2) {
                path = word;
            } else if (indent == 4 && word != "parameters") {
                std::string upper = word;
                for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
                method = upper;
                document.routes.emplace(method, path);
            } else if (indent == 8 && word.size() == 3 && std::isdigit(static_cast<unsigned char>(word[0])) != 0) {
                document.statuses[{method, path}].insert(std::stoi(word));
            }
        } else if (section == "components") {
            if (indent == 2) {
                part = word;
            } else if (part == "schemas" && indent == 4) {
                schema = word;
                inMembers = false;
            } else if (part == "schemas" && indent == 6) {
                inMembers = word == "properties";
            } else if (part == "schemas" && indent == 8 && inMembers) {
                document.schemas[schema].insert(word);
            }
        }
    }
    return document;
}

std::set<std::string> membersOf(const Poco::JSON::Object::Ptr& object) {
    const auto names = object->getNames();
    return {names.begin(), names.end()};
}

TEST(OpenApi, HasEveryRouteAndNoOther) {
    std::set<std::pair<std::string, std::string>> served;
    for (const Route& route : Api::routes()) served.emplace(route.method, route.path);
    EXPECT_EQ(readDocument().routes, served);
}

TEST(OpenApi, EveryRouteHasASuccessAndAFailure) {
    for (const auto& [route, statuses] : readDocument().statuses) {
        EXPECT_TRUE(statuses.contains(200) || statuses.contains(201)) << route.first << " " << route.second;
        EXPECT_GE(statuses.size(), 2U) << route.first << " " << route.second;
    }
    EXPECT_EQ(readDocument().statuses.size(), Api::routes().size());
}

TEST(OpenApi, EveryRouteButHealthTellsOfAMissingToken) {
    for (const auto& [route, statuses] : readDocument().statuses) {
        EXPECT_EQ(statuses.contains(401), route.second != "/healthz") << route.first << " " << route.second;
    }
}

TEST(OpenApi, EverySchemaHasTheMembersThatRepliesHave) {
    Document document = readDocument();
    const auto vm = json::parseObject(summary(test::sampleVm("a"), "fc"));
    EXPECT_EQ(document.schemas["Vm"], membersOf(vm));
    EXPECT_EQ(document.schemas["Systemd"], membersOf(vm->getObject("systemd")));
    EXPECT_EQ(document.schemas["Firecracker"], membersOf(vm->getObject("firecracker")));
    EXPECT_EQ(document.schemas["Network"], membersOf(vm->getObject("network")));
    EXPECT_EQ(document.schemas["Paths"], membersOf(vm->getObject("paths")));
    EXPECT_EQ(document.schemas["LastExit"], membersOf(vm->getObject("lastExit")));
    EXPECT_EQ(document.schemas["LastEnd"], membersOf(vm->getObject("lastEnd")));
    EXPECT_EQ(document.schemas["Operation"], membersOf(vm->getObject("operation")));
    EXPECT_EQ(document.schemas["Event"], membersOf(eventView({})));
    EXPECT_EQ(document.schemas["Plugin"], membersOf(pluginView({})));
    EXPECT_EQ(document.schemas["Component"], membersOf(componentView({})));
}

TEST(OpenApi, EveryMemberOfCreateIsDescribed) {
    EXPECT_EQ(readDocument().schemas["CreateVm"],
              (std::set<std::string>{
                  "id",          "name",           "rootfs",        "kernel",     "initrd",   "dataDisk",
                  "vcpu",        "memMiB",         "ports",         "httpPort",   "metadata", "autoStart",
                  "bootArgs",    "extraEnv",       "tags",          "hooks",      "vmm",      "restartPolicy",
                  "maxRestarts", "onUnresponsive", "machineConfig", "bootSource", "drives",   "networkInterfaces",
                  "vsock",       "balloon",        "entropy",       "mmds",       "metrics"}));
}

}  // namespace
}  // namespace mergen::api
