// getrlimit, sysinfo and control groups.
#include "live/machine.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <limits>
#include <new>

namespace heng {

namespace {

constexpr std::uint64_t kUnlimited = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint64_t kOwnDescriptors = 32;  // logs, listeners, the loop, names, the admin API, a hand-over
constexpr std::uint64_t kMemoryShare = 4;      // one part in so many is for bodies and answers

std::string file_text(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::uint64_t limit_of(__rlimit_resource resource) {
  rlimit limit{};
  if (::getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kUnlimited;
  return limit.rlim_cur;
}

std::uint64_t physical_bytes() {
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page_bytes = ::sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page_bytes <= 0) return kUnlimited;
  return static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page_bytes);
}

}  // namespace

std::uint64_t group_memory_bytes(const std::string& root, const std::string& membership) {
  constexpr std::string_view kUnified = "0::";
  if (!membership.starts_with(kUnified)) return kUnlimited;
  std::string group = membership.substr(kUnified.size(), membership.find('\n') - kUnified.size());
  std::uint64_t least = kUnlimited;
  while (true) {
    const std::string text = file_text(root + group + "/memory.max");
    char* end = nullptr;
    const std::uint64_t bytes = std::strtoull(text.c_str(), &end, 10);
    if (end != text.c_str()) least = std::min(least, bytes);  // "max" and no file are no limit
    if (group.empty() || group == "/") return least;
    group.resize(group.rfind('/'));
  }
}

MachineLimits claim_machine_limits() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  return {limit_of(RLIMIT_NOFILE),
          std::min({physical_bytes(), limit_of(RLIMIT_AS),
                    group_memory_bytes("/sys/fs/cgroup", file_text("/proc/self/cgroup"))})};
}

std::vector<std::string> fit_to_machine(Config& config, const MachineLimits& machine) {
  std::vector<std::string> cuts;
  LimitConfig& limits = config.limits;
  if (limits.buffered_bytes == 0) limits.buffered_bytes = machine.memory_bytes / kMemoryShare;
  // A tenant may hold as much as it leaves, see HttpServer::has_memory_for.
  const std::uint64_t body_max = config.keys_file.empty() ? limits.buffered_bytes : limits.buffered_bytes / 2;
  if (body_max < limits.body_bytes) {
    cuts.push_back(
        fmt::format("limits.buffered_bytes is {} bytes: no request body may be longer than {}, whatever "
                    "limits.body_bytes "
                    "says",
                    limits.buffered_bytes, body_max));
  }
  // A client may need a second descriptor for its worker; each worker three more, for probes, its models and
  // its load.
  std::uint64_t own = kOwnDescriptors;
  for (const PoolConfig& pool : config.pools) own += 3 * pool.workers.size();
  const std::uint64_t clients = machine.descriptors > own ? (machine.descriptors - own) / 2 : 0;
  if (clients < limits.connections) {
    cuts.push_back(fmt::format(
        "limits.connections is {}, but {} open files are enough for {} only: raise the limit (LimitNOFILE in "
        "heng.service, or `ulimit -Hn`)",
        limits.connections, machine.descriptors, std::max<std::uint64_t>(clients, 1)));
    limits.connections = static_cast<std::uint32_t>(std::max<std::uint64_t>(clients, 1));
  }
  return cuts;
}

void end_when_out_of_memory() {
  std::set_new_handler([] {
    constexpr std::string_view kWhy =
        "heng: out of memory; lower limits.buffered_bytes or limits.connections, or give it more\n";
    static_cast<void>(!::write(STDERR_FILENO, kWhy.data(), kWhy.size()));
    std::abort();
  });
}

}  // namespace heng
