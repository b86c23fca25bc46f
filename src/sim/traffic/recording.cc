// Requests come in the order of their arrival, each when it and all before it have ended.
#include "sim/traffic/recording.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <utility>

#include "sim/traffic/conversations.h"

namespace heng {

namespace {

using Event = PoolEvent::Kind;

bool brings_prompt(const LogLine& line) {
  return line.kind == LogLine::Kind::event &&
         (line.event.kind == Event::reserve || line.event.kind == Event::reserve_on);
}

std::uint32_t whole_tokens(double tokens) {
  return static_cast<std::uint32_t>(std::clamp(std::round(tokens), 0.0, double{kTrafficTokensMax}));
}

/// Tokens of a block, on average: the gateway's estimate moves, but equal blocks must be equally long.
Result<std::uint32_t> tokens_of_block(const std::string& path) {
  auto file = RecordingFile::open(path);
  if (!file) return std::unexpected(file.error());
  double sum = 0, blocks = 0;
  LogLine line;
  for (Result<bool> more = file->next(line);; more = file->next(line)) {
    if (!more) return std::unexpected(more.error());
    if (!*more) return blocks == 0 ? 1 : std::max(whole_tokens(sum / blocks), 1U);
    if (!brings_prompt(line)) continue;
    const auto count = static_cast<double>(line.event.request.prefix.size());
    sum += count * line.event.request.block_tokens;
    blocks += count;
  }
}

class RecordedTraffic final : public TrafficSource {
 public:
  RecordedTraffic(RecordingFile file, std::uint32_t block_tokens)
      : file_(std::move(file)), conversations_(block_tokens) {}

  Result<bool> next(TrafficRequest& out) override {
    while (true) {
      while (!pending_.empty() && pending_.front().done) {
        Pending front = std::move(pending_.front());
        pending_.pop_front();
        ++first_;
        if (!front.answered) continue;
        out = std::move(front.request);
        out.pieces = conversations_.pieces(front.blocks, out.prompt_tokens, out.output_tokens);
        if (!start_) start_ = out.at;
        // Two processes that share the file write in turns.
        out.at = last_ = std::max(out.at - *start_, last_);
        return true;
      }
      const Result<bool> more = file_.next(line_);
      if (!more) return more;
      if (*more) {
        take();
      } else if (numbers_.empty()) {
        return false;
      } else {
        give_up([](const auto&) { return true; });
      }
    }
  }

 private:
  struct Pending {
    TrafficRequest request;
    std::vector<std::uint64_t> blocks{};  // of its prompt
    bool answered = false;
    bool done = false;
  };
  struct Run {
    Instant began;
    Duration since_1970;
  };

  void take() {
    if (line_.kind == LogLine::Kind::run) {
      give_up([&](const auto& request) { return request.first.first == line_.process; });
      runs_[line_.process] = {line_.at, from_seconds(std::clamp(line_.time_s, 0.0, 4e9))};
    } else if (line_.kind == LogLine::Kind::request) {
      const Run run = runs_[line_.process];
      numbers_[{line_.process, line_.request}] = first_ + pending_.size();
      pending_.push_back({.request = {.at = run.since_1970 + (line_.at - run.began)}});
    } else if (line_.kind == LogLine::Kind::done) {
      const auto found = numbers_.find({line_.process, line_.request});
      if (found == numbers_.end()) return;
      pending_[found->second - first_].done = true;
      numbers_.erase(found);
    } else if (brings_prompt(line_)) {
      const RequestView& request = line_.event.request;
      if (Pending* pending = find(request.id)) {
        pending->request.client = request.affinity;
        pending->request.stream = request.stream;
        pending->blocks.assign(request.prefix.begin(), request.prefix.end());
      }
    } else if (line_.kind == LogLine::Kind::event && line_.event.kind == Event::end) {
      Pending* const pending = find(line_.event.attempt.request);
      if (pending != nullptr) take_end(*pending, line_.event.attempt);
    }
  }

  /// How these ended is not known: their process has.
  template <class Which>
  void give_up(Which which) {
    std::erase_if(numbers_, [&](const auto& request) {
      if (!which(request)) return false;
      pending_[request.second - first_].done = true;
      return true;
    });
  }

  Pending* find(std::uint64_t request) {
    const auto found = numbers_.find({line_.process, request});
    return found == numbers_.end() ? nullptr : &pending_[found->second - first_];
  }

  /// Of several attempts the answer counts; one that failed or was taken back may have brought a part of it.
  static void take_end(Pending& pending, const AttemptEvent& end) {
    if (end.outcome != Outcome::ok && end.output_tokens <= 0) return;
    TrafficRequest& request = pending.request;
    request.prompt_tokens = whole_tokens(end.prompt_tokens);
    request.output_tokens = whole_tokens(end.output_tokens);
    pending.answered = request.prompt_tokens != 0 || request.output_tokens != 0;
  }

  RecordingFile file_;
  Conversations conversations_;
  LogLine line_;
  std::map<std::uint64_t, Run> runs_;  // by process
  std::deque<Pending> pending_;
  std::uint64_t first_ = 0;                                                   // number of the front
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::uint64_t> numbers_;  // of those not done
  std::optional<Duration> start_;
  Duration last_{};
};

}  // namespace

Result<RecordingFile> RecordingFile::open(const std::string& path) {
  auto file = LineFile::open(path);
  if (!file) return std::unexpected(file.error());
  return RecordingFile(std::move(*file));
}

Result<bool> RecordingFile::next(LogLine& line) {
  std::optional<Error> broken;
  for (std::string_view text;;) {
    const Result<bool> more = file_.next(text);
    if (!more || !*more) {
      unfinished_ += broken.has_value();
      return more;
    }
    if (text.empty()) continue;
    const Result<void> read = reader_.read(text, line);
    if (broken && (!read || line.kind != LogLine::Kind::run)) return std::unexpected(*broken);
    if (read) {
      unfinished_ += broken.has_value();
      return true;
    }
    broken = file_.mistake(read.error().message);
    if (text.ends_with('}')) return std::unexpected(*broken);
  }
}

Result<std::unique_ptr<TrafficSource>> open_recording(const std::string& path) {
  const auto block_tokens = tokens_of_block(path);
  if (!block_tokens) return std::unexpected(block_tokens.error());
  auto file = RecordingFile::open(path);
  if (!file) return std::unexpected(file.error());
  return std::make_unique<RecordedTraffic>(std::move(*file), *block_tokens);
}

}  // namespace heng
