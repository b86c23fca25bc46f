// One engine replica as the gateway sees it: its connections, its health, and the models it says it serves.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "control/load_poll.h"
#include "control/worker_health.h"
#include "host/engine_load_reader.h"
#include "live/http_client.h"

namespace heng {

/// Whether a worker called `host` may be at this address, for workers that the configuration file does not
/// name.
Result<void> admit_worker(const WorkerAllow& allow, const std::string& host, const SocketAddress& address);

class Worker;

/// A pool that hears at once what is new about its workers. Takes itself off the list before it dies.
class WorkerWatcher {
 public:
  /// What may be done with the worker has changed.
  virtual void on_standing_changed() = 0;
  virtual void on_engine_load(const Worker& worker) = 0;

 protected:
  ~WorkerWatcher() = default;
};

/// Shared by the pools it is a member of and the requests under way on it; lives on the gateway's loop. The
/// last owner must let go outside of callbacks of its connections (the gateway keeps it until its own timer
/// fires).
class Worker {
 public:
  /// `joins_late`: the gateway serves already, see WorkerHealth. `gateway` outlives the worker: what is
  /// allowed at run time is read there at each connection.
  Worker(Loop& loop, Resolver& resolver, const WorkerConfig& config, const Config& gateway, bool joins_late);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// Two configurations with the same key are the same worker: its state survives a reload. A
  /// worker that is trusted wherever it is never is the same as one that is not.
  static std::string key_of(const WorkerConfig& config);
  /// Takes what a reload may change while the worker stays.
  void configure(const Config& gateway);

  const WorkerConfig& config() const { return config_; }
  /// Before the first request, and when the files may have changed; a problem is logged, and what was loaded
  /// before stays.
  void load_tls(ClientTlsContexts& contexts);
  HttpOrigin& origin() { return origin_; }
  /// How often it has sent bytes that belong to no request, nor to a probe.
  std::uint64_t unasked() const { return origin_.unasked() + own_origin_.unasked(); }
  const WorkerHealth& health() const { return health_; }
  std::uint64_t identity() const { return identity_; }  // hash of the URL
  /// "Host: ...\r\n" and, with an API key, "Authorization: Bearer ...\r\n".
  const std::string& address_fields() const { return address_fields_; }

  /// Sends probes and queries that are due. About every 100 ms.
  void tick(Instant now);
  /// The models its /v1/models listed last; empty if it has not answered yet.
  const std::vector<std::string>& models() const { return models_; }
  /// Asks for the models now and then; off unless somebody needs them.
  void discover_models(Duration every) { discovery_every_ = every; }
  /// Asked for, and no answer yet from a worker that is not known to be down.
  bool models_awaited() const {
    return discovery_every_ > Duration(0) && !models_known_ && health_.state() != HealthState::ejected;
  }
  /// Bumped with every change of models().
  std::uint32_t models_version() const { return models_version_; }

  /// Reads its metrics page at the configured interval from now on, or no more. What it says, or that it says
  /// nothing, means nothing to its health.
  void read_engine_load(bool wanted, Instant now);
  /// As it said last; not known if it has not, or is not asked any more.
  const EngineLoad& engine_load() const { return load_; }

  // What happens to attempts, for its health; see there. Every started one is ended.
  void attempt_started(const RequestView& request, Instant now);
  void flowing(std::uint64_t request, Outcome outcome, Instant now);
  void attempt_ended(std::uint64_t request, Outcome outcome, Instant now);
  void progress(Instant now) {
    health_.on_progress(now);
    if (health_.standing() != told_) tell();
  }
  void watch(WorkerWatcher& watcher) { watchers_.push_back(&watcher); }
  void unwatch(WorkerWatcher& watcher) { std::erase(watchers_, &watcher); }

  /// True once after each silence: what waits there without a byte should look whether it waits in vain.
  bool take_stopped() { return std::exchange(silences_told_, health_.silences()) != health_.silences(); }

  std::uint32_t in_flight = 0;  // over all pools

 private:
  class Query;  // a small GET
  void on_probe_answer(int status, const ExchangeFailure* failure);
  void on_models_answer(int status);
  void on_load_answer(int status, const ExchangeFailure* failure);
  void set_load(const EngineLoad& load);
  void make_probe();
  void make_load_query();
  void tell();

  Loop& loop_;
  WorkerConfig config_;
  HealthConfig health_config_;
  EngineLoadConfig load_config_;
  std::uint64_t identity_;
  std::string address_fields_;
  HttpOrigin origin_;
  // For what the gateway asks itself: whatever a worker sends in its wrong place, an answer to a probe
  // reaches no client, and an answer to a client is no probe's.
  HttpOrigin own_origin_;
  WorkerHealth health_;
  Standing told_;  // to the watchers
  std::vector<WorkerWatcher*> watchers_;
  std::uint32_t silences_told_ = 0;
  std::unique_ptr<Query> probe_;
  std::unique_ptr<Query> discovery_;
  std::unique_ptr<Query> load_query_;
  Duration discovery_every_{0};
  Instant next_discovery_{};
  Buffer models_answer_;
  std::vector<std::string> models_;
  bool models_known_ = false;
  std::uint32_t models_version_ = 0;
  LoadPoll load_poll_;
  EngineLoadReader load_reader_;
  EngineLoad load_;
  std::string load_problem_;  // as last logged; "" = none
};

}  // namespace heng
