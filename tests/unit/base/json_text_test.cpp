#include <string>

#include <gtest/gtest.h>

#include <mergen/base/json.hpp>
#include <mergen/base/json_text.hpp>

namespace mergen::json {
namespace {

using Poco::Dynamic::Var;

TEST(JsonText, IsTheTextThatATreeOfTheSameWouldHave) {
    const std::string strange = "quote \" slash \\ line\n tab\t bell\a del\x7f umlaut \xc3\xa4 broken \xff end";
    Poco::JSON::Array::Ptr treeList(new Poco::JSON::Array);
    auto treeInner = object();
    auto tree = object();
    auto inner = objectText();
    auto text = objectText();
    auto list = arrayText();
    const auto both = [&](const std::string& name, const auto& value) {
        tree->set(name, value);
        text->set(name, value);
    };
    both("plain", std::string("a b/c~"));
    both("strange", strange);
    both(strange, std::string("strange name"));
    both("empty", std::string());
    both("true", true);
    both("false", false);
    both("small", -7);
    both("large", Poco::UInt64{18446744073709551615U});
    both("unsigned", 20000U);
    both("null", Var());
    both("var", Var(std::string("text")));
    treeInner->set("x", 1);
    inner->set("x", 1);
    tree->set("object", treeInner);
    text->set("object", inner);
    treeList->add(2);
    list->add(2);
    treeList->add(treeInner);
    list->add(inner);
    tree->set("list", treeList);
    text->set("list", list);
    tree->set("literal", std::string("word"));
    text->set("literal", "word");
    EXPECT_EQ(text->str(), render(*tree));
}

TEST(JsonText, WithoutMembersIsEmpty) {
    EXPECT_EQ(objectText()->str(), "{}");
    EXPECT_EQ(arrayText()->str(), "[]");
}

TEST(JsonText, AnArrayTakesWhatIsJsonAlready) {
    ArrayText list;
    list.addText(R"({"a":1})");
    list.addText("[]");
    EXPECT_EQ(list.str(), R"([{"a":1},[]])");
}

}  // namespace
}  // namespace mergen::json
