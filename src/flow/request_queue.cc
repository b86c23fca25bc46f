// The orders of waiting requests.
#include "flow/request_queue.h"

#include <algorithm>

#include "base/result.h"

namespace heng {

QueuedRequest* RequestQueue::push(QueuedRequest& request, Instant now) {
  HENG_ASSERT(!request.waiting_ && request.weight > 0 && request.priority <= QueuedRequest::kPriorityMax);
  if (empty()) last_dispatch_ = now;
  forget_idle();
  Tenant& tenant = tenants_[request.tenant];
  unlist(tenant);
  const std::uint32_t rank = rank_of(request);
  if (tenant.waiting == 0) lift(tenant, rank);
  request.waiting_ = true;
  request.number_ = ++arrivals_;
  std::list<QueuedRequest*>& line = tenant.lines[rank];
  request.place_ = line.insert(request.again ? line.begin() : line.end(), &request);
  ++tenant.waiting;
  tenant.backlog += request.cost / request.weight;
  by_deadline_.emplace(request.deadline, request.number_, &request);
  list(tenant);
  if (size() <= length_) return nullptr;
  QueuedRequest* shed = line_of(*last_.rbegin()).back();
  remove(*shed);
  return shed;
}

void RequestQueue::lift(Tenant& tenant, std::uint32_t rank) {
  tenant.since = arrivals_;
  const auto least = next_.lower_bound({rank, 0, 0, nullptr});
  const bool waits = least != next_.end() && std::get<0>(*least) == rank;
  tenant.served = std::max(tenant.served, waits ? std::get<double>(*least) : level_);
}

QueuedRequest* RequestQueue::pop_expired(Instant now) {
  if (empty() || std::get<Instant>(*by_deadline_.begin()) > now) return nullptr;
  QueuedRequest* request = std::get<QueuedRequest*>(*by_deadline_.begin());
  remove(*request);
  return request;
}

void RequestQueue::dispatch(QueuedRequest& request, Instant now) {
  interval_s_.add(to_seconds(now - last_dispatch_), now);
  last_dispatch_ = now;
  Tenant& tenant = tenants_.find(request.tenant)->second;
  unlist(tenant);
  take_off(tenant, request);
  level_ = std::max(level_, tenant.served);
  tenant.served += request.cost / request.weight;
  list(tenant);
}

void RequestQueue::remove(QueuedRequest& request) {
  if (!request.waiting_) return;
  Tenant& tenant = tenants_.find(request.tenant)->second;
  unlist(tenant);
  take_off(tenant, request);
  list(tenant);
}

void RequestQueue::take_off(Tenant& tenant, QueuedRequest& request) {
  tenant.lines[rank_of(request)].erase(request.place_);
  --tenant.waiting;
  // Rounding must not pile up over the life of a tenant.
  tenant.backlog = tenant.waiting == 0 ? 0 : tenant.backlog - request.cost / request.weight;
  by_deadline_.erase({request.deadline, request.number_, &request});
  request.waiting_ = false;
}

void RequestQueue::charge(std::uint64_t tenant, double weight, double cost) {
  const auto found = tenants_.find(tenant);
  if (found == tenants_.end()) return;
  unlist(found->second);
  found->second.served = std::max(0.0, found->second.served + cost / weight);
  list(found->second);
}

void RequestQueue::unlist(Tenant& tenant) {
  for (std::uint32_t rank = 0; rank < kRanks && tenant.waiting != 0; ++rank) {
    if (tenant.lines[rank].empty()) continue;
    next_.erase({rank, tenant.served, tenant.since, &tenant});
    last_.erase({rank, tenant.served + tenant.backlog, tenant.since, &tenant});
  }
}

void RequestQueue::list(Tenant& tenant) {
  for (std::uint32_t rank = 0; rank < kRanks && tenant.waiting != 0; ++rank) {
    if (tenant.lines[rank].empty()) continue;
    next_.insert({rank, tenant.served, tenant.since, &tenant});
    last_.insert({rank, tenant.served + tenant.backlog, tenant.since, &tenant});
  }
}

void RequestQueue::forget_idle() {
  if (tenants_.size() <= size() + kIdleTenantsMax) return;
  std::erase_if(tenants_, [](const auto& entry) { return entry.second.waiting == 0; });
}

Duration RequestQueue::drain_time(Instant now) const {
  // Silence since the last dispatch is news too: the workers may have become slower, or hang. It is one more
  // interval, no more, since batches end together and are followed by silence; what came before it fades.
  const double usual = interval_s_.mean(), silence = empty() ? 0 : to_seconds(now - last_dispatch_);
  const double interval = usual + std::max(silence - usual, 0.0) / (interval_s_.weight_at(now) + 1);
  return from_seconds(static_cast<double>(size()) * interval);
}

}  // namespace heng
