#include <cerrno>
#include <fcntl.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/trust.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/server/config_input.hpp>
#include <mergen/server/ini.hpp>

namespace mergen::server {

namespace fs = std::filesystem;

namespace {

/// Surely not there: what merely cannot be looked at must not pass for absent.
bool isAbsent(const fs::path& path) {
    return ::faccessat(AT_FDCWD, path.c_str(), F_OK, AT_EACCESS | AT_SYMLINK_NOFOLLOW) != 0 &&
           (errno == ENOENT || errno == ENOTDIR);
}

class Reader {
public:
    Reader(ConfigInput& input, Problems& problems) : input_(input), problems_(problems) {}

    void readFile(const fs::path& file) {
        try {
            input_.files.push_back(
                {file, readTrustedFile(file, maxIniBytes, "the configuration file " + file.string())});
        } catch (const Error& error) {
            problems_.push_back({{}, {}, error.what(), {}});
        }
    }

    void readFolder(const fs::path& folder) {
        try {
            const fs::path real = trustedDirectory(folder, "the configuration folder " + folder.string());
            for (const std::string& name : listDirectory(real)) {
                if (name.ends_with(".ini") && !name.starts_with('.')) readFile(folder / name);
            }
        } catch (const Error& error) {
            problems_.push_back({{}, {}, error.what(), {}});
        }
    }

private:
    ConfigInput& input_;
    Problems& problems_;
};

std::map<std::string, std::string, std::less<>> ownEnvironment() {
    std::map<std::string, std::string, std::less<>> variables;
    for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
        const std::string_view text = *entry;
        const std::size_t equals = text.find('=');
        if (equals == std::string_view::npos) continue;
        variables.emplace(text.substr(0, equals), text.substr(equals + 1));
    }
    return variables;
}

}  // namespace

ConfigInput readConfigInput(const ConfigPlaces& places, Problems& problems) {
    ConfigInput input;
    Reader reader(input, problems);
    const fs::path file = places.file.value_or(defaultConfigFile);
    if (places.file || !isAbsent(file)) reader.readFile(file);
    const fs::path folder = places.directory.value_or(file.parent_path() / "conf.d");
    if (places.directory || !isAbsent(folder)) reader.readFolder(folder);
    input.environment = ownEnvironment();
    input.assignments = places.assignments;
    return input;
}

std::string nameOf(const ConfigInput& input) {
    return input.files.empty() ? "(defaults)" : input.files.front().path.string();
}

}  // namespace mergen::server
