// Escapes 64 bytes at a time, since prompts are long and full of them; numbers.
#include "flow/json_text.h"

#include <algorithm>
#include <bit>
#include <cstdint>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace heng {

namespace {

bool is_hex(char c) { return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f'); }

/// At what comes after the backslash.
bool valid_escape(std::string_view text, std::size_t at) {
  if (text[at] == 'u') return at + 4 < text.size() && std::ranges::all_of(text.substr(at + 1, 4), is_hex);
  return std::string_view("\"\\/bfnrt").contains(text[at]);
}

#ifdef __SSE2__
/// Of 64 bytes, as bits: the first is the lowest.
struct Block {
  static constexpr std::size_t kBytes = 64, kVectors = kBytes / sizeof(__m128i);
  __m128i vectors[kVectors];

  explicit Block(const char* bytes) {
    for (std::size_t i = 0; i < kVectors; ++i)
      vectors[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes) + i);
  }
  std::uint64_t equal_any(std::string_view chars) const {
    std::uint64_t mask = 0;
    for (std::size_t i = 0; i < kVectors; ++i) {
      __m128i is = _mm_setzero_si128();
      for (const char c : chars) is = _mm_or_si128(is, _mm_cmpeq_epi8(vectors[i], _mm_set1_epi8(c)));
      mask |= static_cast<std::uint64_t>(static_cast<unsigned>(_mm_movemask_epi8(is))) << (16 * i);
    }
    return mask;
  }
};

/// The bytes that come after the backslash of an escape. `escaped`: the first byte does; then, whether the
/// byte after the last one does. Subtraction carries through each run of backslashes and so tells those that
/// begin an escape from those that end one (Langdale, Lemire 2019, "Parsing Gigabytes of JSON per Second",
/// 3.1.1).
std::uint64_t ends_of_escapes(std::uint64_t backslashes, bool& escaped) {
  constexpr std::uint64_t kOdd = 0xAAAA'AAAA'AAAA'AAAA;
  const std::uint64_t carried = escaped ? 1 : 0;
  const std::uint64_t may_begin = backslashes & ~carried;
  const std::uint64_t begins_or_ends = (((may_begin << 1) | kOdd) - may_begin) ^ kOdd;
  escaped = (begins_or_ends & backslashes) >> 63 != 0;
  return begins_or_ends ^ (backslashes | carried);
}
#endif

}  // namespace

bool valid_escapes(std::string_view text) {
  std::size_t at = 0;
  bool escaped = false;
#ifdef __SSE2__
  for (; at + Block::kBytes <= text.size(); at += Block::kBytes) {
    const Block block(text.data() + at);
    const std::uint64_t backslashes = block.equal_any("\\");
    if (backslashes == 0 && !escaped) continue;
    const std::uint64_t ends = ends_of_escapes(backslashes, escaped);
    // Nearly all are one of these; a branch for each would take more time than all of the parsing.
    for (std::uint64_t others = ends & ~block.equal_any("n\""); others != 0; others &= others - 1) {
      if (!valid_escape(text, at + static_cast<unsigned>(std::countr_zero(others)))) return false;
    }
  }
#endif
  for (; at < text.size(); ++at) {
    if (!escaped) {
      escaped = text[at] == '\\';
      continue;
    }
    if (!valid_escape(text, at)) return false;
    escaped = false;
  }
  return !escaped;
}

bool valid_number(std::string_view text) {
  std::size_t at = text.starts_with('-') ? 1 : 0;
  const auto digits = [&] {
    const std::size_t from = at;
    while (at < text.size() && text[at] >= '0' && text[at] <= '9') ++at;
    return at - from;
  };
  const bool leading_zero = at < text.size() && text[at] == '0';
  const std::size_t integer = digits();
  if (integer == 0 || (leading_zero && integer > 1)) return false;
  if (at < text.size() && text[at] == '.') {
    ++at;
    if (digits() == 0) return false;
  }
  if (at < text.size() && (text[at] | 0x20) == 'e') {
    ++at;
    if (at < text.size() && (text[at] == '+' || text[at] == '-')) ++at;
    if (digits() == 0) return false;
  }
  return at == text.size();
}

}  // namespace heng
