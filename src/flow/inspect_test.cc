// Request inspection: what is read, what is refused, and that it refuses exactly what a strict JSON parser
// refuses.
#include "flow/inspect.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <simdjson.h>

#include "base/buffer.h"

namespace heng {
namespace {

struct Inspected {
  Buffer storage;
  RequestFacts facts;
  std::optional<ApiError> error;
};

RequestInspector& inspector() {
  static RequestInspector shared;
  return shared;
}

Inspected inspect(std::string_view body, std::uint32_t depth_max = 128) {
  Inspected result;
  result.storage.append(body);
  result.error = inspector().inspect_json(result.storage.view(), depth_max, result.facts);
  return result;
}

TEST(Inspect, ReadsWhatRoutingNeeds) {
  const Inspected got =
      inspect(R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":"hi"}],)"
              R"("model" : "llama" ,"stream":true,"max_tokens":17,"user":"u1"})");
  ASSERT_FALSE(got.error);
  EXPECT_EQ(got.facts.model, "llama");
  EXPECT_EQ(got.facts.model_token, "\"llama\"");
  EXPECT_TRUE(got.facts.stream);
  EXPECT_EQ(got.facts.output_tokens_max, 17u);
  EXPECT_EQ(got.facts.user, "u1");
  EXPECT_NE(got.facts.prompt_start_hash, 0u);
  EXPECT_EQ(got.facts.prompt_bytes, 64u);
}

TEST(Inspect, ConversationKeepsItsHashThroughItsTurns) {
  const auto first =
      inspect(R"({"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"a"}]})");
  const auto second =
      inspect(R"({"model":"m","messages":[{"role":"system","content":"s"}, {"role":"user","content":"a"},)"
              R"({"role":"assistant","content":"b"},{"role":"user","content":"c"}]})");
  const auto other =
      inspect(R"({"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"x"}]})");
  EXPECT_EQ(first.facts.prompt_start_hash, second.facts.prompt_start_hash);
  EXPECT_NE(first.facts.prompt_start_hash, other.facts.prompt_start_hash);
}

TEST(Inspect, HashesOfLongFirstMessagesGoByTheirBeginning) {
  const auto hash = [](const std::string& system, const std::string& user) {
    return inspect(R"({"model":"m","messages":[{"role":"system","content":")" + system +
                   R"("},{"role":"user","content":")" + user + R"("}]})")
        .facts.prompt_start_hash;
  };
  const std::string most(40'000, 'a'), rest(30'000, 'b');
  EXPECT_NE(hash(most, rest), hash(most, "c" + rest));
  EXPECT_EQ(hash(most, rest), hash(most, rest + "c"));
  EXPECT_EQ(hash(most + rest, "x"), hash(most + rest, "y"));
}

TEST(Inspect, EscapedKeyIsTheSameKey) {
  EXPECT_EQ(inspect(R"({"mod\u0065l":"m"})").facts.model, "m");
  EXPECT_EQ(inspect(R"({"model":"a","mod\u0065l":"b"})").error->code, "duplicate_key");
  EXPECT_EQ(inspect(R"({"model":"\u006d\n"})").facts.model, "m\n");
}

TEST(Inspect, RefusesWithTheFieldAtFault) {
  const auto param = [](std::string_view body) {
    const auto got = inspect(body);
    return got.error ? got.error->param : std::string("accepted");
  };
  EXPECT_EQ(param(R"({"model":5})"), "model");
  EXPECT_EQ(param(R"({"model":["a"]})"), "model");
  EXPECT_EQ(param(R"({"user":{"a":1}})"), "user");
  EXPECT_EQ(param(R"({"stream":"yes"})"), "stream");
  EXPECT_EQ(param(R"({"max_tokens":-1})"), "max_tokens");
  EXPECT_EQ(param(R"({"max_tokens":1e400})"), "max_tokens");
  EXPECT_EQ(param(R"({"n":1000000000})"), "n");
  EXPECT_EQ(param(R"({"logprobs":1e9})"), "logprobs");
  EXPECT_EQ(param(R"({"top_logprobs":2.5})"), "top_logprobs");
  EXPECT_EQ(param(R"({"best_of":"2"})"), "best_of");
  EXPECT_EQ(param(R"({"max_tokens":1e2,"max_completion_tokens":100.0})"), "accepted");
  EXPECT_EQ(param(R"({"max_tokens":null,"n":1,"logprobs":true,"stream":null,"model":null})"), "accepted");
}

TEST(Inspect, RefusesEveryKnownKeyGivenTwice) {
  for (const char* key :
       {"model", "messages", "prompt", "input", "stream", "max_tokens", "n", "user", "best_of",
        "max_completion_tokens", "max_output_tokens", "previous_response_id", "logprobs", "top_logprobs"}) {
    const auto got = inspect(fmt::format(R"({{"{0}":null,"other":1,"{0}":null}})", key));
    ASSERT_TRUE(got.error) << key;
    EXPECT_EQ(got.error->code, "duplicate_key") << key;
  }
  EXPECT_FALSE(inspect(R"({"other":1,"other":2,"max_tokens":1,"max_completion_tokens":2})").error);
}

TEST(Inspect, NestingIsBounded) {
  const auto nested = [](int depth) {
    return "{\"model\":\"m\",\"x\":" + std::string(depth, '[') + std::string(depth, ']') + "}";
  };
  EXPECT_FALSE(inspect(nested(31), 32).error);
  EXPECT_TRUE(inspect(nested(32), 32).error);
  EXPECT_TRUE(inspect(nested(100000)).error);
  EXPECT_TRUE(inspect("{\"messages\":" + std::string(100000, '[')).error);
}

/// The reference: simdjson's DOM parser validates everything.
bool strict_object(std::string_view text) {
  simdjson::dom::parser parser;
  simdjson::dom::element element;
  return parser.parse(simdjson::padded_string(text)).get(element) == simdjson::SUCCESS && element.is_object();
}

TEST(Inspect, AgreesWithStrictParserOnHandPickedTexts) {
  for (const std::string_view text : std::initializer_list<std::string_view>{
           "{}",
           " {} ",
           "{\"a\":1}",
           "{\"a\":\"b\":1}",
           "{\"a\":\"b\" :[}",
           "{\"a\":[\"b\":1]}",
           R"({"a":[[["messages":[{"rorole":"lserssages":[{"rorole":"lser","content":"rmexu,_tok",)"
           R"("content":"rmexu,_tokEns":16:[ssa[]]]]]]]]]]})",
           "{\"a\":{\"b\":\"c\":1}}",
           "{\"model\":\"c\":1}",
           "{\"a\":01}",
           "{\"a\":1.}",
           "{\"a\":.5}",
           "{\"a\":-}",
           "{\"a\":1e}",
           "{\"a\":1e+5}",
           "{\"a\":tru}",
           "{\"a\":true}",
           "{\"a\":nul}",
           "{\"a\":\"\\x\"}",
           "{\"a\":\"\\u12g4\"}",
           "{\"a\":\"\\u1234\"}",
           "{\"a\":1,}",
           "{,}",
           "{\"a\" 1}",
           "{\"a\":1 \"b\":2}",
           "{\"a\":[1,]}",
           "{\"a\":[1 2]}",
           "{\"a\":[,1]}",
           "{\"a\":{\"b\":[{}]}}",
           "{\"a\":\"\t\"}",
           "{\"a\":\"\xff\"}",
           "{\"a\":\"x\"y}",
           "{\"a\":1}}",
           "{\"a\":1} x",
           "{\"a\":1",
           "{\"a\"",
           "{\"a",
           "{",
           "[]",
           "1",
           "",
           "{a:1}",
           "{'a':1}",
           "{\"\\u00\":1}",
           "{\"a\":\"\\ud800\"}",
           "{\"a\":\"\\\"}",
           "{\"a\":\"\\\\\"}",
           "{\"a\":[\"\\\"]\"]}",
           "{\"a\":+1}",
           "{\"a\":[\"b\":1]}",
           "{\"a\":[[\"b\":x]]}",
           "{\"a\":[[[\"b\":[x[]]]]]}",
           "{\"a\":\"b\":1}",
           "{\"a\":[\"b\":[x]]}",
           "{\"prompt\":\"b\":[x]}",
           "{\"model\":\"b\":[x]}",
           "{\"messages\":[{\"role\":\"user\":[x]}]}",
           "{\"a\":0x1}",
           std::string_view("{\"a\":1}\0", 8),
           std::string_view("{\"a\":1\0}", 8),
           std::string_view("{\"a\":true\0}", 11)}) {
    // A lone surrogate is grammatically fine (RFC 8259 8.2); the DOM parser refuses it since it decodes
    // strings.
    if (text.find("\\ud800") != text.npos) continue;
    EXPECT_EQ(!inspect(text).error.has_value(), strict_object(text)) << text;
  }
}

rc::Gen<std::string> json_like_text() {
  // Tokens in random order: mostly nearly valid.
  return rc::gen::map(
      rc::gen::container<std::vector<std::string>>(rc::gen::elementOf(std::vector<std::string>{
          "{",       "}",      "[",        "]",        ",",    ":",         "\"a\"", "\"b\\n\"",
          "\"\\q\"", "1",      "-2.5e3",   "01",       "true", "false",     "null",  "nulll",
          " ",       "\"k\":", "\"k\":1,", "{\"k\":[", "]}",   "\"unclosed"})),
      [](const std::vector<std::string>& tokens) {
        std::string text = "{\"k\":";
        for (const std::string& token : tokens) text += token;
        return text + "}";
      });
}

TEST(Inspect, AgreesWithStrictParserOnRandomTexts) {
  EXPECT_TRUE(rc::check("accepts exactly the objects a validating parser accepts", [] {
    const std::string text = *json_like_text();
    RC_ASSERT(!inspect(text).error.has_value() == strict_object(text));
  }));
}

TEST(Inspect, TheLargerOfTwoLimitsCounts) {
  for (const char* body : {R"({"max_tokens":1,"max_completion_tokens":900})",
                           R"({"max_completion_tokens":900,"max_tokens":1,"max_output_tokens":null})"})
    EXPECT_EQ(inspect(body).facts.output_tokens_max, 900u);
}

std::string form(std::string_view disposition, std::string_view value = "m") {
  return fmt::format("--X\r\n{}\r\n\r\n{}\r\n--X--\r\n", disposition, value);
}

TEST(Multipart, FindsTheModelField) {
  const std::string body =
      "preamble\r\n--X\r\nContent-Disposition: form-data; name=\"file\"; "
      "filename=\"a\"\r\n\r\nname=\"model\"\r\n\r\n--X \r\nContent-Type: text/plain\r\n"
      "Content-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--X--\r\nepilogue";
  for (const char* type :
       {"multipart/form-data; boundary=X", "multipart/form-data; boundary=\"X\"; charset=utf-8",
        "multipart/form-data;Boundary = X ;", "multipart/form-data; xboundary=Y; BOUNDARY=X"})
    EXPECT_EQ(multipart_model(type, body), "whisper-1") << type;
  for (const char* disposition :
       {"Content-Disposition: form-data; name=model", "content-disposition:form-data;NAME = \"model\"",
        "Content-Disposition: form-data; filename=\"name=;x\"; name=\"model\""})
    EXPECT_EQ(multipart_model("multipart/form-data; boundary=X", form(disposition)), "m") << disposition;
  for (const char* disposition : {"Content-Disposition: form-data; name=\"file\"; filename=\"model\"",
                                  "Content-Disposition: form-data; name=\"a; name=\\\"; filename=\"model\"",
                                  "Content-Disposition: form-data; name=\"Model\"",
                                  "Content-Disposition: form-data; xname=model; name=a"})
    EXPECT_NE(multipart_model("multipart/form-data; boundary=X", form(disposition)).value_or(""), "m")
        << disposition;
  EXPECT_EQ(multipart_model("multipart/form-data; boundary=X", "--X--\r\n"), "");
  EXPECT_EQ(multipart_model("multipart/form-data; boundary=X",
                            "--X\r\nContent-Disposition: form-data; name=model\r\n\r\n--X--\r\n"),
            "")
      << "empty";
}

TEST(Multipart, WhatCanBeReadInTwoWaysIsRefused) {
  const std::string good = form("Content-Disposition: form-data; name=\"model\"");
  for (const char* type :
       {"multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=\"\"",
        "multipart/form-data; boundary=Y", "multipart/form-data; boundary=X; boundary=Y",
        "multipart/form-data; boundary=\"X", "multipart/form-data; boundary=\"X\"Y",
        "multipart/form-data; boundary*=X", "multipart/form-data; boundary=\"\\X\""})
    EXPECT_FALSE(multipart_model(type, good)) << type;
  EXPECT_FALSE(multipart_model("multipart/form-data; boundary=\"\"",
                               "--\r\nContent-Disposition: form-data; name=model\r\n\r\nm\r\n----\r\n"));
  for (const char* disposition :
       {"Content-Disposition: form-data; name=\"a\"; name=\"model\"",
        "Content-Disposition: form-data; name=\"mod\\el\"",
        "Content-Disposition: form-data; name*=utf-8''model; name=a", "Content-Disposition: form-data",
        "Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=model",
        "Content-Disposition: form-data;\r\n name=model", "Content-Disposition: form-data; name=\"model",
        "Content-Disposition: form-data; name=a\nContent-Disposition: form-data; name=model"})
    EXPECT_FALSE(multipart_model("multipart/form-data; boundary=X", form(disposition))) << disposition;
  const std::string part = good.substr(0, good.find("--X--"));
  for (const std::string& body :
       {part + good, part, part + "--Xtra\r\n" + good.substr(5), std::string("--X")})
    EXPECT_FALSE(multipart_model("multipart/form-data; boundary=X", body)) << body;
}

}  // namespace
}  // namespace heng
