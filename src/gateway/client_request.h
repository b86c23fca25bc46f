// A client's request as the gateway keeps it until no further attempt of it can follow.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/buffer.h"
#include "flow/api_error.h"
#include "flow/inspect.h"
#include "gateway/worker.h"
#include "live/http_server.h"

namespace heng {

/// What a recycled buffer may keep.
inline constexpr std::size_t kBufferKept = 4 << 10;

/// Owned and recycled by its exchange.
class ClientRequest {
 public:
  /// Looks into head and body; what is wrong with them, if something is. Views in facts() point into the
  /// connection's body: valid until keep(). `models_limited`: what cannot be read is refused, since it may
  /// name a model.
  std::optional<ApiError> read(const ServerConnection& connection, const Config& config,
                               RequestInspector& inspector, bool models_limited);
  /// Takes what is to be sent on from the connection. `id`: its x-request-id.
  void keep(ServerConnection& connection, std::string_view id, bool with_credentials);
  /// The bytes for one worker, which knows the model by the name `model`; `buffer` holds what is not the
  /// client's own body. Valid while both live.
  RequestBytes bytes_for(const Worker& worker, std::string_view model, Buffer& buffer) const;
  /// Gives a large body's memory back, and forgets what keep() took.
  void release();

  const RequestFacts& facts() const { return facts_; }
  /// The prompt's JSON text; after keep(), until release().
  std::string_view prompt() const { return body_.view().substr(prompt_at_, facts_.prompt.size()); }
  const std::string& method() const { return method_; }
  std::string_view path() const { return std::string_view(target_).substr(0, target_.find('?')); }
  const std::string& model() const { return model_; }  // as the client named it
  /// One of the calls that must name a model.
  bool is_inference() const;
  /// Doing it twice harms nobody: reading, or an inference, but not an upload.
  bool is_repeatable() const { return is_inference() || method_ == "GET" || method_ == "HEAD"; }
  /// Its answer names something that later requests will ask for.
  bool stores_resource() const;

 private:
  RequestFacts facts_;
  std::string method_;
  std::string target_;
  std::string model_;
  std::size_t model_token_at_ = 0;  // of the JSON token in body_; size 0 = no renaming possible
  std::size_t model_token_size_ = 0;
  std::size_t prompt_at_ = 0;  // in body_
  std::string fields_;         // forwarded fields, ready to send
  std::string credentials_;    // those that only workers without a key of their own get
  Buffer body_;
};

}  // namespace heng
