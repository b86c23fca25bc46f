// What the program's exit status means, the same for every subcommand.
#pragma once

namespace heng {

enum ExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,
  kExitUsage = 2,
  kExitConfigInvalid = 3,
  kExitUnreachable = 4,
};

}  // namespace heng
