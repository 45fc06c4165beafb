#include "console.hpp"

#include <algorithm>
#include <cstddef>
#include <fcntl.h>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>

#include <mergen/base/fd.hpp>

namespace mergen::engine {

namespace {

struct Half {
    UniqueFd fd;  // none: there is no such file
    struct stat status {};
};

Half open(const std::filesystem::path& file) {
    Half half;
    half.fd.reset(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (half.fd && (::fstat(half.fd.get(), &half.status) != 0 || !S_ISREG(half.status.st_mode))) half.fd.reset();
    return half;
}

bool isStill(const Half& half, const std::filesystem::path& file) {
    struct stat now {};
    const bool there = ::lstat(file.c_str(), &now) == 0;
    if (!half.fd) return !there || !S_ISREG(now.st_mode);
    return there && now.st_dev == half.status.st_dev && now.st_ino == half.status.st_ino;
}

/// At most `limit` bytes of its end.
std::string readEnd(const Half& half, std::size_t limit) {
    if (!half.fd) return {};
    const auto size = static_cast<std::size_t>(half.status.st_size);
    const std::size_t begin = size > limit ? size - limit : 0;
    std::string text(size - begin, '\0');
    std::size_t read = 0;
    while (read < text.size()) {
        const ssize_t got =
            ::pread(half.fd.get(), text.data() + read, text.size() - read, static_cast<off_t>(begin + read));
        if (got <= 0) break;
        read += static_cast<std::size_t>(got);
    }
    text.resize(read);
    return text;
}

std::string lastLines(std::string text, std::size_t lines) {
    std::size_t begin = text.ends_with('\n') ? text.size() - 1 : text.size();
    for (; begin > 0; --begin) {
        if (text[begin - 1] == '\n' && --lines == 0) break;
    }
    return text.substr(begin);
}

}  // namespace

std::string readConsole(const std::filesystem::path& newest, const ConsoleTail& tail) {
    const std::filesystem::path older = newest.string() + ".1";
    // The supervisor renames the newest to the older and begins a new one. Both are open and the newest is still the
    // one of that name: then no rename came in between, and the older one is its predecessor, which nobody writes any
    // more. A rename needs a whole file of output, so a second try is rare; if even the last one meets it, the newest
    // alone is less than was asked for, and right.
    Half newer;
    Half previous;
    bool together = false;
    for (int tries = 0; tries < 16 && !together; ++tries) {
        newer = open(newest);
        previous = open(older);
        together = isStill(newer, newest);
    }
    std::string text = readEnd(newer, tail.bytes);
    if (together && text.size() < tail.bytes) text = readEnd(previous, tail.bytes - text.size()) + text;
    return tail.lines ? lastLines(std::move(text), *tail.lines) : text;
}

}  // namespace mergen::engine
