// The workers of one pool that are found while running: the addresses of a name, the list in a watched file.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "live/resolver.h"

namespace heng {

/// What fails keeps the last good list: a resolver's hiccup or a half-written file never takes workers away.
/// Lives on the gateway's loop.
class Discovery {
 public:
  /// `model` names the pool in the log.
  Discovery(Resolver& resolver, std::string model, const DiscoverConfig& config);
  Discovery(const Discovery&) = delete;
  Discovery& operator=(const Discovery&) = delete;

  /// Looks for what is due. About every 100 ms.
  void tick(Instant now);
  /// What was found last; where these workers may be is not checked here.
  std::vector<WorkerConfig> workers() const;
  /// Bumped with every change of workers().
  std::uint32_t version() const { return version_; }
  const std::string& model() const { return model_; }
  const DiscoverConfig& config() const { return config_; }

 private:
  /// Tells two states of a file apart, also when another file was put in its place or behind a link on the
  /// way.
  struct Stamp {
    dev_t device = 0;
    ino_t inode = 0;
    off_t size = -1;
    std::int64_t changed_ns = 0;
    bool operator==(const Stamp&) const = default;
  };
  struct Source {
    std::vector<WorkerConfig> workers;
    std::string problem;  // as last logged; "" = none
  };

  void look_at_file();
  void on_addresses(const Result<std::vector<SocketAddress>>& found);
  void take(Source& source, const std::string& from, std::vector<WorkerConfig> workers);
  void note(Source& source, const std::string& from, std::string problem);
  static Result<Stamp> stamp_of(const std::string& path);

  Resolver& resolver_;
  std::string model_;
  DiscoverConfig config_;
  Source dns_;
  Source file_;
  Instant next_dns_{};
  Instant next_file_{};
  bool asking_ = false;
  bool file_read_ = false;  // once at least
  Stamp seen_;              // at the last look
  Stamp taken_;             // of the text that was read last
  std::uint32_t version_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // guards calls that come back later
};

}  // namespace heng
