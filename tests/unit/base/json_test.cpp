#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <mergen/base/json.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::json {
namespace {

/// The Error that `call` throws; fails the test if it throws none.
template <typename Call>
Error errorOf(const Call& call) {
    try {
        call();
    } catch (const Error& error) {
        return error;
    }
    ADD_FAILURE() << "nothing was thrown";
    return {ErrorKind::Internal, ""};
}

std::string nested(std::size_t levels) {
    std::string text;
    for (std::size_t i = 0; i < levels; ++i) text += "{\"a\":";
    return text + "1" + std::string(levels, '}');
}

TEST(JsonParse, TakesWhatIsJsonAndKeepsTheOrderOfKeys) {
    const std::string text =
        R"({"z":1,"a":[1,-2,{"k":null}],"m":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00","e":{},"l":[],"t":true,"f":false,"d":0.5})";
    const auto object = parseObject(text);
    EXPECT_EQ(object->getNames(), (std::vector<std::string>{"z", "a", "m", "e", "l", "t", "f", "d"}));
    EXPECT_EQ(object->getValue<std::string>("m"), "\"\\/\b\f\n\r\t\xc3\xa9\xf0\x9f\x98\x80");
    EXPECT_EQ(render(*object),
              "{\"z\":1,\"a\":[1,-2,{\"k\":null}],\"m\":\"\\\"\\\\/\\b\\f\\n\\r\\t\xc3\xa9\xf0\x9f\x98\x80\",\"e\":{},"
              "\"l\":[],\"t\":true,\"f\":false,\"d\":0.5}");
    EXPECT_EQ(parseObject(" \t\r\n{ } \n")->size(), 0U);
}

TEST(JsonParse, KeepsTheEdgesOfNumbers) {
    const auto object = parseObject(
        R"({"min":-9223372036854775808,"max":9223372036854775807,"umax":18446744073709551615,"one":1.0,"big":1e308})");
    EXPECT_EQ(
        render(*object),
        R"({"min":-9223372036854775808,"max":9223372036854775807,"umax":18446744073709551615,"one":1.0,"big":1e+308})");
}

TEST(JsonParse, RefusesWhatIsNotOneCleanObject) {
    const std::vector<std::string> refused{
        "",
        " ",
        "null",
        "1",
        "\"a\"",
        "[]",
        "[{}]",
        "{",
        "}",
        "{}x",
        "{}{}",
        "{},",
        "\xef\xbb\xbf{}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":'b'}",
        "{\"a\":tru}",
        "{\"a\":True}",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":01}",
        "{\"a\":+1}",
        "{\"a\":.5}",
        "{\"a\":1.}",
        "{\"a\":-}",
        "{\"a\":1e}",
        "{\"a\":0x10}",
        "{\"a\":--1}",
        "{\"a\":18446744073709551616}",
        "{\"a\":-9223372036854775809}",
        "{\"a\":1e400}",
        "{\"a\":[99999999999999999999999999]}",
        "{\"a\":\"\\u0000\"}",
        "{\"a\":\"b\\\\\\u0000\"}",
        "{\"\\u0000a\":1}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\\udc00\\ud800\"}",
        "{\"a\":\"\\x41\"}",
        "{\"a\":\"\\u12\"}",
        "{\"a\":\"tab\there\"}",
        "{\"a\":\"line\nbreak\"}",
        "{\"a\":\"open}",
        "{\"a\":\"\xff\"}",
        "{\"a\":\"\xc0\xaf\"}",
        "{\"a\":\"\xed\xa0\x80\"}",
        "{\"a\":\"\xf4\x90\x80\x80\"}",
        "{\"a\":\"\xe2\x82\"}",
        std::string("{\"a\":\"\0\"}", 9),
        std::string("{}\0", 3),
        "{\"a\":1,\"a\":2}",
        "{\"a\":1,\"\\u0061\":2}",
        "{\"o\":{\"b\":1,\"c\":2,\"b\":3}}",
        "{/**/}",
        "{\"a\":1 // one\n}",
        "{\"a\":[1,]}",
        "{\"a\":[1 2]}",
        "{\"a\":[1}",
        "\v{}",
    };
    for (const std::string& text : refused) {
        SCOPED_TRACE(printable(text));
        const Error error = errorOf([&] { static_cast<void>(parseObject(text)); });
        EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument);
        EXPECT_STRNE(error.what(), "");
    }
}

TEST(JsonParse, SaysOfAnotherValueThatItIsNoObject) {
    for (const char* const text : {"null", "1", "\"x\"", "[]", " true", "x"})
        EXPECT_STREQ(errorOf([&] { static_cast<void>(parseObject(text)); }).what(), "the JSON text is not an object")
            << text;
}

TEST(JsonParse, AnEscapedBackslashBeforeU0000IsNoNul) {
    EXPECT_EQ(parseObject(R"({"a":"\\u0000"})")->getValue<std::string>("a"), "\\u0000");
}

TEST(JsonParse, DigitsInsideStringsAreNoNumbers) {
    EXPECT_EQ(parseObject(R"({"a\"9":"99999999999999999999999 \" 1e999"})")->size(), 1U);
}

TEST(JsonParse, EveryPrefixOfATextIsRefused) {
    const std::string text = R"({"a":[1,2.5e3,{"b":"\u00e9x"},null,true],"c":{"d":"e"}})";
    ASSERT_NO_THROW(static_cast<void>(parseObject(text)));
    for (std::size_t length = 0; length < text.size(); ++length) {
        EXPECT_THROW(static_cast<void>(parseObject(text.substr(0, length))), Error) << text.substr(0, length);
    }
}

TEST(JsonParse, NamesTheNumberThatIsOutOfRangeByItsPath) {
    const auto field = [](const std::string& text) -> std::string {
        try {
            static_cast<void>(parseObject(text));
        } catch (const Error& error) {
            return error.field();
        }
        return "taken";
    };
    EXPECT_EQ(field(R"({"a":18446744073709551616})"), "a");
    EXPECT_EQ(field(R"({"x":{"y":1},"a":{"b":[0,"1",{"c":-9223372036854775809}]}})"), "a.b[2].c");
    EXPECT_EQ(field(R"({"a":[[1],[2,1e400]]})"), "a[1][1]");
    EXPECT_EQ(field(R"({"a":[1e400]})"), "a[0]");
    EXPECT_EQ(field("1e400"), "") << "no object at all";
}

TEST(JsonParse, NamesTheDuplicateByItsPath) {
    const Error error =
        errorOf([] { static_cast<void>(parseObject(R"({"ports":[{"host":1},{"host":1,"guest":2,"host":3}]})")); });
    EXPECT_EQ(error.field(), "ports[1].host");
    EXPECT_NE(std::string(error.what()).find("duplicate"), std::string::npos);
}

TEST(JsonParse, KeepsToItsLimits) {
    Limits limits;
    limits.depth = 4;
    limits.members = 5;
    limits.stringBytes = 8;
    limits.bytes = 64;
    EXPECT_NO_THROW(static_cast<void>(parseObject(nested(4), limits)));
    EXPECT_THROW(static_cast<void>(parseObject(nested(5), limits)), Error);
    EXPECT_NO_THROW(static_cast<void>(parseObject(R"({"a":[1,2,3,4]})", limits)));
    EXPECT_THROW(static_cast<void>(parseObject(R"({"a":[1,2,3,4,5]})", limits)), Error);
    EXPECT_NO_THROW(static_cast<void>(parseObject(R"({"a":"12345678"})", limits)));
    EXPECT_EQ(errorOf([&] { static_cast<void>(parseObject(R"({"a":"123456789"})", limits)); }).field(), "a");
    EXPECT_THROW(static_cast<void>(parseObject(R"({"123456789":1})", limits)), Error);
    EXPECT_NO_THROW(static_cast<void>(parseObject("{}" + std::string(62, ' '), limits)));
    EXPECT_THROW(static_cast<void>(parseObject("{}" + std::string(63, ' '), limits)), Error);
}

TEST(JsonParse, DeepNestingIsRefusedBeforeItCanHurtTheStack) {
    const std::string arrays(500'000, '[');
    EXPECT_THROW(static_cast<void>(parseObject("{\"a\":" + arrays)), Error);
    EXPECT_THROW(static_cast<void>(parseObject(nested(33))), Error);
    EXPECT_NO_THROW(static_cast<void>(parseObject(nested(32))));
}

TEST(JsonRender, ReplacesBytesThatAreNotUtf8) {
    auto value = object();
    value->set("a", std::string("x\xe4\"y\xff\xe2\x82<\xc3\xa9\xed\xa0\x80"));
    const std::string text = render(*value);
    EXPECT_EQ(text,
              "{\"a\":\"x\xef\xbf\xbd\\\"y\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd<\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd"
              "\xef\xbf\xbd\"}");
    EXPECT_NO_THROW(static_cast<void>(parseObject(text)));
}

TEST(JsonRender, EscapesControlCharacters) {
    auto value = object();
    value->set("a\n", std::string("\x01\x1f\r\n\t"));
    EXPECT_EQ(parseObject(render(*value))->getValue<std::string>("a\n"), "\x01\x1f\r\n\t");
    EXPECT_EQ(render(*value).find('\n'), std::string::npos);
}

TEST(JsonRender, WritesEachTypeAsJsonHasIt) {
    auto value = object();
    value->set("true", true);
    value->set("false", false);
    value->set("int", -1);
    value->set("uint16", std::uint16_t{65535});
    value->set("int64", std::numeric_limits<std::int64_t>::min());
    value->set("uint64", std::numeric_limits<std::uint64_t>::max());
    value->set("whole", 1.0);
    value->set("double", 0.25);
    value->set("char", 'c');
    value->set("empty", std::string());
    value->set("null", Poco::Dynamic::Var());
    value->set("plain", std::string(" !#/[]^~"));
    value->set("quoted", std::string("a\"b\\c"));
    value->set("letters", std::string("\x7f\xc3\xbc"));
    EXPECT_EQ(render(*value),
              R"({"true":true,"false":false,"int":-1,"uint16":65535,"int64":-9223372036854775808,)"
              R"("uint64":18446744073709551615,"whole":1.0,"double":0.25,"char":"c","empty":"","null":null,)"
              R"("plain":" !#/[]^~","quoted":"a\"b\\c","letters":")"
              "\x7f\xc3\xbc\"}");
}

TEST(JsonRender, IndentsAndEndsWithANewLine) {
    const auto value = parseObject(R"({"b":{"c":[1,{"d":"e"}]},"a":[],"o":{}})");
    EXPECT_EQ(render(*value, 2), R"({
  "b": {
    "c": [
      1,
      {
        "d": "e"
      }
    ]
  },
  "a": [],
  "o": {}
}
)");
}

TEST(JsonRender, ParsesBackToTheSameText) {
    const std::string text = R"({"z":{"b":[true,null,-0.25,"é"],"a":12345678901234567},"y":[[],[{}]]})";
    EXPECT_EQ(render(*parseObject(text)), text);
    EXPECT_EQ(render(*parseObject(render(*parseObject(text), 4))), text);
}

class JsonReader : public testing::Test {
protected:
    /// A reader of `text` at `path`; valid until the next call.
    Reader& read(const std::string& text, std::string path = "") {
        object_ = parseObject(text);
        reader_.emplace(*object_, std::move(path));
        return *reader_;
    }

private:
    Poco::JSON::Object::Ptr object_;
    std::optional<Reader> reader_;
};

TEST_F(JsonReader, ReadsEveryType) {
    Reader& body =
        read(R"({"i":-3,"b":true,"s":"text","o":{"k":1},"m":{"a":"1","b":""},"l":[{"x":1},{"x":2}],"n":null})");
    EXPECT_EQ(body.integer("i", -5, 5), -3);
    EXPECT_EQ(body.requiredInteger("i", -3, -3), -3);
    EXPECT_EQ(body.boolean("b"), true);
    EXPECT_EQ(body.string("s", 4), "text");
    EXPECT_EQ(body.requiredString("s", 4), "text");
    EXPECT_EQ(body.object("o")->getValue<int>("k"), 1);
    EXPECT_EQ(body.stringMap("m", 2, 1), (std::map<std::string, std::string>{{"a", "1"}, {"b", ""}}));
    std::vector<std::int64_t> seen;
    body.objects("l", 2, [&](Reader& item) { seen.push_back(item.requiredInteger("x", 0, 9)); });
    EXPECT_EQ(seen, (std::vector<std::int64_t>{1, 2}));
    EXPECT_TRUE(body.has("i"));
    EXPECT_FALSE(body.has("n"));
    body.finish();
}

TEST_F(JsonReader, AbsentAndNullAreTheSame) {
    for (const char* text : {"{}", R"({"a":null})"}) {
        Reader& body = read(text);
        EXPECT_EQ(body.integer("a", 0, 1), std::nullopt);
        EXPECT_EQ(body.boolean("a"), std::nullopt);
        EXPECT_EQ(body.string("a", 1), std::nullopt);
        EXPECT_TRUE(body.object("a").isNull());
        EXPECT_TRUE(body.stringMap("a", 1, 1).empty());
        body.objects("a", 1, [](Reader&) { ADD_FAILURE(); });
        EXPECT_THROW(static_cast<void>(body.requiredString("a", 1)), Error);
        EXPECT_THROW(static_cast<void>(body.requiredInteger("a", 0, 1)), Error);
        body.finish();
    }
}

TEST_F(JsonReader, NeverTakesOneTypeForAnother) {
    const std::vector<std::string> values{"1", "1.7", "1.0", "\"1\"", "true", "[]", "{}", "\"\""};
    for (const std::string& value : values) {
        SCOPED_TRACE(value);
        Reader& body = read("{\"a\":" + value + "}");
        const auto refused = [&](const auto& call) { return errorOf(call).field() == "a"; };
        if (value != "1") {
            EXPECT_TRUE(refused([&] { static_cast<void>(body.integer("a", 0, 9)); }));
        }
        if (value != "true") {
            EXPECT_TRUE(refused([&] { static_cast<void>(body.boolean("a")); }));
        }
        if (value.front() != '"') {
            EXPECT_TRUE(refused([&] { static_cast<void>(body.string("a", 9)); }));
        }
        if (value != "{}") {
            EXPECT_TRUE(refused([&] { static_cast<void>(body.object("a")); }));
            EXPECT_TRUE(refused([&] { static_cast<void>(body.stringMap("a", 9, 9)); }));
        }
        if (value != "[]") {
            EXPECT_TRUE(refused([&] { body.objects("a", 9, [](Reader&) {}); }));
        }
    }
}

TEST_F(JsonReader, StatesMemberValueAndRule) {
    EXPECT_STREQ(errorOf([&] { static_cast<void>(read(R"({"vcpu":99})").integer("vcpu", 1, 32)); }).what(),
                 "vcpu: 99 is not a whole number from 1 to 32");
    EXPECT_STREQ(errorOf([&] { static_cast<void>(read(R"({"vcpu":"2"})").integer("vcpu", 1, 32)); }).what(),
                 "vcpu: \"2\" is not a whole number from 1 to 32");
    EXPECT_STREQ(
        errorOf([&] { static_cast<void>(read(R"({"n":18446744073709551615})").integer("n", 0, INT64_MAX)); }).what(),
        "n: 18446744073709551615 is not a whole number from 0 to 9223372036854775807");
    EXPECT_STREQ(errorOf([&] { static_cast<void>(read(R"({"k":"abc"})").string("k", 2)); }).what(),
                 "k: \"abc\" has 3 bytes; at most 2 are taken");
    EXPECT_STREQ(errorOf([&] { static_cast<void>(read(R"({"b":"yes"})").boolean("b")); }).what(),
                 "b: \"yes\" is neither true nor false");
    EXPECT_STREQ(errorOf([&] { static_cast<void>(read("{}").requiredString("kernel", 9)); }).what(),
                 "kernel: missing; a string is required");
    EXPECT_STREQ(errorOf([&] { static_cast<void>(read(R"({"kernel":""})").requiredString("kernel", 9)); }).what(),
                 "kernel: \"\" is empty; a string of 1 to 9 bytes is required");
}

TEST_F(JsonReader, NamesMembersInsideByTheirPath) {
    const auto field = [&](const char* text) {
        return errorOf([&] {
                   Reader& body = read(text, "spec");
                   body.objects("ports", 2, [](Reader& port) { static_cast<void>(port.integer("host", 0, 9)); });
                   static_cast<void>(body.stringMap("tags", 1, 3));
                   body.finish();
               })
            .field();
    };
    EXPECT_EQ(field(R"({"ports":[{},{"host":10}]})"), "spec.ports[1].host");
    EXPECT_EQ(field(R"({"ports":[{"hots":1}]})"), "spec.ports[0].hots");
    EXPECT_EQ(field(R"({"ports":[{},1]})"), "spec.ports[1]");
    EXPECT_EQ(field(R"({"ports":[{},{},{}]})"), "spec.ports");
    EXPECT_EQ(field(R"({"tags":{"a":1}})"), "spec.tags.a");
    EXPECT_EQ(field(R"({"tags":{"a":null}})"), "spec.tags.a");
    EXPECT_EQ(field(R"({"tags":{"a":"four"}})"), "spec.tags.a");
    EXPECT_EQ(field(R"({"tags":{"a":"1","b":"2"}})"), "spec.tags");
    EXPECT_EQ(field(R"({"else":1})"), "spec.else");
    EXPECT_EQ(field("{\"a\\nb\":1}"), "spec.a\\x0ab");
}

TEST_F(JsonReader, ARequiredMemberInAnotherFashionIsWhatIsRefused) {
    for (const char* const name : {"drive_id", "DriveID", "drive-id"}) {
        const std::string text = std::string("{\"") + name + "\":\"a\"}";
        const Error error =
            errorOf([&] { static_cast<void>(read(text.c_str(), "drives[0]").requiredString("driveId", 9)); });
        EXPECT_EQ(error.field(), std::string("drives[0].") + name);
        EXPECT_STREQ(error.what(),
                     ("drives[0]." + std::string(name) + ": unknown member, did you mean driveId?").c_str());
    }
    EXPECT_EQ(errorOf([&] { static_cast<void>(read(R"({"mem_mib":1})").requiredInteger("memMiB", 0, 9)); }).field(),
              "mem_mib");
    EXPECT_EQ(errorOf([&] { static_cast<void>(read(R"({"driveIds":1})").requiredString("driveId", 9)); }).field(),
              "driveId")
        << "may be another member";
}

TEST_F(JsonReader, FinishNamesTheNearestKnownMember) {
    Reader& body = read(R"({"kernal":"/k"})");
    static_cast<void>(body.string("kernel", 9));
    static_cast<void>(body.string("rootfs", 9));
    EXPECT_STREQ(errorOf([&] { body.finish(); }).what(), "kernal: unknown member, did you mean kernel?");
    Reader& other = read(R"({"zzz":1})");
    static_cast<void>(other.string("kernel", 9));
    static_cast<void>(other.string("rootfs", 9));
    EXPECT_STREQ(errorOf([&] { other.finish(); }).what(), "zzz: unknown member, known are kernel rootfs");
}

}  // namespace
}  // namespace mergen::json
