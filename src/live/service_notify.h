// Tells systemd about the state of the service (sd_notify's protocol: one datagram).
#pragma once

#include <string_view>

namespace heng {

/// "READY=1", "STOPPING=1", "MAINPID=...", "STATUS=...". Does nothing outside of systemd.
void notify_service(std::string_view state);
/// A reload begins; READY=1 ends it.
void notify_reloading();

}  // namespace heng
