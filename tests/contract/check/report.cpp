#include "report.hpp"

#include <iostream>
#include <string_view>
#include <utility>

#include <mergen/base/file.hpp>
#include <mergen/base/json.hpp>
#include <mergen/base/text.hpp>

namespace mergen::check {

namespace {

std::string_view toString(Outcome outcome) noexcept {
    switch (outcome) {
        case Outcome::Kept:
            return "ok";
        case Outcome::Broken:
            return "FAILED";
        case Outcome::Skipped:
            return "skipped";
    }
    return "?";
}

/// For a terminal: what came out of foreign code may hold anything.
std::string shown(std::string_view line) {
    return printable(line, 2000);
}

}  // namespace

void Report::add(Finding finding) {
    constexpr std::string_view indent = "         ";
    std::string line(toString(finding.outcome));
    line.resize(indent.size(), ' ');
    std::cout << line << finding.promise;
    if (finding.outcome == Outcome::Skipped) std::cout << ": " << shown(finding.text);
    std::cout << '\n';
    if (finding.outcome == Outcome::Broken) {
        for (const std::string& one : split(finding.text, '\n')) std::cout << indent << shown(one) << '\n';
    }
    std::cout.flush();
    ++(finding.outcome == Outcome::Kept ? kept_ : finding.outcome == Outcome::Broken ? broken_ : skipped_);
    findings_.push_back(std::move(finding));
}

std::string Report::summary() const {
    return std::to_string(kept_) + " kept, " + std::to_string(broken_) + " broken, " + std::to_string(skipped_) +
           " skipped";
}

void Report::writeJson(const std::filesystem::path& file, const pluginhost::PluginInfo& plugin) const {
    Poco::JSON::Array promises;
    for (const Finding& finding : findings_) {
        Poco::JSON::Object::Ptr entry = json::object();
        entry->set("promise", finding.promise);
        entry->set("outcome", std::string(toString(finding.outcome)));
        if (!finding.text.empty()) entry->set("text", finding.text);
        promises.add(entry);
    }
    Poco::JSON::Object::Ptr whole = json::object();
    whole->set("file", plugin.file.string());
    whole->set("kind", plugin.kind);
    whole->set("name", plugin.name);
    whole->set("version", plugin.version);
    whole->set("kept", kept_);
    whole->set("broken", broken_);
    whole->set("skipped", skipped_);
    whole->set("promises", promises);
    writeFileAtomically(file, json::render(*whole, 2), 0644);
}

}  // namespace mergen::check
