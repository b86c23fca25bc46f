// Tables of a scenario's keys and the reading of its structures.
#include "sim/scenario.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <utility>

#include "config/table_reader.h"
#include "config/values.h"
#include "sim/measures.h"
#include "sim/traffic/trace.h"

namespace heng {

namespace {

using Type = FieldType;

/// A member of a member.
template <auto kOuter, auto kInner>
Target within(void* object) {
  using Class = decltype(class_of(kOuter));
  return &(static_cast<Class*>(object)->*kOuter.*kInner);
}

constexpr double kDay = 86400, kCountMax = 1e15;
constexpr std::uint32_t kWorkersMax = 100'000;
constexpr std::size_t kDefaultWorkers = 8;

constexpr Field kRoot[] = {
    {"name", Type::text, 0, 0, "For the report's title.", at<&Scenario::name>, ""},
    {"seed", Type::count, 0, kCountMax, "Of everything drawn at random.", at<&Scenario::seed>, ""},
    {"gateways", Type::count, 1, 1000, "Each knows only its own requests.", at<&Scenario::gateways>, ""},
    {"network", Type::duration, 0, 10, "One way between gateway and worker.", at<&Scenario::network>, ""},
    {"warmup", Type::duration, 0, 100 * kDay, "Requests that come earlier are not counted.",
     at<&Scenario::warmup>, ""},
    {"objective", Type::structure, 0, 0, "What makes an answer good.", nullptr, ""},
    {"traffic", Type::structure, 0, 0, "A trace, or made up.", nullptr, ""},
    {"engine", Type::structure, 0, 0, "Of all workers.", nullptr, ""},
    {"workers", Type::structure, 0, 0, "A number, or a list of groups.", nullptr, ""},
    {"gateway", Type::structure, 0, 0, "Groups and limits as in heng.yaml.", nullptr, ""},
    {"faults", Type::structure, 0, 0, "What goes wrong when.", nullptr, ""},
    {"policies", Type::structure, 0, 0, "Names, or maps of name and options.", nullptr, ""},
    {"expect", Type::structure, 0, 0, "Bounds on measures.", nullptr, ""},
};

constexpr Field kObjective[] = {
    {"ttft", Type::duration, 0, kDay, "Time to first token.", at<&Scenario::ttft_objective>, ""},
    {"tpot", Type::duration, 0, kDay, "Time per further token.", at<&Scenario::tpot_objective>, ""},
};

using Traffic = ScenarioTraffic;
constexpr Field kTraffic[] = {
    {"trace", Type::text, 0, 0, "File of recorded traffic.", at<&Traffic::trace>, ""},
    {"rate", Type::number, 1e-6, 1e6, "Requests per second.", at<&Traffic::rate>, ""},
    {"requests", Type::count, 1, 1e12, "At most so many.", at<&Traffic::requests>, ""},
    {"start", Type::duration, 0, 1000 * kDay, "", within<&Traffic::shape, &ShapeOptions::start>, ""},
    {"duration", Type::duration, 0, 1000 * kDay, "", within<&Traffic::shape, &ShapeOptions::duration>, ""},
    {"scale", Type::number, 1e-6, 1e6, "", within<&Traffic::shape, &ShapeOptions::scale>, ""},
    {"sample", Type::number, 1e-9, 1, "", within<&Traffic::shape, &ShapeOptions::sample>, ""},
    {"resample", Type::duration, 0, kDay, "", within<&Traffic::shape, &ShapeOptions::resample>, ""},
    {"streamed", Type::number, 0, 1, "", within<&Traffic::shape, &ShapeOptions::streamed>, ""},
    {"prompt_tokens", Type::structure, 0, 0, "", nullptr, ""},
    {"output_tokens", Type::structure, 0, 0, "", nullptr, ""},
    {"bursts", Type::structure, 0, 0, "", nullptr, ""},
    {"sessions", Type::structure, 0, 0, "", nullptr, ""},
    {"prefixes", Type::structure, 0, 0, "", nullptr, ""},
};
constexpr Field kSpread[] = {
    {"mean", Type::number, 1, 1e6, "", at<&LengthSpread::mean>, ""},
    {"cv", Type::number, 0, 100, "", at<&LengthSpread::cv>, ""},
};
using Synthetic = SyntheticOptions;
constexpr Field kBursts[] = {
    {"every", Type::duration, 0.001, kDay, "", at<&Synthetic::burst_every>, ""},
    {"lasts", Type::duration, 0.001, kDay, "", at<&Synthetic::burst_lasts>, ""},
    {"factor", Type::number, 0, 1e4, "", at<&Synthetic::burst_factor>, ""},
};
constexpr Field kSessions[] = {
    {"turns", Type::number, 1, 1e4, "", at<&Synthetic::turns>, ""},
    {"think", Type::duration, 0, kDay, "", at<&Synthetic::think>, ""},
};
constexpr Field kPrefixes[] = {
    {"count", Type::count, 1, 1e7, "", at<&Synthetic::prefixes>, ""},
    {"zipf", Type::number, 0, 10, "", at<&Synthetic::zipf>, ""},
    {"tokens", Type::count, 1, 1e6, "", at<&Synthetic::prefix_tokens>, ""},
};

using Engines = EngineParams;
constexpr Field kEngine[] = {
    {"speed", Type::number, 1e-3, 1e3, "", at<&Engines::speed>, ""},
    {"t_base", Type::duration, 0, 10, "", at<&Engines::t_base>, ""},
    {"t_prefill", Type::duration, 0, 10, "", at<&Engines::t_prefill>, ""},
    {"t_decode_seq", Type::duration, 0, 10, "", at<&Engines::t_decode_seq>, ""},
    {"t_kv_ns", Type::number, 0, 1e9, "", at<&Engines::t_kv_ns>, ""},
    {"t_attention_ns", Type::number, 0, 1e9, "", at<&Engines::t_attention_ns>, ""},
    {"kv_mixed", Type::number, 0, 1e3, "", at<&Engines::kv_mixed>, ""},
    {"overlap", Type::number, 0, 1, "", at<&Engines::overlap>, ""},
    {"max_num_seqs", Type::count, 1, 1e6, "", at<&Engines::max_num_seqs>, ""},
    {"max_num_batched_tokens", Type::count, 1, 1e7, "", at<&Engines::max_num_batched_tokens>, ""},
    {"max_model_len", Type::count, 2, 1 << 30, "", at<&Engines::max_model_len>, ""},
    {"block_size", Type::count, 1, 4096, "", at<&Engines::block_size>, ""},
    {"kv_blocks", Type::count, 1, 1 << 28, "", at<&Engines::kv_blocks>, ""},
    {"prefix_caching", Type::flag, 0, 0, "", at<&Engines::prefix_caching>, ""},
};

struct WorkerGroup {
  std::uint32_t count = 1;
  SimWorker worker;
};
constexpr Field kGroup[] = {
    {"count", Type::count, 1, kWorkersMax, "", at<&WorkerGroup::count>, ""},
    {"weight", Type::number, 1e-6, 1e6, "", within<&WorkerGroup::worker, &SimWorker::weight>, ""},
    {"capacity", Type::number, 0, 1e9, "", within<&WorkerGroup::worker, &SimWorker::capacity>, ""},
    {"max_in_flight", Type::count_or_adaptive, 0, 1e6, "",
     within<&WorkerGroup::worker, &SimWorker::max_in_flight>, ""},
    {"joins", Type::duration, 0, 1000 * kDay, "", within<&WorkerGroup::worker, &SimWorker::joins>, ""},
};

struct FaultLine {
  SimFault fault;
  std::uint32_t worker = 0;
  std::uint32_t times = 1;
  Duration every{0};
};
constexpr Field kFault[] = {
    {"do", Type::structure, 0, 0, "", nullptr, ""},
    {"worker", Type::count, 1, kWorkersMax, "", at<&FaultLine::worker>, ""},
    {"at", Type::duration, 0, 1000 * kDay, "", within<&FaultLine::fault, &SimFault::at>, ""},
    {"for", Type::duration, 0, 1000 * kDay, "", within<&FaultLine::fault, &SimFault::lasts>, ""},
    {"factor", Type::number, 1e-3, 1e6, "", within<&FaultLine::fault, &SimFault::factor>, ""},
    {"times", Type::count, 1, 1e5, "", at<&FaultLine::times>, ""},
    {"every", Type::duration, 0.001, 1000 * kDay, "", at<&FaultLine::every>, ""},
};
constexpr Field kExpect[] = {
    {"measure", Type::text, 0, 0, "", at<&Expectation::measure>, ""},
    {"policy", Type::text, 0, 0, "", at<&Expectation::policy>, ""},
    {"min", Type::number, -1e15, 1e15, "", at<&Expectation::min>, ""},
    {"max", Type::number, -1e15, 1e15, "", at<&Expectation::max>, ""},
};

/// What a simulated gateway goes by; other keys of these sections would be passed over in silence.
using SectionKey = std::pair<std::string_view, std::string_view>;
constexpr SectionKey kSimulated[] = {
    {"health", "active"},
    {"health", "interval"},
    {"health", "timeout"},
    {"health", "silence"},
    {"health", "fall"},
    {"health", "rise"},
    {"health", "passive_faults"},
    {"health", "probe_back"},
    {"health", "slow_start"},
    {"health", "max_ejected_share"},
    {"retry", "enabled"},
    {"retry", "budget_ratio"},
    {"retry", "budget_floor"},
    {"timeouts", "first_byte"},
    {"timeouts", "idle"},
    {"engine_load", "interval"},
    {"engine_load", "timeout"},
    {"engine_load", "always"},
    {"queue", "length"},
    {"queue", "timeout"},
    {"adaptive_limit", "min"},
    {"adaptive_limit", "max"},
    {"adaptive_limit", "tolerance"},
    {"adaptive_limit", "slack"},
};

constexpr FaultKind kFaultKinds[] = {FaultKind::die, FaultKind::hang, FaultKind::slow, FaultKind::mute};

std::string label_of(const RoutePolicyEntry& entry, const OptionValues& options) {
  std::string label(entry.name);
  const OptionValues defaults = default_values(entry);
  for (std::size_t i = 0; i < options.size(); ++i) {
    if (options[i] == defaults[i]) continue;
    label += fmt::format(":{}={}", entry.fields[i].key, options[i]);
  }
  return label;
}

class ScenarioReader : TableReader {
 public:
  explicit ScenarioReader(std::string directory) : TableReader(""), folder_(std::move(directory)) {}

  ScenarioLoad read(std::string_view yaml) {
    const YamlNode root = read_yaml(yaml, issues_);
    if (root.kind == Kind::null) issues_.add(0, 0, "the file is empty; docs/simulator.md has an example");
    if (root.kind != Kind::null && expect(root, Kind::map, "lines like `key: value`")) read_root(root);
    return {std::move(scenario_), issues_.take()};
  }

 private:
  static void none(const Field&, const YamlNode&, const YamlNode&) { HENG_ASSERT(false); }

  void read_map(const YamlNode& value, std::string_view name, std::span<const Field> fields, void* object) {
    if (!expect(value, Kind::map, fmt::format("`{}` to be a map of keys", name))) return;
    read_fields(value, fmt::format("`{}`", name), fields, object, none);
  }

  template <class Read>
  void read_list(const YamlNode& value, std::string_view name, Read read) {
    if (!expect(value, Kind::list, fmt::format("`{}` to be a list", name))) return;
    for (const YamlNode& item : value.items) read(item);
  }

  void read_root(const YamlNode& root) {
    // Workers take what they do not say from `engine`, wherever that stands.
    if (const YamlNode* engine = find(root, "engine"); engine != nullptr)
      read_map(*engine, "engine", kEngine, &scenario_.engine);
    check_engine(root, scenario_.engine);
    read_fields(root, "a scenario", kRoot, &scenario_,
                [&](const Field& field, const YamlNode&, const YamlNode& value) {
                  if (field.key == "objective") read_map(value, field.key, kObjective, &scenario_);
                  if (field.key == "traffic") read_traffic(value);
                  if (field.key == "workers") read_workers(value);
                  if (field.key == "gateway") read_gateway(value);
                  if (field.key == "policies")
                    read_list(value, field.key, [&](const YamlNode& item) { add_policy(item); });
                  if (field.key == "expect")
                    read_list(value, field.key, [&](const YamlNode& item) { read_expectation(item); });
                });
    // Faults name workers by number.
    if (const YamlNode* faults = find(root, "faults"); faults != nullptr)
      read_list(*faults, "faults", [&](const YamlNode& item) { read_fault(item); });
  }

  void read_traffic(const YamlNode& value) {
    Traffic& traffic = scenario_.traffic;
    if (!expect(value, Kind::map, "`traffic` to be a map of keys")) return;
    read_fields(value, "`traffic`", kTraffic, &traffic,
                [&](const Field& field, const YamlNode&, const YamlNode& child) {
                  if (field.key == "prompt_tokens") read_spread(child, field.key, traffic.synthetic.prompt);
                  if (field.key == "output_tokens") read_spread(child, field.key, traffic.synthetic.output);
                  if (field.key == "bursts") {
                    traffic.synthetic.burst_every = 60s;
                    read_map(child, field.key, kBursts, &traffic.synthetic);
                    if (traffic.synthetic.burst_lasts >= traffic.synthetic.burst_every) {
                      report(child,
                             fmt::format("a burst of {:g} s every {:g} s never ends; make `lasts` shorter",
                                         to_seconds(traffic.synthetic.burst_lasts),
                                         to_seconds(traffic.synthetic.burst_every)));
                    }
                  }
                  if (field.key == "sessions") read_map(child, field.key, kSessions, &traffic.synthetic);
                  if (field.key == "prefixes") {
                    traffic.synthetic.prefixes = 100;
                    read_map(child, field.key, kPrefixes, &traffic.synthetic);
                  }
                });
    if (traffic.trace.empty()) return;
    if (find(value, "rate") != nullptr && find(value, "scale") != nullptr)
      report(place_of(value, "scale"), "`rate` says how fast the trace passes; leave out `scale`, or `rate`");
    for (const char* key : {"prompt_tokens", "output_tokens", "bursts", "sessions", "prefixes"}) {
      if (find(value, key) != nullptr)
        report(place_of(value, key), fmt::format("`{}` is for made-up traffic; a trace has its own", key));
    }
    traffic.trace = std::filesystem::path(folder_) / traffic.trace;
  }

  /// A number is the mean of lengths that are all alike.
  void read_spread(const YamlNode& value, std::string_view name, LengthSpread& spread) {
    if (value.kind != Kind::scalar) return read_map(value, name, kSpread, &spread);
    const auto number = parse_number(value.text);
    if (!number || *number < 1 || *number > 1e6) {
      return report(value, fmt::format("`{}`: write a number of tokens, or {{mean: 1000, cv: 1}}", name));
    }
    spread = {*number, 0};
  }

  void read_workers(const YamlNode& value) {
    if (value.kind == Kind::scalar) {
      const auto count = parse_number(value.text);
      if (!count || *count < 1 || *count > kWorkersMax || *count != std::floor(*count))
        return report(value,
                      "`workers`: write how many, or a list like [{count: 4}, {count: 2, speed: 0.5}]");
      scenario_.workers.assign(static_cast<std::size_t>(*count), {.engine = scenario_.engine});
      return;
    }
    read_list(value, "workers", [&](const YamlNode& item) { read_group(item); });
    if (value.kind == Kind::list && value.items.empty()) report(value, "`workers` is empty; add one");
    const auto first = std::ranges::min_element(scenario_.workers, {}, &SimWorker::joins);
    if (first != scenario_.workers.end() && first->joins > Duration(0))
      report(value, "nobody is there at the start; let at least one worker join at 0s");
    std::ranges::stable_sort(scenario_.workers, {}, &SimWorker::joins);
  }

  void read_group(const YamlNode& value) {
    if (!expect(value, Kind::map, "a group of workers like {count: 4, speed: 2}")) return;
    WorkerGroup group;
    group.worker.engine = scenario_.engine;
    std::vector<std::string_view> allowed;
    for (const Field& field : kGroup) allowed.push_back(field.key);
    for (const Field& field : kEngine) allowed.push_back(field.key);
    walk(value, "a group of workers", allowed,
         [&](std::size_t index, const YamlNode&, const YamlNode& child) {
           if (index < std::size(kGroup)) {
             read_scalar(kGroup[index], child, &group);
           } else {
             read_scalar(kEngine[index - std::size(kGroup)], child, &group.worker.engine);
           }
         });
    check_engine(value, group.worker.engine);
    if (scenario_.workers.size() + group.count > kWorkersMax)
      return report(value, fmt::format("more than {} workers", kWorkersMax));
    scenario_.workers.insert(scenario_.workers.end(), group.count, group.worker);
  }

  void check_engine(const YamlNode& place, const EngineParams& engine) {
    if (const auto valid = check(engine); !valid) report(place, valid.error().message);
  }

  void read_gateway(const YamlNode& value) {
    if (!expect(value, Kind::map, "`gateway` to be a map of keys")) return;
    constexpr std::string_view kKeys[] = {
        "health", "retry",          "timeouts",      "engine_load",
        "queue",  "adaptive_limit", "max_in_flight", "worker_max_in_flight"};
    walk(value, "`gateway`", kKeys, [&](std::size_t index, const YamlNode&, const YamlNode& child) {
      const auto section = std::ranges::find(sections(), kKeys[index], &Section::key);
      if (section == sections().end()) {
        return read_scalar(*std::ranges::find(pool_fields(), kKeys[index], &Field::key), child,
                           &scenario_.pool);
      }
      read_map(child, section->key, section->fields, section->at(scenario_.gateway));
      for (const Field& field : section->fields) {
        const bool simulated = std::ranges::count(kSimulated, SectionKey(section->key, field.key)) > 0;
        if (simulated || find(child, field.key) == nullptr) continue;
        report(place_of(child, field.key),
               fmt::format("`{}` of `{}` is not simulated; leave it out", field.key, section->key));
      }
    });
    if (const auto valid = check_config(scenario_.gateway); !valid) report(value, valid.error().message);
  }

  void add_policy(const YamlNode& value) {
    ScenarioPolicy policy;
    read_policy(value, policy.entry, policy.options);
    if (policy.entry == nullptr) return;
    policy.label = label_of(*policy.entry, policy.options);
    scenario_.policies.push_back(std::move(policy));
  }

  void read_fault(const YamlNode& value) {
    FaultLine line;
    bool named = false;
    if (!expect(value, Kind::map, "a fault like {worker: 3, at: 60s, do: die, for: 30s}")) return;
    read_fields(value, "a fault", kFault, &line, [&](const Field&, const YamlNode&, const YamlNode& child) {
      named = true;
      read_fault_kind(child, line.fault);
    });
    if (!named) report(value, "this fault has no `do`; write die, hang, slow or mute");
    const std::size_t workers = scenario_.workers.empty() ? kDefaultWorkers : scenario_.workers.size();
    if (line.worker == 0 || line.worker > workers)
      return report(place_of(value, "worker"), fmt::format("`worker`: write a number from 1 to {}", workers));
    if (line.times > 1 && line.every == Duration(0))
      return report(value, "`times` needs `every`: the time from one beginning to the next");
    line.fault.worker = line.worker - 1;
    for (std::uint32_t i = 0; i < line.times; ++i, line.fault.at += line.every)
      scenario_.faults.push_back(line.fault);
  }

  void read_fault_kind(const YamlNode& value, SimFault& fault) {
    if (!expect(value, Kind::scalar, "`do` to be die, hang, slow or mute")) return;
    for (const FaultKind kind : kFaultKinds) {
      if (value.text != to_string(kind)) continue;
      fault.kind = kind;
      return;
    }
    report(value, fmt::format("`do`: {} is unknown; write die, hang, slow or mute", quote(value.text)));
  }

  void read_expectation(const YamlNode& value) {
    Expectation expectation;
    expectation.line = value.line;
    if (!expect(value, Kind::map, "a bound like {measure: ttft_p99_ms, max: 500}")) return;
    read_fields(value, "a bound", kExpect, &expectation, none);
    std::vector<std::string_view> names;
    for (const Measure& measure : measures()) names.push_back(measure.name);
    if (find_measure(expectation.measure) == nullptr) {
      return report(place_of(value, "measure"),
                    fmt::format("{} is no measure.{} Measures: {}", quote(expectation.measure),
                                did_you_mean(expectation.measure, names), list_of(names)));
    }
    if (!expectation.policy.empty()) {
      const auto policy = parse_policy(expectation.policy);
      if (!policy) return report(place_of(value, "policy"), policy.error().message);
      expectation.policy = policy->label;
    }
    if (find(value, "min") == nullptr && find(value, "max") == nullptr)
      return report(value, "this bound has neither `min` nor `max`");
    scenario_.expect.push_back(std::move(expectation));
  }

  std::string folder_;
  Scenario scenario_;
};

}  // namespace

ScenarioLoad parse_scenario(std::string_view yaml, const std::string& directory) {
  return ScenarioReader(directory).read(yaml);
}

ScenarioLoad load_scenario(const std::string& path) {
  const Result<std::string> text = read_yaml_file(path);
  if (!text) return {{}, {{0, 0, text.error().message}}};
  ScenarioLoad load = parse_scenario(*text, std::filesystem::path(path).parent_path());
  if (load.scenario.name.empty()) load.scenario.name = std::filesystem::path(path).stem();
  return load;
}

Result<ScenarioPolicy> parse_policy(std::string_view text) {
  const std::string_view name = text.substr(0, text.find(':'));
  const RoutePolicyEntry* entry = find_route_policy(name);
  if (entry == nullptr) {
    std::vector<std::string_view> names;
    for (const RoutePolicyEntry& one : route_policies()) names.push_back(one.name);
    return fail(ErrorCode::invalid, fmt::format("unknown policy {}.{} Policies: {}", quote(name),
                                                did_you_mean(name, names), list_of(names)));
  }
  ScenarioPolicy policy{entry, default_values(*entry), {}};
  std::string_view rest = text.substr(std::min(name.size() + 1, text.size()));
  while (!rest.empty()) {
    const std::string_view setting = rest.substr(0, rest.find(':'));
    rest.remove_prefix(std::min(setting.size() + 1, rest.size()));
    const std::size_t equals = setting.find('=');
    const auto field = std::ranges::find(entry->fields, setting.substr(0, equals), &OptionField::key);
    if (equals == setting.npos || field == entry->fields.end())
      return fail(ErrorCode::invalid,
                  fmt::format("policy {} has no option {}; write {}:option=value, see `heng "
                              "docs policies`",
                              name, quote(setting), name));
    const std::string_view given = setting.substr(equals + 1);
    const bool flag = given == "true" || given == "false";
    const Result<double> value = flag ? Result<double>(given == "true" ? 1 : 0) : parse_number(given);
    if (!value) return std::unexpected(value.error());
    policy.options[static_cast<std::size_t>(field - entry->fields.begin())] = *value;
  }
  if (const auto valid = check_values(*entry, policy.options); !valid) return std::unexpected(valid.error());
  policy.label = label_of(*entry, policy.options);
  return policy;
}

void complete(Scenario& scenario) {
  if (scenario.workers.empty()) scenario.workers.assign(kDefaultWorkers, {.engine = scenario.engine});
  if (!scenario.policies.empty()) return;
  scenario.policies.push_back(*parse_policy("least_time"));
}

Result<std::unique_ptr<TrafficSource>> open_traffic(const Scenario& scenario, const TrafficWarning& warn) {
  ShapeOptions shape = scenario.traffic.shape;
  const ScenarioTraffic& traffic = scenario.traffic;
  SyntheticOptions synthetic = traffic.synthetic;
  const bool recorded = !traffic.trace.empty();
  shape.requests = traffic.requests;
  if (recorded) {
    shape.rate = traffic.rate;
  } else {
    if (traffic.rate > 0) synthetic.rate = traffic.rate;
    if (shape.requests == 0 && shape.duration == Duration(0)) shape.requests = synthetic.requests;
    synthetic.requests = UINT64_MAX;  // they count after the cut
  }
  const auto open = [&]() -> Result<std::unique_ptr<TrafficSource>> {
    if (recorded) return open_trace(traffic.trace, scenario.seed, warn);
    return make_synthetic(synthetic, scenario.seed);
  };
  return shape_traffic(open, shape, scenario.seed);
}

}  // namespace heng
