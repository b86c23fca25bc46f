// Word lists and the choice of a word by position.
#include "sim/text.h"

#include "base/hash.h"

namespace heng {
namespace {

// Each entry is four bytes. Sentences have eleven words: one of kFirst, nine of kInner, one of kLast.
constexpr std::string_view kFirst =
    "The All One Two Our Any Few Now Yet But Let See Why How Her His You Not And For She Who ";
constexpr std::string_view kInner =
    "the and any are arm art ask bag bar bed big bit box boy bus but buy can cap car cat cup cut day dog dry "
    "due "
    "ear eat egg end eye far fat few fit fly for fox fun gap get guy hat her his hot ice ill job key kid law "
    "lay "
    "leg let lie lot low man map mix new now oak odd off oil old one our out own pay pen pet pie pot put raw "
    "red "
    "row run sad saw sea see set she sit six sky son sun tax tea ten tie tin toe too top toy try two use via "
    "war "
    "was way wet who why win yes yet you zoo ";
constexpr std::string_view kLast = "it. in. us. up. on. so. by. me. go. do. at. of. ";
constexpr std::size_t kWordBytes = 4;
constexpr std::uint64_t kSentenceWords = 11;

constexpr std::string_view pick(std::string_view words, std::uint64_t number) {
  return words.substr(number % (words.size() / kWordBytes) * kWordBytes, kWordBytes);
}

static_assert(kFirst.size() % kWordBytes == 0 && kInner.size() % kWordBytes == 0 &&
              kLast.size() % kWordBytes == 0);

}  // namespace

std::string_view filler_word(std::uint64_t seed, std::uint64_t index) {
  const std::uint64_t draw = combine(seed, index);
  const std::uint64_t place = index % kSentenceWords;
  if (place == 0) return pick(kFirst, draw);
  return pick(place + 1 == kSentenceWords ? kLast : kInner, draw);
}

std::string filler_text(std::uint64_t seed, std::uint64_t tokens) {
  std::string text;
  text.reserve(tokens * kWordBytes);
  for (std::uint64_t i = 0; i < tokens; ++i) text += filler_word(seed, i);
  return text;
}

}  // namespace heng
