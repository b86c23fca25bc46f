// What this process may take of its machine: descriptors and memory; and how the limits follow from that.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/config.h"

namespace heng {

struct MachineLimits {
  std::uint64_t descriptors = 0;   // open files at a time
  std::uint64_t memory_bytes = 0;  // the least of the machine's, the control group's and the address space's
};

/// Raises the soft limit of open files to the hard one first.
MachineLimits claim_machine_limits();

/// Puts in what the configuration leaves to the machine, and cuts what the machine cannot give. One sentence
/// for people about each cut.
std::vector<std::string> fit_to_machine(Config& config, const MachineLimits& machine);

/// The least limit of memory on the way from a control group to the root; max if there is none. `root` is
/// where the groups are mounted, `membership` the contents of /proc/self/cgroup (version 2).
std::uint64_t group_memory_bytes(const std::string& root, const std::string& membership);

/// From here on running out of memory ends the process at once, with a word on why: half-done work is not
/// unwound through.
void end_when_out_of_memory();

}  // namespace heng
