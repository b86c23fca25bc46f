// Prints or writes the generated pages.
#include "app/docs.h"

#include <fmt/format.h>

#include <fstream>

#include "app/exit_code.h"
#include "config/config.h"
#include "policy/route/registry.h"

namespace heng {

namespace {

struct Page {
  const char* name;
  const char* path;
  std::string (*text)();
};

constexpr Page kPages[] = {{"configuration", "docs/reference/configuration.md", config_reference},
                           {"policies", "docs/reference/policies.md", route_policy_reference},
                           {"example", "docs/heng.example.yaml", config_example}};

int write_pages() {
  for (const Page& page : kPages) {
    std::ofstream file(page.path);
    file << page.text();
    if (!file.flush()) {
      fmt::print(stderr, "heng: cannot write {}: run this in the root of the source tree\n", page.path);
      return kExitFailed;
    }
    fmt::print("{}\n", page.path);
  }
  return kExitOk;
}

}  // namespace

void DocsCommand::add_to(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("docs", "Print a reference page: all options, all policies, an example file");
  command->add_option("page", page_, "Which one")
      ->check(CLI::IsMember({"configuration", "policies", "example"}))
      ->capture_default_str();
  command->add_flag("--write", write_, "Write all pages to their places in the source tree");
  command->callback([this, &exit_code] {
    if (write_) {
      exit_code = write_pages();
      return;
    }
    for (const Page& page : kPages) {
      if (page_ == page.name) fmt::print("{}", page.text());
    }
  });
}

}  // namespace heng
