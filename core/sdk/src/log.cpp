#include <mergen/sdk/log.hpp>

namespace mergen {

Log::~Log() = default;

Log& nullLog() noexcept {
    struct Null final : Log {
        void write(LogLevel, std::string_view, std::span<const LogField>) noexcept override {}
    };
    static Null log;
    return log;
}

}  // namespace mergen
