// Tells recorded events to new pools, to see whether they decide the same, or how another policy would.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "flow/pool.h"
#include "host/event_log.h"
#include "policy/route/registry.h"

namespace heng {

struct ReplayPolicy {
  const RoutePolicyEntry* entry = nullptr;
  OptionValues options;
};

/// One decision, beside the recorded one.
struct ReplayedChoice {
  std::string_view request;  // its id; "" if the recording does not tell
  std::string_view model;
  double time_s = 0;          // since 1970
  std::string_view recorded;  // name of the worker; "" = none had room, and so below
  std::string_view replayed;
  bool same = false;
  bool bound = false;  // no choice: it went where its session or resource is, if there is room
  const RequestView* view = nullptr;
  struct Judged {
    std::string_view worker;
    Candidate candidate;
    bool full = false;
    bool avoided = false;  // it has just failed this request
  };
  std::vector<Judged> candidates;  // of a request that is to be explained and was not bound
};

/// The gateway's own pools and policies. Where the replayed decision is another one, the attempt is taken to
/// go there exactly as it went on the recorded worker, for nobody knows how it would have gone.
class Replay {
 public:
  using OnChoice = std::function<void(const ReplayedChoice&)>;

  /// `policy`: in the place of all that were recorded. `explain`: id of a request. `on_choice` hears of each
  /// decision; what it is given is valid during the call.
  Replay(std::optional<ReplayPolicy> policy, std::string explain, OnChoice on_choice);

  /// The next line. Fails if it does not fit those before it; no more may follow then.
  Result<void> take(const LogLine& line);

  struct Share {
    std::uint64_t recorded = 0;  // decisions for this worker
    std::uint64_t replayed = 0;
  };
  /// By model and name of the worker.
  const std::map<std::pair<std::string, std::string>, Share>& shares() const { return shares_; }
  /// Versions of the programs that recorded.
  const std::vector<std::string>& programs() const { return programs_; }

 private:
  struct Placement {
    std::uint32_t pool;
    Slot recorded;
    Slot replayed;  // kNoSlot: there was no room
    bool ended = false;
  };
  struct Request {
    std::string id;
    std::vector<Placement> placements;
  };
  struct Member {
    std::string name;
    Share* share = nullptr;
  };
  struct ReplayedPool {
    std::string model;
    Pool pool;
    std::vector<Slot> slots;      // [recorded slots] the replayed ones
    std::vector<Member> members;  // [replayed slots]
  };
  struct Run {
    Instant began{};
    double began_s = 0;
    std::map<std::uint32_t, ReplayedPool> pools;
    std::unordered_map<std::uint64_t, Request> requests;  // under way
  };

  Result<void> make_pool(Run& run, const LogLine& line) const;
  Result<void> name_worker(ReplayedPool& pool, const LogLine& line);
  Result<void> tell(Run& run, ReplayedPool& pool, const LogLine& line);
  void decide(Run& run, ReplayedPool& pool, const LogLine& line, const PoolEvent& event);
  void judge(ReplayedPool& pool, const PoolEvent& event, ReplayedChoice& choice) const;

  std::optional<ReplayPolicy> policy_;
  std::string explain_;
  OnChoice on_choice_;
  std::map<std::uint64_t, Run> runs_;  // by process
  std::map<std::pair<std::string, std::string>, Share> shares_;
  std::vector<std::string> programs_;
};

}  // namespace heng
