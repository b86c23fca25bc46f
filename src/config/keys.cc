// Strict reading of the keys' file by its tables.
#include "config/keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iterator>
#include <unordered_map>
#include <utility>

#include "config/secret.h"
#include "config/table_reader.h"
#include "config/values.h"

namespace heng {
namespace {

constexpr std::string_view kHashName = "hmac-sha256";
constexpr std::size_t kIdBytesMax = 64;

/// "hmac-sha256:SALT:HASH", both hexadecimal.
bool read_hash(std::string_view text, ApiKey& key) {
  const std::size_t salt_at = kHashName.size() + 1, hash_at = salt_at + 2 * key.salt.size() + 1;
  return text.size() == hash_at + 2 * key.hash.size() && text.starts_with(kHashName) &&
         text[salt_at - 1] == ':' && text[hash_at - 1] == ':' &&
         from_hex(text.substr(salt_at, 2 * key.salt.size()), key.salt) &&
         from_hex(text.substr(hash_at), key.hash);
}

/// Reads one file; used once.
class KeyReader : private TableReader {
 public:
  KeyReader() : TableReader("") {}

  KeyLoad read(std::string_view yaml) {
    const YamlNode root = read_yaml(yaml, issues_);
    if (root.kind == Kind::null) {
      issues_.add(0, 0, "no keys in it; make one with: heng key new ID --file FILE");
    } else if (expect(root, Kind::map, "`keys:` and a list")) {
      static constexpr std::string_view kAllowed[] = {"keys"};
      walk(root, "the file of keys", kAllowed,
           [&](std::size_t, const YamlNode&, const YamlNode& value) { read_list(value); });
    }
    return {std::move(keys_), issues_.take()};
  }

 private:
  void read_list(const YamlNode& value) {
    if (value.kind == Kind::null) return;  // every key is gone: nobody may come in
    if (!expect(value, Kind::list, "`keys` to be a list (each key begins with `- `)")) return;
    for (const YamlNode& key : value.items) read_key(key);
  }

  void read_key(const YamlNode& value) {
    if (!expect(value, Kind::map, "a key with `id` and `hash`")) return;
    ApiKey key;
    Tenant tenant;
    read_fields(value, "a key", key_fields(), &tenant,
                [&](const Field& field, const YamlNode& name, const YamlNode& child) {
                  if (child.kind == Kind::null) {
                    return report(name,
                                  fmt::format("`{}` has no value; write one or remove the line", field.key));
                  }
                  if (field.key == "models") return read_models(child, tenant);
                  if (field.key == "limits") return read_limits(child, tenant);
                  if (!expect(child, Kind::scalar, fmt::format("`{}` to be a single value", field.key)))
                    return;
                  if (field.key == "hash") return check_hash(child, key);
                  const auto expires = parse_expiry(child.text);
                  if (!expires) return report(child, fmt::format("`expires`: {}", expires.error().message));
                  key.expires_s = *expires;
                });
    check_names(value, tenant);
    if (find(value, "hash") == nullptr)
      report(value, "this key has no `hash`; `heng key new` makes both the key and its hash");
    if (tenant.name.empty()) tenant.name = tenant.key_id;
    key.tenant = std::make_shared<const Tenant>(std::move(tenant));
    keys_.push_back(std::move(key));
  }

  void check_hash(const YamlNode& value, ApiKey& key) {
    if (read_hash(value.text, key)) return;
    // The value is not repeated: it may be a secret in the wrong place.
    report(value, value.text.starts_with("hk_")
                      ? "`hash`: this is a key itself, and now many may have seen it; make a new one with "
                        "`heng key new`"
                      : "`hash` must read hmac-sha256:SALT:HASH; `heng key new` writes it");
  }

  void check_names(const YamlNode& value, const Tenant& tenant) {
    const YamlNode& place = place_of(value, "id");
    if (find(value, "id") == nullptr) return report(value, "this key has no `id`; name it");
    if (!is_key_id(tenant.key_id)) {
      return report(place, fmt::format("`id`: {} is not a name of letters, digits, `-` and `.`, at most {}",
                                       quote(tenant.key_id), kIdBytesMax));
    }
    if (const auto [first, fresh] = lines_.emplace(tenant.key_id, place.line); !fresh) {
      report(place, fmt::format("a second key {}, the first is on line {}; every key has an id of its own",
                                quote(tenant.key_id), first->second));
    }
    const YamlNode* name = find(value, "tenant");
    if (name != nullptr && name->kind == Kind::scalar && !is_key_id(tenant.name)) {
      report(*name, fmt::format("`tenant`: {} is not a name of letters, digits, `-` and `.`, at most {}",
                                quote(tenant.name), kIdBytesMax));
    }
  }

  void read_models(const YamlNode& value, Tenant& tenant) {
    if (!expect(value, Kind::list, "`models` to be a list of names, like [llama-3-8b, qwen-*]")) return;
    if (value.items.empty()) report(value, "`models` is empty; leave it out to allow all, or remove the key");
    for (const YamlNode& item : value.items) {
      if (!expect(item, Kind::scalar, "a model to be a name")) continue;
      const std::size_t star = item.text.find('*');
      if (item.text.empty() || (star != item.text.npos && star + 1 != item.text.size())) {
        report(item, "a model must be a name, or the beginning of one with a `*` at its end");
        continue;
      }
      tenant.models.push_back(item.text);
    }
  }

  void read_limits(const YamlNode& value, Tenant& tenant) {
    if (!expect(value, Kind::map, "`limits` to be a map of keys")) return;
    read_fields(value, "`limits`", key_limit_fields(), &tenant.limits,
                [](const Field&, const YamlNode&, const YamlNode&) { HENG_ASSERT(false); });
  }

  std::vector<ApiKey> keys_;
  std::unordered_map<std::string, int> lines_;  // id -> line
};

/// A number of exactly `text.size()` digits, or -1.
int digits(std::string_view text) {
  int value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return -1;
    value = value * 10 + (c - '0');
  }
  return text.empty() ? -1 : value;
}

}  // namespace

KeyLoad parse_keys(std::string_view yaml) { return KeyReader().read(yaml); }

KeyLoad load_keys(const std::string& path) {
  const auto text = read_yaml_file(path);
  if (!text) return {{}, {{0, 0, text.error().message}}};
  if (is_open_to_all(path)) {
    return {{}, {{0, 0, fmt::format("open to every user of this machine; run: chmod 600 {}", quote(path))}}};
  }
  return parse_keys(*text);
}

bool is_key_id(std::string_view text) {
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
  };
  return !text.empty() && text.size() <= kIdBytesMax && std::ranges::all_of(text, fits);
}

Result<double> parse_expiry(std::string_view text) {
  using namespace std::chrono;
  constexpr std::string_view kForm = "0000-00-00T00:00:00Z";
  const bool whole_day = text.size() == 10;
  bool fits = whole_day || text.size() == kForm.size();
  for (std::size_t i = 0; fits && i < text.size(); ++i) fits = kForm[i] == '0' || kForm[i] == text[i];
  const auto part = [&](std::size_t at, std::size_t size) {
    return fits ? digits(text.substr(at, size)) : -1;
  };
  const int y = part(0, 4), m = part(5, 2), d = part(8, 2);
  const int hour = whole_day ? 24 : part(11, 2), minute = whole_day ? 0 : part(14, 2);
  const int second = whole_day ? 0 : part(17, 2);
  const year_month_day day{year(y), month(static_cast<unsigned>(std::max(m, 0))),
                           std::chrono::day(static_cast<unsigned>(std::max(d, 0)))};
  const bool time_fits = hour >= 0 && hour <= (whole_day ? 24 : 23) && minute >= 0 && minute <= 59 &&
                         second >= 0 && second <= 59;
  if (!fits || y < 0 || !day.ok() || !time_fits) {
    return fail(ErrorCode::invalid, fmt::format("{} is no date; write it like 2027-01-31 or "
                                                "2027-01-31T12:00:00Z (UTC)",
                                                quote(text)));
  }
  const auto moment = sys_days(day) + hours(hour) + minutes(minute) + seconds(second);
  return static_cast<double>(moment.time_since_epoch().count());
}

std::string format_expiry(double seconds_1970) {
  using namespace std::chrono;
  if (!std::isfinite(seconds_1970)) return "";
  const sys_seconds moment{seconds(static_cast<std::int64_t>(seconds_1970))};
  const auto midnight = floor<days>(moment);
  const year_month_day day(midnight);
  const hh_mm_ss time(moment - midnight);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", static_cast<int>(day.year()),
                     static_cast<unsigned>(day.month()), static_cast<unsigned>(day.day()),
                     time.hours().count(), time.minutes().count(), time.seconds().count());
}

std::string key_entry(const ApiKey& key) {
  const Tenant& tenant = *key.tenant;
  std::string text = fmt::format("  - id: \"{}\"\n    hash: {}:{}:{}\n", tenant.key_id, kHashName,
                                 to_hex(key.salt), to_hex(key.hash));
  const auto out = std::back_inserter(text);
  if (tenant.name != tenant.key_id) fmt::format_to(out, "    tenant: \"{}\"\n", tenant.name);
  if (!tenant.models.empty()) {
    std::string list;
    for (const std::string& model : tenant.models) {
      list += list.empty() ? "\"" : ", \"";
      for (const char c : model) list += c == '"' || c == '\\' ? std::string{'\\', c} : std::string(1, c);
      list += '"';
    }
    fmt::format_to(out, "    models: [{}]\n", list);
  }
  if (tenant.priority != Tenant{}.priority) fmt::format_to(out, "    priority: {}\n", tenant.priority);
  if (tenant.weight != Tenant{}.weight) fmt::format_to(out, "    weight: {}\n", tenant.weight);
  const KeyLimits& limits = tenant.limits;
  std::string bounds;
  for (const auto& [name, value] :
       {std::pair<std::string_view, std::uint64_t>{"requests_per_minute", limits.requests_per_minute},
        {"tokens_per_minute", limits.tokens_per_minute},
        {"concurrent", limits.concurrent}}) {
    if (value != 0) bounds += fmt::format("{}{}: {}", bounds.empty() ? "" : ", ", name, value);
  }
  if (!bounds.empty()) fmt::format_to(out, "    limits: {{{}}}\n", bounds);
  if (std::isfinite(key.expires_s)) fmt::format_to(out, "    expires: {}\n", format_expiry(key.expires_s));
  return text;
}

}  // namespace heng
