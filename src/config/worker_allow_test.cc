// The allow-list for workers named at run time: ranges, names, and addresses that hide what they are.
#include "config/worker_allow.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "config/values.h"

namespace heng {
namespace {

using testing::HasSubstr;

WorkerAllow allow_list(std::initializer_list<const char*> entries) {
  WorkerAllow allow;
  for (const char* entry : entries) EXPECT_TRUE(allow_worker(allow, entry).has_value()) << entry;
  return allow;
}

bool allows(const WorkerAllow& allow, const std::string& address, const std::string& host = "") {
  const auto ip = parse_ip(address);
  EXPECT_TRUE(ip.has_value()) << address;
  const auto verdict = check_worker_address(allow, host.empty() ? address : host, *ip);
  EXPECT_TRUE(verdict || verdict.error().code == ErrorCode::refused);
  return verdict.has_value();
}

TEST(WorkerAllow, TakesPrivateAndLoopbackAddressesByDefault) {
  const WorkerAllow allow = default_worker_allow();
  for (const char* address : {"127.0.0.1", "127.255.0.9", "10.0.0.1", "172.16.0.1", "172.31.255.255",
                              "192.168.7.7", "::1", "fd12:3456::1", "::ffff:10.0.0.1"}) {
    EXPECT_TRUE(allows(allow, address)) << address;
  }
  for (const char* address : {"8.8.8.8", "172.15.255.255", "172.32.0.0", "192.169.0.1", "11.0.0.0",
                              "2001:db8::1", "::ffff:8.8.8.8", "100.64.0.1"}) {
    EXPECT_FALSE(allows(allow, address)) << address;
  }
}

TEST(WorkerAllow, NeverTakesLinkLocalMetadataAndReservedAddressesHoweverWritten) {
  const WorkerAllow all = allow_list({"0.0.0.0/0", "::/0", "metadata.example.com"});
  EXPECT_TRUE(allows(all, "8.8.8.8"));
  for (const char* address : {"169.254.169.254",
                              "169.254.0.1",
                              "::ffff:169.254.169.254",
                              "::ffff:a9fe:a9fe",
                              "fe80::1",
                              "febf:ffff::1",
                              "fd00:ec2::254",
                              "fd20:ce::254",
                              "100.100.100.200",
                              "168.63.129.16",
                              "192.0.0.192",
                              "0.0.0.0",
                              "0.1.2.3",
                              "::",
                              "224.0.0.1",
                              "255.255.255.255",
                              "ff02::1",
                              "64:ff9b::a9fe:a9fe",
                              "2002:a9fe:a9fe::1",
                              "::169.254.169.254",
                              "::ffff:0:169.254.169.254",
                              "2001:0:1:2:3:4:5601:5601"}) {
    EXPECT_FALSE(allows(all, address)) << address;
    EXPECT_FALSE(allows(all, address, "metadata.example.com")) << address;
  }
}

TEST(WorkerAllow, NamesAreAllowedByThemselvesOrBelowAName) {
  const WorkerAllow allow = allow_list({"gpu1.example.com", "*.Cloud.example.com"});
  EXPECT_TRUE(allows(allow, "8.8.8.8", "gpu1.example.com"));
  EXPECT_TRUE(allows(allow, "8.8.8.8", "GPU1.example.com."));
  EXPECT_TRUE(allows(allow, "8.8.8.8", "a.b.cloud.example.com"));
  for (const char* host : {"gpu2.example.com", "xgpu1.example.com", "cloud.example.com",
                           "evilcloud.example.com", "gpu1.example.com.evil.net"}) {
    EXPECT_FALSE(allows(allow, "8.8.8.8", host)) << host;
  }
}

TEST(WorkerAllow, EmptyListTakesNothing) { EXPECT_FALSE(allows({}, "127.0.0.1")); }

TEST(WorkerAllow, EntriesThatSayNothingAreExplained) {
  for (const auto& [entry, word] :
       std::initializer_list<std::pair<const char*, const char*>>{{"10.0.0.1/8", "10.0.0.0/8"},
                                                                  {"10.0.0.0/33", "0 to 32"},
                                                                  {"10.0.0.0/", "0 to 32"},
                                                                  {"::1/129", "0 to 128"},
                                                                  {"10.0.0/8", "neither"},
                                                                  {"host/8", "neither"},
                                                                  {"*", "neither"},
                                                                  {"a.*.com", "neither"},
                                                                  {"http://a", "neither"},
                                                                  {"", "neither"}}) {
    WorkerAllow allow;
    const auto added = allow_worker(allow, entry);
    ASSERT_FALSE(added.has_value()) << entry;
    EXPECT_THAT(added.error().message, HasSubstr(word)) << entry;
  }
}

TEST(WorkerUrl, OtherSchemesUsersAndDisguisedAddressesAreRefused) {
  for (const char* url :
       {"file:///etc/passwd", "FILE:/etc/passwd", "gopher://10.0.0.1:70/_x", "unix:/run/x.sock",
        "data:text/plain,x", "ftp://10.0.0.1", "http://user@10.0.0.1", "http://u:p@10.0.0.1:80/",
        "http://10.0.0.1:80@169.254.169.254/", "http://2852039166/", "http://0xa9fea9fe", "http://0xA9.254.1",
        "http://0251.0376.0251.0376/", "http://127.1:80", "http://169.254.169.254./", "http://10.0.0.1.0x1",
        "http://1.2.3.4.5"}) {
    const auto verdict = check_worker_url(url);
    ASSERT_FALSE(verdict.has_value()) << url;
    EXPECT_EQ(verdict.error().code, ErrorCode::refused) << url;
  }
  for (const char* url : {"http://10.0.0.1:8000", "https://gpu1.example.com/base", "http://[::1]:80",
                          "http://0xcafe.example.com", "http://7up", "HTTP://a", "10.0.0.1:8000", ""}) {
    EXPECT_TRUE(check_worker_url(url).has_value()) << url;
  }
}

IpAddress any_address() {
  IpAddress address = *rc::gen::container<IpAddress>(rc::gen::arbitrary<std::uint8_t>());
  if (*rc::gen::arbitrary<bool>()) {  // IPv4
    std::fill_n(address.begin(), 10, std::uint8_t{0});
    address[10] = address[11] = 0xff;
  }
  return address;
}

RC_GTEST_PROP(WorkerAllowProperty, AddressesSurviveWritingAndReading, ()) {
  const IpAddress address = any_address();
  const std::string text = format_ip(address);
  RC_ASSERT(parse_ip(text) == address);
}

/// Against a range worked out bit by bit.
RC_GTEST_PROP(WorkerAllowProperty, RangesHoldExactlyTheirAddresses, ()) {
  const IpAddress base = any_address();
  const bool four = format_ip(base).find(':') == std::string::npos;
  const int least = four ? 96 : 0;
  const int bits = *rc::gen::inRange(least, 129);
  const auto bit_of = [](const IpAddress& a, int bit) { return (a[bit / 8] >> (7 - bit % 8)) & 1; };
  IpAddress first = base;
  for (int bit = bits; bit < 128; ++bit) first[bit / 8] &= static_cast<std::uint8_t>(~(0x80 >> (bit % 8)));
  WorkerAllow allow;
  const std::string text = format_ip(first) + "/" + std::to_string(bits - least);
  RC_ASSERT(allow_worker(allow, text).has_value());
  IpAddress other = base;
  const int flipped = *rc::gen::inRange(least, 128);
  other[flipped / 8] ^= static_cast<std::uint8_t>(0x80 >> (flipped % 8));
  bool inside = true;
  for (int bit = 0; bit < bits; ++bit) inside = inside && bit_of(other, bit) == bit_of(base, bit);
  const bool same_family = four == (format_ip(other).find(':') == std::string::npos);
  RC_ASSERT(allow.ranges[0].contains(base));
  RC_ASSERT(allow.ranges[0].contains(other) == (inside && same_family));
}

/// Whatever inet_aton makes of a text, a URL with it is refused or is that very address plainly written.
RC_GTEST_PROP(WorkerAllowProperty, NumbersNeverPassAsNames, ()) {
  const auto part = [] {
    const auto value = *rc::gen::arbitrary<std::uint32_t>() >> *rc::gen::inRange(0, 32);
    char text[32];
    const char* form = *rc::gen::element("%u", "0x%x", "0%o", "0X%X");
    std::snprintf(text, sizeof text, form, value);
    return std::string(text);
  };
  std::string host = part();
  const int more = *rc::gen::inRange(0, 4);
  for (int i = 0; i < more; ++i) host += "." + part();
  if (*rc::gen::arbitrary<bool>()) host += ".";
  const std::string url = "http://" + host + ":8000";
  const bool plain = parse_ip(host).has_value();
  RC_ASSERT(check_worker_url(url).has_value() == plain);
  RC_ASSERT((!plain || parse_worker_url(url).has_value()));
}

RC_GTEST_PROP(WorkerAllowProperty, AnyTextIsJudgedWithoutHarm, (const std::string& text)) {
  const auto verdict = check_worker_url(text);
  RC_ASSERT((verdict || verdict.error().code == ErrorCode::refused));
  WorkerAllow allow;
  const auto added = allow_worker(allow, text);
  RC_ASSERT(added.has_value() == (allow.ranges.size() + allow.hosts.size() == 1));
}

}  // namespace
}  // namespace heng
