// What simdjson lets through: escapes, in all places of the blocks that are looked at together, and numbers.
#include "flow/json_text.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <string>

namespace heng {
namespace {

TEST(JsonText, EscapesAreThoseOfTheStandard) {
  for (const std::string_view text :
       {"", "plain", R"(\")", R"(\\)", R"(\/\b\f\n\r\t)", R"(\u12aF)", R"(\u12abcd)", R"(\\x)"}) {
    EXPECT_TRUE(valid_escapes(text)) << text;
  }
  for (const std::string_view text : {R"(\)", R"(\\\)", R"(\x)", R"(\u)", R"(\u12a)", R"(\u12ag)",
                                      R"(\U12ab)", R"(\ )", R"(\\\x)", R"(\u1\n2)"}) {
    EXPECT_FALSE(valid_escapes(text)) << text;
  }
}

bool valid_byte_by_byte(const std::string& text) {
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '\\') continue;
    if (++at == text.size()) return false;
    if (text[at] != 'u') {
      if (std::string_view("\"\\/bfnrt").find(text[at]) == std::string_view::npos) return false;
      continue;
    }
    for (int i = 0; i < 4; ++i) {
      if (++at >= text.size() || std::isxdigit(static_cast<unsigned char>(text[at])) == 0) return false;
    }
  }
  return true;
}

RC_GTEST_PROP(JsonText, EscapesAreFoundWhereverTheyAre, ()) {
  // Mostly good ones, long enough for several blocks; perhaps one bad one among them.
  const auto pieces = *rc::gen::container<std::vector<std::string>>(rc::gen::weightedOneOf<std::string>(
      {{6, rc::gen::element<std::string>("a", "bcdefghijk", "u12ab", "n", "        ")},
       {6, rc::gen::element<std::string>("\\\\", "\\n", "\\u12ab", "\\\"", "\\u00e9")}}));
  std::string text;
  for (const std::string& piece : pieces) text += piece;
  RC_ASSERT(valid_escapes(text));
  const auto bad = *rc::gen::element<std::string>("\\", "\\x", "\\u12", "\\\\\\", "");
  text.insert(*rc::gen::inRange<std::size_t>(0, text.size() + 1), bad);
  RC_ASSERT(valid_escapes(text) == valid_byte_by_byte(text));
}

TEST(JsonText, EveryPlaceOfABlockIsLookedAt) {
  for (std::size_t at = 0; at < 200; ++at) {
    std::string text(200, 'n');
    text[at] = '\\';
    EXPECT_EQ(valid_escapes(text), at != 199) << at;
    if (at + 1 < text.size()) text[at + 1] = 'x';
    EXPECT_FALSE(valid_escapes(text)) << at;
  }
}

TEST(JsonText, NumbersAreThoseOfTheStandard) {
  for (const std::string_view text : {"0", "-0", "10", "1.5", "0.05", "1e5", "1E+5", "-1.25e-10"})
    EXPECT_TRUE(valid_number(text)) << text;
  for (const std::string_view text : {"", "-", "01", "+1", "1.", ".5", "1e", "1e+", "0x1", "NaN", "1 ", "1,"})
    EXPECT_FALSE(valid_number(text)) << text;
}

}  // namespace
}  // namespace heng
