// The admin API's side of workers: what they are doing, and adding, draining, removing and weighting them.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "gateway/admin_answer.h"
#include "gateway/gateway.h"
#include "live/http_server.h"

namespace heng {

/// Lives on the gateway's loop. Whoever calls has made sure that the client may do this.
class AdminWorkers {
 public:
  explicit AdminWorkers(Gateway& gateway) : gateway_(gateway) {}

  static constexpr std::string_view kPathStart = "/api/v1/pools/";

  /// `/api/v1/pools/{model}/workers[/{name}[/drain|/ready]]`. Nothing if the answer comes later, on the
  /// connection: the name of a new worker has to be looked up.
  std::optional<AdminAnswer> answer(ServerConnection& connection, std::string_view method,
                                    std::string_view path, std::string_view query);
  /// All workers, or those of one pool.
  std::string list_json(const ModelPool* only = nullptr) const;

 private:
  class Addition;
  struct Place {
    const PoolConfig* pool = nullptr;
    std::string model;     // as asked for
    std::string worker;    // "" = all
    std::string_view act;  // "drain", "ready" or ""
  };
  struct Seat {
    std::shared_ptr<ModelPool> pool;
    Slot slot = kNoSlot;
  };

  std::optional<Place> place_of(std::string_view path) const;
  std::optional<AdminAnswer> add(ServerConnection& connection, const Place& place);
  AdminAnswer put_added(const std::string& model, const WorkerConfig& worker);
  AdminAnswer change(const Place& place, std::string_view method, std::string_view body,
                     std::string_view query);
  AdminAnswer set_weight(WorkerChange change, const WorkerConfig& worker, std::string_view body);
  AdminAnswer remove(WorkerChange change, bool now);
  AdminAnswer apply(WorkerChange change, int status = 200);
  const PoolConfig* pool_named(std::string_view model) const;
  std::vector<Seat> seats_of(const WorkerChange& change) const;
  std::string worker_json(const ModelPool& pool, Slot slot, std::span<const double> shares) const;

  Gateway& gateway_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // guards calls that come back later
};

}  // namespace heng
