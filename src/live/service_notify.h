// Tells systemd about the state of the service (sd_notify's protocol: one datagram).
#pragma once

#include <string_view>

namespace heng {

/// "READY=1", "RELOADING=1\nMONOTONIC_USEC=...", "STOPPING=1", "STATUS=...". Does nothing outside of systemd.
void notify_service(std::string_view state);

}  // namespace heng
