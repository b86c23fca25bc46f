// Learns from first bytes how long prompts take, and says how long those that wait may take.
#include "control/silence_excuse.h"

#include <algorithm>

namespace heng {

namespace {

constexpr Slot kHere = 0;  // the table is of one worker
constexpr double kFade = 0.05;
constexpr double kOverheadSeconds = 0.1;  // of a first byte, however short the prompt
constexpr double kPromptFactor = 1.5;
constexpr double kExcessFactor = 4;
constexpr double kPerTokenMinSeconds = 0.001;
constexpr double kWholeAnswerFactor = 2;
constexpr std::uint32_t kAnswersInSilence = 3;

double fading_maximum(double maximum, double sample) {
  return std::max(sample, maximum + kFade * (sample - maximum));
}

}  // namespace

void SilenceExcuse::on_started(const RequestView& request, Instant now) {
  RequestView kept = request;
  kept.prefix = {};  // valid during the call only
  waiting_.put(request.id, kHere, {kept, now});
}

bool SilenceExcuse::on_done(std::uint64_t request, bool good, Instant now) {
  const std::optional<Waiting> done = waiting_.take(request, kHere);
  if (!done) return false;
  if (!good) return true;
  const double took_s = to_seconds(now - done->since);
  if (!done->request.stream) {
    whole_answer_s_ = fading_maximum(whole_answer_s_, took_s);
  } else if (done->request.prompt_tokens >= 1) {
    const double excuse_s = std::max(kPromptFactor * took_s, kExcessFactor * (took_s - kOverheadSeconds));
    per_token_s_ = fading_maximum(per_token_s_, excuse_s / done->request.prompt_tokens);
  }
  return true;
}

Instant SilenceExcuse::explained_until(const RequestView& request, Instant since) const {
  const double prompt_s = request.prompt_tokens * std::max(per_token_s_, kPerTokenMinSeconds);
  const bool whole = !request.stream && answered_ < kAnswersInSilence;
  return since + from_seconds(std::max(prompt_s, whole ? kWholeAnswerFactor * whole_answer_s_ : 0.0));
}

Instant SilenceExcuse::explained_until() const {
  Instant latest{};
  waiting_.each(
      [&](const Waiting& one) { latest = std::max(latest, explained_until(one.request, one.since)); });
  return latest;
}

}  // namespace heng
