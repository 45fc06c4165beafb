#include <iostream>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

#include <mergen/base/fd.hpp>
#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/launcher/command.hpp>
#include <mergen/launcher/vm_parent.hpp>
#include <mergen/sdk/error.hpp>

#include "child.hpp"

namespace {

constexpr std::string_view usage =
    "mergen-vm: the parent of one VM of Mergen. mergend starts it; there is nothing to start by hand.\n"
    "It keeps the VM's console and exit status, also while the server is down.\n";

/// Standard output, on which the server waits for one line: "executed", or "failed KIND TEXT". End of file without a
/// line means that we were killed. Given up as soon as it is written, so that the server's pipe does not stay open.
class Report {
public:
    Report() : fd_(mergen::launcher::takeStandard(STDOUT_FILENO)) {}
    void write(const std::string& line) noexcept {
        // The server may have died meanwhile: its successor finds what it needs in the folder.
        static_cast<void>(!::write(fd_.get(), line.data(), line.size()));
        fd_.reset();
    }

private:
    mergen::UniqueFd fd_;
};

}  // namespace

/// Exit status: 0 the VMM's end is written down, 1 it could not be started or its end not be written, 2 wrong usage.
int main(int argc, char** argv) {
    const std::vector<std::string> words(argv + 1, argv + argc);
    if (words.empty() || words.front() == "--help") {
        std::cout << usage;
        return words.empty() ? 2 : 0;
    }
    try {
        const mergen::launcher::Command command = mergen::launcher::parseCommand(words);
        mergen::launcher::becomeParent();
        Report report;
        try {
            mergen::launcher::runParent(command, [&] { report.write("executed\n"); });
        } catch (const mergen::Error& error) {
            report.write("failed " + std::string(toString(error.kind())) + " " + mergen::printable(error.what(), 1000) +
                         "\n");
            return 1;
        }
        return 0;
    } catch (const mergen::Error& error) {
        std::cout << "failed " << toString(error.kind()) << ' ' << mergen::printable(error.what(), 1000) << '\n';
        return 2;
    }
}
