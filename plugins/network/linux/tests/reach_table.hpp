#pragma once

#include <string>

namespace mergen::network::test {

/// The table of who reaches whom: a line per question, a column per topology. It is filled by the tests, which judge
/// each outcome themselves, and shown when the program ends; beside that it is written to $MERGEN_TABLES/reach.txt if
/// that is set.
///
/// `from` and `to` name the ends as a reader knows them; `outcome` is what probe() gave. Tests run one after the other.
void record(const std::string& topology, const std::string& from, const std::string& to, const std::string& outcome,
            bool asPromised);

}  // namespace mergen::network::test
