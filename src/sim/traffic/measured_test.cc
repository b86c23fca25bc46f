// Which measurements are read, and what is said about the others.
#include "sim/traffic/measured.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

namespace heng {
namespace {

std::string complaint(std::string_view line) {
  MeasuredLineReader reader;
  MeasuredLine out;
  const auto read = reader.read(line, out);
  return read ? "" : read.error().message;
}

std::string file(const std::string& name, std::string_view text) {
  const std::string path = testing::TempDir() + name;
  std::ofstream(path) << text;
  return path;
}

TEST(Measured, ReadsVllmTimes) {
  MeasuredLineReader reader;
  MeasuredLine out;
  const auto read =
      reader.read(R"({"run":"a","arrival_s":0.04,"input":40,"output":5,"queued_s":1.5,"first_token_s":2,)"
                  R"("last_token_s":4.5,"hash_ids_b16":[1,2]})",
                  out);
  ASSERT_TRUE(read && *read);
  EXPECT_EQ(out.run, "a");
  EXPECT_EQ(out.measured.request.at, 1500ms);
  EXPECT_EQ(out.measured.ttft, 500ms);
  EXPECT_EQ(out.measured.duration, 3s);
  EXPECT_EQ(out.measured.request.pieces.size(), 2u);
}

TEST(Measured, ReadsLinesOfTheSimulatorsLog) {
  MeasuredLineReader reader;
  MeasuredLine out;
  constexpr std::string_view kLine =
      R"({"policy":"hash","arrival_s":2,"end":"completed","ttft_ms":80,"duration_ms":900,)"
      R"("prompt_tokens":100,"cached_tokens":64,"output_tokens":9,"worker":3})";
  ASSERT_TRUE(reader.read(kLine, out).value());
  EXPECT_EQ(out.measured.cached_tokens, 64u);
  EXPECT_EQ(out.worker, "3");
  EXPECT_FALSE(reader
                   .read(R"({"arrival_s":2,"end":"failed","ttft_ms":0,"duration_ms":9,)"
                         R"("prompt_tokens":100,"output_tokens":9,"worker":null})",
                         out)
                   .value());
}

TEST(Measured, WhatWaitedInAGatewayCameLaterToItsEngine) {
  MeasuredLineReader reader;
  MeasuredLine out;
  constexpr std::string_view kLine =
      R"({"arrival_s":2,"stream":true,"queued_ms":500,"ttft_ms":750,"duration_ms":1500,"prompt_tokens":100,)"
      R"("output_tokens":9})";
  ASSERT_TRUE(reader.read(kLine, out).value());
  EXPECT_EQ(out.measured.request.at, 2500ms);
  EXPECT_EQ(out.measured.ttft, 250ms);
  EXPECT_EQ(out.measured.duration, 1s);
}

TEST(Measured, SaysWhatIsWrong) {
  EXPECT_THAT(complaint(R"({"arrival_s":1,"prompt_tokens":5,"output_tokens":2,"queued_ms":-1,"ttft_ms":9,)"
                        R"("duration_ms":9})"),
              testing::HasSubstr("`queued_ms` is -1: out of range"));
  EXPECT_THAT(complaint(R"({"arrival_s":1,"prompt_tokens":5,"output_tokens":2,"stream":false,"ttft_ms":9,)"
                        R"("duration_ms":9})"),
              testing::HasSubstr("does not tell when its first token came"));
  EXPECT_THAT(complaint("{"), testing::HasSubstr("not JSON"));
  EXPECT_THAT(complaint(R"({"arrival_s":1,"prompt_tokens":5,"output_tokens":2})"),
              testing::HasSubstr("needs `ttft_ms` and `duration_ms`"));
  EXPECT_THAT(complaint(R"({"arrival_s":1,"prompt_tokens":5,"output_tokens":2,"ttft_ms":9,"duration_ms":8})"),
              testing::HasSubstr("cannot be"));
  EXPECT_THAT(complaint(R"({"arrival_s":1,"prompt_tokens":5,"cached_tokens":6,"output_tokens":2,)"
                        R"("ttft_ms":9,"duration_ms":18})"),
              testing::HasSubstr("of a prompt of 5"));
}

TEST(Measured, KeepsRunsAndWorkersApart) {
  constexpr const char* kForm =
      R"({"run":"%s","worker":%d,"arrival_s":%d,"prompt_tokens":5,"output_tokens":2,)"
      R"("ttft_ms":9,"duration_ms":18})"
      "\n";
  std::string text;
  for (const auto& [run, worker, at] : {std::tuple{"a", 1, 7}, {"a", 2, 3}, {"a", 1, 5}, {"b", 1, 1}}) {
    char line[200];
    std::snprintf(line, sizeof line, kForm, run, worker, at);
    text += line;
  }
  const std::string paths[] = {file("measured.jsonl", text)};
  const auto unclear = read_measured(paths, {});
  ASSERT_FALSE(unclear.has_value());
  EXPECT_THAT(unclear.error().message, testing::HasSubstr("--run: a, b"));
  EXPECT_THAT(read_measured(paths, {.run = "c", .worker = ""}).error().message, testing::HasSubstr("a, b"));
  const auto runs = read_measured(paths, {.run = "a", .worker = ""});
  ASSERT_TRUE(runs.has_value());
  ASSERT_EQ(runs->size(), 2u);
  ASSERT_EQ((*runs)[0].requests.size(), 2u);
  EXPECT_EQ((*runs)[0].requests[0].request.at, 0s);
  EXPECT_EQ((*runs)[0].requests[1].request.at, 2s);
}

}  // namespace
}  // namespace heng
