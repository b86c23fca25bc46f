// What an answer says it has cost, wherever it is cut and whatever else it says.
#include "flow/usage.h"

#include <gtest/gtest.h>

#include <string>

namespace heng {
namespace {

Usage read(std::initializer_list<std::string_view> pieces) {
  UsageReader reader;
  for (const std::string_view piece : pieces) reader.take(piece);
  return reader.usage();
}

const std::string kTimings =
    R"("timings":{"cache_n":1227,"prompt_n":26,"prompt_ms":34.3,"predicted_n":8,"predicted_ms":24.8}})";

TEST(Usage, IsFoundInBothDialects) {
  const Usage usage =
      read({R"(data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":5,"total_tokens":16,)"
            R"("prompt_tokens_details":{"cached_tokens":8}}})"});
  EXPECT_EQ(usage.prompt_tokens, 11u);
  EXPECT_EQ(usage.output_tokens, 5u);
  EXPECT_EQ(usage.cached_tokens, 8u);
  const Usage other = read({"\"usage\" : {\n\"input_tokens\" : 3, \"output_tokens\": 4}"});
  EXPECT_EQ(other.prompt_tokens, 3u);
  EXPECT_EQ(other.output_tokens, 4u);
  EXPECT_FALSE(other.cached_known);
  EXPECT_EQ(read({R"({"usage":null})"}).prompt_tokens, 0u);
}

TEST(Usage, IsFoundWhereverTheAnswerIsCut) {
  const std::string answer =
      R"({"a":"u","t":1,"usage":{"prompt_tokens":100,"completion_tokens":300,"d":{"cached_tokens":7}}})";
  for (std::size_t at = 0; at <= answer.size(); ++at) {
    for (std::size_t to = at; to <= answer.size(); ++to) {
      const std::string_view text = answer;
      const Usage usage = read({text.substr(0, at), text.substr(at, to - at), text.substr(to)});
      ASSERT_EQ(usage.prompt_tokens, 100u) << at << " " << to;
      ASSERT_EQ(usage.output_tokens, 300u) << at << " " << to;
      ASSERT_EQ(usage.cached_tokens, 7u) << at << " " << to;
    }
  }
  UsageReader reader;
  for (const char& byte : answer) reader.take({&byte, 1});
  EXPECT_EQ(reader.usage().output_tokens, 300u);
}

TEST(Usage, TheLastCountsAndWhatComesBehindDoesNotHideIt) {
  const std::string one = R"("usage":{"prompt_tokens":1,"completion_tokens":1},)";
  const std::string two = R"("usage":{"prompt_tokens":2,"completion_tokens":2},)";
  EXPECT_EQ(read({one + two + std::string(20'000, 'x') + "\""}).prompt_tokens, 2u);
  EXPECT_EQ(read({one + R"("usage":{"type":"object"},"usage":0})"}).prompt_tokens, 1u);
  EXPECT_EQ(read({"\"usage\":{" + std::string(5000, ' '), two}).prompt_tokens, 2u) << "one that never ends";
  EXPECT_EQ(read({"\"usage\":{" + std::string(90, ' '), std::string(5000, ' '), two}).prompt_tokens, 2u);
  // Anthropic's.
  const Usage usage = read({R"(data: {"message":{"usage":{"input_tokens":9,"output_tokens":1}}})",
                            R"(data: {"type":"message_delta","usage":{"output_tokens":50}})"});
  EXPECT_EQ(usage.prompt_tokens, 9u);
  EXPECT_EQ(usage.output_tokens, 50u);
}

TEST(Usage, IsNotWhatTextsAndSchemasSay) {
  EXPECT_EQ(read({R"("content":"\"usage\":{\"prompt_tokens\":5}")"}).prompt_tokens, 0u);
  EXPECT_EQ(read({R"("usage":0,"prompt_tokens":1,"completion_tokens":1)"}).prompt_tokens, 0u);
  EXPECT_EQ(read({R"("metadata":{"usage":"","prompt_tokens":"1"})"}).prompt_tokens, 0u);
  EXPECT_EQ(read({R"("usage":{"prompt_tokens":{"type":"integer"}},"prompt_tokens":3)"}).prompt_tokens, 0u);
}

TEST(Usage, IsIgnoredWhereItCannotBe) {
  for (const char* number : {"4294967295", "99999999999999999999", "100000001"}) {
    const std::string text = std::string(R"("usage":{"prompt_tokens":5,"completion_tokens":)") + number + "}";
    EXPECT_EQ(read({text}).prompt_tokens, 0u) << number;
  }
}

TEST(Usage, IsFoundInTheTimingsOfLlamaServer) {
  const Usage usage = read({R"(data: {"choices":[{"finish_reason":"length","delta":{}}],)" + kTimings});
  EXPECT_EQ(usage.prompt_tokens, 1253u);
  EXPECT_EQ(usage.cached_tokens, 1227u);
  EXPECT_TRUE(usage.cached_known);
  EXPECT_EQ(usage.output_tokens, 8u);
  const Usage both = read({R"({"usage":{"prompt_tokens":7,"completion_tokens":2},)" + kTimings});
  EXPECT_EQ(both.prompt_tokens, 7u) << "what is standard comes first";
  EXPECT_FALSE(both.cached_known);
  EXPECT_EQ(read({R"({"usage":null,)" + kTimings}).prompt_tokens, 1253u) << "as some write in every event";
  EXPECT_EQ(read({R"({"timings":{"prompt_n":26,"predicted_n":8}})"}).prompt_tokens, 0u)
      << "older ones say less";
  EXPECT_EQ(read({R"({"timings":{"cache_n":4294967295,"prompt_n":1}})"}).prompt_tokens, 0u);
}

}  // namespace
}  // namespace heng
