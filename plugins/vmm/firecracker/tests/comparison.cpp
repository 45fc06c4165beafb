#include "comparison.hpp"

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>

#include <gtest/gtest.h>

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
                                 realProgram().value_or("").string() + "\n";
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

}  // namespace

std::optional<std::filesystem::path> realProgram() {
    const char* given = std::getenv("MERGEN_FIRECRACKER_BIN");
    try {
        return trustedProgram(given != nullptr ? given : "firecracker");
    } catch (const Error& error) {
        if (given != nullptr) ADD_FAILURE() << "MERGEN_FIRECRACKER_BIN: " << error.what();
        return std::nullopt;
    }
}

void expectAnswersOfTheRealOne(const std::vector<Call>& calls) {
    const auto program = realProgram();
    if (!program) GTEST_SKIP() << "there is no Firecracker here: set MERGEN_FIRECRACKER_BIN";
    const std::vector<Answer> real = answers(*program, calls);
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
