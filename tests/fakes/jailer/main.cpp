// Plays Firecracker's jailer: checks what it is told, makes the jail and becomes the jailed program; see README.md.
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <grp.h>
#include <linux/close_range.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "arguments.hpp"

namespace {

namespace fs = std::filesystem;
using mergen::fake::JailerArguments;
using mergen::fake::Refusal;

void require(bool done, const std::string& what) {
    if (!done) throw Refusal(what + ": " + std::strerror(errno));
}

/// The first hierarchy that has the controller of this file, as /proc/mounts shows it.
fs::path hierarchyOf(const JailerArguments& arguments, const std::string& file) {
    const std::string controller = file.substr(0, file.find('.'));
    std::ifstream mounts("/proc/mounts");
    for (std::string device, point, type, options, rest; mounts >> device >> point >> type >> options;) {
        std::getline(mounts, rest);
        if (arguments.cgroupVersion == 2 && type == "cgroup2") return point;
        if (arguments.cgroupVersion == 1 && type == "cgroup" &&
            ("," + options + ",").find("," + controller + ",") != std::string::npos)
            return point;
    }
    throw Refusal("Controller " + controller + " is unavailable");
}

void write(const fs::path& file, const std::string& text) {
    const int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
    const bool done = fd >= 0 && ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    require(done, "Failed to write to " + file.string());
    ::close(fd);
}

void joinCgroups(const JailerArguments& arguments) {
    for (const auto& [file, value] : arguments.cgroups) {
        const fs::path group = hierarchyOf(arguments, file) / arguments.parentCgroup / arguments.id;
        fs::create_directories(group);
        write(group / file, value + "\n");
    }
    for (const auto& [file, value] : arguments.cgroups) {
        write(hierarchyOf(arguments, file) / arguments.parentCgroup / arguments.id / "cgroup.procs",
              std::to_string(::getpid()) + "\n");
    }
}

void limit(decltype(RLIMIT_NOFILE) resource, std::uint64_t value) {
    const rlimit both{value, value};
    require(::setrlimit(resource, &both) == 0, "Failed to set limit for resource");
}

void copyProgram(const JailerArguments& arguments, const fs::path& target) {
    const int from = ::open(arguments.execFile.c_str(), O_RDONLY | O_CLOEXEC);
    require(from >= 0, "Failed to open " + arguments.execFile.string());
    struct stat status {};
    ::fstat(from, &status);
    const int to = ::open(target.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, status.st_mode & 07777U);
    require(to >= 0, "Failed to open " + target.string());
    struct stat made {};
    ::fstat(to, &made);
    if (made.st_nlink > 1) throw Refusal("Detected hard link at: " + target.string());
    require(::fchown(to, arguments.uid, arguments.gid) == 0, "Failed to change owner for " + target.string());
    for (off_t left = status.st_size; left > 0;) {
        const ssize_t copied = ::copy_file_range(from, nullptr, to, nullptr, static_cast<std::size_t>(left), 0);
        require(copied > 0, "Failed to copy " + arguments.execFile.string());
        left -= copied;
    }
    ::close(from);
    ::close(to);
}

/// As the real one: a mount namespace whose root is the jail.
void enterJail(const fs::path& root) {
    require(::unshare(CLONE_NEWNS) == 0, "Failed to unshare into new mount namespace");
    require(::mount(nullptr, "/", nullptr, MS_SLAVE | MS_REC, nullptr) == 0, "Failed to change the propagation type");
    require(::mount(root.c_str(), root.c_str(), nullptr, MS_BIND | MS_REC, nullptr) == 0, "Failed to bind mount");
    require(::chdir(root.c_str()) == 0, "Failed to chdir into chroot directory");
    require(::mkdir("old_root", 0600) == 0, "Failed to create the jail root directory before pivoting root");
    require(::syscall(SYS_pivot_root, ".", "old_root") == 0, "Failed to pivot root");
    require(::chdir("/") == 0, "Failed to chdir into chroot directory");
    require(::umount2("old_root", MNT_DETACH) == 0, "Failed to unmount the old jail root");
    require(::rmdir("old_root") == 0, "Failed to remove old jail root directory");
}

void makeDevice(const char* path, unsigned major, unsigned minor, const JailerArguments& arguments) {
    require(::mknod(path, S_IFCHR | 0600, makedev(major, minor)) == 0,
            std::string("Failed to create ") + path + " via mknod inside the jail");
    require(::chown(path, arguments.uid, arguments.gid) == 0, std::string("Failed to change owner for ") + path);
}

void furnish(const JailerArguments& arguments) {
    for (const char* const folder : {"/", "/dev", "/dev/net", "/run"}) {
        require(::mkdir(folder, 0700) == 0 || errno == EEXIST, std::string("Failed to create directory ") + folder);
        require(::chmod(folder, 0700) == 0, std::string("Failed to change permissions on ") + folder);
        require(::chown(folder, arguments.uid, arguments.gid) == 0,
                std::string("Failed to change owner for ") + folder);
    }
    makeDevice("/dev/net/tun", 10, 200, arguments);
    makeDevice("/dev/kvm", 10, 232, arguments);
    makeDevice("/dev/urandom", 1, 9, arguments);
}

[[noreturn]] void becomeProgram(const JailerArguments& arguments, const std::string& name) {
    const std::string pidFile = "/" + name + ".pid";
    const int fd = ::open(pidFile.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    require(fd >= 0, "Failed to open file " + pidFile);
    const std::string pid = std::to_string(::getpid());
    require(::write(fd, pid.data(), pid.size()) > 0, "Failed to write to " + pidFile);
    std::vector<std::string> words{
        "/" + name, "--id", arguments.id, "--start-time-us", "1", "--start-time-cpu-us", "1", "--parent-cpu-time-us",
        "1"};
    words.insert(words.end(), arguments.extra.begin(), arguments.extra.end());
    std::vector<char*> pointers;
    for (std::string& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    require(::setgroups(0, nullptr) == 0 && ::setgid(arguments.gid) == 0 && ::setuid(arguments.uid) == 0,
            "Failed to drop privileges");
    char* environment[] = {nullptr};
    ::execve(pointers.front(), pointers.data(), static_cast<char**>(environment));
    require(false, "Failed to exec into Firecracker");
    ::_exit(1);
}

}  // namespace

int main(int argc, char** argv) {
    try {
        ::close_range(3, ~0U, CLOSE_RANGE_UNSHARE);
        const JailerArguments arguments = mergen::fake::parseJailerArguments({argv + 1, argv + argc});
        if (arguments.version) {
            std::puts("Jailer v" MERGEN_FAKE_JAILER_VERSION "\n");
            return 0;
        }
        const std::string name = arguments.execFile.filename().string();
        const fs::path root = arguments.base / name / arguments.id / "root";
        fs::create_directories(root);
        copyProgram(arguments, root / name);
        limit(RLIMIT_NOFILE, arguments.openFiles);
        if (arguments.fileSize != 0) limit(RLIMIT_FSIZE, arguments.fileSize);
        joinCgroups(arguments);
        enterJail(root);
        furnish(arguments);
        becomeProgram(arguments, name);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
