// Memory is charged to whoever it belongs to, wherever the buffers go.
#include "base/buffer.h"

#include <gtest/gtest.h>

namespace heng {
namespace {

TEST(Buffer, AccountsHoldWhatTheirBuffersHave) {
  MemoryAccount one, other;
  const std::uint64_t before = Buffer::held_bytes();
  {
    Buffer kept;
    {
      Buffer buffer;
      buffer.append("not charged");
      buffer.charge_to(&one);
      EXPECT_EQ(one.held_bytes, buffer.capacity());
      buffer.reserve(1000);
      EXPECT_EQ(one.held_bytes, 1000u);
      kept = std::move(buffer);
    }
    EXPECT_EQ(one.held_bytes, 1000u) << "moved on with its account";
    kept.charge_to(&other);
    EXPECT_EQ(one.held_bytes, 0u);
    EXPECT_EQ(other.held_bytes, 1000u);
    kept.release();
    EXPECT_EQ(other.held_bytes, 0u);
    kept.reserve(500);
    EXPECT_EQ(other.held_bytes, 500u) << "what comes is charged as before";
    Buffer second;
    second.charge_to(&one);
    second.reserve(70);
    kept = std::move(second);
    EXPECT_EQ(other.held_bytes, 0u);
    EXPECT_EQ(one.held_bytes, 70u);
    EXPECT_EQ(Buffer::held_bytes(), before + 70);
  }
  EXPECT_EQ(one.held_bytes, 0u);
  EXPECT_EQ(Buffer::held_bytes(), before);
}

}  // namespace
}  // namespace heng
