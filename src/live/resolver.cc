// Asynchronous name look-up.
#include "live/resolver.h"

#include <event2/dns.h>
#include <event2/util.h>
#include <fmt/format.h>

namespace heng {

namespace {
constexpr Duration kKept =
    30s;  // resolvers do not tell us the time to live; half a minute follows most changes
}

struct Resolver::Query {
  Resolver* resolver;
  Endpoint endpoint;
  AllCallback callback;
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
    Known& known = found->second;
    return callback(known.addresses[known.next++ % known.addresses.size()]);
  }
  look_up(endpoint, [callback = std::move(callback)](const Result<std::vector<SocketAddress>>& found) {
    if (!found) return callback(std::unexpected(found.error()));
    callback(found->front());
  });
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
  auto* query = new Query{this, endpoint, std::move(callback)};
  evdns_getaddrinfo(
      dns_, endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints,
      [](int code, evutil_addrinfo* found, void* context) {
        const std::unique_ptr<Query> done(static_cast<Query*>(context));
        if (code == EVUTIL_EAI_CANCEL) return;
        if (code != 0 || found == nullptr) {
          return done->callback(
              fail(ErrorCode::not_found,
                   fmt::format("cannot resolve '{}': {}", done->endpoint.host, evutil_gai_strerror(code))));
        }
        Known known;
        for (const evutil_addrinfo* each = found; each != nullptr; each = each->ai_next) {
          const char* bytes = reinterpret_cast<const char*>(each->ai_addr);
          known.addresses.push_back({std::vector<char>(bytes, bytes + each->ai_addrlen)});
        }
        evutil_freeaddrinfo(found);
        known.next = 1;
        known.expires = done->resolver->loop_.now() + kKept;
        const std::vector<SocketAddress> addresses = known.addresses;
        done->resolver->known_[{done->endpoint.host, done->endpoint.port}] = std::move(known);
        done->callback(addresses);
      },
      query);
}

}  // namespace heng
