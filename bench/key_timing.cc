// How long it takes to refuse an API key, by how much of it is right: does the time tell a guesser anything?
//
// Without --port the class that checks keys is asked, and CPU time is taken of a few keys at once; with it a
// running gateway, and the time is what a client sees. `--leak 1` plants a comparison that stops at the first
// wrong character: what the method must then find. Prints JSON.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "base/rng.h"
#include "flow/api_keys.h"
#include "wire.h"

namespace heng::bench {
namespace {

constexpr std::string_view kHex = "0123456789abcdef";

/// Makes keys that are wrong in one way each, all of the same length and none twice but by chance.
class Guesser {
 public:
  Guesser(std::string id, std::string secret) : id_(std::move(id)), secret_(std::move(secret)) {}

  /// Under the right id, or one of the same length; the first `right` characters of the secret are right, the
  /// next is not.
  std::string key(const std::string& id, std::size_t right, bool rest_right = false) {
    std::string secret = secret_;
    for (std::size_t i = right; i < secret.size() && !rest_right; ++i) secret[i] = kHex[rng_.below(16)];
    while (right < secret.size() && secret[right] == secret_[right]) secret[right] = kHex[rng_.below(16)];
    return "hk_" + id + "_" + secret;
  }
  std::string any_id() {
    std::string id = id_;
    for (char& c : id) c = static_cast<char>('a' + rng_.below(26));
    return id;
  }
  const std::string& id() const { return id_; }
  std::size_t secret_size() const { return secret_.size(); }

 private:
  std::string id_, secret_;
  Rng rng_{1};
};

struct Kind {
  std::string name;
  std::function<std::string(Guesser&)> make;
};

/// The first is what the others are compared with; the second is the same again, to show what chance does.
std::vector<Kind> kinds(Guesser& guesser) {
  const std::string id = guesser.id(), unknown = guesser.any_id();
  std::string near = id;
  near.back() = near.back() == 'z' ? 'y' : 'z';
  const std::size_t all = guesser.secret_size();
  std::vector<Kind> kinds = {
      {"an unknown id, nothing right", [=](Guesser& g) { return g.key(unknown, 0); }},
      {"the same again", [=](Guesser& g) { return g.key(unknown, 0); }},
      {"unknown ids, each time another", [](Guesser& g) { return g.key(g.any_id(), 0); }},
      {"id right but for its last letter, whole secret right", [=](Guesser& g) { return g.key(near, all); }},
  };
  for (const std::size_t right : {std::size_t(0), std::size_t(1), all / 5, all / 2, all - 1}) {
    kinds.push_back({fmt::format("right id, first {} of {} right", right, all),
                     [=](Guesser& g) { return g.key(id, right); }});
  }
  kinds.push_back({fmt::format("right id, last {} of {} right", all - 1, all),
                   [=](Guesser& g) { return g.key(id, 0, true); }});
  return kinds;
}

/// Time it takes to have these refused, in nanoseconds a key.
using Refuse = std::function<double(const std::vector<std::string>&)>;

double thread_cpu_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

bool leaks_about(std::string_view key, std::string_view right) {
  for (std::size_t i = 0; i < right.size(); ++i) {
    if (key[i] != right[i]) return false;
    asm volatile("" ::: "memory");  // or it would be done in words
  }
  return true;
}

/// Asks the class itself, among 64 keys.
Refuse in_process(const std::string& id, const std::string& secret, bool leak) {
  std::vector<ApiKey> stored(64);
  Rng rng(2);
  for (ApiKey& key : stored) {
    Tenant tenant;
    tenant.key_id = &key == stored.data() ? id : fmt::format("user{}", &key - stored.data());
    for (std::uint8_t& byte : key.salt) byte = static_cast<std::uint8_t>(rng.below(256));
    key.hash = hmac_sha256(key.salt, &key == stored.data() ? secret : tenant.key_id);
    key.tenant = std::make_shared<const Tenant>(std::move(tenant));
  }
  return [keys = ApiKeys(std::move(stored)), right = "hk_" + id + "_" + secret,
          leak](const std::vector<std::string>& guesses) {
    std::size_t let_in = 0;
    const double start = thread_cpu_ns();
    for (const std::string& guess : guesses) {
      let_in += keys.check(guess, 0).tenant != nullptr;
      if (leak) let_in += leaks_about(guess, right);
    }
    const double took = thread_cpu_ns() - start;
    if (let_in != 0) die("a wrong key was let in");
    return took / static_cast<double>(guesses.size());
  };
}

/// Asks a gateway over one kept connection.
Refuse over_http(int port) {
  const int fd = connect_to(port);
  ::fcntl(fd, F_SETFL, 0);  // waiting for the answer is all there is to do
  return [fd](const std::vector<std::string>& guesses) {
    double total = 0;
    for (const std::string& guess : guesses) {
      const std::string request =
          fmt::format("GET /v1/models HTTP/1.1\r\nHost: heng\r\nAuthorization: Bearer {}\r\n\r\n", guess);
      const std::int64_t start = now_ns();
      if (::send(fd, request.data(), request.size(), 0) != static_cast<ssize_t>(request.size())) die("send");
      char answer[4096];
      const ssize_t got = ::recv(fd, answer, sizeof answer, 0);
      total += static_cast<double>(now_ns() - start);
      const std::string_view text(answer, static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
      if (!text.starts_with("HTTP/1.1 401 ") || !text.ends_with("}"))
        die("not one whole 401: " + std::string(text));
    }
    return total / static_cast<double>(guesses.size());
  };
}

/// Median, and what it is with 99 % confidence: order statistics, since times have long tails.
std::array<double, 3> median_of(std::vector<double> values) {
  std::ranges::sort(values);
  const double n = static_cast<double>(values.size()), half_width = 2.576 / 2 * std::sqrt(n);
  const auto at = [&](double rank) {
    return values[static_cast<std::size_t>(std::clamp(std::floor(rank), 0.0, n - 1))];
  };
  return {at(n / 2), at(n / 2 - half_width), at(n / 2 + half_width)};
}

/// Rounds in which each kind has its turn, in an order drawn anew: what disturbs the machine meets all alike.
std::string measure(Guesser guesser, const Refuse& refuse, std::size_t rounds, std::size_t batch) {
  const std::vector<Kind> all = kinds(guesser);
  std::vector<std::vector<double>> times(all.size());
  std::vector<std::vector<std::string>> guesses(all.size(), std::vector<std::string>(batch));
  std::vector<std::size_t> order(all.size());
  Rng rng(3);
  for (std::size_t i = 0; i < all.size(); ++i) order[i] = i;
  for (std::size_t round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < all.size(); ++i)
      for (std::string& guess : guesses[i]) guess = all[i].make(guesser);
    for (std::size_t i = all.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
    for (const std::size_t i : order) times[i].push_back(refuse(guesses[i]));
  }
  std::string rows;
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::vector<double> differences(rounds);
    for (std::size_t round = 0; round < rounds; ++round)
      differences[round] = times[i][round] - times[0][round];
    const auto [difference, low, high] = median_of(differences);
    rows += fmt::format(R"({}{{"kind":"{}","ns":{:.1f},"difference":{:.2f},"low":{:.2f},"high":{:.2f}}})",
                        i == 0 ? "" : ",", all[i].name, median_of(times[i])[0], difference, low, high);
  }
  return fmt::format(R"({{"keys_of_each":{},"kinds":[{}]}})", rounds * batch, rows);
}

}  // namespace
}  // namespace heng::bench

int main(int argc, char** argv) {
  using namespace heng::bench;
  const Arguments arguments(argc, argv);
  const std::string id = arguments.text("--id", "alice");
  const std::string secret = arguments.text("--secret", "6c0f5be1a9d24783c6e01f9b35a8d7420f1e6b9c");
  const int port = static_cast<int>(arguments.number("--port", 0));
  const auto batch = static_cast<std::size_t>(arguments.number("--batch", port == 0 ? 32 : 1));
  const auto rounds = static_cast<std::size_t>(arguments.number("--keys", 100'000)) / batch;
  const auto refuse =
      port == 0 ? in_process(id, secret, arguments.number("--leak", 0) != 0) : over_http(port);
  fmt::print("{}\n", measure(Guesser(id, secret), refuse, rounds, batch));
}
