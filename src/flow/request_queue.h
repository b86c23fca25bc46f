// Who is next when every worker of a pool is full: priority first, then fairness between tenants by tokens.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <set>
#include <tuple>
#include <unordered_map>

#include "base/stats.h"
#include "base/time.h"

namespace heng {

/// Work of a request in units of a prompt token. An output token counts as two, as in Sheng et al. 2024
/// (section 5.1), where prices of public services are the reason.
constexpr double service_cost(double prompt_tokens, double output_tokens) {
  return prompt_tokens + 2 * output_tokens;
}

/// A request that may wait. Owned by whoever waits, must be removed before it goes; in one queue at a time.
struct QueuedRequest {
  static constexpr std::uint32_t kPriorityMax = 9, kPriorityNormal = 5;

  std::uint64_t tenant = 0;  // who pays for it
  double weight = 1;         // the tenant's share beside others'; > 0, alike for all its requests
  std::uint32_t priority = kPriorityNormal;  // 0 to kPriorityMax, higher goes first
  double cost = 0;                           // expected, see service_cost
  Instant deadline{};                        // comes out as expired then
  bool again = false;                        // it had its turn already: it goes before the tenant's others

 private:
  friend class RequestQueue;
  bool waiting_ = false;
  std::uint64_t number_ = 0;  // order of arrival
  std::list<QueuedRequest*>::iterator place_;

 public:
  bool waiting() const { return waiting_; }
};

/// Bounded. Between classes of priority the higher goes first, always; inside a class the virtual token
/// counter of Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024: the tenant with the least
/// service per weight is next, and one that comes back from idle is lifted to the least of those who wait, so
/// that nobody saves up for a burst. Unlike there, an answer is charged by expectation at dispatch and
/// settled at its end (their section 4.4), and service given while nobody had to wait is not charged.
/// Deterministic. All calls O(log waiting), except pop while heads of lines may not go.
class RequestQueue {
 public:
  explicit RequestQueue(std::size_t length) : length_(length) {}
  RequestQueue(const RequestQueue&) = delete;
  RequestQueue& operator=(const RequestQueue&) = delete;

  /// A shorter length sheds nobody: it holds for those who come.
  void set_length(std::size_t length) { length_ = length; }

  /// Queues the request. When that is one too many, returns who had to go: the youngest request of the tenant
  /// whose service would end last, in the lowest class; that may be the new one itself. Else nullptr.
  QueuedRequest* push(QueuedRequest& request, Instant now);

  /// Takes the next request off that `may_go`, and charges its tenant; nullptr if there is none. A head that
  /// may not go holds up its tenant's others of the class, nobody else.
  template <class MayGo>
  QueuedRequest* pop(Instant now, MayGo may_go) {
    for (const Key& key : next_) {
      QueuedRequest* head = line_of(key).front();
      if (!may_go(*head)) continue;
      dispatch(*head, now);
      return head;
    }
    return nullptr;
  }

  /// Takes one off whose deadline has passed; nullptr if there is none.
  QueuedRequest* pop_expired(Instant now);
  /// Whoever waits leaves.
  void remove(QueuedRequest& request);

  /// Service beyond (or, negative, below) what was charged at dispatch, or without having waited. Counts only
  /// for tenants that have waited of late.
  void charge(std::uint64_t tenant, double weight, double cost);

  /// How long those who wait now will take to be served, as the last seconds went.
  Duration drain_time(Instant now) const;

  std::size_t size() const { return by_deadline_.size(); }
  bool empty() const { return by_deadline_.empty(); }
  std::size_t length() const { return length_; }
  /// Whose service is remembered: those who wait and a bounded number of others.
  std::size_t tenants() const { return tenants_.size(); }

 private:
  static constexpr std::uint32_t kRanks = QueuedRequest::kPriorityMax + 1;
  static constexpr std::size_t kIdleTenantsMax = 4096;
  static constexpr Duration kRateHalfLife = 5s;

  struct Tenant {
    double served = 0;        // cost / weight
    double backlog = 0;       // cost / weight of those who wait
    std::uint64_t since = 0;  // breaks ties
    std::size_t waiting = 0;
    std::array<std::list<QueuedRequest*>, kRanks> lines;  // by rank: 0 is the most urgent
  };
  // Rank, service, arrival.
  using Key = std::tuple<std::uint32_t, double, std::uint64_t, Tenant*>;

  static std::uint32_t rank_of(const QueuedRequest& request) {
    return QueuedRequest::kPriorityMax - request.priority;
  }
  static std::list<QueuedRequest*>& line_of(const Key& key) {
    return std::get<Tenant*>(key)->lines[std::get<0>(key)];
  }
  /// Out of the orders before its service changes, and in again after.
  void unlist(Tenant& tenant);
  void list(Tenant& tenant);
  void lift(Tenant& tenant, std::uint32_t rank);
  void dispatch(QueuedRequest& request, Instant now);
  void take_off(Tenant& tenant, QueuedRequest& request);
  void forget_idle();

  std::size_t length_;
  std::unordered_map<std::uint64_t, Tenant> tenants_;  // nodes stay where they are
  std::set<Key> next_;                                 // a line each; by what the tenant has been served
  std::set<Key> last_;  // the same lines by what it will have been served when its requests are done
  std::set<std::tuple<Instant, std::uint64_t, QueuedRequest*>> by_deadline_;
  double level_ = 0;  // service of the tenant served last, before that
  std::uint64_t arrivals_ = 0;
  Instant last_dispatch_{};  // or when the first one began to wait
  Ewma interval_s_{kRateHalfLife};
};

}  // namespace heng
