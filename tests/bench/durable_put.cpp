// What a durable record costs beside the system calls that it cannot do without, made by hand with nothing around them.

#include <benchmark/benchmark.h>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <filesystem>
#include <map>
#include <span>
#include <stdlib.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

#include <mergen/base/fd.hpp>
#include <mergen/base/file.hpp>

#include "files_storage.hpp"

namespace mergen::bench {
namespace {

/// A folder on the medium that is measured (TMPDIR), gone with the object.
class Folder {
public:
    Folder() {
        std::string name = (std::filesystem::temp_directory_path() / "mergen-bench-XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr) throw Error::fromErrno(errno, "cannot make the folder " + name);
        path_ = name;
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() { removeTree(path_); }
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

private:
    std::filesystem::path path_;
};

/// What a backend needs of a server, and a log that nobody reads.
class QuietHost final : public Host, public Log {
public:
    explicit QuietHost(const std::filesystem::path& root)
        : settings_(storage::FilesStorage::keys, {}), paths_{root, root, root, root} {}
    [[nodiscard]] const Settings& settings() const noexcept override { return settings_; }
    [[nodiscard]] Log& log() noexcept override { return *this; }
    [[nodiscard]] const HostPaths& paths() const noexcept override { return paths_; }
    [[nodiscard]] const std::string& instance() const noexcept override { return instance_; }
    void write(LogLevel /*level*/, std::string_view /*event*/, std::span<const LogField> /*fields*/) noexcept override {
    }

private:
    Settings settings_;
    HostPaths paths_;
    std::string instance_ = "0a1b2c3d";
};

/// A VM's documents, in their usual sizes.
std::map<std::string, std::string, std::less<>> documents() {
    const auto json = [](std::size_t bytes) { return "{\"text\": \"" + std::string(bytes - 13, 'x') + "\"}\n"; };
    return {{"env", std::string(720, 'x') + "\n"}, {"meta.json", json(1500)}, {"vm.json", json(620)}};
}

void check(bool done, const char* what) {
    if (!done) throw Error::fromErrno(errno, what);
}

void writeSynced(int folder, const std::string& name, const std::string& text) {
    const UniqueFd file(::openat(folder, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    check(static_cast<bool>(file), "open");
    check(::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()), "write");
    check(::fdatasync(file.get()) == 0, "fdatasync");
}

/// The same documents as a folder: made aside, synced, renamed, synced.
void putByHand(int root, const std::string& id, const std::map<std::string, std::string, std::less<>>& documents) {
    const std::string aside = "." + id;
    check(::mkdirat(root, aside.c_str(), 0700) == 0, "mkdir");
    const UniqueFd folder(::openat(root, aside.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    for (const auto& [name, text] : documents) writeSynced(folder.get(), name, text);
    check(::fsync(folder.get()) == 0, "fsync");
    check(::renameat(root, aside.c_str(), root, id.c_str()) == 0, "rename");
    check(::fsync(root) == 0, "fsync");
}

std::string idOf(std::uint64_t number) {
    return "vm-" + std::to_string(number);
}

void recordByHand(benchmark::State& state) {
    const Folder folder;
    const UniqueFd root = openFile(folder.path(), O_RDONLY | O_DIRECTORY);
    const auto texts = documents();
    std::uint64_t number = 0;
    for (auto _ : state) putByHand(root.get(), idOf(++number), texts);
}
BENCHMARK(recordByHand)->UseRealTime()->Unit(benchmark::kMicrosecond);

/// The least that a durable file costs: what a record of one document would.
void fileByHand(benchmark::State& state) {
    const Folder folder;
    const UniqueFd root = openFile(folder.path(), O_RDONLY | O_DIRECTORY);
    const std::string text = documents().at("meta.json");
    std::uint64_t number = 0;
    for (auto _ : state) {
        const std::string id = idOf(++number), aside = "." + id;
        writeSynced(root.get(), aside, text);
        check(::renameat(root.get(), aside.c_str(), root.get(), id.c_str()) == 0, "rename");
        check(::fsync(root.get()) == 0, "fsync");
    }
}
BENCHMARK(fileByHand)->UseRealTime()->Unit(benchmark::kMicrosecond);

void recordByStorage(benchmark::State& state) {
    const Folder folder;
    QuietHost host(folder.path());
    storage::FilesStorage storage;
    storage.configure(host);
    storage.start();
    const auto texts = documents();
    std::uint64_t number = 0;
    for (auto _ : state) {
        benchmark::DoNotOptimize(storage.put({RecordId::parse(idOf(++number)), texts}, std::nullopt));
    }
    storage.stop();
}
BENCHMARK(recordByStorage)->UseRealTime()->Unit(benchmark::kMicrosecond);

void changeByStorage(benchmark::State& state) {
    const Folder folder;
    QuietHost host(folder.path());
    storage::FilesStorage storage;
    storage.configure(host);
    storage.start();
    auto texts = documents();
    Revision revision = storage.put({RecordId::parse("web"), texts}, std::nullopt);
    std::uint64_t number = 0;
    for (auto _ : state) {
        texts["meta.json"] = "{\"change\": " + std::to_string(++number) + "}\n";
        revision = storage.put({RecordId::parse("web"), texts}, revision);
    }
    storage.stop();
}
BENCHMARK(changeByStorage)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace mergen::bench
