#pragma once

#include <stdexcept>
#include <string>

namespace mergen::fake {

/// Why the command line cannot be used, in Firecracker's words.
class BadArguments : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

struct Arguments {
    std::string apiSocket = "/run/firecracker.socket";
    std::string id = "anonymous-instance";
    std::string configFile;  ///< empty: none
    std::string metadata;    ///< file with the content of the metadata service; empty: none
    std::string level;       ///< empty: not given
    std::size_t maxBody = 51200;
    bool api = true;
    bool version = false, help = false, snapshotVersion = false;
};

[[nodiscard]] Arguments parseArguments(int argc, char** argv);

}  // namespace mergen::fake
