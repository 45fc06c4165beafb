#include "plugin_folder.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sys/stat.h>

#include <gtest/gtest.h>

#include <mergen/base/file.hpp>

namespace mergen::test {

namespace fs = std::filesystem;

PluginFolder::PluginFolder() {
    std::string name = (fs::canonical(fs::temp_directory_path()) / "mergen-plugins-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw Error::fromErrno(errno, "cannot make the folder " + name);
    root_ = name;
    folder_ = root_ / "plugins";
    makeDirectories(folder_, 0755);
}

PluginFolder::~PluginFolder() {
    try {
        removeTree(root_);
    } catch (const Error& error) {
        ADD_FAILURE() << "the test leaves something behind: " << error.what();
    }
}

fs::path PluginFolder::add(const std::string& name, const std::string& as) const {
    return write(as.empty() ? name + ".so" : as, trialLibrary(name));
}

fs::path PluginFolder::write(const std::string& name, std::string_view content) const {
    writeFileAtomically(folder_ / name, content, 0644);
    return folder_ / name;
}

pluginhost::PluginHostConfig PluginFolder::config() const {
    pluginhost::PluginHostConfig config;
    config.directory = folder_;
    config.preflightProgram = MERGEN_PREFLIGHT;
    config.paths = {root_ / "config", root_ / "data", root_ / "run", root_ / "libexec"};
    config.instance = "0a1b2c3d";
    return config;
}

std::string trialLibrary(const std::string& name) {
    return readFile(fs::path(MERGEN_TRIAL_LIBRARIES) / (name + ".so"), 64U << 20U).value();
}

pluginhost::PluginInfo entryOf(const std::vector<pluginhost::PluginInfo>& entries, const fs::path& file) {
    const auto found = std::ranges::find(entries, file, &pluginhost::PluginInfo::file);
    if (found == entries.end()) {
        ADD_FAILURE() << "there is no entry for " << file;
        return {};
    }
    return *found;
}

bool isMapped(const fs::path& file) {
    std::ifstream maps("/proc/self/maps");
    const std::string text{std::istreambuf_iterator<char>(maps), {}};
    if (text.empty()) throw Error(ErrorKind::Unavailable, "cannot read /proc/self/maps");
    return text.find(file.string()) != std::string::npos;
}

}  // namespace mergen::test
