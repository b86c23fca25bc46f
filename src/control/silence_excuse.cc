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
  waiting_.put(request.id, kHere, {now, request.prompt_tokens, request.stream});
}

bool SilenceExcuse::on_done(const RequestView& request, bool good, Instant now) {
  const std::optional<Waiting> done = waiting_.take(request.id, kHere);
  if (!done) return false;
  if (!good) return true;
  const double took_s = to_seconds(now - done->since);
  if (!done->stream) {
    whole_answer_s_ = fading_maximum(whole_answer_s_, took_s);
  } else if (done->tokens >= 1) {
    const double excuse_s = std::max(kPromptFactor * took_s, kExcessFactor * (took_s - kOverheadSeconds));
    per_token_s_ = fading_maximum(per_token_s_, excuse_s / done->tokens);
  }
  return true;
}

Instant SilenceExcuse::explained_until() const {
  const double per_token_s = std::max(per_token_s_, kPerTokenMinSeconds);
  const double whole_s = answered_ >= kAnswersInSilence ? 0 : kWholeAnswerFactor * whole_answer_s_;
  Instant latest{};
  waiting_.each([&](const Waiting& one) {
    const double excuse_s = std::max(one.tokens * per_token_s, one.stream ? 0 : whole_s);
    latest = std::max(latest, one.since + from_seconds(excuse_s));
  });
  return latest;
}

}  // namespace heng
