// The tables themselves, and what turns a table line into a value, a default and a range.
#include "config/schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "config/issues.h"
#include "config/secret.h"
#include "config/values.h"

namespace heng {
namespace {

template <auto kMember>
void* section_at(Config& config) {
  return &(config.*kMember);
}

constexpr double kHour = 3600, kDay = 86400, kKiB = 1024, kMiB = 1048576, kGiB = 1073741824;
constexpr double kExactMax = 9007199254740992;  // 2^53: larger whole numbers would be rounded

using Type = FieldType;

constexpr Field kRoot[] = {
    {"listen", Type::endpoint, 0, 0, "Address of the OpenAI-compatible API, or unix:/path of a socket.",
     at<&Config::listen>, ""},
    {"admin", Type::endpoint_or_off, 0, 0,
     "Address of status, control and metrics, unix:/path, or `off`. Beyond loopback it needs a token.",
     at<&Config::admin>, ""},
    {"admin_token_file", Type::secret_file, 0, 0,
     "File with the token for the admin API; not readable by everybody.", at<&Config::admin_token>,
     "/etc/heng/admin.token"},
    {"keys_file", Type::file_path, 0, 0,
     "File with the API keys of those who may use the API, see below; not readable by everybody.",
     at<&Config::keys_file>, "/etc/heng/keys.yaml"},
    {"insecure_bind", Type::flag, 0, 0,
     "Let other machines reach `listen` without TLS or without keys; only for networks you trust.",
     at<&Config::insecure_bind>, ""},
    {"default_model", Type::text, 0, 0, "Model of requests that name none and no known resource.",
     at<&Config::default_model>, "llama-3-8b"},
    {"worker_header", Type::flag, 0, 0, "Tell clients in `x-heng-worker` which worker answered.",
     at<&Config::worker_header>, ""},
    {"forward_authorization", Type::flag, 0, 0,
     "Pass the clients' Authorization on to workers without a key of their own.",
     at<&Config::forward_authorization>, ""},
    {"access_log", Type::text, 0, 0,
     "File for one JSON line per request let in under /v1/; `-` is standard output. Prompts are never "
     "logged.",
     at<&Config::access_log>, "/var/log/heng/access.log"},
    {"record", Type::text, 0, 0,
     "File for everything decisions are made from, to be read by `heng replay`. No prompts, but hashes of "
     "them.",
     at<&Config::record>, "/var/log/heng/record.jsonl"},
    {"worker_allow", Type::structure, 0, 0,
     "Where workers added at run time or discovered may be: address ranges, `name`s and `*.name`s. "
     "Link-local "
     "and metadata addresses are refused always.",
     nullptr, "[127.0.0.0/8, \"::1\", 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, \"fc00::/7\"]"},
    {"dns_server", Type::endpoint_or_off, 0, 0,
     "Address of the DNS server to ask; `off` = those of /etc/resolv.conf.", at<&Config::dns_server>, ""},
    {"seed", Type::count, 0, kExactMax, "Seed of the policies' random numbers; 0 takes one from the system.",
     at<&Config::seed>, ""},
    {"tls", Type::structure, 0, 0, "See below.", nullptr, "group"},
    {"timeouts", Type::structure, 0, 0, "See below.", nullptr, "group"},
    {"limits", Type::structure, 0, 0, "See below.", nullptr, "group"},
    {"health", Type::structure, 0, 0, "See below.", nullptr, "group"},
    {"retry", Type::structure, 0, 0, "See below.", nullptr, "group"},
    {"queue", Type::structure, 0, 0, "See below.", nullptr, "group"},
    {"adaptive_limit", Type::structure, 0, 0, "See below.", nullptr, "group"},
    {"engine_load", Type::structure, 0, 0, "See below.", nullptr, "group"},
    {"pools", Type::structure, 0, 0,
     "The models and who serves them, see below. The only key that must be there.", nullptr, "list of pools"},
};

constexpr Field kTls[] = {
    {"cert_file", Type::file, 0, 0,
     "PEM file of the certificate, followed by those that lead to its authority. Read again on reload.",
     at<&TlsConfig::cert_file>, "/etc/heng/tls.crt"},
    {"key_file", Type::private_file, 0, 0, "PEM file of its key; not readable by everybody.",
     at<&TlsConfig::key_file>, "/etc/heng/tls.key"},
    {"client_ca_file", Type::file, 0, 0,
     "Clients must show a certificate of one of these authorities (mutual TLS).",
     at<&TlsConfig::client_ca_file>, "/etc/heng/clients-ca.pem"},
    {"min_version", Type::text, 0, 0, "Oldest TLS version that is spoken: 1.2 or 1.3.",
     at<&TlsConfig::min_version>, ""},
    {"admin", Type::flag, 0, 0, "The admin API speaks TLS too, in the same way.", at<&TlsConfig::admin>, ""},
};

constexpr Field kTimeouts[] = {
    {"connect", Type::duration, 0.001, kHour, "Until a worker has accepted the connection.",
     at<&TimeoutConfig::connect>, ""},
    {"first_byte", Type::duration, 0.001, kDay,
     "From being connected to the answer's first byte; long prefills need it.",
     at<&TimeoutConfig::first_byte>, ""},
    {"idle", Type::duration, 0.001, kDay, "Silence between two bytes of an answer that has begun.",
     at<&TimeoutConfig::idle>, ""},
    {"total", Type::duration, 0, 7 * kDay,
     "From a whole request to the end of its answer, waiting and second attempts included; 0s = no limit.",
     at<&TimeoutConfig::total>, ""},
    {"client_handshake", Type::duration, 0.001, kHour, "Until a client has come to terms over TLS.",
     at<&TimeoutConfig::client_handshake>, ""},
    {"client_header", Type::duration, 0.001, kHour, "From the first to the last byte of a request's head.",
     at<&TimeoutConfig::client_header>, ""},
    {"client_body", Type::duration, 0.001, kHour, "Silence between two reads of a request's body.",
     at<&TimeoutConfig::client_body>, ""},
    {"client_idle", Type::duration, 0.001, kDay,
     "How long a client's connection without a request stays open.", at<&TimeoutConfig::client_idle>, ""},
    {"client_write", Type::duration, 0.001, kDay,
     "A client that reads nothing of a waiting answer is cut after this.", at<&TimeoutConfig::client_write>,
     ""},
    {"worker_idle", Type::duration, 0, kDay,
     "How long an unused connection to a worker is kept; 0s = not at all.", at<&TimeoutConfig::worker_idle>,
     ""},
    {"drain", Type::duration, 0, kDay, "How long requests in flight may take to finish after SIGTERM.",
     at<&TimeoutConfig::drain>, ""},
    {"handover", Type::duration, 0, 7 * kDay,
     "How long the old process may take to finish its requests after a hand-over to a new one.",
     at<&TimeoutConfig::handover>, ""},
};

constexpr Field kLimits[] = {
    {"head_bytes", Type::bytes, kKiB, 16 * kMiB,
     "Request line and headers together; more is answered with 431.", at<&LimitConfig::head_bytes>, ""},
    {"header_count", Type::count, 1, 10000, "Header fields of a request; more is answered with 431.",
     at<&LimitConfig::header_count>, ""},
    {"target_bytes", Type::bytes, 64, kMiB, "The request's path and query; more is answered with 414.",
     at<&LimitConfig::target_bytes>, ""},
    {"body_bytes", Type::bytes, kKiB, 4 * kGiB, "A request's body; more is answered with 413.",
     at<&LimitConfig::body_bytes>, ""},
    {"json_depth", Type::count, 1, 1024, "Nesting of a JSON body; more is answered with 400.",
     at<&LimitConfig::json_depth>, ""},
    {"connections", Type::count, 1, 1e6,
     "Clients' connections at a time. One more closes the one idle for longest, or is answered with 503.",
     at<&LimitConfig::connections>, ""},
    {"connections_per_source", Type::count, 0, 1e6,
     "Connections of one address (IPv6: one /64); more are answered with 429. Not for loopback and Unix "
     "sockets; 0 = no limit.",
     at<&LimitConfig::connections_per_source>, ""},
    {"client_bytes_per_s", Type::count, 0, 1e9,
     "Slower clients are cut: what a body or a waiting answer must move per second, on average, once "
     "`client_body` or `client_write` has passed; 0 = no limit.",
     at<&LimitConfig::client_bytes_per_s>, ""},
    {"stream_buffer_bytes", Type::bytes, 4 * kKiB, 64 * kMiB,
     "What may wait for a slow reader before its worker is no longer read.",
     at<&LimitConfig::stream_buffer_bytes>, ""},
    {"worker_head_bytes", Type::bytes, kKiB, 16 * kMiB, "Status line and headers of a worker's answer.",
     at<&LimitConfig::worker_head_bytes>, ""},
    {"failed_logins_per_minute", Type::count, 1, 1e6,
     "Requests without a valid key from one address; more are answered with 429.",
     at<&LimitConfig::failed_logins_per_minute>, ""},
    {"buffered_bytes", Type::bytes, 0, 1024 * kGiB,
     "Request bodies and waiting answers in memory together; above it, requests with a body get a 503. With "
     "API keys a tenant may hold as much of it as is still free, so half if it is alone. 0 is a quarter of "
     "the memory there is.",
     at<&LimitConfig::buffered_bytes>, ""},
};

constexpr Field kHealth[] = {
    {"active", Type::flag, 0, 0, "Probe workers; without, only the fate of requests tells their health.",
     at<&HealthConfig::active>, ""},
    {"path", Type::path, 0, 0, "What to ask a worker for; 404 counts as alive, not every engine has it.",
     at<&HealthConfig::path>, ""},
    {"interval", Type::duration, 0.01, kHour, "From one probe to the next.", at<&HealthConfig::interval>, ""},
    {"timeout", Type::duration, 0.01, kHour, "An answer later than this is a failed probe.",
     at<&HealthConfig::timeout>, ""},
    {"silence", Type::duration, 0.06, kHour,
     "A worker that has requests and sends nothing is out after this, if it answers no probe either and its "
     "prompts are too short to explain it; it gets no new requests after a third of it.",
     at<&HealthConfig::silence>, ""},
    {"fall", Type::count, 1, 100, "Failed probes in a row that take a worker without requests out.",
     at<&HealthConfig::fall>, ""},
    {"rise", Type::count, 1, 100, "Good probes in a row that bring it back.", at<&HealthConfig::rise>, ""},
    {"passive_faults", Type::count, 1, 1000,
     "Failed requests in a row that take a worker out (5xx but 503, reset, timeout, bad HTTP).",
     at<&HealthConfig::passive_faults>, ""},
    {"probe_back", Type::duration, 0.01, kHour,
     "From one probe to the next of a worker that is out; also its least time out, which doubles up to 30s "
     "when it is soon out again.",
     at<&HealthConfig::probe_back>, ""},
    {"slow_start", Type::duration, 0, kDay,
     "The share of a returned or added worker grows over this time; 0s = at once.",
     at<&HealthConfig::slow_start>, ""},
    {"max_ejected_share", Type::number, 0, 1,
     "Of a pool's workers that live; when more of them are doubted or answer badly, all are used.",
     at<&HealthConfig::max_ejected_share>, ""},
};

constexpr Field kRetry[] = {
    {"enabled", Type::flag, 0, 0,
     "One more attempt on another worker, before the first byte of an answer only.",
     at<&RetryConfig::enabled>, ""},
    {"budget_ratio", Type::number, 0, 1,
     "Retries per request over the last 10 s, at most, of each tenant and of all.",
     at<&RetryConfig::budget_ratio>, ""},
    {"budget_floor", Type::count, 0, 1e6,
     "So many retries in 10 s are always allowed to a tenant, and twice as many to all together.",
     at<&RetryConfig::budget_floor>, ""},
    {"hedge_after", Type::duration, 0, kHour,
     "Without a first byte after this, also ask another worker; the first to answer is taken. 0s = never.",
     at<&RetryConfig::hedge_after>, ""},
    {"hedge_ratio", Type::number, 0, 1, "Such double requests per request over the last 10 s, at most.",
     at<&RetryConfig::hedge_ratio>, ""},
};

constexpr Field kQueue[] = {
    {"length", Type::count, 0, 1e6,
     "Requests that may wait, for each model; beyond it the least entitled get 429.",
     at<&QueueConfig::length>, ""},
    {"timeout", Type::duration, 0.001, kDay,
     "Who has waited so long gets 429 (or before, see `x-stainless-timeout`).", at<&QueueConfig::timeout>,
     ""},
};

constexpr Field kAdaptiveLimit[] = {
    {"min", Type::count, 1, 1e6, "The limit is never lower.", at<&AdaptiveLimitConfig::min>, ""},
    {"max", Type::count, 1, 1e6, "The limit is never higher.", at<&AdaptiveLimitConfig::max>, ""},
    {"tolerance", Type::number, 1, 100,
     "First bytes are late after this many times what they take without load ...",
     at<&AdaptiveLimitConfig::tolerance>, ""},
    {"slack", Type::duration, 0, kHour, "... and this in addition.", at<&AdaptiveLimitConfig::slack>, ""},
};

constexpr Field kEngineLoad[] = {
    {"interval", Type::duration, 0, kHour,
     "From one reading of a worker's page to the next, in steps of 100ms; 0s = never.",
     at<&EngineLoadConfig::interval>, ""},
    {"timeout", Type::duration, 0.01, kHour, "A page that takes longer is not waited for.",
     at<&EngineLoadConfig::timeout>, ""},
    {"path", Type::path, 0, 0, "Where the page is.", at<&EngineLoadConfig::path>, ""},
    {"always", Type::flag, 0, 0, "Also where no policy goes by it, to see it in the admin API.",
     at<&EngineLoadConfig::always>, ""},
};

constexpr Section kSections[] = {
    {"tls", "HTTPS for clients; without `cert_file` they come without.", kTls, section_at<&Config::tls>},
    {"timeouts", "How long Heng waits.", kTimeouts, section_at<&Config::timeouts>},
    {"limits", "What Heng accepts.", kLimits, section_at<&Config::limits>},
    {"health", "When a worker is taken out and brought back.", kHealth, section_at<&Config::health>},
    {"retry", "Second attempts.", kRetry, section_at<&Config::retry>},
    {"queue", "Waiting while all workers of a model are full, see `max_in_flight`.", kQueue,
     section_at<&Config::queue>},
    {"adaptive_limit", "Of `max_in_flight: adaptive`.", kAdaptiveLimit, section_at<&Config::adaptive_limit>},
    {"engine_load", "What engines say of their own load on their metrics pages.", kEngineLoad,
     section_at<&Config::engine_load>},
};

constexpr Field kPool[] = {
    {"model", Type::text, 0, 0,
     "Requests with this \"model\" come here; `\"*\"` takes those no other pool serves. "
     "Left out: whatever models the workers say they have.",
     at<&PoolConfig::model>, "llama-3-8b"},
    {"aliases", Type::structure, 0, 0, "Other names clients may use for the model.", nullptr,
     "[gpt-4o-mini, llama]"},
    {"policy", Type::structure, 0, 0, "Who gets the next request: a name, or a map of `name` and options.",
     nullptr, ""},
    {"hash_on", Type::structure, 0, 0,
     "What `hash` and affinity go by: `prompt` (its start), `user`, or `header:NAME`.", nullptr, "prompt"},
    {"session_header", Type::header_name, 0, 0,
     "Requests with the same value of this header stay on one worker.", at<&PoolConfig::session_header>,
     "x-session-id"},
    {"discover", Type::structure, 0, 0, "More workers, found while running; then `workers` may be left out.",
     nullptr, "group"},
    {"max_in_flight", Type::count, 0, 1e6,
     "Requests at a time on all workers together; more wait, see `queue`. 0 = no limit.",
     at<&PoolConfig::max_in_flight>, ""},
    {"worker_max_in_flight", Type::count_or_adaptive, 0, 1e6,
     "Requests at a time on each worker, or `adaptive`: learned from the time to first byte. 0 = no limit.",
     at<&PoolConfig::worker_max_in_flight>, ""},
    {"workers", Type::structure, 0, 0, "The engines: each a URL, or a map with `url`.", nullptr,
     "list of workers"},
};

constexpr Field kDiscover[] = {
    {"dns", Type::endpoint_or_off, 0, 0, "name:port; every address of the name is a worker (http).",
     at<&DiscoverConfig::dns>, "llama.default.svc.cluster.local:8000"},
    {"every", Type::duration, 0.1, kHour, "From one look-up of `dns` to the next.",
     at<&DiscoverConfig::every>, ""},
    {"file", Type::text, 0, 0, "A YAML list in the form of `workers`, watched for changes.",
     at<&DiscoverConfig::file>, "/etc/heng/workers/llama.yaml"},
};

constexpr Field kWorker[] = {
    {"url", Type::structure, 0, 0,
     "http or https, host, port and base path; the only key a worker must have.", nullptr,
     "https://10.0.0.2:8000/base"},
    {"name", Type::text, 0, 0, "Its name in headers, logs and metrics; else host:port.",
     at<&WorkerConfig::name>, "big-gpu"},
    {"api_key_file", Type::secret_file, 0, 0,
     "File with the key to send as `Authorization: Bearer`; not readable by everybody.",
     at<&WorkerConfig::api_key>, "/etc/heng/worker.key"},
    {"api_key", Type::secret, 0, 0,
     "The key itself, if it must stand here; then this file must not be readable by everybody.",
     at<&WorkerConfig::api_key>, "secret"},
    {"model", Type::text, 0, 0, "The name this worker knows the model by, if not the pool's.",
     at<&WorkerConfig::model>, "meta-llama/Llama-3-8B"},
    {"capacity", Type::number, 0, 1e12, "Work per second for `dynamic_weight`; 0 = learned.",
     at<&WorkerConfig::capacity>, "200"},
    {"weight", Type::number, 0.001, 1e6, "Its share compared with the other workers.",
     at<&WorkerConfig::weight>, ""},
    {"max_in_flight", Type::count_or_adaptive, 0, 1e6,
     "Requests at a time, or `adaptive`. 0 = the pool's `worker_max_in_flight`.",
     at<&WorkerConfig::max_in_flight>, ""},
    {"tls", Type::structure, 0, 0, "Only for https: whom to trust, and who Heng is.", nullptr, "group"},
};

constexpr Field kWorkerTls[] = {
    {"ca_file", Type::file, 0, 0, "PEM file of the authorities to trust, instead of the system's.",
     at<&WorkerConfig::tls_ca_file>, "/etc/heng/ca.pem"},
    {"verify", Type::flag, 0, 0, "Check the worker's certificate and name.", at<&WorkerConfig::tls_verify>,
     ""},
    {"cert_file", Type::file, 0, 0, "PEM file of a certificate to show to the worker (mutual TLS).",
     at<&WorkerConfig::tls_cert_file>, "/etc/heng/heng.crt"},
    {"key_file", Type::private_file, 0, 0, "PEM file of its key; not readable by everybody.",
     at<&WorkerConfig::tls_key_file>, "/etc/heng/heng.key"},
};

constexpr Field kKey[] = {
    {"id", Type::text, 0, 0, "Its name in logs and metrics: letters, digits, `-` and `.`.",
     at<&Tenant::key_id>, "alice-1"},
    {"hash", Type::structure, 0, 0, "What recognises the key, as `heng key new` writes it.", nullptr,
     "hmac-sha256:SALT:HASH"},
    {"tenant", Type::text, 0, 0,
     "Whose key it is, if not one of its own: a tenant's keys share their resources.", at<&Tenant::name>,
     "alice"},
    {"models", Type::structure, 0, 0, "What it may use, by name or beginning; left out: everything.", nullptr,
     "[llama-3-8b, qwen-*]"},
    {"priority", Type::count, 0, 9, "When workers are short, higher goes first.", at<&Tenant::priority>, ""},
    {"weight", Type::number, 0.001, 1e6,
     "Its share of the workers beside others of the same priority while requests wait.", at<&Tenant::weight>,
     ""},
    {"limits", Type::structure, 0, 0, "See below.", nullptr, "group"},
    {"expires", Type::structure, 0, 0, "Valid to the end of that day, or to that second, in UTC.", nullptr,
     "2027-01-31"},
};

constexpr Field kKeyLimits[] = {
    {"requests_per_minute", Type::count, 0, 1e6, "Requests begun; 0 = no limit.",
     at<&KeyLimits::requests_per_minute>, ""},
    {"tokens_per_minute", Type::count, 0, 1e12, "Prompt and output together; 0 = no limit.",
     at<&KeyLimits::tokens_per_minute>, ""},
    {"concurrent", Type::count, 0, 1e6, "Requests under way at a time; 0 = no limit.",
     at<&KeyLimits::concurrent>, ""},
};

Result<double> parse_measure(FieldType type, std::string_view text) {
  if (type == Type::duration) return parse_duration_seconds(text);
  if (type == Type::bytes) return parse_size_bytes(text);
  auto value = parse_number(text);
  if (!value && type == Type::count) {
    return fail(ErrorCode::invalid, fmt::format("{} is not a whole number", quote(text)));
  }
  if (!value && type == Type::count_or_adaptive) {
    return fail(ErrorCode::invalid, fmt::format("{} is neither a whole number nor `adaptive`", quote(text)));
  }
  return value;
}

/// A measure in the field's own unit (seconds, bytes, plain).
std::string format_measure(const Field& field, double value) {
  if (field.type == Type::duration) return format_duration(Duration(std::llround(value * 1e9)));
  if (field.type == Type::bytes) return format_size(value);
  return format_number(value);
}

Result<void> set_measure(const Field& field, const Target& target, std::string_view text) {
  if (field.type == Type::count_or_adaptive && text == "adaptive") {
    *std::get<std::uint32_t*>(target) = kAdaptive;
    return {};
  }
  const auto value = parse_measure(field.type, text);
  if (!value) return std::unexpected(value.error());
  if (*value < field.min || *value > field.max) {
    return fail(ErrorCode::invalid,
                fmt::format("{} is out of range; allowed: {}", quote(text), format_range(field)));
  }
  const bool whole =
      field.type == Type::count || field.type == Type::count_or_adaptive || field.type == Type::bytes;
  if (whole && *value != std::floor(*value)) {
    return fail(ErrorCode::invalid, fmt::format("{} is not a whole number{}", quote(text),
                                                field.type == Type::bytes ? " of bytes" : ""));
  }
  std::visit(
      [&](auto member) {
        using Pointer = decltype(member);
        if constexpr (std::is_same_v<Pointer, Duration*>) {
          *member = Duration(std::llround(*value * 1e9));
        } else if constexpr (std::is_same_v<Pointer, std::uint32_t*> ||
                             std::is_same_v<Pointer, std::uint64_t*> || std::is_same_v<Pointer, double*>) {
          *member = static_cast<std::remove_pointer_t<Pointer>>(*value);
        } else {
          HENG_ASSERT(false);  // the table gives a measure to a member that holds none
        }
      },
      target);
  return {};
}

Result<void> set_text(const Field& field, std::string& member, std::string_view text,
                      const std::string& directory) {
  constexpr std::size_t kTextBytesMax = 4096;
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (text.size() > kTextBytesMax) return fail(ErrorCode::invalid, "longer than 4096 bytes");
  if (const auto bad = std::ranges::find_if(text, is_control); bad != text.end()) {
    const std::string shown =
        field.type == Type::secret ? "the value, which is not shown here," : quote(text);
    return fail(ErrorCode::invalid, fmt::format("{} has a control character, 0x{:02x}, as byte {}", shown,
                                                static_cast<unsigned char>(*bad), bad - text.begin() + 1));
  }
  if (field.type == Type::path && (!text.starts_with('/') || text.contains(' '))) {
    return fail(ErrorCode::invalid, fmt::format("{} is not a path; write it like /health", quote(text)));
  }
  if (field.type == Type::header_name && !text.empty() && !is_header_name(text)) {
    return fail(ErrorCode::invalid,
                fmt::format("{} is not a header name; write it like x-session-id", quote(text)));
  }
  const bool is_file = field.type == Type::file || field.type == Type::private_file;
  if (field.type != Type::secret_file && !is_file) {
    const bool file = field.type == Type::file_path && !text.empty() && !directory.empty();
    member = file && directory != "." ? resolve_path(std::string(text), directory) : std::string(text);
    return {};
  }
  if (text.empty()) return fail(ErrorCode::invalid, "names no file; write its path or remove the line");
  if (is_file) {
    member = resolve_path(std::string(text), directory);
    return directory.empty() ? Result<void>() : check_file(member, field.type == Type::private_file);
  }
  if (directory.empty()) return {};
  auto secret = read_secret(resolve_path(std::string(text), directory));
  if (!secret) return std::unexpected(secret.error());
  member = std::move(*secret);
  return {};
}

}  // namespace

std::span<const Field> root_fields() { return kRoot; }
std::span<const Section> sections() { return kSections; }
std::span<const Field> pool_fields() { return kPool; }
std::span<const Field> discover_fields() { return kDiscover; }
std::span<const Field> worker_fields() { return kWorker; }
std::span<const Field> worker_tls_fields() { return kWorkerTls; }
std::span<const Field> key_fields() { return kKey; }
std::span<const Field> key_limit_fields() { return kKeyLimits; }

Result<void> set_field(const Field& field, void* object, std::string_view text,
                       const std::string& directory) {
  const Target target = field.target(object);
  if (const auto* member = std::get_if<bool*>(&target)) {
    if (text != "true" && text != "false") {
      return fail(ErrorCode::invalid, fmt::format("{} is neither true nor false", quote(text)));
    }
    **member = text == "true";
    return {};
  }
  if (const auto* member = std::get_if<std::string*>(&target))
    return set_text(field, **member, text, directory);
  const auto* required = std::get_if<Endpoint*>(&target);
  const auto* optional = std::get_if<std::optional<Endpoint>*>(&target);
  if (required == nullptr && optional == nullptr) return set_measure(field, target, text);
  if (optional != nullptr && text == "off") {
    (*optional)->reset();
    return {};
  }
  const auto endpoint = parse_endpoint(text);
  if (!endpoint) {
    return fail(ErrorCode::invalid, endpoint.error().message + (optional != nullptr ? ", or `off`" : ""));
  }
  if (required != nullptr) {
    **required = *endpoint;
  } else {
    **optional = *endpoint;
  }
  return {};
}

std::string format_field(const Field& field, void* object) {
  if (field.type == Type::structure || field.type == Type::secret_file) return "";
  return std::visit(
      [&](auto member) -> std::string {
        using Pointer = decltype(member);
        if constexpr (std::is_same_v<Pointer, std::monostate>) {
          return "";
        } else if constexpr (std::is_same_v<Pointer, bool*>) {
          return *member ? "true" : "false";
        } else if constexpr (std::is_same_v<Pointer, std::string*>) {
          return *member;
        } else if constexpr (std::is_same_v<Pointer, Duration*>) {
          return format_duration(*member);
        } else if constexpr (std::is_same_v<Pointer, Endpoint*>) {
          return format_endpoint(*member);
        } else if constexpr (std::is_same_v<Pointer, std::optional<Endpoint>*>) {
          return *member ? format_endpoint(**member) : "off";
        } else {
          return format_measure(field, static_cast<double>(*member));
        }
      },
      field.target(object));
}

std::string format_range(const Field& field) {
  if (field.type != Type::count && field.type != Type::count_or_adaptive && field.type != Type::bytes &&
      field.type != Type::number && field.type != Type::duration)
    return "";
  if (field.max >= kExactMax) return fmt::format("from {}", format_measure(field, field.min));
  return fmt::format("{} to {}", format_measure(field, field.min), format_measure(field, field.max));
}

std::string_view describe_type(const Field& field) {
  switch (field.type) {
    case Type::flag:
      return "true or false";
    case Type::count:
      return "whole number";
    case Type::count_or_adaptive:
      return "whole number or adaptive";
    case Type::bytes:
      return "size";
    case Type::number:
      return "number";
    case Type::duration:
      return "duration";
    case Type::text:
    case Type::secret:
      return "text";
    case Type::path:
      return "path";
    case Type::header_name:
      return "header name";
    case Type::endpoint:
      return "host:port";
    case Type::endpoint_or_off:
      return "host:port or off";
    case Type::file_path:
    case Type::secret_file:
    case Type::file:
    case Type::private_file:
      return "file";
    case Type::structure:
      return "structure";
  }
  HENG_ASSERT(false);
}

}  // namespace heng
