#pragma once

#include <chrono>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <mergen/pluginhost/plugin_library.hpp>

#include "backend_under_test.hpp"

namespace mergen::check {

/// What the command line asks for.
struct Options {
    bool help = false, list = false, verbose = false;
    std::string kind;
    std::filesystem::path file;  ///< absolute
    std::map<std::string, std::string, std::less<>> settings;
    std::vector<std::string> filters;  ///< globs of promises' names; empty: all
    std::filesystem::path program, guest, json;
    GuestSigns signs;               ///< of the guest in that folder
    std::filesystem::path libexec;  ///< where mergen-preflight and the like are
    std::chrono::seconds deadline{180};
    pluginhost::Trust trust = pluginhost::Trust::Checked;
};

/// Throws Error(InvalidArgument) that names the word and the rule.
[[nodiscard]] Options parseOptions(const std::vector<std::string>& words);

[[nodiscard]] std::string usage();

}  // namespace mergen::check
