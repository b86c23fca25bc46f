// Looks names up again and again, and reads a file when it has changed.
#include "gateway/discovery.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "config/values.h"

namespace heng {

namespace {

constexpr Duration kFileLook = 500ms;

WorkerConfig worker_at(const SocketAddress& address) {
  WorkerConfig worker;
  worker.endpoint = {address.host(), address.port()};
  worker.name = format_endpoint(worker.endpoint);
  worker.url = "http://" + worker.name;
  return worker;
}

}  // namespace

Discovery::Discovery(Resolver& resolver, std::string model, const DiscoverConfig& config)
    : resolver_(resolver), model_(std::move(model)), config_(config) {
  if (!config_.file.empty()) look_at_file();
}

void Discovery::tick(Instant now) {
  if (config_.dns && !asking_ && now >= next_dns_) {
    asking_ = true;
    next_dns_ = now + config_.every;
    resolver_.look_up(*config_.dns, [this, alive = std::weak_ptr<bool>(alive_)](const auto& found) {
      if (!alive.expired()) on_addresses(found);
    });
  }
  if (!config_.file.empty() && now >= next_file_) {
    next_file_ = now + kFileLook;
    look_at_file();
  }
}

std::vector<WorkerConfig> Discovery::workers() const {
  std::vector<WorkerConfig> all = file_.workers;
  all.insert(all.end(), dns_.workers.begin(), dns_.workers.end());
  return all;
}

void Discovery::on_addresses(const Result<std::vector<SocketAddress>>& found) {
  asking_ = false;
  const std::string from = fmt::format("dns {}", format_endpoint(*config_.dns));
  if (!found) return note(dns_, from, found.error().message);
  std::vector<WorkerConfig> workers;
  for (const SocketAddress& address : *found) {
    workers.push_back(worker_at(address));
    workers.back().origin = WorkerOrigin::dns;
  }
  // Servers give the addresses in turns.
  std::ranges::sort(workers, {}, &WorkerConfig::url);
  const auto [first, last] = std::ranges::unique(workers, {}, &WorkerConfig::url);
  workers.erase(first, last);
  take(dns_, from, std::move(workers));
}

/// A file that is being written is left alone until two looks find it the same.
void Discovery::look_at_file() {
  const Result<Stamp> stamp = stamp_of(config_.file);
  if (!stamp) {
    taken_ = {};  // whatever comes back is read
    return note(file_, config_.file, stamp.error().message);
  }
  const bool settled = *stamp == seen_ || !file_read_;
  seen_ = *stamp;
  if (*stamp == taken_ || !settled) return;
  file_read_ = true;
  WorkerListLoad load = load_worker_list(config_.file);
  const Result<Stamp> after = stamp_of(config_.file);
  if (!after || *after != *stamp) return;  // it is read again when it has settled
  taken_ = *stamp;
  if (!load.issues.empty()) {
    std::string problem = format_issues(config_.file, load.issues);
    return note(file_, config_.file, problem.substr(0, problem.find_last_not_of('\n') + 1));
  }
  for (WorkerConfig& worker : load.workers) worker.origin = WorkerOrigin::discovery_file;
  take(file_, config_.file, std::move(load.workers));
}

void Discovery::take(Source& source, const std::string& from, std::vector<WorkerConfig> workers) {
  if (!source.problem.empty()) spdlog::info("pool '{}': {} is fine again", model_, from);
  source.problem.clear();
  if (workers == source.workers) return;
  spdlog::info("pool '{}': {} worker(s) from {}, {} before", model_, workers.size(), from,
               source.workers.size());
  source.workers = std::move(workers);
  ++version_;
}

void Discovery::note(Source& source, const std::string& from, std::string problem) {
  if (problem == source.problem) return;
  spdlog::warn("pool '{}': {}: {}; the {} worker(s) found before stay", model_, from, problem,
               source.workers.size());
  source.problem = std::move(problem);
}

Result<Discovery::Stamp> Discovery::stamp_of(const std::string& path) {
  struct stat facts{};
  if (::stat(path.c_str(), &facts) != 0) return fail(ErrorCode::io, std::strerror(errno));
  if (!S_ISREG(facts.st_mode)) return fail(ErrorCode::io, "not a regular file");
  return Stamp{facts.st_dev, facts.st_ino, facts.st_size,
               facts.st_mtim.tv_sec * 1'000'000'000LL + facts.st_mtim.tv_nsec};
}

}  // namespace heng
