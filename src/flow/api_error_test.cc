// Error bodies: valid JSON whatever the message holds, with the types that OpenAI's clients look for.
#include "flow/api_error.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <simdjson.h>

namespace heng {
namespace {

/// What a JSON parser reads in the literal.
std::string unquoted(const std::string& literal) {
  simdjson::dom::parser parser;
  std::string_view text;
  const auto error = parser.parse("[" + literal + "]").at(0).get(text);
  return error == simdjson::SUCCESS ? std::string(text) : "not JSON: " + literal;
}

TEST(JsonQuote, GivesBackWhatCanBeSaid) {
  using namespace std::string_literals;
  for (const std::string& text : {""s, "plain"s, "q\"b\\s/"s, "\b\f\n\r\t\x01\x1f\x7f"s, "nul\0!"s,
                                  "\u00e9\u8861\U0001f600"s, "\ue000\uffff"s}) {
    EXPECT_EQ(unquoted(json_quote(text)), text);
  }
}

TEST(JsonQuote, ReplacesWhatIsNotUtf8) {
  const std::string replaced = "\ufffd";
  EXPECT_EQ(unquoted(json_quote("a\xff"
                                "b")),
            "a" + replaced + "b");
  EXPECT_EQ(unquoted(json_quote("\xc0\xaf")), replaced + replaced);                 // overlong
  EXPECT_EQ(unquoted(json_quote("\xed\xa0\x80")), replaced + replaced + replaced);  // surrogate
  EXPECT_EQ(unquoted(json_quote("\xe2\x82")), replaced + replaced);                 // cut
  EXPECT_EQ(unquoted(json_quote("\xf4\x90\x80\x80")), replaced + replaced + replaced + replaced);
}

TEST(JsonQuote, AnyBytesMakeALiteral) {
  EXPECT_TRUE(rc::check("is a JSON string", [](const std::string& bytes) {
    const std::string read = unquoted(json_quote(bytes));
    RC_ASSERT(!read.starts_with("not JSON"));
    RC_ASSERT(unquoted(json_quote(read)) == read);
  }));
}

TEST(ApiError, HasTheFourFieldsOfOpenAi) {
  EXPECT_EQ(api_error_body(404, "no \"x\"", "model_not_found", "model"),
            R"({"error":{"message":"no \"x\"","type":"not_found_error",)"
            R"("param":"model","code":"model_not_found"}})");
  EXPECT_EQ(api_error_body(502, "m"),
            R"({"error":{"message":"m","type":"server_error","param":null,"code":null}})");
  EXPECT_TRUE(api_error_body(400, "m").contains("\"invalid_request_error\""));
  EXPECT_TRUE(api_error_body(401, "m").contains("\"authentication_error\""));
  EXPECT_TRUE(api_error_body(403, "m").contains("\"permission_error\""));
  EXPECT_TRUE(api_error_body(429, "m").contains("\"rate_limit_error\""));
}

}  // namespace
}  // namespace heng
