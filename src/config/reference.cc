// Writes the reference page and the example file from the tables, so that neither can fall behind the code.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <string>

#include "config/config.h"
#include "config/reader.h"
#include "config/schema.h"
#include "config/values.h"

namespace heng {
namespace {

/// "|" would end a table cell.
std::string cell(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') out += '\\';
    out += c;
  }
  return out;
}

std::string describe(const Field& field) {
  if (field.type != FieldType::structure) return std::string(describe_type(field));
  if (field.key == "aliases") return "list of names";
  if (field.key == "policy") return "name or map";
  if (field.key == "hash_on") return "text";
  if (field.key == "url") return "URL";
  if (field.key == "models") return "list of names";
  if (field.key == "expires") return "date";
  if (field.key == "hash") return "text";
  if (field.key == "worker_allow") return "list";
  return std::string(field.example);
}

/// The default as the file would have it; "" where there is none.
std::string default_of(const Field& field, void* defaults) {
  if (field.key == "policy") return std::string(default_route_policy().name);
  if (field.key == "hash_on" || field.key == "worker_allow") return std::string(field.example);
  return field.type == FieldType::structure ? "" : format_field(field, defaults);
}

void append_table(std::string& page, std::span<const Field> fields, void* defaults) {
  page += "| key | type | default | range | meaning |\n|---|---|---|---|---|\n";
  for (const Field& field : fields) {
    const std::string value = default_of(field, defaults);
    fmt::format_to(std::back_inserter(page), "| `{}` | {} | {} | {} | {} |\n", field.key, describe(field),
                   value.empty() ? "" : fmt::format("`{}`", value), format_range(field), cell(field.doc));
  }
  page += '\n';
}

std::string format_option(const OptionField& option, double value) {
  if (option.is_flag) return value != 0 ? "true" : "false";
  return format_number(value);
}

void append_policies(std::string& page) {
  page += "## Routing policies\n\n";
  for (const RoutePolicyEntry& entry : route_policies()) {
    fmt::format_to(std::back_inserter(page), "### `{}`\n\n{}\n\n{}\n\n", entry.name, entry.summary,
                   entry.details);
    if (entry.fields.empty()) continue;
    page += "| option | default | range | meaning |\n|---|---|---|---|\n";
    for (const OptionField& option : entry.fields) {
      const std::string range =
          option.is_flag ? "true or false"
                         : fmt::format("{} to {}", format_number(option.min), format_number(option.max));
      fmt::format_to(std::back_inserter(page), "| `{}` | `{}` | {} | {} |\n", option.key,
                     format_option(option, option.default_value), range, cell(option.doc));
    }
    page += '\n';
  }
}

constexpr std::string_view kIntroduction =
    R"(<!-- Written by `heng docs --write` from the tables in src/config/schema.cc; edit those. -->

# Configuration

One YAML file, given with `-c`. `heng check -c heng.yaml` reports every mistake in it, each as
`file:line:column` with what to do next. A commented example is [heng.example.yaml](../heng.example.yaml).
Flags are stronger than environment variables (`HENG_*`), those than the file, and the file than the
defaults below.

- **Durations** have a unit: `200ms`, `5s`, `2m`, `1h`.
- **Sizes** are bytes or have a unit: `500`, `64KiB`, `1MiB`, `2GiB`.
- **Secrets** are best kept in files of their own that not everybody can read (`chmod 600`). Relative paths
  count from the folder of the configuration file.
- The file is UTF-8, one document, at most 4 MiB, without tabs, anchors, aliases and tags; nothing in it is
  replaced by environment variables.

The smallest configuration:

```yaml
pools:
  - model: llama-3-8b
    workers:
      - http://10.0.0.1:8000
      - http://10.0.0.2:8000
```

)";

constexpr std::string_view kKeysIntroduction =
    R"(## The file of API keys

What `keys_file` names: `keys:` and a list, one entry for each key. `heng key new ID --file FILE` makes a
key, prints it once and appends its entry; the file holds no secret, only what recognises it. A reload reads
it again: a key that is gone is refused from the next request on. For a change of keys the old and the new
one may stand here together, with the same `tenant`.

)";

constexpr std::string_view kExampleHead =
    R"(# Configuration of Heng. Lines that begin with `#` and a key show the default, or an example if there
# is none.
# Check a file with: heng check -c heng.yaml
# All keys: docs/reference/configuration.md. Written by `heng docs --write` from src/config/schema.cc.

)";

/// One key with its meaning above it. `active` keys are set, the others commented out.
void append_example(std::string& out, std::string_view indent, const Field& field, void* defaults,
                    bool active) {
  std::string value = default_of(field, defaults);
  if (value.empty() || field.key == "capacity" || field.key == "dns") value = field.example;
  if (field.type == FieldType::path) value = fmt::format("\"{}\"", value);
  fmt::format_to(std::back_inserter(out), "{0}# {1}\n{0}{2}{3}: {4}\n", indent, field.doc, active ? "" : "#",
                 field.key, value);
}

void append_example_pool(std::string& out) {
  PoolConfig pool;
  out += "# The models and who serves them. The only key that must be there.\npools:\n";
  out += "  # ";
  fmt::format_to(std::back_inserter(out), "{}\n  - model: llama-3-8b\n", pool_fields().front().doc);
  for (const Field& field : pool_fields().subspan(1)) {
    if (field.key == "discover") {
      fmt::format_to(std::back_inserter(out), "    # {}\n    discover:\n", field.doc);
      for (const Field& inner : discover_fields())
        append_example(out, "      ", inner, &pool.discover, false);
    } else if (field.key != "workers") {
      append_example(out, "    ", field, &pool, field.key == "policy");
    }
  }
  out += "    # The engines: each a URL, or a map with `url` and any of the keys below.\n    workers:\n";
  out += "      - http://10.0.0.1:8000\n";
  WorkerConfig worker;
  for (const Field& field : worker_fields()) {
    if (field.key == "url") {
      fmt::format_to(std::back_inserter(out), "      - url: {}  # {}\n", field.example, field.doc);
    } else if (field.key == "tls") {
      fmt::format_to(std::back_inserter(out), "        # {}\n        tls:\n", field.doc);
      for (const Field& inner : worker_tls_fields()) append_example(out, "          ", inner, &worker, false);
    } else {
      append_example(out, "        ", field, &worker, false);
    }
  }
}

}  // namespace

std::string config_reference() {
  Config defaults;
  std::string page(kIntroduction);
  page += "## Top level\n\n";
  append_table(page, root_fields(), &defaults);
  for (const Section& section : sections()) {
    fmt::format_to(std::back_inserter(page), "## `{}`\n\n{}\n\n", section.key, section.doc);
    append_table(page, section.fields, section.at(defaults));
  }
  PoolConfig pool;
  page += "## `pools`\n\nA list; each pool serves one model.\n\n";
  append_table(page, pool_fields(), &pool);
  page += "### `discover`\n\nInside a pool. Details: [workers.md](../workers.md).\n\n";
  append_table(page, discover_fields(), &pool.discover);
  WorkerConfig worker;
  page += "### `workers`\n\nA list inside a pool; a plain URL is short for `{url: ...}`.\n\n";
  append_table(page, worker_fields(), &worker);
  page += "### `tls`\n\nInside a worker.\n\n";
  append_table(page, worker_tls_fields(), &worker);
  Tenant tenant;
  page += kKeysIntroduction;
  append_table(page, key_fields(), &tenant);
  page += "### `limits`\n\nInside a key.\n\n";
  append_table(page, key_limit_fields(), &tenant.limits);
  append_policies(page);
  while (page.ends_with("\n\n")) page.pop_back();
  return page;
}

std::string config_example() {
  Config defaults;
  std::string out(kExampleHead);
  for (const Field& field : root_fields()) {
    if (field.type == FieldType::structure && !field.example.starts_with('[')) continue;
    append_example(out, "", field, &defaults, field.key == "listen" || field.key == "admin");
    out += '\n';
  }
  append_example_pool(out);
  for (const Section& section : sections()) {
    fmt::format_to(std::back_inserter(out), "\n# {}\n{}:\n", section.doc, section.key);
    for (const Field& field : section.fields) append_example(out, "  ", field, section.at(defaults), false);
  }
  return out;
}

}  // namespace heng
