#include "foreign_firewall.hpp"

#include <algorithm>

#include <mergen/base/text.hpp>

namespace mergen::network {

namespace {

/// A rule without what does not decide: "counter packets 3 bytes 180 drop" becomes "drop".
std::string_view verdictOf(std::string_view rule) {
    constexpr std::string_view counter = "counter packets ";
    if (!rule.starts_with(counter)) return rule;
    rule.remove_prefix(counter.size());
    for (int words = 0; words < 3; ++words) rule.remove_prefix(std::min(rule.find(' '), rule.size() - 1) + 1);
    return rule;
}

/// Whether `rule` says what becomes of our links in this direction, "iifname" or "oifname".
bool decides(std::string_view rule, std::string_view direction, std::string_view links) {
    if (rule.find(std::string(direction) + " \"" + std::string(links) + '"') == std::string_view::npos) return false;
    const std::string padded = std::string(rule) + " ";
    return padded.find(" accept ") != std::string::npos || padded.find(" jump ") != std::string::npos ||
           padded.find(" goto ") != std::string::npos;
}

}  // namespace

std::vector<std::string> chainsThatDrop(std::string_view listing, std::string_view links) {
    std::vector<std::string> found;
    std::string chain, last;
    bool forward = false, policy = false, in = false, out = false;
    for (const std::string& written : split(listing, '\n')) {
        std::string_view line = written;
        while (!line.empty() && (line.front() == '\t' || line.front() == ' ')) line.remove_prefix(1);
        line = trim(line);
        if (line.starts_with("chain ")) {
            chain = line.substr(6, line.find(' ', 6) - 6);
            last.clear();
            forward = policy = false;
        } else if (chain.empty() || line.empty()) {
            continue;
        } else if (line == "}") {
            const std::string_view verdict = verdictOf(last);
            const std::string_view word = verdict.substr(0, verdict.find(' '));
            if (forward && policy) found.push_back(chain + " (policy drop)");
            if (forward && !policy && (word == "drop" || word == "reject")) {
                found.push_back(chain + " (ends in " + std::string(word) + ")");
            }
            chain.clear();
        } else if (line.starts_with("type ")) {
            forward = line.starts_with("type filter hook forward ");
            policy = line.find("policy drop") != std::string_view::npos;
        } else {
            last = line;
            in = in || decides(line, "iifname", links);
            out = out || decides(line, "oifname", links);
        }
    }
    if (in && out) found.clear();
    return found;
}

bool hasLegacyFilter(std::string_view names) {
    const std::vector<std::string> tables = split(names, '\n');
    return std::ranges::find(tables, "filter") != tables.end();
}

}  // namespace mergen::network
