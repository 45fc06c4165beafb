// What a durable record costs beside the system calls that it cannot do without, made by hand with nothing around them.

#include <algorithm>
#include <benchmark/benchmark.h>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <stdlib.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

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
    [[nodiscard]] const NetworkPlan& networkPlan() const noexcept override { return plan_; }
    void write(LogLevel /*level*/, std::string_view /*event*/, std::span<const LogField> /*fields*/) noexcept override {
    }

private:
    Settings settings_;
    HostPaths paths_;
    std::string instance_ = "0a1b2c3d";
    NetworkPlan plan_;
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

void putFileByHand(int root, const std::string& id, const std::string& text) {
    const std::string aside = "." + id;
    writeSynced(root, aside, text);
    check(::renameat(root, aside.c_str(), root, id.c_str()) == 0, "rename");
    check(::fsync(root) == 0, "fsync");
}

double microseconds(const std::function<void()>& work) {
    const auto began = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - began).count();
}

double median(std::vector<double> values) {
    std::ranges::sort(values);
    return values.empty() ? 0 : values[values.size() / 2];
}

/// Turn by turn, one of each, because a disk that others use is fast and slow by turns. The counters are medians;
/// `ratio` is that of the pairs.
void durablePut(benchmark::State& state) {
    const Folder ours, theirs;
    const UniqueFd root = openFile(theirs.path(), O_RDONLY | O_DIRECTORY);
    QuietHost host(ours.path());
    storage::FilesStorage storage;
    storage.configure(host);
    storage.start();
    auto texts = documents();
    std::vector<double> byStorage, byHand, fileByHand, change, ratio;
    std::uint64_t number = 0;
    for (auto _ : state) {
        const std::string id = idOf(++number);
        Revision revision;
        byHand.push_back(microseconds([&] { putByHand(root.get(), id, texts); }));
        byStorage.push_back(microseconds([&] { revision = storage.put({RecordId::parse(id), texts}, std::nullopt); }));
        fileByHand.push_back(microseconds([&] { putFileByHand(root.get(), "file-" + id, texts.at("meta.json")); }));
        texts["meta.json"][12] = static_cast<char>('a' + number % 26);
        change.push_back(microseconds([&] { revision = storage.put({RecordId::parse(id), texts}, revision); }));
        ratio.push_back(byStorage.back() / byHand.back());
    }
    storage.stop();
    state.counters["create"] = median(byStorage);
    state.counters["create_by_hand"] = median(byHand);
    state.counters["change"] = median(change);
    state.counters["one_file_by_hand"] = median(fileByHand);
    state.counters["ratio"] = median(ratio);
}
BENCHMARK(durablePut)->Iterations(150)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace mergen::bench
