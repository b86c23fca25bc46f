// Keyed hashes of secrets, and comparing them without telling by the time it takes how much was right.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace heng {

using Digest = std::array<std::uint8_t, 32>;

/// HMAC-SHA-256 (RFC 2104). The time depends on the length of `text` only.
Digest hmac_sha256(std::span<const std::uint8_t> key, std::string_view text);

/// The time depends on the sizes only.
bool equal_in_constant_time(std::string_view a, std::string_view b);
bool equal_in_constant_time(const Digest& a, const Digest& b);

std::string to_hex(std::span<const std::uint8_t> bytes);
/// False unless `text` is lower-case hexadecimal and fills `bytes` exactly.
bool from_hex(std::string_view text, std::span<std::uint8_t> bytes);

}  // namespace heng
