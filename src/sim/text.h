// Deterministic filler text: the words a simulated engine answers with, one per token.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace heng {

/// Token `index` of the text named by `seed`: a short English word with its blank or full stop, plain ASCII
/// that needs no escaping in JSON, exactly four bytes long, so that tokens counted by bytes (sim/prompt.h)
/// come out the same when an answer returns inside the next prompt. O(1); the view points to static storage.
std::string_view filler_word(std::uint64_t seed, std::uint64_t index);

/// The first `tokens` words, one after another: 4 x tokens bytes.
std::string filler_text(std::uint64_t seed, std::uint64_t tokens);

}  // namespace heng
