// Placeholder so that the rest links while the demo is written.
#pragma once
#include <CLI/CLI.hpp>
namespace heng {
struct DemoOptions {};
inline void add_demo_command(CLI::App&, DemoOptions&, int&) {}
}  // namespace heng
