// Reads the bodies of OpenAI requests as the engine server needs them.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace heng {

enum class CallKind : std::uint8_t { chat, completion, response, embedding };

/// A request understood. Prompts are rendered to the text whose bytes stand for tokens (sim/prompt.h).
struct EngineCall {
  CallKind kind = CallKind::chat;
  std::string prompt;               // all kinds but embedding; for a response only what is new in this turn
  std::vector<std::string> inputs;  // embedding
  std::uint32_t max_tokens = 0;     // 0 = not given
  bool stream = false;
  bool include_usage = false;
  bool base64 = false;               // embedding
  std::uint32_t dimensions = 0;      // embedding; 0 = not given
  bool store = true;                 // response
  std::string instructions;          // response; "" = none
  std::string previous_response_id;  // response; "" = none
};

/// Ready for an OpenAI error body.
struct CallError {
  int status = 400;
  std::string message;
  std::string code;
  std::string param;
};

/// One message as the model would see it: a role mark, the text, and blanks up to whole tokens, so that an
/// answer which comes back in the next turn covers the same tokens as when it was made.
void append_message(std::string& prompt, std::string_view role, std::string_view text);
/// The role mark after which the answer begins.
void append_answer_mark(std::string& prompt);

/// Reuses its memory; one for each server.
class CallReader {
 public:
  CallReader();
  ~CallReader();

  /// `body` with Buffer::kPadding readable bytes behind it. `model` is the only one served.
  std::expected<EngineCall, CallError> read(CallKind kind, std::string_view body, std::string_view model);
  /// The one number of a control request: {"speed": x}, 0 < x <= 1000.
  std::expected<double, CallError> read_speed(std::string_view body);

 private:
  struct Parser;
  std::unique_ptr<Parser> parser_;
};

}  // namespace heng
