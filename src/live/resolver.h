// Host names to addresses without blocking the loop, through libevent's DNS client; answers are kept for a
// while.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "live/loop.h"
#include "live/transport.h"

struct evdns_base;

namespace heng {

/// Reads /etc/hosts and, without a server of its own, /etc/resolv.conf when first needed. One for each loop;
/// outlives its users.
class Resolver {
 public:
  explicit Resolver(Loop& loop);
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  /// The server to ask, by its address; nothing = those of the system.
  void set_server(const std::optional<Endpoint>& server);

  using Callback = std::function<void(const Result<SocketAddress>&)>;
  /// The next of the host's addresses, in turn, without those avoided if there are others. Calls back at once
  /// for numeric and known hosts, else later. The caller must outlive the answer or guard its callback.
  void resolve(const Endpoint& endpoint, Callback callback);
  /// Nobody answers at this address of the host: resolve() leaves it out for a while. How many addresses are
  /// known of the host; 0: none, or it is an address itself.
  std::size_t avoid(const Endpoint& endpoint, const SocketAddress& address);
  /// Somebody does answer there.
  void prefer(const Endpoint& endpoint, const SocketAddress& address);
  using AllCallback = std::function<void(const Result<std::vector<SocketAddress>>&)>;
  /// All of the host's addresses, at least one, asked for anew. Otherwise as resolve(), which then goes by
  /// them.
  void look_up(const Endpoint& endpoint, AllCallback callback);

 private:
  using Key = std::pair<std::string, std::uint16_t>;
  struct Address {
    SocketAddress address;
    Instant avoided_until;
  };
  struct Known {
    std::vector<Address> addresses;
    std::size_t next = 0;
    Instant expires;
  };
  struct Query;
  void choose_servers();
  const SocketAddress& next_of(Known& known);
  std::size_t mark(const Endpoint& endpoint, const SocketAddress& address, Instant avoided_until);
  void take(const Key& key, std::vector<SocketAddress> found);

  Loop& loop_;
  std::optional<Endpoint> server_;
  evdns_base* dns_ = nullptr;
  std::map<Key, Known> known_;
  std::map<Key, std::vector<AllCallback>> asked_;  // whoever asks meanwhile shares the answer
};

}  // namespace heng
