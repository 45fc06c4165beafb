#include "comparison.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <iostream>
#include <string>
#include <unistd.h>
#include <utility>

#include <gtest/gtest.h>

#include <mergen/base/fd.hpp>
#include <mergen/base/text.hpp>
#include <mergen/base/trust.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::vmm {
namespace {

std::size_t compared = 0;

class ShowAtTheEnd : public ::testing::Environment {
public:
    void TearDown() override {
        if (compared == 0) return;
        const std::string text = "            " + std::to_string(compared) + " calls compared with " +
                                 realPrograms().firecracker.value_or("").string() + "\n";
        std::cout << text;
        if (const char* const folder = std::getenv("MERGEN_TABLES"))
            std::ofstream(std::string(folder) + "/fake-vs-real.txt") << text;
    }
};
const ::testing::Environment* const environment = ::testing::AddGlobalTestEnvironment(new ShowAtTheEnd);

std::vector<Answer> answers(const std::filesystem::path& which, const std::vector<Call>& calls) {
    Program program(which);
    std::vector<Answer> all;
    for (const Call& call : calls) all.push_back(program.ask(call));
    return all;
}

std::optional<std::filesystem::path> inPath(const std::string& name) {
    const char* const path = std::getenv("PATH");
    for (const std::string& folder : split(path != nullptr ? path : "", ':')) {
        const std::filesystem::path program = std::filesystem::path(folder) / name;
        if (program.is_absolute() && std::filesystem::is_regular_file(program) && ::access(program.c_str(), X_OK) == 0)
            return program;
    }
    return std::nullopt;
}

}  // namespace

RealPrograms realPrograms() {
    const char* const given = std::getenv("MERGEN_FIRECRACKER_BIN");
    const auto named = given != nullptr ? std::optional<std::filesystem::path>(given) : inPath("firecracker");
    RealPrograms found;
    if (!named) {
        found.lacking = "there is no real Firecracker: neither on the PATH nor by MERGEN_FIRECRACKER_BIN";
        return found;
    }
    std::filesystem::path program;
    try {
        program = trustedProgram(*named);
    } catch (const Error& error) {
        if (given != nullptr) ADD_FAILURE() << "MERGEN_FIRECRACKER_BIN: " << error.what();
        found.lacking = error.what();
        return found;
    }
    if (!UniqueFd(::open("/dev/kvm", O_RDWR | O_CLOEXEC))) {
        found.lacking = std::string("/dev/kvm does not open: ") + std::strerror(errno);
        return found;
    }
    const std::filesystem::path jailer = program.parent_path() / "jailer";
    if (std::filesystem::exists(jailer)) found.jailer = jailer;
    found.firecracker = std::move(program);
    return found;
}

void expectAnswersOfTheRealOne(const std::vector<Call>& calls) {
    const RealPrograms here = realPrograms();
    if (!here.firecracker) GTEST_SKIP() << here.lacking;
    const std::vector<Answer> real = answers(*here.firecracker, calls);
    const std::vector<Answer> fake = answers(MERGEN_FAKE_FIRECRACKER, calls);
    for (std::size_t i = 0; i < calls.size(); ++i) {
        const Call& call = calls[i];
        EXPECT_EQ(fake[i], real[i]) << "call " << i << ": " << call.method << " " << call.path << " "
                                    << call.body.value_or("");
    }
    countComparison(calls.size());
}

void countComparison(std::size_t calls) {
    compared += calls;
}

}  // namespace mergen::vmm
