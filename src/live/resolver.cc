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
  Callback callback;
};

Resolver::Resolver(Loop& loop) : loop_(loop) {}

Resolver::~Resolver() {
  if (dns_ != nullptr) evdns_base_free(dns_, 0);
}

void Resolver::resolve(const Endpoint& endpoint, Callback callback) {
  if (const Result<SocketAddress> numeric = numeric_address(endpoint)) return callback(*numeric);
  if (const auto found = known_.find({endpoint.host, endpoint.port});
      found != known_.end() && loop_.now() < found->second.expires) {
    Known& known = found->second;
    return callback(known.addresses[known.next++ % known.addresses.size()]);
  }
  if (dns_ == nullptr) {
    dns_ = evdns_base_new(loop_.base(), EVDNS_BASE_INITIALIZE_NAMESERVERS | EVDNS_BASE_DISABLE_WHEN_INACTIVE);
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
        const SocketAddress first = known.addresses.front();
        done->resolver->known_[{done->endpoint.host, done->endpoint.port}] = std::move(known);
        done->callback(first);
      },
      query);
}

}  // namespace heng
