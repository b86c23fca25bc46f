// A search for two names, then a look at the object behind them.
#include "flow/usage.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <optional>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace heng {

namespace {

constexpr std::string_view kWhite = " \t\r\n";
constexpr std::string_view kUsage = "\"usage\"", kTimings = "\"timings\"";
constexpr std::uint32_t kTokensMax = 100'000'000;  // no request takes that much: a mistake or a lie

/// A quote from `at` on behind which one of the names may stand.
std::size_t next_name(std::string_view text, std::size_t at) {
#ifdef __SSE2__
  const auto load = [&](std::size_t from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(text.data() + from));
  };
  for (; at + 17 <= text.size(); at += 16) {
    const __m128i second = load(at + 1);
    const __m128i letters =
        _mm_or_si128(_mm_cmpeq_epi8(second, _mm_set1_epi8('u')), _mm_cmpeq_epi8(second, _mm_set1_epi8('t')));
    const __m128i both = _mm_and_si128(_mm_cmpeq_epi8(load(at), _mm_set1_epi8('"')), letters);
    const auto mask = static_cast<std::uint32_t>(_mm_movemask_epi8(both));
    if (mask != 0) return at + static_cast<unsigned>(std::countr_zero(mask));
  }
#endif
  for (; at < text.size(); ++at) {
    if (text[at] == '"' && (at + 1 == text.size() || text[at + 1] == 'u' || text[at + 1] == 't')) return at;
  }
  return text.npos;
}

/// The object that begins with `text`; "" if it is cut.
std::string_view whole_object(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (in_string && c == '\\') {
      ++at;
    } else if (c == '"') {
      in_string = !in_string;
    } else if (!in_string) {
      depth += c == '{' ? 1 : c == '}' ? -1 : 0;
      if (depth == 0) return text.substr(0, at + 1);
    }
  }
  return {};
}

/// The numbers of one object.
struct Numbers {
  std::string_view object;
  bool plausible = true;  // of all that were asked for

  std::optional<std::uint32_t> of(std::string_view name) {
    const std::size_t at = object.find(name);
    if (at == object.npos) return std::nullopt;
    const std::size_t digit = std::min(object.find_first_not_of(": \t\r\n", at + name.size()), object.size());
    std::uint32_t number = 0;
    const auto [end, error] = std::from_chars(object.data() + digit, object.data() + object.size(), number);
    if (error == std::errc::invalid_argument) return std::nullopt;
    plausible = plausible && error == std::errc() && number <= kTokensMax;
    return number;
  }
  std::optional<std::uint32_t> either(std::string_view a, std::string_view b) {
    const auto number = of(a);
    return number ? number : of(b);
  }
};

}  // namespace

void UsageReader::take(std::string_view piece) {
  if (held_ != 0 && resume(piece)) return;
  for (std::size_t at = next_name(piece, 0); at != piece.npos; at = next_name(piece, at + 1)) {
    const std::string_view rest = piece.substr(at);
    if (read(rest) != Found::cut || rest.size() >= kHeldMax) continue;
    std::ranges::copy(rest, held_bytes_.begin());
    held_ = rest.size();
    return;
  }
}

/// True if all of the piece is held: what is cut goes on.
bool UsageReader::resume(std::string_view piece) {
  const std::size_t before = held_;
  const std::string_view added = piece.substr(0, kHeldMax - held_);
  std::ranges::copy(added, held_bytes_.begin() + static_cast<std::ptrdiff_t>(before));
  const std::string_view held(held_bytes_.data(), before + added.size());
  for (std::size_t at = 0; at < before; at = next_name(held, at + 1)) {
    if (read(held.substr(at)) != Found::cut || added.size() != piece.size()) continue;
    std::memmove(held_bytes_.data(), held_bytes_.data() + at, held.size() - at);
    held_ = held.size() - at;
    return true;
  }
  held_ = 0;
  return false;
}

/// `text` begins with a quote.
UsageReader::Found UsageReader::read(std::string_view text) {
  text = text.substr(0, kHeldMax);
  const auto begins = [&](std::string_view name) { return name.starts_with(text.substr(0, name.size())); };
  const bool is_usage = begins(kUsage);
  if (!is_usage && !begins(kTimings)) return Found::none;
  std::size_t at = is_usage ? kUsage.size() : kTimings.size();
  for (const char mark : {':', '{'}) {
    at = at < text.size() ? text.find_first_not_of(kWhite, at) : text.npos;
    if (at == text.npos) return Found::cut;
    if (text[at] != mark) return Found::none;
    ++at;
  }
  const std::string_view object = whole_object(text.substr(at - 1));
  if (object.empty()) return Found::cut;
  if (is_usage) {
    note_usage(object);
  } else if (!standard_) {
    note_timings(object);
  }
  return Found::whole;
}

void UsageReader::note_usage(std::string_view object) {
  Numbers numbers{object};
  const auto prompt = numbers.either("\"prompt_tokens\"", "\"input_tokens\"");
  const auto cached = numbers.of("\"cached_tokens\"");
  const auto output = numbers.either("\"completion_tokens\"", "\"output_tokens\"");
  if (!numbers.plausible) return;
  if (prompt) {
    usage_ = {.prompt_tokens = *prompt,
              .cached_tokens = cached.value_or(0),
              .cached_known = cached.has_value(),
              .output_tokens = output.value_or(0)};
    standard_ = true;
  } else if (standard_ && output) {  // Anthropic's streams tell the prompt's only once
    usage_.output_tokens = *output;
  }
}

/// llama-server ends a stream whose client did not ask for `usage` with its timings: tokens from the cache,
/// tokens processed, tokens made (llama.cpp, tools/server/README.md, "timings").
void UsageReader::note_timings(std::string_view object) {
  Numbers numbers{object};
  const auto cached = numbers.of("\"cache_n\""), processed = numbers.of("\"prompt_n\"");
  const auto made = numbers.of("\"predicted_n\"");
  if (!cached || !processed || !numbers.plausible) return;
  usage_ = {.prompt_tokens = *cached + *processed,
            .cached_tokens = *cached,
            .cached_known = true,
            .output_tokens = made.value_or(0)};
}

void UsageReader::reset() {
  usage_ = {};
  standard_ = false;
  held_ = 0;
}

}  // namespace heng
