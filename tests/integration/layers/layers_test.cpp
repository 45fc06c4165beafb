// That the build keeps the house in order: what a source may not include does not compile with the flags that the build
// gives it, and no source goes round that by a relative path. The rule is the table in arrows.txt.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <Poco/JSON/Array.h>
#include <Poco/JSON/Object.h>
#include <Poco/JSON/Parser.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/base/process.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;

const fs::path source = MERGEN_SOURCE;

std::string contentOf(const fs::path& file) {
    std::ifstream stream(file);
    if (!stream) throw Error(ErrorKind::NotFound, "cannot open " + file.string());
    return {std::istreambuf_iterator<char>(stream), {}};
}

/// The table: room or "plugins" → the rooms that it may include, itself among them.
class Arrows {
public:
    Arrows() {
        std::istringstream text(contentOf(source / "tests/integration/layers/arrows.txt"));
        std::string line;
        while (std::getline(text, line)) {
            std::istringstream words(line);
            const std::vector<std::string> row{std::istream_iterator<std::string>(words), {}};
            if (rooms_.empty()) {
                if (!row.empty() && row.front() == "sdk") rooms_ = row;
                continue;
            }
            if (row.size() != rooms_.size() + 1) continue;
            std::set<std::string>& seen = allowed_[row.front()];
            seen.insert(row.front());
            for (std::size_t i = 0; i < rooms_.size(); ++i) {
                if (row[i + 1] == "x") seen.insert(rooms_[i]);
            }
        }
    }

    [[nodiscard]] const std::vector<std::string>& rooms() const { return rooms_; }
    [[nodiscard]] bool allows(const std::string& who, const std::string& whom) const {
        return allowed_.at(who).contains(whom);
    }
    [[nodiscard]] const std::map<std::string, std::set<std::string>>& all() const { return allowed_; }

private:
    std::vector<std::string> rooms_;
    std::map<std::string, std::set<std::string>> allowed_;
};

const Arrows& arrows() {
    static const Arrows table;
    return table;
}

/// The words of a command line as sh(1) splits them, for what CMake writes: quotes and backslashes, no expansions.
std::vector<std::string> words(std::string_view command) {
    std::vector<std::string> result;
    std::string word;
    bool inWord = false;
    char quote = 0;
    for (std::size_t i = 0; i < command.size(); ++i) {
        const char c = command[i];
        if (c == '\\' && quote != '\'' && i + 1 < command.size()) {
            word += command[++i];
            inWord = true;
        } else if (quote != 0 ? c == quote : c == '"' || c == '\'') {
            quote = quote != 0 ? '\0' : c;
            inWord = true;
        } else if (quote == 0 && c == ' ') {
            if (inWord) result.push_back(word);
            word.clear();
            inWord = false;
        } else {
            word += c;
            inWord = true;
        }
    }
    if (inWord) result.push_back(word);
    return result;
}

/// How the build compiles one source: its compiler and flags without what names input and output.
std::vector<std::string> flagsOf(std::string_view command) {
    std::vector<std::string> all = words(command);
    // Before the compiler may stand a launcher such as ccache.
    const auto compiler = std::ranges::find(all, MERGEN_COMPILER_PATH);
    if (compiler == all.end()) throw Error(ErrorKind::Internal, "no compiler in: " + std::string(command));
    std::vector<std::string> flags;
    for (auto word = compiler; word != all.end(); ++word) {
        if (*word == "-o" || *word == "-c" || *word == "-MF" || *word == "-MT") {
            ++word;
        } else if (*word != "-MD") {
            flags.push_back(*word);
        }
    }
    return flags;
}

/// The room of a source, "plugins" for a plugin's, empty for others.
std::string roomOf(const fs::path& file) {
    const fs::path below = file.lexically_relative(source);
    auto part = below.begin();
    if (part == below.end()) return {};
    if (*part == "plugins") return "plugins";
    if (*part != "core" || ++part == below.end()) return {};
    return part->string();
}

/// The folder that a source of a room or plugin belongs to: core/<room> or plugins/<kind>/<name>.
fs::path folderOf(const fs::path& file) {
    const fs::path below = file.lexically_relative(source);
    fs::path folder = source;
    auto part = below.begin();
    for (int depth = *part == "plugins" ? 3 : 2; depth > 0 && part != below.end(); --depth, ++part) folder /= *part;
    return folder;
}

/// One compile command of each room (under its name), and of each plugin (under its folder, "storage/files").
const std::map<std::string, std::vector<std::string>>& commands() {
    static const std::map<std::string, std::vector<std::string>> found = [] {
        std::map<std::string, std::vector<std::string>> result;
        Poco::JSON::Parser parser;
        const auto list = parser.parse(contentOf(MERGEN_COMPILE_COMMANDS)).extract<Poco::JSON::Array::Ptr>();
        for (unsigned i = 0; i < list->size(); ++i) {
            const auto entry = list->getObject(i);
            const fs::path file = entry->getValue<std::string>("file");
            const std::string room = roomOf(file);
            std::string key = room;
            if (room == "plugins") {
                if (file.filename() != "plugin.cpp") continue;
                key = folderOf(file).lexically_relative(source / "plugins").string();
            } else if (room.empty() || file.parent_path().filename() != "src") {
                continue;
            }
            result.try_emplace(key, flagsOf(entry->getValue<std::string>("command")));
        }
        return result;
    }();
    return found;
}

enum class Depth { Whole, PreprocessorOnly };

/// Compiles a source of these lines with the flags of `key`, without making an object; gives the compiler's errors,
/// empty if there are none.
std::string errorsOf(const std::string& key, const std::vector<std::string>& lines, Depth depth = Depth::Whole) {
    std::string name = (fs::temp_directory_path() / "mergen-layers-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw Error::fromErrno(errno, "cannot make the folder " + name);
    const fs::path probe = fs::path(name) / "probe.cpp";
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    writeFileAtomically(probe, text, 0644);
    SpawnOptions options;
    options.arguments = commands().at(key);
    options.arguments.insert(options.arguments.end(), {depth == Depth::Whole ? "-fsyntax-only" : "-E",
                                                       "-fno-diagnostics-color", probe.string()});
    options.environment = {"PATH=/usr/bin:/bin", "LC_ALL=C"};
    const RunResult result = run(options, std::chrono::minutes(5));
    removeTree(name);
    if (result.timedOut) throw Error(ErrorKind::Timeout, "the compiler does not come to an end");
    if (result.status == 0) return {};
    return result.errors.empty() ? describeStatus(result.status) : result.errors;
}

/// The public headers of a room as they are included: "mergen/sdk/storage.hpp".
std::vector<std::string> headersOf(const std::string& room) {
    std::vector<std::string> headers;
    for (const std::string& name : listDirectory(source / "core" / room / "include/mergen" / room)) {
        headers.push_back("mergen/" + room + "/" + name);
    }
    return headers;
}

/// Every compile command's key with the row of the table that is about it.
std::vector<std::pair<std::string, std::string>> subjects() {
    std::vector<std::pair<std::string, std::string>> all;
    for (const auto& [key, flags] : commands())
        all.emplace_back(key, key.find('/') == std::string::npos ? key : "plugins");
    return all;
}

TEST(Layers, TheTableIsAboutEveryRoomAndPlugin) {
    std::set<std::string> rows;
    for (const auto& [row, allowed] : arrows().all()) rows.insert(row);
    std::set<std::string> rooms{"plugins"};
    for (const std::string& name : listDirectory(source / "core")) {
        if (fs::is_directory(source / "core" / name)) rooms.insert(name);
    }
    EXPECT_EQ(rows, rooms);
    for (const std::string& room : arrows().rooms()) EXPECT_TRUE(commands().contains(room)) << room << " is not built";
    for (const std::string& kind : listDirectory(source / "plugins")) {
        if (!fs::is_directory(source / "plugins" / kind)) continue;
        for (const std::string& name : listDirectory(source / "plugins" / kind)) {
            EXPECT_TRUE(commands().contains(kind + "/" + name)) << kind << "/" << name << " is not built";
        }
    }
}

/// Lines that do not compile if any of `paths` can be included. Cheaper by far than one compilation for each; that the
/// failure of a true include is the one expected is shown once for each room.
std::vector<std::string> refuseAny(const std::vector<std::string>& paths) {
    std::vector<std::string> lines;
    for (const std::string& path : paths) {
        lines.push_back("#if __has_include(" + path + ")");
        lines.push_back("#error " + path + " can be included");
        lines.emplace_back("#endif");
    }
    return lines;
}

TEST(Layers, WhatTheTableForbidsDoesNotCompile) {
    for (const auto& [key, row] : subjects()) {
        std::vector<std::string> forbidden;
        for (const std::string& room : arrows().rooms()) {
            if (arrows().allows(row, room)) continue;
            const std::vector<std::string> headers = headersOf(room);
            ASSERT_FALSE(headers.empty()) << room;
            for (const std::string& header : headers) forbidden.push_back("<" + header + ">");
            EXPECT_THAT(errorsOf(key, {"#include <" + headers.front() + ">"}),
                        HasSubstr("fatal error: " + headers.front() + ": No such file or directory"))
                << key << " can include it";
        }
        EXPECT_EQ(errorsOf(key, refuseAny(forbidden)), "") << key;
    }
}

/// Were the lines of refuseAny() blind, the two tests that rest on them could not fail.
TEST(Layers, AHeaderThatCanBeIncludedIsNoticed) {
    EXPECT_THAT(errorsOf("storage/memory", refuseAny({"<mergen/engine/engine.hpp>", "<mergen/sdk/storage.hpp>"})),
                HasSubstr("#error <mergen/sdk/storage.hpp> can be included"));
}

std::vector<std::string> includesThatTheTableAllows(const std::string& row) {
    std::vector<std::string> lines;
    for (const std::string& room : arrows().rooms()) {
        if (!arrows().allows(row, room)) continue;
        for (const std::string& header : headersOf(room)) lines.push_back("#include <" + header + ">");
    }
    return lines;
}

TEST(Layers, WhatTheTableAllowsIsFoundByEveryone) {
    for (const auto& [key, row] : subjects()) {
        EXPECT_EQ(errorsOf(key, includesThatTheTableAllows(row), Depth::PreprocessorOnly), "") << key;
    }
}

TEST(Layers, WhatTheTableAllowsAPluginCompiles) {
    EXPECT_EQ(errorsOf("storage/memory", includesThatTheTableAllows("plugins")), "");
}

TEST(Layers, NobodyCanIncludeAPluginOfAnother) {
    for (const auto& [key, row] : subjects()) {
        std::vector<std::string> forbidden;
        for (const auto& [other, flags] : commands()) {
            if (other == key || other.find('/') == std::string::npos) continue;
            for (const std::string& name : listDirectory(source / "plugins" / other)) {
                if (!name.ends_with(".hpp")) continue;
                for (const std::string& way : {name, other + "/" + name, "plugins/" + other + "/" + name}) {
                    if (!fs::exists(source / "plugins" / key / way)) forbidden.push_back('"' + way + '"');
                }
            }
        }
        ASSERT_FALSE(forbidden.empty());
        EXPECT_EQ(errorsOf(key, refuseAny(forbidden)), "") << key;
        EXPECT_THAT(errorsOf(key, {"#include " + forbidden.front()}), HasSubstr(": No such file or directory"));
    }
}

TEST(Layers, NobodyLinksWhatHeMayNotInclude) {
    std::istringstream text(contentOf(MERGEN_LINKED));
    std::string line;
    std::size_t targets = 0;
    while (std::getline(text, line)) {
        const std::vector<std::string> linked = words(line);
        constexpr std::string_view pluginPrefix = "mergen_plugin_";
        const bool plugin = linked.front().starts_with(pluginPrefix);
        const std::string row = plugin ? "plugins" : linked.front().substr(std::string_view("mergen_").size());
        const std::string behaviour = plugin ? "mergen_" + linked.front().substr(pluginPrefix.size()) : "";
        for (std::size_t i = 1; i < linked.size(); ++i) {
            if (linked[i] == behaviour || linked[i] == linked.front()) continue;
            EXPECT_TRUE(arrows().allows(row, linked[i].substr(std::string_view("mergen_").size())))
                << linked.front() << " links " << linked[i];
        }
        ++targets;
    }
    EXPECT_GT(targets, arrows().rooms().size());
}

/// What an include line names, and how.
struct Include {
    std::size_t line;
    bool quoted;
    std::string path;
};

std::vector<Include> includesOf(const std::string& text) {
    static const std::regex pattern(R"(^\s*#\s*include\s*(["<])([^">]+)[">])");
    std::vector<Include> found;
    std::istringstream stream(text);
    std::string line;
    for (std::size_t number = 1; std::getline(stream, line); ++number) {
        std::smatch match;
        if (std::regex_search(line, match, pattern)) found.push_back({number, match[1] == "\"", match[2]});
    }
    return found;
}

/// Why `include` in `file` is against the rules; empty if it is not.
std::string faultOf(const fs::path& file, const Include& include) {
    const fs::path path = include.path;
    if (path.is_absolute()) return "an absolute path";
    if (std::ranges::find(path, fs::path("..")) != path.end()) return "a path with '..'";
    const std::string room = roomOf(file);
    if (room.empty()) return {};  // tests see what they test

    // A plugin's own tests include the contract suite of its kind and the support for it.
    const fs::path folder = folderOf(file);
    const bool isTest = file.lexically_relative(folder).begin()->string() == "tests";
    if (include.quoted) {
        std::vector<fs::path> places{file.parent_path(), folder, folder / "src"};
        if (isTest) {
            places.push_back(source / "tests/contract/support");
            places.push_back(source / "tests/contract" / folder.parent_path().filename());
        }
        const bool own = std::ranges::any_of(places, [&](const fs::path& place) { return fs::exists(place / path); });
        return own ? "" : "a quoted path that is not in its own folder";
    }
    auto part = path.begin();
    if (*part != "mergen" || ++part == path.end()) return {};
    if (!arrows().allows(room, part->string())) return "a header that " + room + " may not see";
    return {};
}

std::vector<fs::path> sourcesBelow(const fs::path& folder) {
    std::vector<fs::path> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
        const std::string extension = entry.path().extension().string();
        if (extension == ".cpp" || extension == ".hpp" || extension == ".h" || extension == ".c") {
            files.push_back(entry.path());
        }
    }
    std::ranges::sort(files);
    return files;
}

TEST(Layers, NoSourceGoesRoundTheRules) {
    std::size_t looked = 0;
    for (const char* part : {"core", "plugins", "tests"}) {
        for (const fs::path& file : sourcesBelow(source / part)) {
            for (const Include& include : includesOf(contentOf(file))) {
                EXPECT_EQ(faultOf(file, include), "")
                    << file.string() << ":" << include.line << " includes " << include.path;
                ++looked;
            }
        }
    }
    EXPECT_GT(looked, 100U);
}

/// No process is spawned for network work: the library does not even know how.
TEST(Layers, TheNetworkBackendStartsNoProgram) {
    SpawnOptions options;
    options.arguments = {"/usr/bin/nm", "--dynamic", "--undefined-only", "--just-symbols", MERGEN_NETWORK_LINUX};
    std::istringstream symbols(run(options, std::chrono::minutes(1)).output);
    std::set<std::string> used;
    for (std::string symbol; symbols >> symbol;) used.insert(symbol.substr(0, symbol.find('@')));
    EXPECT_TRUE(used.contains("setns"));
    for (const char* start :
         {"fork", "vfork", "_Fork", "clone", "system", "popen", "posix_spawn", "posix_spawnp", "execl", "execle",
          "execlp", "execv", "execve", "execvp", "execvpe", "fexecve", "execveat"})
        EXPECT_FALSE(used.contains(start)) << start;
}

TEST(Layers, TheScanFindsEachWayRoundTheRules) {
    const auto fault = [](const std::string& file, const std::string& line) {
        const std::vector<Include> found = includesOf("// first line\n" + line + "\n");
        return found.size() == 1 ? faultOf(source / file, found.front()) : "no include found";
    };
    const std::string plugin = "plugins/storage/memory/plugin.cpp";
    EXPECT_EQ(fault(plugin, "#include <mergen/sdk/storage.hpp>"), "");
    EXPECT_EQ(fault(plugin, "#include \"memory_storage.hpp\""), "");
    EXPECT_EQ(fault(plugin, "#include <vector>"), "");
    EXPECT_THAT(fault(plugin, "  #  include <mergen/engine/engine.hpp>"), HasSubstr("plugins may not see"));
    EXPECT_THAT(fault(plugin, "#include \"../../../core/engine/include/mergen/engine/engine.hpp\""), HasSubstr("'..'"));
    EXPECT_THAT(fault(plugin, "#include <../x.hpp>"), HasSubstr("'..'"));
    EXPECT_THAT(fault(plugin, "#include \"/usr/include/stdio.h\""), HasSubstr("absolute"));
    EXPECT_THAT(fault(plugin, "#include \"files_storage.hpp\""), HasSubstr("own folder"));
    EXPECT_THAT(fault("core/engine/src/engine.cpp", "#include <mergen/api/api_server.hpp>"),
                HasSubstr("engine may not see"));
    EXPECT_THAT(fault("core/base/src/file.cpp", "#include <mergen/engine/vm.hpp>"), HasSubstr("base may not see"));
    EXPECT_THAT(fault("core/sdk/src/error.cpp", "#include <mergen/base/fd.hpp>"), HasSubstr("sdk may not see"));
}

}  // namespace
}  // namespace mergen::test
