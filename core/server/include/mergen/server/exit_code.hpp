#pragma once

/// What mergend's exit status means; `--help` and core/server/README.md say the same.
namespace mergen::server::exitCode {

inline constexpr int success = 0;      ///< drained, or did what was asked
inline constexpr int config = 1;       ///< the configuration is refused
inline constexpr int usage = 2;        ///< the command line is wrong
inline constexpr int startFailed = 3;  ///< a base folder, the lock, a plugin or the listening socket
inline constexpr int interrupted = 4;  ///< a second signal cut the drain short; the records say how to go on

}  // namespace mergen::server::exitCode
