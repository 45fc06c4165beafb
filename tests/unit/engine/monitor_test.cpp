#include "monitor.hpp"

#include <atomic>
#include <new>

#include "world.hpp"

/// The rounds of questions, without VMs behind them.
namespace mergen::engine::test {
namespace {

using std::chrono::milliseconds;

std::shared_ptr<Vm> someVm() {
    const Uuid uuid = Uuid::random();
    return std::make_shared<Vm>(VmRecord(RecordId::parse(uuid.str()), uuid), 16);
}

/// Counts what is logged as an error.
class ErrorLog final : public Log {
public:
    void write(LogLevel level, std::string_view, std::span<const LogField>) noexcept override {
        if (level == LogLevel::Error) ++errors;
    }
    std::atomic<unsigned> errors{0};
};

TEST(Monitor, ARoundThatFailsEndsNeitherTheServerNorTheQuestions) {
    ErrorLog log;
    std::atomic<bool> lacks{true};
    std::atomic<unsigned> asked{0};
    const EngineConfig::Duration interval{milliseconds(1)};
    const auto vm = someVm();
    struct Odd {};  // no std::exception
    std::atomic<bool> odd{false};
    const Monitor monitor(
        log, interval,
        [&]() -> std::vector<std::shared_ptr<Vm>> {
            if (odd) throw Odd{};
            if (lacks) throw std::bad_alloc();
            return {vm};
        },
        [&](const std::shared_ptr<Vm>&) { ++asked; });
    ASSERT_TRUE(eventually([&] { return log.errors > 0; }));
    odd = true;
    const unsigned before = log.errors;
    ASSERT_TRUE(eventually([&] { return log.errors > before + 16; }));
    EXPECT_EQ(asked, 0U);
    odd = false;
    lacks = false;
    EXPECT_TRUE(eventually([&] { return asked > 0; }));
}

}  // namespace
}  // namespace mergen::engine::test
