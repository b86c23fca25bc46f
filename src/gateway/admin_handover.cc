// Keeps the connection of whoever asked until there is something to say.
#include "gateway/admin_handover.h"

#include <fmt/format.h>

#include "flow/api_error.h"

namespace heng {

namespace {

void respond(ServerConnection& connection, int status, std::string_view body) {
  const HeaderField fields[] = {{"Content-Type", "application/json"}, {"Cache-Control", "no-store"}};
  connection.respond(status, fields, body);
}

}  // namespace

void AdminHandover::answer(ServerConnection& connection) {
  if (!start_ || waiting_ != nullptr) {
    const std::string_view why =
        start_ ? "a hand-over is under way" : "this gateway cannot start itself anew";
    return respond(connection, 409, api_error_body(409, why, "handover_refused"));
  }
  waiting_ = &connection;
  connection.observe(this);
  start_([this](const Result<pid_t>& successor) { tell(successor); });
}

void AdminHandover::tell(const Result<pid_t>& successor) {
  ServerConnection* connection = std::exchange(waiting_, nullptr);
  if (connection == nullptr) return;
  connection->observe(nullptr);
  if (successor)
    return respond(*connection, 200, fmt::format(R"({{"handed_over":true,"pid":{}}})", *successor));
  respond(*connection, 409, api_error_body(409, successor.error().message, "handover_failed"));
}

}  // namespace heng
