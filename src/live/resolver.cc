// Asynchronous name look-up.
#include "live/resolver.h"

#include <event2/dns.h>
#include <event2/util.h>
#include <fmt/format.h>

#include <algorithm>

namespace heng {

namespace {
// Resolvers do not tell us the time to live; half a minute follows most changes.
constexpr Duration kKept = 30s;
constexpr Duration kAvoided = std::chrono::minutes(5);
}  // namespace

struct Resolver::Query {
  Resolver* resolver;
  Key key;
};

Resolver::Resolver(Loop& loop) : loop_(loop) {}

Resolver::~Resolver() {
  if (dns_ != nullptr) evdns_base_free(dns_, 0);
}

void Resolver::set_server(const std::optional<Endpoint>& server) {
  if (server == server_) return;
  server_ = server;
  known_.clear();
  if (dns_ == nullptr) return;
  evdns_base_clear_nameservers_and_suspend(dns_);
  choose_servers();
  evdns_base_resume(dns_);
}

void Resolver::choose_servers() {
  if (server_) {
    const bool v6 = server_->host.contains(':');
    const std::string address =
        fmt::format("{}{}{}:{}", v6 ? "[" : "", server_->host, v6 ? "]" : "", server_->port);
    evdns_base_nameserver_ip_add(dns_, address.c_str());
    evdns_base_load_hosts(dns_, "/etc/hosts");
  } else {
    evdns_base_resolv_conf_parse(dns_, DNS_OPTIONS_ALL, "/etc/resolv.conf");
  }
}

void Resolver::resolve(const Endpoint& endpoint, Callback callback) {
  if (const Result<SocketAddress> numeric = numeric_address(endpoint)) return callback(*numeric);
  if (const auto found = known_.find({endpoint.host, endpoint.port});
      found != known_.end() && loop_.now() < found->second.expires) {
    return callback(next_of(found->second));
  }
  look_up(endpoint, [this, key = Key(endpoint.host, endpoint.port),
                     callback = std::move(callback)](const Result<std::vector<SocketAddress>>& found) {
    if (!found) return callback(std::unexpected(found.error()));
    callback(next_of(known_[key]));
  });
}

const SocketAddress& Resolver::next_of(Known& known) {
  const std::size_t count = known.addresses.size();
  HENG_ASSERT(count > 0);
  const Instant now = loop_.now();
  for (std::size_t i = 0; i < count; ++i) {
    Address& each = known.addresses[known.next++ % count];
    if (now < each.avoided_until) continue;
    // One connection tries whether somebody answers there again; prefer() is for all others.
    if (each.avoided_until != Instant()) each.avoided_until = now + kAvoided;
    return each.address;
  }
  return known.addresses[known.next++ % count].address;
}

std::size_t Resolver::avoid(const Endpoint& endpoint, const SocketAddress& address) {
  return mark(endpoint, address, loop_.now() + kAvoided);
}

void Resolver::prefer(const Endpoint& endpoint, const SocketAddress& address) { mark(endpoint, address, {}); }

std::size_t Resolver::mark(const Endpoint& endpoint, const SocketAddress& address, Instant avoided_until) {
  const auto found = known_.find({endpoint.host, endpoint.port});
  if (found == known_.end()) return 0;
  for (Address& each : found->second.addresses) {
    if (each.address == address) each.avoided_until = avoided_until;
  }
  return found->second.addresses.size();
}

/// What is avoided stays so.
void Resolver::take(const Key& key, std::vector<SocketAddress> found) {
  Known& known = known_[key];
  const std::vector<Address> before = std::move(known.addresses);
  known.addresses.clear();
  for (SocketAddress& address : found) {
    const auto same = std::ranges::find(before, address, &Address::address);
    known.addresses.push_back({std::move(address), same == before.end() ? Instant() : same->avoided_until});
  }
  known.next = 0;
  known.expires = loop_.now() + kKept;
}

void Resolver::look_up(const Endpoint& endpoint, AllCallback callback) {
  if (const Result<SocketAddress> numeric = numeric_address(endpoint)) return callback(std::vector{*numeric});
  if (dns_ == nullptr) {
    dns_ = evdns_base_new(loop_.base(), EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    choose_servers();
  }
  evutil_addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = EVUTIL_AI_ADDRCONFIG;
  const Key key(endpoint.host, endpoint.port);
  std::vector<AllCallback>& asking = asked_[key];
  asking.push_back(std::move(callback));
  if (asking.size() > 1) return;
  evdns_getaddrinfo(
      dns_, endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints,
      [](int code, evutil_addrinfo* answer, void* context) {
        const std::unique_ptr<Query> query(static_cast<Query*>(context));
        if (code == EVUTIL_EAI_CANCEL) return;
        Resolver& resolver = *query->resolver;
        Result<std::vector<SocketAddress>> found =
            fail(ErrorCode::not_found,
                 fmt::format("cannot resolve '{}': {}", query->key.first, evutil_gai_strerror(code)));
        if (code == 0 && answer != nullptr) {
          found.emplace();
          for (const evutil_addrinfo* each = answer; each != nullptr; each = each->ai_next) {
            const char* bytes = reinterpret_cast<const char*>(each->ai_addr);
            found->push_back({std::vector<char>(bytes, bytes + each->ai_addrlen)});
          }
          evutil_freeaddrinfo(answer);
          resolver.take(query->key, *found);
        }
        const auto waiting = resolver.asked_.extract(query->key);
        for (const AllCallback& told : waiting.mapped()) told(found);
      },
      new Query{this, key});
}

}  // namespace heng
