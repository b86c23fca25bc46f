// Laying changes over the configuration, and their form as JSON.
#include "gateway/overlay.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <unordered_set>

#include "config/schema.h"
#include "flow/api_error.h"

namespace heng {

namespace {

namespace dom = simdjson::dom;

void append_member(std::string& object, std::string_view key, const std::string& value) {
  object += fmt::format("{}\"{}\":{}", object.empty() ? "" : ",", key, value);
}

std::string fields_json(std::span<const Field> fields, void* object) {
  std::string members;
  for (const Field& field : fields) {
    const std::string value = format_field(field, object);
    if (value.empty()) continue;
    const bool plain =
        field.type == FieldType::flag || field.type == FieldType::count || field.type == FieldType::number;
    append_member(members, field.key, plain ? value : json_quote(value));
  }
  return members;
}

/// In the form in which the configuration has it, by the same tables.
std::string worker_json(WorkerConfig worker) {
  std::string members = fields_json(worker_fields(), &worker);
  append_member(members, "url", json_quote(worker.url));
  if (worker.tls) append_member(members, "tls", "{" + fields_json(worker_tls_fields(), &worker) + "}");
  return "{" + members + "}";
}

std::optional<double> number_of(dom::element change, const char* key) {
  double value = 0;
  if (change[key].get(value) != simdjson::SUCCESS) return {};
  return value;
}

}  // namespace

const WorkerChange* WorkerOverlay::find(std::string_view pool, std::string_view worker) const {
  const auto found = std::ranges::find_if(
      changes, [&](const WorkerChange& change) { return change.pool == pool && change.worker == worker; });
  return found == changes.end() ? nullptr : &*found;
}

void WorkerOverlay::put(WorkerChange change) {
  const WorkerChange nothing{change.pool, change.worker};
  const auto found = std::ranges::find_if(changes, [&](const WorkerChange& one) {
    return one.pool == change.pool && one.worker == change.worker;
  });
  if (change == nothing) {
    if (found != changes.end()) changes.erase(found);
  } else if (found != changes.end()) {
    *found = std::move(change);
  } else {
    changes.push_back(std::move(change));
  }
}

std::vector<WorkerConfig> WorkerOverlay::apply(const PoolConfig& pool,
                                               std::span<const WorkerConfig> discovered) const {
  std::vector<WorkerConfig> workers;
  std::unordered_set<std::string> urls, names;
  const auto take = [&](WorkerConfig worker) {
    if (urls.contains(worker.url)) return;
    if (names.contains(worker.name)) {
      if (worker.origin == WorkerOrigin::runtime || names.contains(worker.url)) return;
      worker.name = worker.url;
    }
    if (const WorkerChange* change = find(pool.model, worker.name); change != nullptr) {
      if (change->removed) return;
      worker.drained = change->drained;
      worker.weight = change->weight.value_or(worker.weight);
      worker.capacity = change->capacity.value_or(worker.capacity);
    }
    urls.insert(worker.url);
    names.insert(worker.name);
    workers.push_back(std::move(worker));
  };
  for (const WorkerConfig& worker : pool.workers) take(worker);
  for (const WorkerConfig& worker : discovered) take(worker);
  for (const WorkerChange& change : changes) {
    if (change.pool == pool.model && change.added) take(*change.added);
  }
  return workers;
}

std::string to_json(const WorkerOverlay& overlay) {
  std::string list;
  for (const WorkerChange& change : overlay.changes) {
    std::string members;
    append_member(members, "pool", json_quote(change.pool));
    append_member(members, "worker", json_quote(change.worker));
    if (change.added) append_member(members, "added", worker_json(*change.added));
    if (change.removed) append_member(members, "removed", "true");
    if (change.drained) append_member(members, "drained", "true");
    if (change.weight) append_member(members, "weight", fmt::format("{}", *change.weight));
    if (change.capacity) append_member(members, "capacity", fmt::format("{}", *change.capacity));
    list += fmt::format("{}{{{}}}", list.empty() ? "" : ",", members);
  }
  return "{\"changes\":[" + list + "]}";
}

Result<WorkerOverlay> parse_overlay(std::string_view json) {
  WorkerOverlay overlay;
  try {
    dom::parser parser;
    const simdjson::padded_string text(json);
    for (const dom::element each : parser.parse(text)["changes"].get_array()) {
      WorkerChange change{std::string(std::string_view(each["pool"])),
                          std::string(std::string_view(each["worker"]))};
      dom::element added;
      if (each["added"].get(added) == simdjson::SUCCESS) {
        WorkerListLoad load = parse_worker_list("[" + std::string(simdjson::minify(added)) + "]");
        if (!load.issues.empty()) return fail(ErrorCode::invalid, format_issues("overlay", load.issues));
        change.added = std::move(load.workers.front());
        change.added->origin = WorkerOrigin::runtime;
      }
      bool flag = false;
      change.removed = each["removed"].get(flag) == simdjson::SUCCESS && flag;
      change.drained = each["drained"].get(flag) == simdjson::SUCCESS && flag;
      change.weight = number_of(each, "weight");
      change.capacity = number_of(each, "capacity");
      overlay.put(std::move(change));
    }
  } catch (const simdjson::simdjson_error& error) {
    return fail(ErrorCode::invalid, fmt::format("not an overlay of workers: {}", error.what()));
  }
  return overlay;
}

}  // namespace heng
