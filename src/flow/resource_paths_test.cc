// Paths of the API as they concern tenants.
#include "flow/resource_paths.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace heng
