// `heng workers`, `heng pools`, `heng weights`, `heng reload`: a running gateway seen from the command line.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/result.h"

namespace heng {

/// Where the gateway's admin API is and how to show what it says.
struct AdminOptions {
  std::string address = "127.0.0.1:8081";
  std::string token_file;
  std::string ca_file;  // for https; "" = the system's
  std::string cert_file;
  std::string key_file;
  std::string output = "table";
  bool no_headers = false;
  double watch_s = 0;  // 0 = once
};

struct AdminReply {
  long status = 0;
  std::string body;
};
/// One request, with a JSON body if it has one. Fails if the gateway cannot be reached.
Result<AdminReply> ask_admin(const AdminOptions& options, const std::string& path,
                             const std::string& method = "GET", const std::string& body = "");
/// Says on stderr why the gateway refused; the exit code for that.
int report_refusal(const AdminReply& reply);
/// --admin and --token-file.
void add_admin_address(CLI::App& command, AdminOptions& options);

class AdminCommands {
 public:
  void add_to(CLI::App& app, int& exit_code);

 private:
  void add_view(CLI::App& app, int& exit_code, const char* name, const char* help, const char* path);
  AdminOptions options_;
  int history_ = 20;
};

}  // namespace heng
