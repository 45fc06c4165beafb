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
        EXPECT_EQ(found->second.sentence, key.explanation()) << found->first;
        documented.erase(found);
    }
    for (const auto& [key, what] : documented) EXPECT_TRUE(isPluginKey(key)) << key << " is no key of the server";
}

ServerConfig parse(const std::string& text) {
    Problems problems;
    Notes notes;
    ServerConfig config = parseConfig(fileInput(text), {"/plugins", "/libexec"}, problems, notes);
    for (const Problem& problem : problems) ADD_FAILURE() << describe(problem);
    for (const Note& note : notes) ADD_FAILURE() << describe(note);
    return config;
}

/// Each key with its value, whatever its origin.
std::string valuesOf(const ServerConfig& config) {
    std::string text;
    for (const ConfigKey& key : configKeys()) text += key.path() + " = " + key.write(config) + "\n";
    return text;
}

TEST(ConfigFile, AsItStandsIsTheDefaultConfiguration) {
    EXPECT_EQ(valuesOf(parse(contentOf(MERGEN_INI))), valuesOf(parse("")));
}

TEST(ConfigFile, WithEveryDefaultUncommentedIsTheDefaultConfigurationToo) {
    std::istringstream file(contentOf(MERGEN_INI));
    std::string text;
    for (std::string line; std::getline(file, line);) {
        text += (line.starts_with('#') && !line.starts_with("# ") ? line.substr(1) : line) + "\n";
    }
    EXPECT_EQ(valuesOf(parse(text)), valuesOf(parse("")));
}

}  // namespace
}  // namespace mergen::server
