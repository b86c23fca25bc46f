// Asks the admin API through libcurl and prints tables.
#include "app/admin_client.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <simdjson.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <memory>
#include <thread>

#include "app/admin_token.h"
#include "app/exit_code.h"
#include "app/table.h"

namespace heng {

namespace {

namespace dom = simdjson::dom;

std::string text_of(dom::element value) {
  switch (value.type()) {
    case dom::element_type::STRING:
      return std::string(std::string_view(value));
    case dom::element_type::DOUBLE:
      return fmt::format("{:.4g}", double(value));
    case dom::element_type::BOOL:
      return bool(value) ? "yes" : "no";
    case dom::element_type::NULL_VALUE:
      return "-";
    default:
      return simdjson::minify(value);
  }
}

struct Column {
  const char* heading;
  const char* key;
  bool wide;  // only with -o wide
};

constexpr Column kWorkerColumns[] = {{"POOL", "pool", false},
                                     {"NAME", "name", false},
                                     {"STATE", "state", false},
                                     {"SHARE", "share", false},
                                     {"IN FLIGHT", "in_flight", false},
                                     {"REQUESTS", "requests", false},
                                     {"TTFT p50 s", "ttft_p50_s", false},
                                     {"TTFT p95 s", "ttft_p95_s", false},
                                     {"SINCE s", "since_s", true},
                                     {"LAST FAULT", "last_fault", true},
                                     {"ORIGIN", "origin", true},
                                     {"WEIGHT", "weight", true},
                                     {"CAPACITY", "capacity", true},
                                     {"PROMPT TOK", "prompt_tokens", true},
                                     {"OUTPUT TOK", "output_tokens", true},
                                     {"URL", "url", false}};

constexpr Column kPoolColumns[] = {{"MODEL", "model", false},          {"POLICY", "policy", false},
                                   {"WORKERS", "workers", false},      {"ELIGIBLE", "eligible", false},
                                   {"IN FLIGHT", "in_flight", false},  {"p50 s", "duration_p50_s", false},
                                   {"p99 s", "duration_p99_s", false}, {"ALIASES", "aliases", true}};

Table rows_table(dom::array rows, std::span<const Column> columns, bool wide) {
  std::vector<std::string> headings;
  for (const Column& column : columns) {
    if (wide || !column.wide) headings.emplace_back(column.heading);
  }
  Table table(std::move(headings));
  for (const dom::element row : rows) {
    std::vector<std::string> cells;
    for (const Column& column : columns) {
      if (wide || !column.wide) cells.push_back(text_of(row[column.key]));
    }
    table.add(std::move(cells));
  }
  return table;
}

/// One line a sample, one column a worker; what the policy wants, or what was assigned where it keeps no
/// weights.
std::string weights_text(dom::array pools, int history, bool headings) {
  std::string text;
  for (const dom::element pool : pools) {
    std::vector<std::string> names{"TIME s"};
    for (const dom::element name : dom::array(pool["workers"])) names.emplace_back(std::string_view(name));
    Table table(names);
    const dom::array samples = pool["history"];
    const std::size_t skip =
        samples.size() - std::min<std::size_t>(samples.size(), static_cast<std::size_t>(history));
    std::size_t index = 0;
    for (const dom::element sample : samples) {
      if (index++ < skip) continue;
      std::vector<std::string> cells{fmt::format("{:.1f}", double(sample["time_s"]))};
      dom::array shares = sample["weights"];
      if (shares.size() == 0) shares = sample["assigned"];
      for (const dom::element share : shares)
        cells.push_back(share.is_null() ? "-" : fmt::format("{:.3f}", double(share)));
      cells.resize(names.size(), "-");
      table.add(std::move(cells));
    }
    if (headings) text += fmt::format("{} ({})\n", printable(pool["pool"]), std::string_view(pool["policy"]));
    text += table.text(headings);
  }
  return text;
}

void block_style(YAML::Node node) {
  node.SetStyle(YAML::EmitterStyle::Block);
  if (!node.IsSequence() && !node.IsMap()) return;
  for (const auto& child : node) block_style(node.IsMap() ? child.second : YAML::Node(child));
}

std::string names_text(dom::array rows, std::string_view view) {
  std::string text;
  for (const dom::element row : rows) {
    const char* key = view == "workers" ? "name" : view == "pools" ? "model" : "pool";
    text += std::string(std::string_view(row[key])) + '\n';
  }
  return text;
}

std::string render(const AdminOptions& options, const std::string& body, std::string_view view, int history) {
  if (options.output == "json") return body + "\n";
  if (options.output == "yaml") {
    YAML::Node node = YAML::Load(body);
    block_style(node);
    return YAML::Dump(node) + "\n";
  }
  dom::parser parser;
  const dom::element document = parser.parse(body);
  const bool wide = options.output == "wide";
  const bool headings = !options.no_headers;
  if (view == "workers") {
    const dom::array rows = document["workers"];
    return options.output == "name" ? names_text(rows, view)
                                    : rows_table(rows, kWorkerColumns, wide).text(headings);
  }
  const dom::array rows = document["pools"];
  if (options.output == "name") return names_text(rows, view);
  if (view == "pools") return rows_table(rows, kPoolColumns, wide).text(headings);
  return weights_text(rows, history, headings);
}

int show(const AdminOptions& options, const std::string& path, std::string_view view, int history) {
  while (true) {
    const Result<AdminReply> reply = ask_admin(options, path);
    if (!reply) {
      fmt::print(stderr, "heng: {}\n", reply.error().message);
      return kExitUnreachable;
    }
    if (reply->status != 200) return report_refusal(*reply);
    try {
      fmt::print("{}", render(options, reply->body, view, history));
    } catch (const std::exception& error) {
      fmt::print(stderr, "heng: {} is not the admin API of a heng gateway: {}\n", options.address,
                 error.what());
      return kExitFailed;
    }
    if (options.watch_s <= 0) return kExitOk;
    std::fflush(stdout);
    std::this_thread::sleep_for(std::chrono::duration<double>(options.watch_s));
    fmt::print("\n");
  }
}

int reload(const AdminOptions& options) {
  const Result<AdminReply> reply = ask_admin(options, "/api/v1/reload", "POST");
  if (!reply) {
    fmt::print(stderr, "heng: {}\n", reply.error().message);
    return kExitUnreachable;
  }
  if (reply->status != 200) return report_refusal(*reply);
  fmt::print("configuration reloaded\n");
  return kExitOk;
}

int hand_over(const AdminOptions& options) {
  const Result<AdminReply> reply = ask_admin(options, "/api/v1/handover", "POST");
  if (!reply) {
    fmt::print(stderr, "heng: {}\n", reply.error().message);
    return kExitUnreachable;
  }
  if (reply->status != 200) return report_refusal(*reply);
  dom::parser parser;
  fmt::print("handed over to process {}\n", std::uint64_t(parser.parse(reply->body)["pid"]));
  return kExitOk;
}

}  // namespace

Result<AdminReply> ask_admin(const AdminOptions& options, const std::string& path, const std::string& method,
                             const std::string& body) {
  const std::unique_ptr<CURL, void (*)(CURL*)> curl(curl_easy_init(), curl_easy_cleanup);
  constexpr std::string_view kUnix = "unix:";
  const bool is_unix = options.address.starts_with(kUnix);
  const std::string host = is_unix ? "localhost" : options.address;
  const std::string url = (host.find("://") == std::string::npos ? "http://" : "") + host + path;
  AdminReply reply;
  curl_slist* fields = nullptr;
  const std::string token_file =
      options.token_file.empty() ? find_admin_token_file(options.address) : options.token_file;
  if (!token_file.empty()) {
    std::ifstream file(token_file);
    std::string token;
    if (!std::getline(file, token))
      return fail(ErrorCode::io, fmt::format("cannot read a token from '{}'", token_file));
    fields = curl_slist_append(fields, ("Authorization: Bearer " + token).c_str());
  }
  const std::unique_ptr<curl_slist, void (*)(curl_slist*)> fields_owner(fields, curl_slist_free_all);
  curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, fields);
  if (is_unix)
    curl_easy_setopt(curl.get(), CURLOPT_UNIX_SOCKET_PATH, options.address.substr(kUnix.size()).c_str());
  if (!options.ca_file.empty()) curl_easy_setopt(curl.get(), CURLOPT_CAINFO, options.ca_file.c_str());
  if (!options.cert_file.empty()) {
    curl_easy_setopt(curl.get(), CURLOPT_SSLCERT, options.cert_file.c_str());
    curl_easy_setopt(curl.get(), CURLOPT_SSLKEY, options.key_file.c_str());
  }
  curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT, 30L);
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_NOPROXY, "*");
  if (method != "GET") {
    curl_easy_setopt(curl.get(), CURLOPT_CUSTOMREQUEST, method.c_str());
    curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDS, body.c_str());
  }
  using Write = std::size_t (*)(char*, std::size_t, std::size_t, void*);
  const Write write = [](char* bytes, std::size_t size, std::size_t count, void* to) {
    static_cast<std::string*>(to)->append(bytes, size * count);
    return size * count;
  };
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, write);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &reply.body);
  if (const CURLcode code = curl_easy_perform(curl.get()); code != CURLE_OK) {
    return fail(ErrorCode::unavailable,
                fmt::format("cannot reach the gateway's admin API at {}: {}\n"
                            "Is `heng serve` running? --admin HOST:PORT, https://HOST:PORT, unix:/PATH or "
                            "HENG_ADMIN says where its admin API is.",
                            options.address, curl_easy_strerror(code)));
  }
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &reply.status);
  return reply;
}

int report_refusal(const AdminReply& reply) {
  std::string message = reply.body;
  try {
    dom::parser parser;
    message = std::string_view(parser.parse(reply.body)["error"]["message"]);
  } catch (const simdjson::simdjson_error&) {
    // Not one of our error bodies: print it as it is.
  }
  fmt::print(stderr, "heng: {}\n", message);
  return reply.status == 422 ? kExitConfigInvalid : kExitFailed;
}

void add_admin_address(CLI::App& command, AdminOptions& options) {
  command
      .add_option("--admin", options.address,
                  "Where the gateway's admin API is: HOST:PORT, https://HOST:PORT or unix:/PATH")
      ->envname("HENG_ADMIN")
      ->capture_default_str();
  command
      .add_option("--token-file", options.token_file,
                  "File with the admin token, if it is not the one a gateway of this user has made")
      ->envname("HENG_ADMIN_TOKEN_FILE");
  command.add_option("--ca-file", options.ca_file, "Authorities to trust, for https (PEM)");
  CLI::Option* cert =
      command.add_option("--cert-file", options.cert_file, "Certificate to show to the gateway, for https");
  command.add_option("--key-file", options.key_file, "Its key")->needs(cert);
}

void AdminCommands::add_view(CLI::App& app, int& exit_code, const char* name, const char* help,
                             const char* path) {
  CLI::App* command = app.add_subcommand(name, help);
  add_admin_address(*command, options_);
  command->add_option("-o,--output", options_.output, "How to print")
      ->check(CLI::IsMember({"table", "wide", "json", "yaml", "name"}))
      ->capture_default_str();
  command->add_flag("--no-headers", options_.no_headers, "Tables without headings");
  command->add_option("--watch", options_.watch_s, "Print again every so many seconds")
      ->expected(0, 1)
      ->default_str("2");
  if (std::string_view(name) == "weights") {
    command->add_option("-n,--history", history_, "How many of the last samples to print")
        ->capture_default_str();
  }
  command->callback([this, &exit_code, path = std::string(path), view = std::string(name)] {
    exit_code = show(options_, path, view, history_);
  });
}

void AdminCommands::add_to(CLI::App& app, int& exit_code) {
  add_view(app, exit_code, "workers", "Workers of a running gateway: state, share, load, time to first token",
           "/api/v1/workers");
  add_view(app, exit_code, "pools", "Pools of a running gateway: model, policy, load", "/api/v1/pools");
  add_view(app, exit_code, "weights", "How the weights of a running gateway's workers moved",
           "/api/v1/weights");
  CLI::App* command = app.add_subcommand("reload", "Let a running gateway read its configuration file again");
  add_admin_address(*command, options_);
  command->callback([this, &exit_code] { exit_code = reload(options_); });
  CLI::App* handover = app.add_subcommand(
      "handover", "Let a running gateway start its program anew and hand its clients over, losing none");
  add_admin_address(*handover, options_);
  handover->callback([this, &exit_code] { exit_code = hand_over(options_); });
}

}  // namespace heng
