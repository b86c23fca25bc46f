// Any bytes as a configuration file or a file of keys: no crash, every issue has a place and words, clean
// input is usable.

// fuzz-layer: config

#include <cstdint>
#include <string>
#include <string_view>

#include "config/config.h"
#include "config/keys.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view yaml(reinterpret_cast<const char*>(data), size);
  const heng::KeyLoad keys = heng::parse_keys(yaml);
  for (const heng::ConfigIssue& issue : keys.issues) {
    HENG_ASSERT(issue.line >= 0 && !issue.message.empty() && (issue.line == 0) == (issue.column == 0));
  }
  for (const heng::ApiKey& key : keys.keys) {
    HENG_ASSERT(key.tenant != nullptr && (!keys.issues.empty() || heng::is_key_id(key.tenant->key_id)));
  }
  const heng::ConfigLoad load = heng::parse_config(yaml, "");  // "": opens no files
  for (const heng::ConfigIssue& issue : load.issues) {
    HENG_ASSERT(issue.line >= 0 && !issue.message.empty() && (issue.line == 0) == (issue.column == 0));
  }
  HENG_ASSERT(load.issues.empty() == heng::format_issues("f", load.issues).empty());
  if (!load.issues.empty()) return 0;
  HENG_ASSERT(heng::check_config(load.config).has_value() || yaml.contains("admin_token_file"));
  HENG_ASSERT(!load.config.pools.empty());
  for (const heng::PoolConfig& pool : load.config.pools) {
    HENG_ASSERT(pool.policy != nullptr && !pool.workers.empty());
    HENG_ASSERT(heng::check_values(*pool.policy, pool.policy_options).has_value());
    for (const heng::WorkerConfig& worker : pool.workers) {
      HENG_ASSERT(worker.endpoint.port > 0 && worker.weight > 0 && !worker.name.empty() &&
                  !worker.url.empty());
    }
  }
  return 0;
}
