// Which parts of a head are the gateway's own affair.
#include "gateway/forwarding.h"

#include <gtest/gtest.h>

namespace heng {
namespace {

bool elsewhere(int status, std::string_view location) {
  HttpHead head;
  head.status = status;
  head.fields.push_back({"Location", location});
  WorkerConfig worker;
  worker.endpoint = {"10.0.0.1", 80};
  return redirects_elsewhere(head, worker);
}

TEST(Redirects, OfTheWorkerItselfStay) {
  for (const std::string_view to : {"", "/", "/v1/models", "v1/models?next=http://other/",
                                    "http://10.0.0.1/v1", "http://10.0.0.1:80/v1", "HTTP://10.0.0.1?a"})
    EXPECT_FALSE(elsewhere(302, to)) << to;
  EXPECT_FALSE(elsewhere(304, ""));
  EXPECT_FALSE(elsewhere(201, "http://other/"));
}

TEST(Redirects, ToOtherHostsAreSeen) {
  for (const std::string_view to :
       {"http://other/", "https://169.254.169.254", "//other/v1", "/\\other", "\\\\other",
        "http://10.0.0.1:81/", "http://10.0.0.1@other/", "file:///etc/passwd", "http://"})
    EXPECT_TRUE(elsewhere(307, to)) << to;
}

TEST(Replaced, AreTheFieldsThatSayWhoAsks) {
  for (const std::string_view name :
       {"X-Forwarded-For", "x-forwarded-anything-however-long-it-is", "X_Forwarded_For", "Forwarded",
        "X-Real-IP", "x_real_ip", "X-Heng-Tenant", "x-request-id", "True-Client-IP", "X-Cluster-Client-IP",
        "Content_Type", "content_encoding"})
    EXPECT_TRUE(is_replaced(name)) << name;
  for (const std::string_view name :
       {"x-forwarded", "forwarded-by", "x-real-ip-of-mine", "x-hengst", "user-agent",
        "x-cluster-client-ip-and-more", "authorization", "content-type", "Content-Encoding"})
    EXPECT_FALSE(is_replaced(name)) << name;
}

TEST(Credentials, AreKnownHoweverTheyAreWritten) {
  for (const std::string_view name :
       {"Authorization", "X-Api-Key", "api-key", "X_Api_Key", "API_KEY", "x-api_key"})
    EXPECT_TRUE(is_credential(name)) << name;
  for (const std::string_view name : {"", "x-api-keys", "key", "authorisation"})
    EXPECT_FALSE(is_credential(name)) << name;
}

TEST(Nominated, CannotBeWhatTheWorkerNeeds) {
  EXPECT_TRUE(is_nominated("close, X-Hop ,te", "x-hop"));
  EXPECT_FALSE(is_nominated("close, x-hop2", "x-hop"));
  for (const std::string_view name : {"authorization", "X-Api-Key", "content-type", "Content-Length"})
    EXPECT_FALSE(is_nominated("authorization, x-api-key, content-type, content-length", name)) << name;
}

TEST(ClientRetry, IsWhatTheOfficialClientsCount) {
  HttpHead head;
  EXPECT_FALSE(is_client_retry(head));
  head.fields.push_back({"x-stainless-retry-count", "0"});
  EXPECT_FALSE(is_client_retry(head));
  head.fields[0].value = "2";
  EXPECT_TRUE(is_client_retry(head));
}

}  // namespace
}  // namespace heng
