// The OpenAI-compatible gateway: configuration, pools, workers and requests on one loop.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/rng.h"
#include "config/config.h"
#include "flow/inspect.h"
#include "flow/retry_budget.h"
#include "flow/sticky_table.h"
#include "gateway/access.h"
#include "gateway/exchange.h"
#include "gateway/key_uses.h"
#include "gateway/model_pool.h"
#include "gateway/recorder.h"
#include "gateway/roster.h"
#include "gateway/tenant_uses.h"
#include "gateway/worker.h"
#include "host/metrics.h"
#include "live/http_server.h"
#include "live/line_writer.h"
#include "live/resolver.h"

namespace heng {

/// Arrived = the sum of the others, at all times.
struct RequestTotals {
  std::uint64_t arrived = 0;
  std::uint64_t completed = 0;  // answered in full by a worker, or by the gateway itself (/v1/models)
  std::uint64_t refused = 0;    // answered with an error of the gateway's own
  std::uint64_t failed = 0;     // broken off after the answer had begun
  std::uint64_t canceled = 0;   // the client left
  std::uint64_t in_flight = 0;
};

/// Lives on its loop's thread. Must be destroyed between turns of the loop.
class Gateway final : public RequestHandler {
 public:
  Gateway(Loop& loop, Config config);
  ~Gateway() override;
  Gateway(const Gateway&) = delete;
  Gateway& operator=(const Gateway&) = delete;

  /// prepare() and listen().
  Result<void> start();
  /// Begins to probe the workers. Fails if the access log cannot be written.
  Result<void> prepare();
  /// Opens the API's port, or takes the socket of it that is there already. Fails if it cannot be had.
  Result<void> listen(InheritedSockets* inherited = nullptr);
  /// Every worker has been heard of or given up: what follows would be no wiser for waiting.
  bool settled() const;
  /// Applies a changed configuration without touching requests under way. Addresses to listen on cannot
  /// change while running: that fails, and nothing is changed.
  Result<void> reload(Config config);
  /// After the access log has been moved away: what follows goes to a new file of its name.
  void reopen_access_log();
  /// Stops accepting; `idle()` turns true when the last request has ended.
  void drain();
  /// A successor accepts from here on. Nothing is closed: each connection gets its next answer with a word to
  /// come again, and idle ones keep their usual time.
  void retire() { server_.retire(); }
  /// Of the API; -1 if there is none.
  int listener() const { return server_.listener(); }
  /// What a successor should know: changes made at run time, and where sessions and stored resources live.
  std::string handover_state() const;
  /// Its counterpart: before prepare() the changes, which must not be lost; before listen() the memory, of
  /// which what cannot be understood is left.
  Result<void> take_changes(std::string_view state);
  void take_memory(std::string_view state);
  bool idle() const { return totals_.in_flight == 0 && server_.connections() == 0; }

  /// What the API's clients are met with; null = without TLS.
  const TlsContext& tls() const { return tls_.to_clients.context; }
  Endpoint endpoint() const { return server_.endpoint(); }
  const Config& config() const { return config_; }
  const RequestTotals& totals() const { return totals_; }
  MetricRegistry& metrics() { return metrics_; }
  std::string metrics_page();
  /// By model name; aliases are not keys.
  const std::map<std::string, std::shared_ptr<ModelPool>>& pools() const { return pools_; }
  /// Who the workers are and what was changed about them at run time.
  const Roster& roster() const { return roster_; }
  /// Replaces all changes made at run time; requests under way are not touched.
  void set_overlay(WorkerOverlay overlay);
  /// Breaks off what is under way on the worker in this slot: what has no byte of its answer yet goes
  /// elsewhere if it may.
  void cut_worker(const ModelPool& pool, Slot slot);
  Resolver& resolver() { return resolver_; }
  /// True when some worker of some pool may be given requests.
  bool ready() const;
  bool draining() const { return draining_; }
  Loop& loop() { return loop_; }
  /// Never told to anybody: for hash tables that others must not be able to fill at will.
  std::uint64_t secret_seed() const { return secret_seed_; }
  double uptime_s() { return to_seconds(loop_.now() - started_); }
  /// Seconds since 1970, for logs, the API's `created` and the expiry of keys: it may be set back or forth at
  /// any time, so nothing else is decided by it.
  static double wall_time_s();

 private:
  friend class Exchange;

  bool on_head(ServerConnection& connection) override;
  void on_request(ServerConnection& connection) override;
  void on_bad_request(int status) override;
  void answer_models(ServerConnection& connection);
  struct LoadedTls {
    ServerTls to_clients;
    ClientTlsContexts to_workers;
  };
  static Result<LoadedTls> read_tls(const Config& config);
  void use_tls(LoadedTls tls);
  void tick();
  void build_pools();
  std::uint64_t discovered_version() const;
  /// Some worker whose models are to be discovered has not answered yet since it was configured.
  bool discovering() const;
  std::shared_ptr<Worker> worker_for(const WorkerConfig& config);
  void drop_from_retired(const std::string& model, const PoolConfig& config,
                         std::span<const std::shared_ptr<Worker>> workers);
  void put_pool(const std::string& model, const PoolConfig& config,
                std::vector<std::shared_ptr<Worker>> workers);
  /// Null also for what the tenant may not use: nobody learns which models others have.
  std::shared_ptr<ModelPool> find_pool(std::string_view model, const Tenant* tenant) const;
  std::string new_request_id();
  void recycle(Exchange* exchange);
  void hedge_later(Exchange& exchange);
  void hedge_due();
  void leave_stopped_workers();

  Loop& loop_;
  Config config_;
  double wall_started_s_;
  Instant started_;
  std::uint64_t seed_;
  std::uint64_t secret_seed_;
  Rng rng_;
  MetricRegistry metrics_;
  Access access_;
  Resolver resolver_;
  RequestInspector inspector_;
  RetryBudget hedge_budget_;
  KeyUses key_uses_;
  TenantUses tenant_uses_;
  StickyTable resources_;  // hash of a response's or file's id -> identity of the worker that has it
  StickyTable owners_;     // hash of such an id -> hash of the tenant that made it
  Roster roster_;
  std::unique_ptr<Recorder> recorder_;                      // null: nothing is recorded
  std::map<std::string, std::shared_ptr<Worker>> workers_;  // by Worker::key_of
  std::map<std::string, std::shared_ptr<ModelPool>> pools_;
  std::map<std::string, std::string, std::less<>> names_;  // every name clients may use -> model of the pool
  std::vector<std::shared_ptr<ModelPool>> retired_pools_;  // until their last request has ended
  std::vector<std::shared_ptr<Worker>> retired_workers_;
  std::uint64_t discovered_version_ = 0;
  RequestTotals totals_;
  std::vector<std::unique_ptr<Exchange>> exchanges_;
  std::vector<Exchange*> free_exchanges_;
  std::vector<HeaderField> answer_fields_;    // scratch
  std::vector<std::uint64_t> prompt_blocks_;  // scratch
  std::unique_ptr<LineWriter> access_log_;
  bool draining_ = false;
  bool serving_ = false;  // workers that come from now on join late
  HttpServer server_;
  LoadedTls tls_;
  Timer tick_timer_;
  struct HedgeEntry {
    Instant due;
    Exchange* exchange;
    std::uint64_t request_id;
  };
  std::deque<HedgeEntry> hedges_;  // soonest first
  Timer hedge_timer_;              // for the front of hedges_
};

}  // namespace heng
