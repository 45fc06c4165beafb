#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <optional>
#include <sys/file.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/types.hpp>
#include <mergen/server/instance.hpp>

namespace mergen::server {

namespace fs = std::filesystem;

namespace {

bool isDigit(char c) noexcept {
    return c >= '0' && c <= '9';
}

/// What the holder wrote of itself, as words for an error text.
std::string holderOf(const fs::path& lockFile) {
    const std::string pid(trim(readFile(lockFile, /*limit=*/64).value_or("")));
    // It is empty for a moment between a holder's flock and its write.
    const std::size_t end = pid.find('\n');
    const std::string line = pid.substr(0, end);
    if (line.empty() || !std::ranges::all_of(line, isDigit)) return "another process";
    return "the process with pid " + line;
}

std::optional<std::string> readInstance(const fs::path& file) {
    const auto content = readFile(file, /*limit=*/64);
    if (!content) return std::nullopt;
    std::string mark = *content;
    if (mark.ends_with('\n')) mark.pop_back();
    const bool good =
        mark.size() == 8 && std::ranges::all_of(mark, [](char c) { return isDigit(c) || (c >= 'a' && c <= 'f'); });
    if (!good) {
        throw Error(ErrorKind::FailedPrecondition,
                    file.string() +
                        " does not hold eight hexadecimal digits: it is the mark that this server's things "
                        "on the host bear; write the old mark back, or remove the file if no VM of this "
                        "data root is left on the host");
    }
    return mark;
}

}  // namespace

RootLock::RootLock(const fs::path& root, const std::string& what) {
    const fs::path file = root / ".lock";
    UniqueFd fd = openFile(file, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    int result = 0;
    do {
        result = ::flock(fd.get(), LOCK_EX | LOCK_NB);
    } while (result != 0 && errno == EINTR);
    if (result != 0 && errno == EWOULDBLOCK) {
        throw Error(ErrorKind::Conflict, "the " + what + " " + root.string() + " is in use by " + holderOf(file) +
                                             ": one mergend per " + what);
    }
    if (result != 0) throw Error::fromErrno(errno, "cannot lock " + file.string());
    if (::ftruncate(fd.get(), 0) != 0) throw Error::fromErrno(errno, "cannot empty " + file.string());
    writeAll(fd.get(), std::to_string(::getpid()) + "\n", "cannot write " + file.string());
    fd_ = std::move(fd);
}

std::string loadInstance(const fs::path& dataRoot) {
    const fs::path file = dataRoot / "instance";
    if (auto mark = readInstance(file)) return *std::move(mark);
    std::string mark = Uuid::random().short8();
    writeFileDurably(file, mark + "\n", 0644);
    return mark;
}

std::string peekInstance(const fs::path& dataRoot) {
    return readInstance(dataRoot / "instance").value_or("00000000");
}

}  // namespace mergen::server
