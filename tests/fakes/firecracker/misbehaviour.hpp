#pragma once

#include <string>
#include <string_view>

namespace mergen::fake {

/// What a test asks a fake to do wrong: words, from the environment (MERGEN_FAKE), from a file `fake` beside the API
/// socket, and, with "fake." in front, from the guest's kernel arguments. README.md explains them.
struct Misbehaviour {
    bool dieAfterStart = false;
    bool freeze = false;
    bool ignoreShutdown = false;
    bool noDrivers = false;
    int exit = -1;           ///< after the start; -1: stays
    std::string exitOnFile;  ///< then `exit` waits for this file
    std::string hangAt;      ///< "PUT /actions"
    std::string dieAt;       ///< likewise
    unsigned slowMs = 0;
    std::string lie;
    std::string flood;
    std::string version = "1.17.0-fake";

    /// Takes what it knows out of `words`; `prefix` stands before each word that is meant for it.
    void read(std::string_view words, std::string_view prefix);
};

}  // namespace mergen::fake
