// Random keys, their entries in the file of keys, and whether a key is one of them.
#include "app/key_command.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <array>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <iostream>

#include "app/exit_code.h"
#include "app/private_file.h"
#include "app/table.h"
#include "base/result.h"
#include "config/keys.h"
#include "config/yaml_tree.h"
#include "flow/api_keys.h"

namespace heng {

namespace {

constexpr std::size_t kSecretBytes = 20;  // 160 bits: 128 are enough, and nobody minds 8 characters more

struct NewKey {
  std::string text;  // what the client gets to know
  ApiKey entry;
};

template <class Bytes>
void fill_randomly(Bytes& bytes) {
  HENG_ASSERT(getrandom(bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
}

NewKey new_key(Tenant tenant, double expires_s) {
  NewKey key;
  std::array<std::uint8_t, kSecretBytes> secret;
  fill_randomly(secret);
  fill_randomly(key.entry.salt);
  const std::string text = to_hex(secret);
  key.text = fmt::format("hk_{}_{}", tenant.key_id, text);
  key.entry.hash = hmac_sha256(key.entry.salt, text);
  key.entry.expires_s = expires_s;
  key.entry.tenant = std::make_shared<const Tenant>(std::move(tenant));
  return key;
}

double wall_time_s() { return static_cast<double>(std::time(nullptr)); }

int fail_with(int exit_code, std::string_view message) {
  fmt::print(stderr, "heng: {}\n", message);
  return exit_code;
}

/// The file with one more key at its end; an Error if that would not be read as such.
Result<std::string> with_entry(const std::string& path, const ApiKey& key) {
  std::string text =
      "# API keys of a Heng gateway, see `keys_file`. Made with: heng key new ID --file FILE\nkeys:\n";
  std::size_t before = 0;
  if (std::filesystem::exists(path)) {
    const KeyLoad load = load_keys(path);
    if (!load.issues.empty()) return fail(ErrorCode::invalid, format_issues(path, load.issues));
    before = load.keys.size();
    text = *read_yaml_file(path);
    if (!text.ends_with('\n')) text += '\n';
  }
  text += key_entry(key);
  const KeyLoad load = parse_keys(text);
  if (load.issues.empty() && load.keys.size() == before + 1) return text;
  return fail(
      ErrorCode::invalid,
      fmt::format("cannot add to {}, nothing is changed. With the new entry at its end it would read:\n{}",
                  path, format_issues(path, load.issues)));
}

std::string bound(std::uint64_t limit) { return limit == 0 ? "-" : std::to_string(limit); }

}  // namespace

int KeyCommand::make() {
  if (!is_key_id(tenant_.key_id) || (!tenant_.name.empty() && !is_key_id(tenant_.name)))
    return fail_with(kExitUsage, "ids and tenants are names of letters, digits, `-` and `.`, at most 64");
  if (tenant_.name.empty()) tenant_.name = tenant_.key_id;
  double expires_s = ApiKey{}.expires_s;
  if (!expires_.empty()) {
    const auto parsed = parse_expiry(expires_);
    if (!parsed) return fail_with(kExitUsage, "--expires: " + parsed.error().message);
    expires_s = *parsed;
  }
  const NewKey key = new_key(tenant_, expires_s);
  if (file_.empty()) {
    fmt::print("{}\n", key.text);
    fmt::print(stderr,
               "This key is shown only once. Its entry for the list `keys` of the file that `keys_file` "
               "names:\n");
    fmt::print("{}", key_entry(key.entry));
    return kExitOk;
  }
  const auto text = with_entry(file_, key.entry);
  if (!text) return fail_with(kExitConfigInvalid, text.error().message);
  if (const auto written = write_private_file(file_, *text); !written)
    return fail_with(kExitFailed, written.error().message);
  fmt::print("{}\n", key.text);
  fmt::print(stderr, "This key is shown only once. {} recognises it after a reload: heng reload\n", file_);
  return kExitOk;
}

int KeyCommand::list() const {
  const KeyLoad load = load_keys(file_);
  if (!load.issues.empty()) {
    fmt::print(stderr, "{}", format_issues(file_, load.issues));
    return kExitConfigInvalid;
  }
  Table table({"ID", "TENANT", "MODELS", "PRIORITY", "REQ/MIN", "TOK/MIN", "CONCURRENT", "EXPIRES"});
  for (const ApiKey& key : load.keys) {
    const Tenant& tenant = *key.tenant;
    std::string models;
    for (const std::string& model : tenant.models) models += (models.empty() ? "" : ",") + model;
    const bool expired = wall_time_s() >= key.expires_s;
    table.add(
        {tenant.key_id, tenant.name, models.empty() ? "all" : models, std::to_string(tenant.priority),
         bound(tenant.limits.requests_per_minute), bound(tenant.limits.tokens_per_minute),
         bound(tenant.limits.concurrent),
         std::isfinite(key.expires_s) ? format_expiry(key.expires_s) + (expired ? " (expired)" : "") : "-"});
  }
  fmt::print("{}", table.text(true));
  return kExitOk;
}

int KeyCommand::check() const {
  KeyLoad load = load_keys(file_);
  if (!load.issues.empty()) {
    fmt::print(stderr, "{}", format_issues(file_, load.issues));
    return kExitConfigInvalid;
  }
  if (shown_file_.empty()) {
    fmt::print("{}: fine, {} key(s)\n", file_, load.keys.size());
    return kExitOk;
  }
  std::string shown;
  if (shown_file_ == "-") {
    std::getline(std::cin, shown);
  } else {
    const auto text = read_yaml_file(shown_file_);
    if (!text) return fail_with(kExitFailed, fmt::format("{}: {}", shown_file_, text.error().message));
    shown = text->substr(0, text->find('\n'));
  }
  const auto login = ApiKeys(std::move(load.keys)).check(shown, wall_time_s());
  if (login.tenant) {
    fmt::print("valid: the key '{}' of tenant '{}'\n", login.tenant->key_id, login.tenant->name);
    return kExitOk;
  }
  return fail_with(kExitFailed,
                   login.expired ? "this key has expired" : "this is none of the keys in " + file_);
}

void KeyCommand::add_to(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("key", "Make API keys, and look at the file they stand in");
  command->require_subcommand(1);
  CLI::App* create =
      command->add_subcommand("new", "Make a key: prints it once, and stores what recognises it");
  create->add_option("id", tenant_.key_id, "Its name in logs and metrics")->required();
  create->add_option("-f,--file", file_, "File of keys to append it to; without, its entry is printed");
  create->add_option("--tenant", tenant_.name, "Whose key it is, if it shares with other keys");
  create->add_option("--models", tenant_.models, "What it may use, as in --models llama-3-8b 'qwen-*'");
  create->add_option("--priority", tenant_.priority, "0 to 9; when workers are short, higher goes first")
      ->check(CLI::Range(0, 9))
      ->capture_default_str();
  create->add_option("--weight", tenant_.weight, "Its share of the workers beside others while requests wait")
      ->check(CLI::Range(0.001, 1e6))
      ->capture_default_str();
  create->add_option("--requests-per-minute", tenant_.limits.requests_per_minute, "0 = no limit")
      ->check(CLI::NonNegativeNumber);
  create->add_option("--tokens-per-minute", tenant_.limits.tokens_per_minute, "0 = no limit")
      ->check(CLI::NonNegativeNumber);
  create->add_option("--concurrent", tenant_.limits.concurrent,
                     "Requests at a time->check(CLI::NonNegativeNumber); 0 = no limit");
  create->add_option("--expires", expires_, "Last day it is valid, as in 2027-01-31, in UTC");
  create->callback([this, &exit_code] { exit_code = make(); });
  CLI::App* show = command->add_subcommand("list", "Show the keys of a file, without their secrets");
  show->add_option("-f,--file", file_, "File of keys")->required();
  show->callback([this, &exit_code] { exit_code = list(); });
  CLI::App* verify =
      command->add_subcommand("check", "Check a file of keys, or whether a key is one of them");
  verify->add_option("-f,--file", file_, "File of keys")->required();
  verify->add_option("--key-file", shown_file_, "File with the key to look for; `-` reads it from the input");
  verify->callback([this, &exit_code] { exit_code = check(); });
}

}  // namespace heng
