// A simulated cluster: engines, the gateways before them, and what goes wrong, driven by a queue of events.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "sim/engine.h"
#include "sim/sim_gateway.h"
#include "sim/tally.h"
#include "sim/traffic/traffic.h"

namespace heng {

struct SimWorker {
  EngineParams engine;
  double weight = 1;
  double capacity = 0;              // as declared to the gateways; 0 = not
  std::uint32_t max_in_flight = 0;  // of each gateway's requests; 0 = no limit; or kAdaptive
  Duration joins{0};                // since the start; the cache is empty then. In ascending order.
};

enum class FaultKind : std::uint8_t {
  die,   // requests break, connections are refused; what was cached is lost
  hang,  // nothing moves, as if stopped by a signal; connections are still accepted
  slow,  // by a factor
  mute,  // health checks get no answer; requests do
};
std::string_view to_string(FaultKind kind);

struct SimFault {
  FaultKind kind = FaultKind::die;
  Slot worker = 0;
  Duration at{0};
  Duration lasts{0};   // 0 = for good
  double factor = 10;  // of `slow`
};

struct ClusterOptions {
  std::vector<SimWorker> workers;
  std::vector<SimFault> faults;
  SimGatewayOptions gateway;
  std::uint32_t gateways = 1;
  Duration network{0};  // one way between a gateway and a worker
  Duration first_byte_timeout = 600s;
  Duration idle_timeout = 120s;
  std::uint64_t seed = 1;
};

/// arrived = completed + refused + failed + in_flight, after every event. Who waits in a gateway is in
/// flight.
struct ClusterCounts {
  std::uint64_t arrived = 0, completed = 0, refused = 0, failed = 0, in_flight = 0;
};

/// Runs in simulated time. Deterministic: options, traffic and seed fix every event. Memory follows the
/// requests in flight. Each request goes to a gateway drawn at random, as a load balancer before them would
/// do it; it is then handled by the same classes as live, with what that gateway knows: its own requests in
/// flight, how its attempts went, its probes. No output length is ever told.
class Cluster {
 public:
  /// `traffic` and `tally` outlive it. At least one worker joins at 0.
  Cluster(const ClusterOptions& options, TrafficSource& traffic, Tally& tally);
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  /// The next event; false when all requests have arrived and ended. Fails when the traffic does.
  Result<bool> step();
  /// Until step() is false.
  Result<void> run();

  /// Called with every request that has ended.
  void on_end(std::function<void(const RequestRecord&)> observer) { observer_ = std::move(observer); }

  Instant now() const { return now_; }
  const ClusterCounts& counts() const { return counts_; }
  const std::deque<SimGateway>& gateways() const { return gateways_; }
  const Engine& engine(Slot worker) const { return workers_[worker].engine; }
  std::size_t workers() const { return workers_.size(); }
  /// Aborts unless every request in flight waits or is on one worker, and all counts agree. O(in flight).
  void check_books() const;

 private:
  enum class Kind : std::uint8_t {
    arrival,
    tick,
    join,
    fault,
    recover,
    deliver,
    first,
    end,
    lost,
    probed,
    load_asked,
    load_told,
    engine,
    line
  };
  struct Event {
    Instant at;
    std::uint64_t order;  // breaks ties: first come, first served
    Kind kind;
    Outcome outcome;       // lost, probed, load_told
    std::uint32_t index;   // of a flight, worker, fault, or the gateway that probes, asks or has a line
    std::uint32_t serial;  // of the flight's attempt or the engine's schedule; slot probed or asked
    bool operator>(const Event& other) const { return at != other.at ? at > other.at : order > other.order; }
  };
  struct Worker {
    Engine engine;
    EngineParams params;
    std::uint32_t schedule = 0;                      // serial of the engine event that counts
    std::uint32_t deaths = 0, hangs = 0, mutes = 0;  // faults of the kind that act now
    double slowness = 1;
    Instant hung_since{};
    bool joined = false;
  };
  enum class Stage : std::uint8_t { free, waiting, trying };
  struct Flight {  // one request; slots are reused
    TrafficRequest request;
    RequestView view;
    Instant arrived, started;
    Instant waits_since;
    Duration waited{};
    Duration ttft{};
    std::uint32_t gateway = 0;
    std::uint32_t serial = 0;    // of its attempt; never starts anew
    std::uint32_t attempts = 0;  // begun
    std::uint32_t cached_tokens = 0;
    std::uint32_t output_tokens = 0;
    Slot worker = kNoSlot;
    Stage stage = Stage::free;
    TurnedAway turned_away = TurnedAway::no;
    bool on_engine = false;
    bool answering = false;
    bool cut = false;          // its answer, by the engine's context
    bool left_worker = false;  // has been moved off one that had gone silent
  };
  struct Deadline {
    Instant at;
    std::uint32_t flight, serial;
  };

  void push(Kind kind, Instant at, std::uint32_t index, std::uint32_t serial = 0,
            Outcome outcome = Outcome::ok);
  Result<void> handle(const Event& event);
  Result<void> read_traffic();
  void arrive();
  void start_attempt(std::uint32_t index, Slot slot);
  void deliver(std::uint32_t index);
  void run_engine(Slot slot);
  void schedule_engine(Slot slot);
  void on_first(std::uint32_t index);
  void on_answer_end(std::uint32_t index);
  void on_lost(std::uint32_t index, Outcome outcome);
  void try_again(std::uint32_t index, Outcome outcome);
  void wait_in_line(std::uint32_t index, Slot avoid);
  void serve_line(std::uint32_t gateway);
  void turn_away(std::uint32_t index, TurnedAway why);
  void leave_worker(std::uint32_t gateway, Slot slot);
  void leave_engine(Flight& flight, std::uint32_t index);
  void end_attempt(std::uint32_t index, Outcome outcome);
  void finish(std::uint32_t index, RequestEnd end);
  void join(Slot slot);
  void begin_fault(const SimFault& fault);
  void end_fault(const SimFault& fault);
  void break_streams(Slot slot, bool answering_only, Outcome outcome);
  void set_speed(Slot slot);
  void tick();
  void tell_load(std::uint32_t gateway, Slot slot);
  void check_deadlines();
  void sample();
  EngineRequest engine_request(std::uint32_t index) const;
  RequestView view_for_choice(const Flight& flight);
  bool is_current(std::uint32_t index, std::uint32_t serial) const {
    return flights_[index].stage == Stage::trying && flights_[index].serial == serial;
  }

  ClusterOptions options_;
  TrafficSource& traffic_;
  Tally& tally_;
  std::function<void(const RequestRecord&)> observer_;
  std::vector<Worker> workers_;
  std::deque<SimGateway> gateways_;
  std::vector<Event> events_;  // heap, earliest first
  std::uint64_t order_ = 0;
  std::vector<Flight> flights_;
  std::vector<std::uint32_t> free_flights_;
  std::deque<Deadline> deadlines_;  // of first bytes, in order
  TrafficRequest next_request_;
  bool begun_ = false;
  bool traffic_ended_ = false;
  std::vector<EngineLoad> loads_told_;  // [gateways x workers] on their way
  Rng front_;                           // which gateway a request comes to
  ClusterCounts counts_;
  Instant now_{};
  Instant next_sample_{};
  std::vector<EngineEvent> engine_events_;  // scratch, like all below
  SimGatewayDue due_;
  std::vector<char> flowing_;
  std::vector<std::uint32_t> in_flight_, waiting_;
  std::vector<std::uint64_t> prefix_;
};

}  // namespace heng
