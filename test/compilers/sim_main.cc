// `heng sim` without the rest of the program: what the second compiler builds, to compare results.
#include <CLI/CLI.hpp>

#include "app/sim_command.h"

int main(int argc, char** argv) {
  CLI::App app("The simulator alone", "heng_sim_alone");
  int exit_code = 0;
  heng::SimCommand command;
  command.add_to(app, exit_code);
  CLI11_PARSE(app, argc, argv);
  return exit_code;
}
