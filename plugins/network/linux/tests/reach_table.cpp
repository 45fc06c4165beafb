#include "reach_table.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <map>
#include <sstream>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace mergen::network::test {

namespace {

using Question = std::pair<std::string, std::string>;

struct Table {
    std::vector<Question> questions;  // in the order of the tests
    std::map<Question, std::map<std::string, std::string>> outcomes;
    std::vector<std::string> topologies;
};

Table& table() {
    static Table instance;
    return instance;
}

std::string shown() {
    std::size_t from = 4;
    std::size_t to = 2;
    for (const Question& question : table().questions) {
        from = std::max(from, question.first.size());
        to = std::max(to, question.second.size());
    }
    std::ostringstream text;
    const auto line = [&](const std::string& first, const std::string& second) -> std::ostringstream& {
        text << std::left << std::setw(static_cast<int>(from)) << first << "  " << std::setw(static_cast<int>(to))
             << second;
        return text;
    };
    constexpr int column = 24;
    line("FROM", "TO");
    for (const std::string& topology : table().topologies) text << "  " << std::setw(column) << topology;
    text << "\n";
    for (const Question& question : table().questions) {
        line(question.first, question.second);
        for (const std::string& topology : table().topologies) {
            const auto& outcomes = table().outcomes.at(question);
            const auto outcome = outcomes.find(topology);
            text << "  " << std::setw(column) << (outcome == outcomes.end() ? "-" : outcome->second);
        }
        text << "\n";
    }
    return text.str();
}

class ShowAtTheEnd : public ::testing::Environment {
public:
    void TearDown() override {
        const std::string text = shown();
        std::cout << text;
        if (const char* const folder = std::getenv("MERGEN_TABLES"))
            std::ofstream(std::string(folder) + "/reach.txt") << text;
    }
};
const ::testing::Environment* const environment = ::testing::AddGlobalTestEnvironment(new ShowAtTheEnd);

}  // namespace

void record(const std::string& topology, const std::string& from, const std::string& to, const std::string& outcome,
            bool asPromised) {
    Table& all = table();
    if (std::ranges::find(all.topologies, topology) == all.topologies.end()) all.topologies.push_back(topology);
    const Question question{from, to};
    if (std::ranges::find(all.questions, question) == all.questions.end()) all.questions.push_back(question);
    std::string& cell = all.outcomes[question][topology];
    // Who answered what address is for the test; a reader wants to know whether somebody did.
    const bool answered = std::ranges::count(outcome, ' ') == 1 && outcome.find('.') != std::string::npos;
    cell = std::string(answered ? "open" : outcome) + (asPromised ? "" : "  WRONG");
}

}  // namespace mergen::network::test
