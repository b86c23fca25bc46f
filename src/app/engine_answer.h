// Writes answers as OpenAI's API gives them: whole bodies and streamed events.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "app/engine_call.h"
#include "sim/engine.h"

namespace heng {

/// What an answer says. The views must outlive the calls below.
struct AnswerFacts {
  CallKind kind = CallKind::chat;
  std::string_view id;  // "chatcmpl-...", "cmpl-...", "resp_..."
  std::string_view model;
  std::int64_t created = 0;  // seconds since 1970
  bool include_usage = false;
  bool store = true;             // responses, like the three below
  std::uint32_t max_tokens = 0;  // 0 = not given
  std::string_view instructions;
  std::string_view previous_response_id;
  std::string_view text;  // of the whole answer: kBytesPerToken bytes a token
  std::uint32_t prompt_tokens = 0;
  std::uint32_t cached_tokens = 0;
  FinishReason finish = FinishReason::stop;
};

/// The body of an answer that is not streamed.
std::string whole_answer(const AnswerFacts& facts);

/// Streamed answers, as server-sent events. The parts that are equal in all chunks are made once.
class AnswerStream {
 public:
  explicit AnswerStream(const AnswerFacts& facts);

  /// What is sent before there is a token: nothing but for responses.
  void append_head(const AnswerFacts& facts, std::string& out);
  /// Before the first token: the role, or the announcement of the message.
  void append_opening(const AnswerFacts& facts, std::string& out);
  void append_token(const AnswerFacts& facts, std::uint32_t index, std::string& out);
  /// After the last token: why it ended, the usage where it was asked for, the end mark.
  void append_ending(const AnswerFacts& facts, std::string& out);

 private:
  void append_event(std::string_view type, std::string_view fields, std::string& out);
  void append_chunk(std::string_view choices, std::string_view usage, std::string& out);

  bool response_;
  bool usage_field_;
  std::string chunk_start_;  // up to the choices
  std::string before_word_;
  std::string after_word_;
  std::uint32_t sequence_number_ = 0;  // of responses' events
};

/// {"object":"list","data":[{...,"embedding":...}]}; vectors as numbers, or as base64 of little-endian
/// floats.
std::string embedding_answer(std::string_view model, std::span<const std::vector<float>> vectors, bool base64,
                             std::uint32_t prompt_tokens);

/// A unit vector drawn from the text's hash: equal texts get equal vectors.
std::vector<float> embed(std::string_view text, std::uint32_t dimensions);

}  // namespace heng
