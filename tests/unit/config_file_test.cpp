// config/mergen.ini against the table of keys: what it says of a key is what the server does.
#include <map>
#include <sstream>

#include <gtest/gtest.h>

#include <mergen/base/text.hpp>
#include <mergen/server/config.hpp>

#include "server_test_support.hpp"

namespace mergen::server {
namespace {

struct Documented {
    std::string defaultValue, sentence;
};

/// "section.key" → what stands there. A line "#key = value" right below its prose, "# …", documents a key;
/// "#[kind.name]" or "[name]" begins a section.
std::map<std::string, Documented> readDocumented() {
    std::map<std::string, Documented> keys;
    std::istringstream file(contentOf(MERGEN_INI));
    std::string section;
    std::string prose;
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with("# ")) {
            prose += (prose.empty() ? "" : " ") + line.substr(2);
            continue;
        }
        const std::string_view bare = line.starts_with('#') ? std::string_view(line).substr(1) : std::string_view(line);
        if (bare.starts_with('[')) {
            section = bare.substr(1, bare.size() - 2);
        } else if (const std::size_t equals = bare.find('='); equals != std::string_view::npos) {
            EXPECT_TRUE(line.starts_with('#')) << line << ": a default stands as a comment";
            const std::string key = section + "." + std::string(trim(bare.substr(0, equals)));
            EXPECT_TRUE(keys.emplace(key, Documented{std::string(trim(bare.substr(equals + 1))), prose}).second) << key;
        }
        prose.clear();
    }
    return keys;
}

bool isPluginKey(const std::string& key) {
    return key.find('.') != key.rfind('.');
}

TEST(ConfigFile, HasEveryKeyWithItsDefaultAndItsSentence) {
    auto documented = readDocumented();
    for (const ConfigKey& key : configKeys()) {
        const auto found = documented.find(key.section + "." + key.key);
        ASSERT_NE(found, documented.end()) << key.section << '.' << key.key << " is missing";
        EXPECT_EQ(found->second.defaultValue, key.defaultValue) << found->first;
        EXPECT_EQ(found->second.sentence, key.sentence + ".") << found->first;
        documented.erase(found);
    }
    for (const auto& [key, what] : documented) EXPECT_TRUE(isPluginKey(key)) << key << " is no key of the server";
}

TEST(ConfigFile, AsItStandsIsTheDefaultConfiguration) {
    Problems problems;
    const Installation installation{"/plugins", "/libexec"};
    const ServerConfig shipped = parseConfig(contentOf(MERGEN_INI), installation, problems);
    EXPECT_EQ(render(shipped), render(parseConfig("", installation, problems)));
    EXPECT_TRUE(problems.empty());
}

TEST(ConfigFile, WithEveryDefaultUncommentedIsTheDefaultConfigurationToo) {
    std::istringstream file(contentOf(MERGEN_INI));
    std::string text;
    for (std::string line; std::getline(file, line);) {
        text += (line.starts_with('#') && !line.starts_with("# ") ? line.substr(1) : line) + "\n";
    }
    Problems problems;
    const Installation installation{"/plugins", "/libexec"};
    ServerConfig config = parseConfig(text, installation, problems);
    for (const Problem& problem : problems) ADD_FAILURE() << describe(problem, MERGEN_INI);
    config.plugins.clear();
    EXPECT_EQ(render(config), render(parseConfig("", installation, problems)));
}

}  // namespace
}  // namespace mergen::server
