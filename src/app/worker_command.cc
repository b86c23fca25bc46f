// Finds the worker that is meant, asks the admin API for the change, and says in a line what came of it.
#include "app/worker_command.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <simdjson.h>

#include <chrono>
#include <memory>
#include <set>
#include <thread>

#include "app/exit_code.h"
#include "app/table.h"
#include "config/secret.h"
#include "flow/api_error.h"

namespace heng {

namespace {

namespace dom = simdjson::dom;

constexpr auto kPoll = std::chrono::milliseconds(200);

std::string escaped(const std::string& text) {
  const std::unique_ptr<char, void (*)(void*)> out(
      curl_easy_escape(nullptr, text.c_str(), static_cast<int>(text.size())), curl_free);
  return out.get();
}

std::string workers_path(const std::string& pool) { return "/api/v1/pools/" + escaped(pool) + "/workers"; }

std::string text_at(dom::element row, const char* key) {
  std::string_view text;
  if (row[key].get(text) == simdjson::SUCCESS) return std::string(text);
  double value = 0;
  return row[key].get(value) == simdjson::SUCCESS ? fmt::format("{:.4g}", value) : "-";
}

int unreachable(const Error& error) {
  fmt::print(stderr, "heng: {}\n", error.message);
  return kExitUnreachable;
}

int failed(std::string_view message) {
  fmt::print(stderr, "heng: {}\n", message);
  return kExitFailed;
}

/// Calls `see(document)` with the answer to a GET; else the exit code after saying why.
template <class See>
int read(const AdminOptions& options, const std::string& path, See see) {
  const Result<AdminReply> reply = ask_admin(options, path);
  if (!reply) return unreachable(reply.error());
  if (reply->status != 200) return report_refusal(*reply);
  try {
    dom::parser parser;
    see(parser.parse(reply->body));
  } catch (const simdjson::simdjson_error& error) {
    return failed(
        fmt::format("{} is not the admin API of a heng gateway: {}", options.address, error.what()));
  }
  return kExitOk;
}

}  // namespace

int WorkerCommand::find_only_pool(std::string& pool) const {
  pool = pool_;
  if (!pool.empty()) return kExitOk;
  std::set<std::string> models;
  const int code = read(options_, "/api/v1/pools", [&](dom::element document) {
    for (const dom::element row : dom::array(document["pools"])) models.insert(text_at(row, "model"));
  });
  if (code != kExitOk) return code;
  if (models.size() != 1)
    return failed("there is not exactly one pool: say which with --pool; `heng pools` lists them");
  pool = *models.begin();
  return kExitOk;
}

int WorkerCommand::find_worker(std::string& path, std::string& pool) const {
  pool = pool_;
  if (pool.empty()) {
    std::set<std::string> pools;
    const int code = read(options_, "/api/v1/workers", [&](dom::element document) {
      for (const dom::element row : dom::array(document["workers"])) {
        if (text_at(row, "name") == name_) pools.insert(text_at(row, "pool"));
      }
    });
    if (code != kExitOk) return code;
    if (pools.size() > 1)
      return failed(fmt::format("'{}' is in {} pools: say which with --pool", name_, pools.size()));
    if (pools.size() == 1) {
      pool = *pools.begin();
    } else if (const int one = find_only_pool(pool); one != kExitOk) {  // removed workers are not listed
      return one;
    }
  }
  path = workers_path(pool) + "/" + escaped(name_);
  return kExitOk;
}

int WorkerCommand::change(const std::string& method, const std::string& path, const std::string& body) const {
  const Result<AdminReply> reply = ask_admin(options_, path, method, body);
  if (!reply) return unreachable(reply.error());
  if (reply->status != 200 && reply->status != 201) return report_refusal(*reply);
  dom::parser parser;
  dom::element row;
  if (parser.parse(reply->body).get(row) != simdjson::SUCCESS)
    return failed(fmt::format("{} is not the admin API of a heng gateway", options_.address));
  std::uint64_t in_flight = 0;
  const bool busy = row["in_flight"].get(in_flight) == simdjson::SUCCESS && in_flight > 0;
  fmt::print("{}: {}{}\n", text_at(row, "name"), text_at(row, "state"),
             busy ? fmt::format(", {} request(s) under way", in_flight) : "");
  return kExitOk;
}

int WorkerCommand::list() const {
  if (options_.output == "json") {
    const Result<AdminReply> reply = ask_admin(options_, "/api/v1/workers");
    if (!reply) return unreachable(reply.error());
    if (reply->status != 200) return report_refusal(*reply);
    fmt::print("{}\n", reply->body);
    return kExitOk;
  }
  Table table({"POOL", "NAME", "STATE", "ORIGIN", "WEIGHT", "IN FLIGHT", "URL"});
  std::string names;
  const int code = read(options_, "/api/v1/workers", [&](dom::element document) {
    for (const dom::element row : dom::array(document["workers"])) {
      if (!pool_.empty() && text_at(row, "pool") != pool_) continue;
      std::vector<std::string> cells;
      for (const char* key : {"pool", "name", "state", "origin", "weight", "in_flight", "url"})
        cells.push_back(text_at(row, key));
      table.add(std::move(cells));
      names += text_at(row, "name") + "\n";
    }
  });
  if (code == kExitOk) fmt::print("{}", options_.output == "name" ? names : table.text(!options_.no_headers));
  return code;
}

int WorkerCommand::add() const {
  std::string pool;
  if (const int code = find_only_pool(pool); code != kExitOk) return code;
  std::string body = "{\"url\":" + json_quote(url_);
  if (!name_.empty()) body += ",\"name\":" + json_quote(name_);
  if (!model_.empty()) body += ",\"model\":" + json_quote(model_);
  if (weight_ != 0) body += fmt::format(",\"weight\":{}", weight_);
  if (capacity_ >= 0) body += fmt::format(",\"capacity\":{}", capacity_);
  if (!key_file_.empty()) {
    const Result<std::string> key = read_secret(key_file_);
    if (!key) return failed(key.error().message);
    body += ",\"api_key\":" + json_quote(*key);
  }
  return change("POST", workers_path(pool), body + "}");
}

int WorkerCommand::drain() const {
  std::string path, pool;
  if (const int code = find_worker(path, pool); code != kExitOk) return code;
  const int code = change("POST", path + "/drain");
  return code == kExitOk && wait_ ? wait_until_idle(pool) : code;
}

int WorkerCommand::ready() const {
  std::string path, pool;
  const int code = find_worker(path, pool);
  return code == kExitOk ? change("POST", path + "/ready") : code;
}

int WorkerCommand::remove() const {
  std::string path, pool;
  if (const int code = find_worker(path, pool); code != kExitOk) return code;
  const int code = change("DELETE", path + (now_ ? "?now=true" : ""));
  return code == kExitOk && wait_ ? wait_until_idle(pool) : code;
}

int WorkerCommand::weight() const {
  std::string path, pool;
  if (const int code = find_worker(path, pool); code != kExitOk) return code;
  std::string body = fmt::format("{{\"weight\":{}", weight_);
  if (capacity_ >= 0) body += fmt::format(",\"capacity\":{}", capacity_);
  return change("PATCH", path, body + "}");
}

int WorkerCommand::wait_until_idle(const std::string& pool) const {
  const auto ends = std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_s_);
  while (true) {
    std::uint64_t in_flight = 0;
    const int code = read(options_, "/api/v1/workers", [&](dom::element document) {
      for (const dom::element row : dom::array(document["workers"])) {
        if (text_at(row, "name") == name_ && text_at(row, "pool") == pool)
          in_flight += std::uint64_t(row["in_flight"]);
      }
    });
    if (code != kExitOk) return code;
    if (in_flight == 0) {
      fmt::print("{}: no request under way\n", name_);
      return kExitOk;
    }
    if (timeout_s_ > 0 && std::chrono::steady_clock::now() > ends)
      return failed(fmt::format("{} request(s) still under way after {} s", in_flight, timeout_s_));
    std::this_thread::sleep_for(kPoll);
  }
}

void WorkerCommand::add_to(CLI::App& app, int& exit_code) {
  CLI::App* worker = app.add_subcommand("worker", "Change the workers of a running gateway, until it ends");
  worker->require_subcommand(1);
  add_admin_address(*worker, options_);
  const auto command = [&](const char* name, const char* help, int (WorkerCommand::*run)() const) {
    CLI::App* added = worker->add_subcommand(name, help);
    added->fallthrough();  // --admin may stand behind the command too
    added->add_option("--pool", pool_, "Model of its pool; needed if that is not clear");
    added->callback([this, &exit_code, run] { exit_code = (this->*run)(); });
    return added;
  };
  CLI::App* list = command("list", "All workers, their state and where they come from", &WorkerCommand::list);
  list->add_option("-o,--output", options_.output, "How to print")
      ->check(CLI::IsMember({"table", "json", "name"}))
      ->capture_default_str();
  list->add_flag("--no-headers", options_.no_headers, "Table without headings");
  CLI::App* add = command("add", "Add a worker", &WorkerCommand::add);
  add->add_option("url", url_, "Its URL, like http://10.0.0.1:8000")->required();
  add->add_option("--name", name_, "Its name; else host:port");
  add->add_option("--weight", weight_, "Its share compared with the others; else 1");
  add->add_option("--model", model_, "The name it knows the model by, if not the pool's");
  add->add_option("--api-key-file", key_file_, "File with the key to send to it");
  CLI::App* drain = command("drain", "No new requests for it; its streams go on", &WorkerCommand::drain);
  CLI::App* ready = command("ready", "Take a drained or removed worker back", &WorkerCommand::ready);
  CLI::App* remove = command("remove", "Drain it, then forget it", &WorkerCommand::remove);
  remove->add_flag("--now", now_, "Cut its streams off");
  CLI::App* weight = command("weight", "Set its weight", &WorkerCommand::weight);
  for (CLI::App* one : {drain, ready, remove, weight}) {
    one->add_option("name", name_, "Its name; `heng worker list` shows them")->required();
  }
  weight->add_option("weight", weight_, "Its share compared with the others")->required();
  for (CLI::App* one : {add, weight})
    one->add_option("--capacity", capacity_, "Work per second for dynamic_weight; 0 = learned");
  for (CLI::App* one : {drain, remove}) {
    one->add_flag("--wait", wait_, "Return when its last request has ended");
    one->add_option("--timeout", timeout_s_, "At most so many seconds; else as long as it takes");
  }
}

}  // namespace heng
