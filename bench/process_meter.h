// What a process has used so far, as the kernel counts it.
#pragma once

#include <dirent.h>

#include <fstream>
#include <string>

namespace heng::bench {

/// CPU time of all threads, nanoseconds, from the scheduler; exact to about one tick while a thread runs.
/// Negative if the process is gone.
inline double cpu_ns(long pid) {
  std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  DIR* folder = ::opendir(tasks.c_str());
  if (folder == nullptr) return -1;
  double total = 0;
  while (dirent* entry = ::readdir(folder)) {
    double ran = 0;
    if (entry->d_name[0] == '.') continue;
    if (std::ifstream(tasks + "/" + entry->d_name + "/schedstat") >> ran) total += ran;
  }
  ::closedir(folder);
  return total;
}

/// Resident memory in bytes. From smaps_rollup, which counts; statm only estimates.
inline double resident_bytes(long pid) {
  std::ifstream rollup("/proc/" + std::to_string(pid) + "/smaps_rollup");
  for (std::string word; rollup >> word;) {
    double kib = 0;
    if (word == "Rss:" && rollup >> kib) return kib * 1024;
  }
  return -1;
}

}  // namespace heng::bench
