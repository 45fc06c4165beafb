#include "bad_bodies.hpp"

#include <utility>

#include <gtest/gtest.h>

#include <mergen/base/text.hpp>

namespace mergen::api::test {

std::string with(const std::string& members) {
    return "{" + members + (members.empty() ? "" : ",") + R"("rootfs":"/srv/r.ext4","kernel":"/srv/vmlinux"})";
}

std::string times(std::size_t count, const std::string& text) {
    std::string all;
    for (std::size_t i = 0; i < count; ++i) all += (i == 0 ? "" : ",") + text;
    return all;
}

std::string numbered(std::size_t count, const std::string& value) {
    std::string all;
    for (std::size_t i = 0; i < count; ++i)
        all += (i == 0 ? "\"p" : ",\"p") + std::to_string(i) + "\":\"" + value + "\"";
    return all;
}

void expectRefused(const BadBody& bad, const Reply& reply) {
    EXPECT_EQ(reply.status, 400) << reply.body;
    EXPECT_EQ(reply.text("error"), "bad_request");
    EXPECT_EQ(reply.text("field"), bad.field) << reply.body;
    EXPECT_NE(reply.text("message").find(bad.rule), std::string::npos) << reply.body;
    if (!bad.field.empty()) {
        EXPECT_NE(reply.text("message").find(bad.field), std::string::npos) << reply.body;
    }
}

namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

std::string lots(std::size_t count) {
    return std::string(count, 'x');
}

std::string quoted(const std::string& text) {
    return "\"" + text + "\"";
}

/// "[0][0]...": the path to the innermost of nested arrays.
std::string arrayPath(std::size_t levels) {
    std::string path;
    for (std::size_t i = 0; i < levels; ++i) path += "[0]";
    return path;
}

/// Collects the table.
class Table {
public:
    void add(std::string name, std::string field, std::string rule, std::string body) {
        all_.push_back({std::move(name), std::move(field), std::move(rule), std::move(body)});
    }
    /// A body that is good but for `members`, by which it is named.
    void members(const std::string& field, const std::string& rule, const std::string& members) {
        add(printable(members, 100), field, rule, with(members));
    }
    [[nodiscard]] std::vector<BadBody> take() { return std::move(all_); }

private:
    std::vector<BadBody> all_;
};

/// What is no JSON, or not one object of it.
void addSyntax(Table& table) {
    const std::string good = with("");
    const Pairs whole{
        {"nothing", ""},
        {"blanks alone", " \t\r\n"},
        {"null", "null"},
        {"true", "true"},
        {"a number", "7"},
        {"a string", "\"rootfs\""},
        {"an array", "[]"},
        {"an array of the object", "[" + good + "]"},
        {"an open brace", "{"},
        {"a closing brace", "}"},
        {"two closing braces", good + "}"},
        {"a wrong closing bracket", good.substr(0, good.size() - 1) + "]"},
        {"an object that does not end", good.substr(0, good.size() - 1)},
        {"a string that does not end", R"({"rootfs":"/r)"},
        {"a key that does not end", R"({"rootfs)"},
        {"a key alone", R"({"rootfs"})"},
        {"a key and a colon", R"({"rootfs":})"},
        {"no colon", R"({"rootfs" "/r"})"},
        {"two colons", R"({"rootfs"::"/r"})"},
        {"no comma", R"({"rootfs":"/r" "kernel":"/k"})"},
        {"two commas", R"({"rootfs":"/r",,"kernel":"/k"})"},
        {"a comma first", R"({,"rootfs":"/r","kernel":"/k"})"},
        {"a comma last", R"({"rootfs":"/r","kernel":"/k",})"},
        {"a comma last in an array", with(R"("ports":[{"guest":80},])")},
        {"a comma alone in an array", with(R"("ports":[,])")},
        {"a semicolon", R"({"rootfs":"/r";"kernel":"/k"})"},
        {"an equals sign", R"({"rootfs"="/r"})"},
        {"single quotes", "{'rootfs':'/r','kernel':'/k'}"},
        {"single quotes around a value", R"({"rootfs":'/r',"kernel":"/k"})"},
        {"a key without quotes", R"({rootfs:"/r","kernel":"/k"})"},
        {"a number as key", R"({1:"/r"})"},
        {"null as key", R"({null:"/r"})"},
        {"a value without quotes", R"({"rootfs":/r,"kernel":"/k"})"},
        {"a comment of a line", "// c\n" + good},
        {"a comment at the end", good + " // c"},
        {"a comment in the middle", with("/* c */ \"vcpu\":1")},
        {"a hash comment", "# c\n" + good},
        {"a second object", good + good},
        {"a second empty object", good + "{}"},
        {"a word behind it", good + "x"},
        {"a comma behind it", good + ","},
        {"null behind it", good + " null"},
        {"a NUL behind it", good + std::string(1, '\0')},
        {"a NUL before it", std::string(1, '\0') + good},
        {"a NUL between", "{" + std::string(1, '\0') + good.substr(1)},
        {"a byte order mark", "\xef\xbb\xbf" + good},
        {"UTF-16, little end first", std::string("\xff\xfe{\0}\0", 6)},
        {"UTF-16, big end first", std::string("\xfe\xff\0{\0}", 6)},
        {"UTF-16 without a mark", std::string("{\0}\0", 4)},
        {"a form feed as blank", "{\f" + good.substr(1)},
        {"a vertical tab as blank", "{\v" + good.substr(1)},
        {"a no-break space as blank", "{\xc2\xa0" + good.substr(1)},
        {"XML", "<vm><rootfs>/r</rootfs></vm>"},
        {"a form", "rootfs=%2Fr&kernel=%2Fk"},
        {"YAML", "rootfs: /r\nkernel: /k\n"},
        {"two bodies in lines", good + "\n" + good},
        {"an anti-hijacking prefix", ")]}'\n" + good},
        {"a call", "f(" + good + ")"},
    };
    for (const auto& [name, body] : whole) table.add(name, "", "JSON", body);
    for (const char* word : {"True", "FALSE", "nul", "nulll", "undefined", "None", "yes", "tru"})
        table.members("", "JSON", std::string("\"autoStart\":") + word);
    for (const char* number :
         {"01",  "00",    "-01", "+1",  ".5",   "1.",       "-",         "--1", "1e", "1e+", "0x10",
          "0b1", "1_000", "1,5", "NaN", "-NaN", "Infinity", "-Infinity", "inf", "1f", "1 0", "\xd9\xa1"})
        table.members("", "JSON", std::string("\"vcpu\":") + number);
    for (const char* escape : {"\\x41", "\\'", "\\0", "\\v", "\\a", "\\", "\\u", "\\u1", "\\u12", "\\u123", "\\u12G4",
                               "\\u 123", "\\U00000041", "\\N{DASH}", "\\u{41}", "\\\n"})
        table.add("the escape " + printable(escape), "", "JSON",
                  with(R"("metadata":{"a":")" + std::string(escape) + "\"}"));
}

/// Text that is no Unicode, and characters that JSON wants escaped.
void addText(Table& table) {
    const Pairs broken{
        {"overlong in two bytes", "\xc0\xaf"},
        {"overlong in two bytes, the last", "\xc1\xbf"},
        {"overlong NUL", "\xc0\x80"},
        {"overlong in three bytes", "\xe0\x80\xaf"},
        {"overlong in three bytes, the last", "\xe0\x9f\xbf"},
        {"overlong in four bytes", "\xf0\x80\x80\xaf"},
        {"overlong in four bytes, the last", "\xf0\x8f\xbf\xbf"},
        {"the first surrogate", "\xed\xa0\x80"},
        {"the last surrogate", "\xed\xbf\xbf"},
        {"a pair of surrogates", "\xed\xa0\xbd\xed\xb8\x80"},
        {"beyond U+10FFFF", "\xf4\x90\x80\x80"},
        {"far beyond U+10FFFF", "\xf7\xbf\xbf\xbf"},
        {"five bytes", "\xf8\x88\x80\x80\x80"},
        {"six bytes", "\xfc\x84\x80\x80\x80\x80"},
        {"the byte FE", "\xfe"},
        {"the byte FF", "\xff"},
        {"a continuation alone", "\x80"},
        {"the last continuation alone", "\xbf"},
        {"one of two bytes", "\xc3"},
        {"one of three bytes", "\xe2"},
        {"two of three bytes", "\xe2\x82"},
        {"one of four bytes", "\xf0"},
        {"three of four bytes", "\xf0\x9f\x98"},
        {"one continuation too many", "\xc3\xa4\xa4"},
        {"Latin-1", "caf\xe9"},
    };
    for (const auto& [name, bytes] : broken) {
        table.add(name + " in a value", "", "UTF-8", with(R"("metadata":{"a":")" + bytes + "\"}"));
        table.add(name + " in a key", "", "UTF-8", with(R"("metadata":{")" + bytes + R"(":"a"})"));
    }
    table.add("a character cut off by the end", "", "UTF-8", R"({"rootfs":")" + std::string("\xe2\x82"));
    for (int c = 0; c < 0x20; ++c) {
        table.add("the control character " + std::to_string(c) + " as it is", "", "JSON",
                  with(R"("metadata":{"a":")" + std::string(1, static_cast<char>(c)) + "\"}"));
    }
    table.add("a line break in a key", "", "JSON", with("\"metadata\":{\"a\nb\":1}"));
    table.add("an escaped NUL in a value", "", "NUL", with(R"("metadata":{"a":"\u0000"})"));
    table.add("an escaped NUL in a key", "", "NUL", with(R"("metadata":{"a\u0000b":1})"));
    table.add("an escaped NUL in a path", "", "NUL", R"({"rootfs":"/r\u0000","kernel":"/k"})");
    for (const char* escapes : {"\\ud800", "\\udbff", "\\udc00", "\\udfff", "\\ud800x", "\\ud800\\u0041",
                                "\\ud800\\ud800", "\\udc00\\ud800", "x\\ud83d", "\\uD83D\\n"}) {
        table.add("the surrogate " + std::string(escapes) + " in a value", "", "surrogate",
                  with(R"("metadata":{"a":")" + std::string(escapes) + "\"}"));
    }
    table.add("a surrogate in a key", "", "surrogate", with(R"("metadata":{"\ud800":1})"));
}

void addStructure(Table& table) {
    // Every member twice; every level of it.
    const Pairs values{{"id", "\"a\""},      {"name", "\"a\""},
                       {"rootfs", "\"/r\""}, {"kernel", "\"/k\""},
                       {"initrd", "\"/i\""}, {"dataDisk", "\"/d\""},
                       {"vcpu", "1"},        {"memMiB", "256"},
                       {"ports", "[]"},      {"httpPort", "80"},
                       {"metadata", "{}"},   {"autoStart", "true"},
                       {"bootArgs", "\"\""}, {"extraEnv", "{}"},
                       {"tags", "{}"},       {"hooks", "{}"},
                       {"vmm", "\"qemu\""},  {"restartPolicy", "\"always\""},
                       {"maxRestarts", "3"}, {"onUnresponsive", "\"stop\""}};
    for (const auto& [name, value] : values) {
        const std::string one = quoted(name) + ":" + value;
        table.add(name + " twice", name, "duplicate", "{" + one + "," + one + "}");
        table.add(name + " twice, one null", name, "duplicate", "{" + one + "," + quoted(name) + ":null}");
        table.add(name + " mistyped", name + "x", "did you mean " + name + "?", with(quoted(name + "x") + ":" + value));
    }
    table.members("vcpu", "duplicate", R"("vcpu":1,"vc\u0070u":1)");
    table.members("ports[0].guest", "duplicate", R"("ports":[{"guest":80,"guest":80}])");
    table.members("ports[1].host", "duplicate", R"("ports":[{"guest":80},{"guest":81,"host":1,"host":2}])");
    table.members("metadata.a", "duplicate", R"("metadata":{"a":1,"a":2})");
    table.members("metadata.a.b.c", "duplicate", R"("metadata":{"a":{"b":{"c":1,"c":1}}})");
    table.members("metadata.a[1].b", "duplicate", R"("metadata":{"a":[0,{"b":1,"b":1}]})");
    table.members("metadata.", "duplicate", R"("metadata":{"":1,"":1})");
    table.members("tags.a", "duplicate", R"("tags":{"a":"1","a":"2"})");
    table.members("extraEnv.A", "duplicate", R"("extraEnv":{"A":"1","A":"2"})");
    table.members("hooks.onStart", "duplicate", R"("hooks":{"onStart":[],"onStart":[]})");
    table.members("hooks.onStop[0].type", "duplicate", R"("hooks":{"onStop":[{"type":"exec","type":"http"}]})");

    // Members that there are not.
    table.members("Rootfs", "did you mean rootfs?", R"("Rootfs":"/r")");
    table.members("memMib", "did you mean memMiB?", R"("memMib":256)");
    table.members("memory", "unknown member", R"("memory":256)");
    table.members("", "unknown member", R"("":1)");
    table.members("__proto__", "unknown member", R"("__proto__":{})");
    table.members("rootfs ", "did you mean rootfs?", R"("rootfs ":"/r")");
    table.add("kernal instead of kernel", "kernal", "did you mean kernel?", R"({"rootfs":"/r","kernal":"/k"})");
    for (const char* name : {"guest", "host", "protocol"}) {
        const std::string wrong = std::string(name) + "s";
        table.members("ports[0]." + wrong, std::string("did you mean ") + name + "?",
                      R"("ports":[{"guest":80,")" + wrong + "\":1}]");
    }
    table.members("ports[0].hostPort", "unknown member", R"("ports":[{"guest":80,"hostPort":1}])");
    table.members("ports[1].x", "known are guest host protocol", R"("ports":[{"guest":80},{"guest":81,"x":1}])");
    for (const char* event : {"onCreate", "onDelete", "onStart", "onStop"}) {
        table.members(std::string("hooks.") + event + "s", std::string("did you mean ") + event + "?",
                      std::string(R"("hooks":{")") + event + "s\":[]}");
    }
    table.members("hooks.onPause", "unknown member", R"("hooks":{"onPause":[]})");
    table.members("hooks.onstart", "did you mean onStart?", R"("hooks":{"onstart":[]})");

    // Too much of it.
    table.members("", "more than 4096", "\"metadata\":{\"a\":[" + times(4097, "1") + "]}");
    table.members("", "more than 4096", "\"ports\":[" + times(5000, "null") + "]");
    table.members("metadata.a" + arrayPath(22), "24 levels",
                  "\"metadata\":{\"a\":" + std::string(23, '[') + std::string(23, ']') + "}");
    std::string objects;
    std::string path = "metadata";
    for (int i = 0; i < 23; ++i) objects += "{\"a\":", path += ".a";
    table.members(path, "24 levels", "\"metadata\":" + objects + "{}" + std::string(23, '}'));
    table.add("a thousand levels of arrays", "metadata.a" + arrayPath(22), "24 levels",
              with("\"metadata\":{\"a\":" + std::string(1000, '[') + std::string(1000, ']') + "}"));
    table.add("100,000 open brackets", "metadata.a" + arrayPath(22), "24 levels",
              "{\"metadata\":{\"a\":" + std::string(100000, '['));
    table.add("a string of 64 KiB and one byte", "metadata.a", "65536",
              with("\"metadata\":{\"a\":\"" + lots(65537) + "\"}"));
    table.add("a key of 64 KiB and one byte", "metadata.", "65536", with("\"metadata\":{\"" + lots(65537) + "\":1}"));
}

/// Every whole number that a body has, with what is none in its range.
void addNumbers(Table& table) {
    struct Number {
        std::string path;
        std::string before, behind;
        bool required;
        std::string first, last;          ///< of the range
        std::vector<std::string> beyond;  ///< just outside it
    };
    const std::vector<Number> numbers{
        {"vcpu", "\"vcpu\":", "", false, "1", "32", {"0", "33"}},
        {"memMiB", "\"memMiB\":", "", false, "128", "1048576", {"0", "1", "127", "1048577"}},
        {"httpPort", "\"httpPort\":", "", false, "0", "65535", {"65536"}},
        {"maxRestarts", R"("restartPolicy":"always","maxRestarts":)", "", false, "0", "1000000", {"1000001"}},
        {"ports[0].guest", "\"ports\":[{\"guest\":", "}]", true, "1", "65535", {"0", "65536"}},
        {"ports[0].host", "\"ports\":[{\"guest\":80,\"host\":", "}]", false, "0", "65535", {"65536"}},
        {"ports[1].guest", "\"ports\":[{\"guest\":80},{\"guest\":", "}]", true, "1", "65535", {"0", "65536"}},
    };
    for (const Number& number : numbers) {
        std::vector<std::string> wrong{"-1",
                                       "-2147483648",
                                       "4294967297",  // 1 in 32 bits
                                       "4294967424",  // 128 in 32 bits
                                       "9223372036854775807",
                                       "9223372036854775808",
                                       "18446744073709551615",
                                       "-9223372036854775808",
                                       "1.5",
                                       "256.0",
                                       "1e3",
                                       "1E2",
                                       "2.56e2",
                                       "\"1\"",
                                       "\"256\"",
                                       "\"\"",
                                       "true",
                                       "false",
                                       "[]",
                                       "[256]",
                                       "{}"};
        wrong.insert(wrong.end(), number.beyond.begin(), number.beyond.end());
        if (number.required) wrong.emplace_back("null");
        for (const std::string& value : wrong) {
            table.members(number.path, "whole number from " + number.first + " to " + number.last,
                          number.before + value + number.behind);
        }
        for (const char* value :
             {"18446744073709551616", "-9223372036854775809", "1e400", "-1e400", "99999999999999999999999999"}) {
            table.members(number.path, "out of range", number.before + value + number.behind);
        }
    }
}

/// Every member with values of other types.
void addTypes(Table& table) {
    const std::vector<std::string> notStrings{"1", "1.5", "true", "[]", "[\"/x\"]", "{}", "{\"a\":\"/x\"}"};
    for (const char* name :
         {"id", "name", "rootfs", "kernel", "initrd", "dataDisk", "bootArgs", "vmm", "restartPolicy"}) {
        for (const std::string& value : notStrings) {
            table.add(std::string(name) + " is " + value, name, "is not a string",
                      std::string("{\"") + name + "\":" + value +
                          (std::string(name) == "rootfs" ? "" : ",\"rootfs\":\"/r\"") +
                          (std::string(name) == "kernel" ? "" : ",\"kernel\":\"/k\"") + "}");
        }
    }
    for (const std::string& value : notStrings)
        table.members("ports[0].protocol", "is not a string", "\"ports\":[{\"guest\":80,\"protocol\":" + value + "}]");
    for (const char* value : {"0", "1", "\"true\"", "\"false\"", "\"\"", "\"yes\"", "[]", "[true]", "{}", "1.0"})
        table.members("autoStart", "neither true nor false", std::string("\"autoStart\":") + value);
    for (const char* name : {"metadata", "tags", "extraEnv", "hooks"}) {
        for (const char* value : {"1", "true", "\"a\"", "\"{}\"", "[]", "[{}]"})
            table.members(name, "is not an object", quoted(name) + ":" + value);
    }
    for (const char* value : {"1", "true", "\"80\"", "{}", "{\"guest\":80}"})
        table.members("ports", "is not an array", std::string("\"ports\":") + value);
    for (const char* value : {"80", "true", "\"80\"", "null", "[]", "[80]"}) {
        table.members("ports[0]", "is not an object", std::string("\"ports\":[") + value + "]");
        table.members("ports[1]", "is not an object", std::string("\"ports\":[{\"guest\":80},") + value + "]");
        table.members("hooks.onStart[0]", "is not an object", std::string("\"hooks\":{\"onStart\":[") + value + "]}");
    }
    for (const char* name : {"tags", "extraEnv"}) {
        for (const char* value : {"1", "1.5", "true", "[]", "{}", "null"})
            table.members(std::string(name) + ".A", "not a string", quoted(name) + ":{\"A\":" + value + "}");
    }
    for (const char* event : {"onCreate", "onDelete", "onStart", "onStop"}) {
        for (const char* value : {"{}", "\"cmd\"", "true"})
            table.members(std::string("hooks.") + event, "not an array",
                          std::string(R"("hooks":{")") + event + "\":" + value + "}");
        table.members(std::string("hooks.") + event, "at most 32",
                      std::string(R"("hooks":{")") + event + "\":[" + times(33, "{}") + "]}");
    }
}

/// The rules of each member's text.
void addRules(Table& table) {
    for (const char* name : {"rootfs", "kernel"}) {
        const std::string other = std::string(name) == "rootfs" ? R"("kernel":"/k")" : R"("rootfs":"/r")";
        table.add("no " + std::string(name), name, "missing", "{" + other + "}");
        table.add(std::string(name) + " is null", name, "missing",
                  "{\"" + std::string(name) + "\":null," + other + "}");
    }
    table.add("nothing in it", "rootfs", "missing", "{}");
    for (const char* name : {"rootfs", "kernel", "initrd", "dataDisk"}) {
        const auto path = [&](const std::string& value) {
            std::string body = "{\"" + std::string(name) + "\":\"" + value + "\"";
            if (std::string(name) != "rootfs") body += R"(,"rootfs":"/r")";
            if (std::string(name) != "kernel") body += R"(,"kernel":"/k")";
            return body + "}";
        };
        table.add(std::string(name) + " is empty", name, "empty", path(""));
        for (const char* relative : {"disk", "./disk", "../disk", "images/disk", "~/disk", " /disk", "file:///disk"})
            table.add(std::string(name) + " is " + relative, name, "absolute", path(relative));
        for (const char* control : {"\\n", "\\t", "\\r", "\\u0001", "\\u001b", "\\u007f"})
            table.add(std::string(name) + " has " + control, name, "control character",
                      path(std::string("/a") + control));
        table.add(std::string(name) + " is too long", name, "at most 4096", path("/" + lots(4096)));
    }
    for (const std::string id : {"",    "-a", "Web", "a_b",     "a/b",  "..",       ".",   "a.b", "../a", "/a",
                                 "a b", " a", "a ",  "\\u00e4", "a\\n", "a\\u007f", "%61", "a:b", "a*",   "a@b"})
        table.members("id", "a-z", R"("id":")" + id + "\"");
    table.members("id", "", R"("id":")" + lots(64) + "\"");
    for (const std::string name :
         {"", "a/b", "a\\tb", "a\\n", "caf\\u00e9", "a:b", "a;b", "a'b", "a\\\"b", "$a", "a\\\\b", "a@b"})
        table.members("name", "1 to 63", R"("name":")" + name + "\"");
    table.members("name", "1 to 63", R"("name":")" + lots(64) + "\"");

    table.members("ports", "at most 64", R"("ports":[)" + times(65, R"({"guest":80})") + "]");
    for (const char* port : {"{}", R"({"host":80})", R"({"protocol":"tcp"})"})
        table.members("ports[0].guest", "missing", std::string("\"ports\":[") + port + "]");
    for (const char* protocol : {"sctp", "TCP", "Udp", "", " tcp", "tcp ", "tcp/udp", "icmp", "6", "any"})
        table.members("ports[0].protocol", "neither tcp nor udp",
                      R"("ports":[{"guest":80,"protocol":")" + std::string(protocol) + "\"}]");
    table.members("ports[1].host", "asked for twice", R"("ports":[{"guest":80,"host":9},{"guest":81,"host":9}])");
    table.members("ports[1].host", "asked for twice", R"("ports":[{"guest":80,"host":9},{"guest":80,"host":9}])");
    table.members("ports[1].host", "asked for twice",
                  R"("ports":[{"guest":80,"host":9,"protocol":"udp"},{"guest":81,"host":9,"protocol":"udp"}])");
    table.members("ports[2].guest", "asked for twice",
                  R"("ports":[{"guest":80},{"guest":81},{"guest":80,"protocol":"tcp"}])");
    table.members("ports[1].guest", "asked for twice",
                  R"("ports":[{"guest":53,"protocol":"udp"},{"guest":53,"host":0,"protocol":"udp"}])");

    table.members("metadata", "at most 65536",
                  R"("metadata":{"a":")" + lots(60000) + R"(","b":")" + lots(6000) + R"("})");
    table.members("hooks", "at most 65536",
                  R"("hooks":{"onStart":[{"a":")" + lots(60000) + R"(","b":")" + lots(6000) + R"("}]})");

    table.members("tags", "at most 128", R"("tags":{)" + numbered(129) + "}");
    table.members("tags", "at most 65536", R"("tags":{)" + numbered(70, lots(1000)) + "}");
    table.members("tags.a", "at most 1024", R"("tags":{"a":")" + lots(1025) + "\"}");
    table.members("tags.", "1 to 128", R"("tags":{"":"v"})");
    table.members("tags." + lots(77) + "...", "1 to 128", R"("tags":{")" + lots(129) + R"(":"v"})");
    for (const char* control : {"\\n", "\\t", "\\u0001", "\\u007f"}) {
        table.members("tags.a", "control character", std::string(R"("tags":{"a":"x)") + control + "\"}");
    }
    table.members("tags.a\\x0ab", "control characters", R"("tags":{"a\nb":"v"})");

    table.members("extraEnv", "at most 128", R"("extraEnv":{)" + numbered(129) + "}");
    table.members("extraEnv", "at most 65536", R"("extraEnv":{)" + numbered(17, lots(4000)) + "}");
    for (const char* name : {"",    "1A", "A-B", "A B", " A", "A ",   "A.B", "A/B", "x;cmd", "$(id)", "`id`",
                             "A=B", "A'", "A|B", "A&",  "A#", "A[0]", "A%",  "*",   "-",     "="}) {
        table.members("extraEnv." + std::string(name), "no name of a variable",
                      R"("extraEnv":{")" + std::string(name) + R"(":"v"})");
    }
    table.members("extraEnv.\xc3\xa4", "no name of a variable", R"("extraEnv":{"\u00e4":"v"})");
    table.members("extraEnv.A\\x0aB", "no name of a variable", R"("extraEnv":{"A\nB":"v"})");
    table.members("extraEnv." + lots(77) + "...", "no name of a variable",
                  R"("extraEnv":{")" + lots(129) + R"(":"v"})");
    for (const char* name : {"MGN_", "MGN_X", "MGN_VM_ID", "MGN_CONFIG_DIR", "MGN_VM_JSON", "MGN_META_JSON",
                             "MGN_HOOKS_JSON", "MGN_RUN_DIR", "MGN_SOCKET_PATH", "MGN_TAP_NAME", "MGN_NETNS",
                             "MGN_GUEST_IP", "MGN_DATA_DIR", "MGN_LOG_DIR", "MGN_HTTP_PORT", "MGN_PUBLISH_80"}) {
        table.members("extraEnv." + std::string(name), "Mergen's own",
                      R"("extraEnv":{")" + std::string(name) + R"(":"v"})");
    }
    for (const char* control : {"\\n", "\\r", "\\r\\n"})
        table.members("extraEnv.A", "line break", std::string(R"("extraEnv":{"A":"a)") + control + "b\"}");
    table.members("extraEnv.A", "at most 4096", R"("extraEnv":{"A":")" + lots(4097) + "\"}");

    for (const char* text : {"a\\nb", "a\\tb", "\\u007f", "\\u0001", "caf\\u00e9", "\\ud83d\\ude00"})
        table.members("bootArgs", "printable ASCII", std::string(R"("bootArgs":")") + text + "\"");
    for (const char* policy : {"never", "", "ON-FAILURE", "on_failure", "always ", "unless-stopped"})
        table.members("restartPolicy", "none of no, on-failure, always",
                      R"("restartPolicy":")" + std::string(policy) + "\"");
    for (const char* policy : {"", "Restart", "kill", "no"})
        table.members("onUnresponsive", "none of none, restart, stop",
                      R"("onUnresponsive":")" + std::string(policy) + "\"");
    table.members("maxRestarts", "no meaning without", R"("maxRestarts":3)");
    table.members("maxRestarts", "no meaning without", R"("restartPolicy":"no","maxRestarts":3)");
    table.members("bootArgs", "at most 1500", R"("bootArgs":")" + lots(1501) + "\"");
}

/// Drives, network cards and the guest's further devices.
void addDevices(Table& table) {
    const auto drive = [&](const std::string& member, const std::string& rule, const std::string& rest) {
        table.members("drives[0]" + member, rule, R"("drives":[{)" + rest + "}]");
    };
    drive(".driveId", "missing", "");
    for (const char* id : {"a-b", "a/b", "..", "a b", "\\u00e4"}) {
        drive(".driveId", "is not 1 to 32 of", R"("driveId":")" + std::string(id) + R"(","pathOnHost":"/d")");
    }
    drive(".driveId", "is not 1 to 32 of", R"("driveId":")" + lots(33) + R"(","pathOnHost":"/d")");
    drive(".pathOnHost", "missing", R"("driveId":"logs")");
    drive(".pathOnHost", "missing, and there is no dataDisk", R"("driveId":"data")");
    drive(".pathOnHost", "not an absolute path", R"("driveId":"logs","pathOnHost":"logs.ext4")");
    drive(".pathOnHost", "not an absolute path", R"("driveId":"logs","pathOnHost":"")");
    drive(".pathOnHost", "control character", R"("driveId":"logs","pathOnHost":"/a\n")");
    drive(".pathOnHost", "something else than rootfs", R"("driveId":"rootfs","pathOnHost":"/srv/other.ext4")");
    drive(".isRootDevice", "the root device is the drive", R"("driveId":"logs","pathOnHost":"/d","isRootDevice":true)");
    drive(".isRootDevice", "is the root device", R"("driveId":"rootfs","isRootDevice":false)");
    drive(".cacheType", "none of Writeback, Unsafe", R"("driveId":"rootfs","cacheType":"Fast")");
    drive(".ioEngine", "none of Sync, Async", R"("driveId":"rootfs","ioEngine":"async")");
    drive(".socket", "unknown member", R"("driveId":"rootfs","socket":"/s")");
    table.members("drives[1].driveId", "the id of two", R"("drives":[{"driveId":"rootfs"},{"driveId":"rootfs"}])");
    table.members("drives", "at most 8", R"("drives":[)" + times(9, R"({"driveId":"rootfs"})") + "]");
    table.members("drives[0].pathOnHost", "something else than dataDisk",
                  R"("dataDisk":"/srv/a","drives":[{"driveId":"data","pathOnHost":"/srv/b"}])");

    const auto limiter = [&](const std::string& member, const std::string& rule, const std::string& text) {
        drive(".rateLimiter" + member, rule, R"("driveId":"rootfs","rateLimiter":)" + text);
        table.members("entropy.rateLimiter" + member, rule, R"("entropy":{"rateLimiter":)" + text + "}");
        for (const std::string name : {"rxRateLimiter", "txRateLimiter"}) {
            table.members("networkInterfaces[0]." + name + member, rule,
                          R"("networkInterfaces":[{"ifaceId":"eth0",")" + name + "\":" + text + "}]");
        }
    };
    limiter("", "is not an object", "7");
    limiter(".bytes", "unknown member", R"({"bytes":{}})");
    limiter(".ops.size", "missing", R"({"ops":{}})");
    limiter(".ops.refillTime", "missing", R"({"ops":{"size":1}})");
    limiter(".bandwidth.size", "is not a whole number", R"({"bandwidth":{"size":-1,"refillTime":1}})");
    limiter(".bandwidth.refillTime", "1 ms or more", R"({"bandwidth":{"size":1,"refillTime":0}})");
    limiter(".bandwidth.refillTime", "is not a whole number", R"({"bandwidth":{"size":1,"refillTime":86400001}})");
    limiter(".ops.oneTimeBurst", "is not a whole number", R"({"ops":{"size":1,"refillTime":1,"oneTimeBurst":-1}})");
    limiter(".ops.one_time_burst", "unknown member", R"({"ops":{"size":1,"refillTime":1,"one_time_burst":1}})");

    const auto card = [&](const std::string& member, const std::string& rule, const std::string& rest) {
        table.members("networkInterfaces[0]" + member, rule, R"("networkInterfaces":[{)" + rest + "}]");
    };
    card(".ifaceId", "missing", "");
    card(".ifaceId", "counted in their order", R"("ifaceId":"eth1")");
    card(".ifaceId", "is not 1 to 32 of", R"("ifaceId":"eth-0")");
    card(".guestMac", "Mergen's to give", R"("ifaceId":"eth0","guestMac":"02:00:00:00:00:01")");
    card(".hostDevName", "Mergen's to give", R"("ifaceId":"eth0","hostDevName":"tap0")");
    table.members("networkInterfaces[1].ifaceId", "counted in their order",
                  R"("networkInterfaces":[{"ifaceId":"eth0"},{"ifaceId":"eth0"}])");
    table.members("networkInterfaces", "at most 4", R"("networkInterfaces":[)" + times(5, "{}") + "]");

    table.members("vsock.udsPath", "Mergen's to give", R"("vsock":{"udsPath":"/v"})");
    table.members("vsock.guestCid", "from 3 to", R"("vsock":{"guestCid":2})");
    table.members("vsock.guestCid", "from 3 to", R"("vsock":{"guestCid":4294967295})");
    table.members("vsock.vsockId", "unknown member", R"("vsock":{"vsockId":"v"})");
    table.members("balloon.amountMib", "more than the 512 MiB", R"("balloon":{"amountMib":513})");
    table.members("balloon.amountMib", "is not a whole number", R"("balloon":{"amountMib":-1})");
    table.members("balloon.statsPollingIntervalS", "from 0 to 65535", R"("balloon":{"statsPollingIntervalS":65536})");
    table.members("balloon.deflateOnOom", "neither true nor false", R"("balloon":{"deflateOnOom":1})");
    for (const char* address : {"169.254.0.1", "169.254.255.1", "10.0.0.1"}) {
        table.members("mmds.ipv4Address", "not within 169.254.1.0",
                      R"("mmds":{"ipv4Address":")" + std::string(address) + "\"}");
    }
    table.members("mmds.ipv4Address", "four numbers", R"("mmds":{"ipv4Address":"x"})");
    table.members("mmds.data", "is not an object", R"("mmds":{"data":[1]})");
    table.members("mmds.data", "at most 49152", R"("mmds":{"data":{"a":")" + lots(49152) + "\"}}");
    table.members("mmds.version", "unknown member", R"("mmds":{"version":"V1"})");
    table.members("metrics", "neither true nor false", R"("metrics":"yes")");

    table.members("machineConfig.vcpuCount", "something else than vcpu", R"("vcpu":1,"machineConfig":{"vcpuCount":2})");
    table.members("machineConfig.memSizeMib", "something else than memMiB",
                  R"("memMiB":512,"machineConfig":{"memSizeMib":256})");
    table.members("machineConfig.vcpuCount", "from 1 to 32", R"("machineConfig":{"vcpuCount":33})");
    table.members("machineConfig.memSizeMib", "from 128 to", R"("machineConfig":{"memSizeMib":127})");
    table.members("machineConfig.smt", "an even number", R"("machineConfig":{"vcpuCount":3,"smt":true})");
    table.members("machineConfig.hugePages", "an even number",
                  R"("machineConfig":{"memSizeMib":129,"hugePages":"2M"})");
    table.members("machineConfig.hugePages", "none of None, 2M", R"("machineConfig":{"hugePages":"1G"})");
    table.members("machineConfig.cpuTemplate", "none of None, C3", R"("machineConfig":{"cpuTemplate":"T3"})");
    table.members("machineConfig.trackDirtyPages", "unknown member", R"("machineConfig":{"trackDirtyPages":true})");
    table.members("bootSource.kernelImagePath", "something else than kernel",
                  R"("bootSource":{"kernelImagePath":"/srv/other"})");
    table.members("bootSource.initrdPath", "something else than initrd",
                  R"("initrd":"/srv/a","bootSource":{"initrdPath":"/srv/b"})");
    table.members("bootSource.bootArgs", "something else than bootArgs",
                  R"("bootArgs":"a","bootSource":{"bootArgs":"b"})");
    table.members("bootSource.bootArgs", "printable ASCII", R"("bootSource":{"bootArgs":"a\nb"})");
    table.members("bootSource.kernelImagePath", "not an absolute path", R"("bootSource":{"kernelImagePath":"k"})");
}

}  // namespace

std::vector<BadBody> badBodies() {
    Table table;
    addSyntax(table);
    addText(table);
    addStructure(table);
    addNumbers(table);
    addTypes(table);
    addRules(table);
    addDevices(table);
    return table.take();
}

}  // namespace mergen::api::test
