// The typed configuration of `heng serve`. Immutable once loaded; swapped as a whole on reload.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "config/worker_allow.h"
#include "model/api_key.h"
#include "policy/route/registry.h"

namespace heng {

struct Endpoint {
  std::string host;  // as written; IPv6 without brackets; an absolute path: a Unix socket
  std::uint16_t port = 0;

  bool is_unix() const { return host.starts_with('/'); }
  bool operator==(const Endpoint&) const = default;
};

/// Who named a worker. Only those in the configuration file are trusted wherever they are: the addresses of
/// the others are held against `worker_allow`.
enum class WorkerOrigin : std::uint8_t { file, runtime, dns, discovery_file };

/// In place of a number of requests in flight: learned.
inline constexpr std::uint32_t kAdaptive = 0xffffffff;

struct WorkerConfig {
  std::string url;   // normalised: scheme://host:port/base, no trailing slash, no userinfo
  std::string name;  // unique in its pool; default: host:port (and base path if needed to be unique)
  bool tls = false;
  Endpoint endpoint;
  std::string base_path;    // "" or "/base"
  std::string api_key;      // from api_key_file or api_key; sent as "Authorization: Bearer ..."
  std::string model;        // the name this worker knows the model by; "" = the pool's
  std::string tls_ca_file;  // "" = the system's
  bool tls_verify = true;
  std::string tls_cert_file;  // shown to the worker; "" = none
  std::string tls_key_file;
  double capacity = 0;  // work per second for dynamic weights; 0 = learned
  double weight = 1;
  std::uint32_t max_in_flight = 0;  // of the pool's requests; 0 = the pool's worker_max_in_flight
  WorkerOrigin origin = WorkerOrigin::file;
  bool drained = false;  // at run time: no new requests

  bool operator==(const WorkerConfig&) const = default;
};

/// Where else a pool's workers come from.
struct DiscoverConfig {
  std::optional<Endpoint> dns;  // every address of this name is a worker
  std::string file;             // a list of workers, watched for changes
  Duration every = 5s;          // from one look-up of `dns` to the next

  bool used() const { return dns || !file.empty(); }
  bool operator==(const DiscoverConfig&) const = default;
};

enum class AffinitySource : std::uint8_t { none, header, user, prompt };

struct PoolConfig {
  std::string model;  // "" = discover the models from the workers; "*" = any model not named elsewhere
  std::vector<std::string>
      aliases;  // other names clients may use; rewritten to the worker's name of the model
  const RoutePolicyEntry* policy = nullptr;
  OptionValues policy_options;
  AffinitySource hash_on = AffinitySource::prompt;  // what `hash` keys on
  std::string hash_header;                          // when hash_on == header
  std::string session_header;       // requests with the same value stay on one worker, any policy; "" = off
  std::uint32_t max_in_flight = 0;  // all workers together; 0 = no limit
  std::uint32_t worker_max_in_flight = 0;  // each worker without a number of its own; 0 = no limit
  std::vector<WorkerConfig> workers;
  DiscoverConfig discover;
};

/// Of the addresses clients come to.
struct TlsConfig {
  std::string cert_file;  // the certificate and what leads to its authority; "" = no TLS
  std::string key_file;
  std::string client_ca_file;  // who vouches for clients; "" = clients need no certificate
  std::string min_version = "1.2";
  bool admin = false;  // the admin API too

  bool enabled() const { return !cert_file.empty(); }
};

struct TimeoutConfig {
  Duration connect = 5s;
  Duration first_byte = 600s;       // long prefills and queues in the engine are normal
  Duration idle = 120s;             // silence between two bytes of an answer that has begun
  Duration total = 0s;              // 0 = no limit
  Duration client_handshake = 10s;  // TLS, from the connection on
  Duration client_header = 10s;     // first to last byte of a request head
  Duration client_body = 30s;       // silence between two reads of a request body
  Duration client_idle = 75s;       // keep-alive connection without a request
  Duration client_write = 60s;      // a client that reads nothing of a waiting answer
  Duration worker_idle = 60s;       // unused connection to a worker
  Duration drain = 30s;             // SIGTERM: how long requests in flight may take to finish
  Duration handover = 3600s;        // ... and how long after a hand-over to a new process
};

struct LimitConfig {
  std::uint32_t head_bytes = 32 << 10;
  std::uint32_t header_count = 100;
  std::uint32_t target_bytes = 8 << 10;
  std::uint64_t body_bytes = 64ull << 20;
  std::uint32_t json_depth = 128;
  std::uint32_t connections = 20000;            // clients
  std::uint32_t connections_per_source = 1000;  // clients of one address (IPv6: one /64); 0 = no limit
  std::uint32_t client_bytes_per_s = 128;       // a body or a waiting answer moves so fast; 0 = no limit
  std::uint32_t stream_buffer_bytes = 64
                                      << 10;  // waiting for a slow reader before the worker is no longer read
  std::uint32_t worker_head_bytes = 64 << 10;
  std::uint32_t failed_logins_per_minute = 30;  // of one source address
  std::uint64_t buffered_bytes = 0;  // of all connections together; 0 = a quarter of the memory there is
};

struct HealthConfig {
  bool active = true;
  std::string path = "/health";  // 404 there counts as alive (not every engine has it)
  Duration interval = 1s;
  Duration timeout = 1s;
  Duration silence = 1500ms;         // of a worker with requests, until ejection; see WorkerHealth
  std::uint32_t fall = 2;            // failed probes in a row until a worker without requests is ejected
  std::uint32_t rise = 1;            // good probes in a row until return
  std::uint32_t passive_faults = 3;  // worker faults in a row until ejection
  Duration probe_back = 1s;          // probing interval of an ejected worker; least time out
  Duration slow_start = 10s;         // ramp of a returned or added worker; 0 = none
  double max_ejected_share = 0.5;    // of a pool's living workers, until all of them are used
};

struct RetryConfig {
  bool enabled = true;              // one more attempt on another worker, before the first byte only
  double budget_ratio = 0.1;        // retries per request over the last 10 s ...
  std::uint32_t budget_floor = 10;  // ... but at least so many
  Duration hedge_after{0};          // a second attempt beside the first if the first byte is late; 0 = never
  double hedge_ratio = 0.05;        // such attempts per request over the last 10 s
};

/// Requests that wait while every worker of their model is full.
struct QueueConfig {
  std::uint32_t length = 1000;  // of each model
  Duration timeout = 30s;
};

/// Of `max_in_flight: adaptive`.
struct AdaptiveLimitConfig {
  std::uint32_t min = 4;
  std::uint32_t max = 1024;
  double tolerance = 2;  // first bytes are late beyond tolerance x their time without load + slack
  Duration slack = 200ms;
};

/// What engines say of their own load on their metrics pages.
struct EngineLoadConfig {
  Duration interval = 1s;  // from one reading to the next; 0 = never
  Duration timeout = 1s;
  std::string path = "/metrics";
  bool always = false;  // also where no policy goes by it

  bool wanted_by(const RoutePolicyEntry& policy) const {
    return interval > Duration(0) && (always || policy.uses_engine_load);
  }
};

struct Config {
  Endpoint listen{"127.0.0.1", 8080};
  std::optional<Endpoint> admin = Endpoint{"127.0.0.1", 8081};
  std::string admin_token;             // from admin_token_file; "" = none
  std::string default_model;           // for requests that name no model and no known resource; "" = none
  std::string keys_file;               // "" = the API is open
  std::vector<ApiKey> keys;            // from keys_file
  bool insecure_bind = false;          // other machines may come in without TLS or keys
  bool worker_header = true;           // answer with x-heng-worker
  bool forward_authorization = false;  // pass the client's Authorization on to workers
  std::string access_log;              // file, "-" = stdout, "" = off
  std::string record;                  // file for `heng replay`, "" = off
  TlsConfig tls;
  TimeoutConfig timeouts;
  LimitConfig limits;
  HealthConfig health;
  RetryConfig retry;
  QueueConfig queue;
  AdaptiveLimitConfig adaptive_limit;
  EngineLoadConfig engine_load;
  std::vector<PoolConfig> pools;
  WorkerAllow worker_allow = default_worker_allow();
  std::optional<Endpoint> dns_server;  // nothing = those of /etc/resolv.conf
  std::uint64_t seed = 0;              // of the policies' random streams; 0 = from the system at start
};

/// Where a mistake is and how to mend it: `file:line:column: message`.
struct ConfigIssue {
  int line = 0;    // from 1; 0 = the whole file
  int column = 0;  // from 1
  std::string message;
  std::string file = {};  // "" = the configuration itself
};

struct ConfigLoad {
  Config config;                    // meaningful if `issues` is empty
  std::vector<ConfigIssue> issues;  // every mistake, in file order
};

/// A scalar key set from outside the file (a flag, an environment variable), stronger than the file.
struct ConfigOverride {
  std::string key;  // dotted, see set_option
  std::string value;
  std::string origin;  // for messages: "HENG_LISTEN", "--listen"
};
using ConfigOverrides = std::vector<ConfigOverride>;

/// Parses and checks YAML; overrides count before keys are checked against each other. Relative paths of
/// secret files are taken from `directory`; "" = open no files at all (then their secrets stay empty). Opens
/// nothing else.
ConfigLoad parse_config(std::string_view yaml, const std::string& directory,
                        const ConfigOverrides& overrides = {});
/// Reads the file (at most 4 MiB), then as above. An unreadable file is one issue on line 0. Relative paths
/// of secret files are taken from the file's folder. A file with an `api_key` in it is a secret: it must not
/// be world-readable.
ConfigLoad load_config(const std::string& path, const ConfigOverrides& overrides = {});

struct WorkerListLoad {
  std::vector<WorkerConfig> workers;  // meaningful if `issues` is empty
  std::vector<ConfigIssue> issues;
};
/// A list of workers by itself, in the form of a pool's `workers`; JSON is fine too. It names no secret
/// files, but its `api_key`s stand there unless `keys_refused`. An empty text is a mistake, the list `[]` is
/// not.
WorkerListLoad parse_worker_list(std::string_view yaml, bool keys_refused = false);
/// Reads the file (at most 4 MiB), then as above; keys are refused if everybody can read it.
WorkerListLoad load_worker_list(const std::string& path);
/// One line per issue, as printed by `heng check`.
std::string format_issues(const std::string& path, const std::vector<ConfigIssue>& issues);

/// Sets one scalar key outside `pools` from text: ("timeouts.first_byte", "300s"), ("listen",
/// "0.0.0.0:8080"). Secret files are taken from the current folder. Does not check keys against each other:
/// see check_config.
Result<void> set_option(Config& config, std::string_view key, std::string_view text);
/// All keys set_option takes, in the order of the reference page.
std::vector<std::string> option_keys();
/// What must hold between scalar keys; parse_config checks it too.
Result<void> check_config(const Config& config);

/// The reference page of all keys with type, range, default and meaning (Markdown), and the commented example
/// file.
std::string config_reference();
std::string config_example();

}  // namespace heng
