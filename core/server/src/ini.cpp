#include <algorithm>

#include <mergen/base/text.hpp>
#include <mergen/server/ini.hpp>

namespace mergen::server {

namespace {

bool isNameCharacter(char c) noexcept {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

bool isKeyName(std::string_view text) noexcept {
    return !text.empty() && std::ranges::all_of(text, isNameCharacter);
}

bool isSectionName(std::string_view text) noexcept {
    return !text.empty() && std::ranges::all_of(text, [](char c) { return isNameCharacter(c) || c == '.'; });
}

bool holdsControlCharacters(std::string_view text) noexcept {
    return std::ranges::any_of(text, [](char c) {
        const auto byte = static_cast<unsigned char>(c);
        return (byte < 0x20 && c != '\t') || byte == 0x7f;
    });
}

/// One run over a text; one method per kind of line.
class Parser {
public:
    Parser(const Origin& file, Problems& problems) : here_(file), problems_(problems) {}

    std::vector<IniSection> run(std::string_view text) {
        if (text.size() > maxIniBytes) {
            problem({}, "the file has more than " + std::to_string(maxIniBytes) + " bytes");
            return {};
        }
        constexpr std::string_view byteOrderMark = "\xef\xbb\xbf";  // some editors begin a UTF-8 file with it
        if (text.starts_with(byteOrderMark)) text.remove_prefix(byteOrderMark.size());
        for (const std::string& raw : split(text, '\n')) {
            ++here_.line;
            readLine(trim(raw));
        }
        return std::move(sections_);
    }

private:
    void readLine(std::string_view line) {
        if (!isCleanUtf8(line)) return problem(sectionName(), "the line is not UTF-8 text");
        if (line.empty() || line.front() == '#' || line.front() == ';') return;
        if (holdsControlCharacters(line)) return problem(sectionName(), "the line holds control characters");
        if (line.front() == '[') return readSection(line);
        readEntry(line);
    }

    void readSection(std::string_view line) {
        inSection_ = true;
        ignored_ = true;  // until the name proves good: its keys then bring no errors of their own
        if (line.back() != ']') {
            return problem({},
                           "'" + printable(line) + "' is no section: a line such as [server], and nothing after it");
        }
        const std::string name(trim(line.substr(1, line.size() - 2)));
        if (!isSectionName(name)) {
            return problem(
                {}, "'" + printable(name) + "' is no name of a section: lower-case letters, digits, '-', '_' and '.'");
        }
        const auto twin = std::ranges::find(sections_, name, &IniSection::name);
        if (twin != sections_.end()) {
            return problem("[" + name + "]", "the section stands already in line " + std::to_string(twin->origin.line));
        }
        ignored_ = false;
        sections_.push_back({name, here_, {}});
    }

    void readEntry(std::string_view line) {
        const std::size_t equals = line.find('=');
        if (equals == std::string_view::npos) {
            return problem(sectionName(),
                           "'" + printable(line) + "' lacks '=': a line is 'key = value', a [section] or a comment");
        }
        const std::string key(trim(line.substr(0, equals)));
        const std::string_view value = trim(line.substr(equals + 1));
        if (!isKeyName(key)) {
            return problem(sectionName(),
                           "'" + printable(key) + "' is no name of a key: lower-case letters, digits, '-' and '_'");
        }
        if (!inSection_) return problem(key, "the key stands before any [section]");
        if (ignored_) return;
        IniSection& section = sections_.back();
        const auto twin = std::ranges::find(section.entries, key, &IniEntry::key);
        if (twin != section.entries.end()) {
            return problem(section.name + "." + key,
                           "the key is given already in line " + std::to_string(twin->origin.line));
        }
        section.entries.push_back({key, std::string(value), here_});
    }

    [[nodiscard]] std::string sectionName() const {
        return sections_.empty() || ignored_ ? std::string() : sections_.back().name;
    }

    void problem(std::string where, std::string reason) {
        problems_.push_back({here_, std::move(where), std::move(reason), {}});
    }

    Origin here_;
    Problems& problems_;
    std::vector<IniSection> sections_;
    bool inSection_ = false;
    bool ignored_ = false;  // the section in which we are was refused
};

}  // namespace

std::vector<IniSection> parseIni(std::string_view text, const Origin& file, Problems& problems) {
    return Parser(file, problems).run(text);
}

std::string whyNoIniValue(std::string_view value) {
    if (!isCleanUtf8(value)) return "the value is not UTF-8 text";
    if (holdsControlCharacters(value)) return "the value holds control characters";
    return {};
}

}  // namespace mergen::server
