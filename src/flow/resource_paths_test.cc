// Paths of the API as they concern tenants.
#include "flow/resource_paths.h"

#include <gtest/gtest.h>

#include <string>

namespace heng {
namespace {

TEST(OpenCalls, AreInferenceAndMakingSomethingNew) {
  for (const char* path : {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses",
                           "/v1/rerank", "/v1/files", "/v1/audio/transcriptions", "/v1/images/generations",
                           "/v1/messages", "/v1/messages/count_tokens"}) {
    EXPECT_TRUE(is_open_call("POST", path)) << path;
  }
  EXPECT_TRUE(is_open_call("GET", "/v1/audio/voices"));
}

TEST(OpenCalls, NameNothingAndListNothing) {
  for (const char* path :
       {"/v1/responses/resp_1", "/v1/files/file-1", "/v1/files/1/content", "/v1/responses/resp_1/cancel",
        "/v1/chat/completions/chatcmpl-1", "/v1/audio/file-1", "/v1/files%2Ffile", "/v1/FILES",
        "/v1/fine_tuning/jobs", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"}) {
    for (const char* method : {"POST", "GET", "DELETE"})
      EXPECT_FALSE(is_open_call(method, path)) << method << " " << path;
  }
  for (const char* path : {"/v1/files", "/v1/responses", "/v1/chat/completions", "/v1/batches", "/v1/"}) {
    for (const char* method : {"GET", "HEAD", "DELETE", "PUT", "PATCH"})
      EXPECT_FALSE(is_open_call(method, path)) << method << " " << path;
  }
}

TEST(AnswerId, IsTheAnswersOwn) {
  EXPECT_EQ(answer_id(R"({"id":"file-1","object":"file"})", false), "file-1");
  EXPECT_EQ(answer_id("\n{ \"a\" : [1, {\"id\": \"x1\"}], \"id\" : \"b_1\" ,", false), "b_1");
  const std::string created = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{";
  EXPECT_EQ(answer_id(created + R"("id":"resp_1","object")", true), "resp_1");
  EXPECT_EQ(answer_id(created + R"("metadata":{"id":"x1"},"id":"resp_1",)", true), "resp_1");
  EXPECT_EQ(answer_id("data: {\"type\":\"ping\"}\n\ndata: {\"id\":\"resp_1\"}", true), "resp_1");
}

TEST(AnswerId, IsNotWhatTheClientWrote) {
  for (const char* text :
       {"", "{", R"({"id")", R"({"id":)", R"({"id":"cut)", R"({"id":"cut")", R"({"id":1,"x1":"y1"})",
        R"({"detail":[{"input":{"id":"x1"}}]})", R"({"metadata":{"id":"x1"},"user":"\"id\":\"x1\""})",
        R"([{"id":"x1"}])", R"({"response":{"id":"x1"}})", R"({"id":["x1"]})", R"({"a":"id","b":"x1"})",
        R"(said {"id":"x1"})", R"({}{"id":"x1"})", R"({"id":"x\u0031"} )", R"({"id":"files"})",
        R"({"id":"load_lora_adapter"})", R"({"id":""})"}) {
    EXPECT_EQ(answer_id(text, false), "") << text;
  }
  EXPECT_EQ(answer_id(R"(data: {"item":{"id":"x1"},"response":{"tools":[{"id":"x1"}]}})", true), "");
}

}  // namespace
}  // namespace heng
