// The keyed hash against the published test vectors.
#include "base/keyed_hash.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <vector>

namespace heng {
namespace {

std::vector<std::uint8_t> bytes_of(std::size_t count, std::uint8_t value) {
  return std::vector<std::uint8_t>(count, value);
}

TEST(KeyedHash, MatchesRfc4231) {
  EXPECT_EQ(to_hex(hmac_sha256(bytes_of(20, 0x0b), "Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(
      to_hex(hmac_sha256(bytes_of(131, 0xaa), "Test Using Larger Than Block-Size Key - Hash Key First")),
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
  const std::uint8_t jefe[] = {'J', 'e', 'f', 'e'};
  EXPECT_EQ(to_hex(hmac_sha256(jefe, "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(KeyedHash, AnEmptyKeyIsNotTheKeyBefore) {
  static_cast<void>(hmac_sha256(bytes_of(20, 0x0b), "x"));
  EXPECT_EQ(to_hex(hmac_sha256({}, "")), "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

TEST(KeyedHash, ComparesWhole) {
  Digest a{}, b{};
  EXPECT_TRUE(equal_in_constant_time(a, b));
  b.back() = 1;
  EXPECT_FALSE(equal_in_constant_time(a, b));
  EXPECT_TRUE(equal_in_constant_time("abc", "abc"));
  EXPECT_FALSE(equal_in_constant_time("abc", "abd"));
  EXPECT_FALSE(equal_in_constant_time("abc", "ab"));
  EXPECT_FALSE(equal_in_constant_time("ab", "abc"));
}

RC_GTEST_PROP(KeyedHash, HexComesBack, (const std::vector<std::uint8_t>& bytes)) {
  const std::string text = to_hex(bytes);
  std::vector<std::uint8_t> again(bytes.size());
  RC_ASSERT(from_hex(text, again));
  RC_ASSERT(again == bytes);
}

TEST(KeyedHash, RefusesWhatIsNotHex) {
  std::uint8_t two[2];
  for (const char* text : {"", "abc", "abcde", "ABCD", "12g4", "12 4", "-123"}) {
    EXPECT_FALSE(from_hex(text, two)) << text;
  }
}

}  // namespace
}  // namespace heng
