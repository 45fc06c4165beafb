#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <sys/stat.h>

namespace mergen::test {

/// A folder that is gone at the end; 0711, as a VM's own uid must pass it.
class TempDir {
public:
    TempDir() {
        std::string pattern = (std::filesystem::temp_directory_path() / "mergen-unit-XXXXXX").string();
        if (::mkdtemp(pattern.data()) == nullptr) std::abort();
        path_ = pattern;
        ::chmod(path_.c_str(), 0711);
    }
    ~TempDir() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;

    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

    std::filesystem::path write(const std::string& name, std::string_view content) const {
        std::ofstream(path_ / name) << content;
        ::chmod((path_ / name).c_str(), 0644);  // whatever the umask: mergend takes no file that others can write
        return path_ / name;
    }

private:
    std::filesystem::path path_;
};

}  // namespace mergen::test
