// Implementation of the answer bodies and events.
#include "app/engine_answer.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>

#include "base/hash.h"
#include "base/rng.h"
#include "flow/api_error.h"
#include "sim/prompt.h"

namespace heng {
namespace {

static_assert(std::endian::native == std::endian::little, "base64 embeddings are little-endian");

std::uint32_t output_tokens(const AnswerFacts& facts) {
  return static_cast<std::uint32_t>(facts.text.size() / kBytesPerToken);
}

std::string usage(const AnswerFacts& facts) {
  const std::uint32_t output = output_tokens(facts);
  const std::uint64_t total = std::uint64_t{facts.prompt_tokens} + output;
  if (facts.kind == CallKind::response) {
    return fmt::format(
        R"({{"input_tokens":{},"input_tokens_details":{{"cached_tokens":{}}},"output_tokens":{},)"
        R"("output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{}}})",
        facts.prompt_tokens, facts.cached_tokens, output, total);
  }
  return fmt::format(R"({{"prompt_tokens":{},"total_tokens":{},"completion_tokens":{},)"
                     R"("prompt_tokens_details":{{"cached_tokens":{}}}}})",
                     facts.prompt_tokens, total, output, facts.cached_tokens);
}

/// The id of a response's only message.
std::string message_id(const AnswerFacts& facts) {
  const std::size_t underscore = facts.id.find('_');
  return fmt::format("msg_{}", facts.id.substr(underscore + 1));
}

std::string text_part(std::string_view text) {
  return fmt::format(R"({{"type":"output_text","text":"{}","annotations":[],"logprobs":[]}})", text);
}

std::string message_item(const AnswerFacts& facts, std::string_view status, std::string_view content) {
  return fmt::format(R"({{"id":"{}","type":"message","status":"{}","role":"assistant","content":[{}]}})",
                     message_id(facts), status, content);
}

/// `done`: with the answer and its usage.
std::string response_object(const AnswerFacts& facts, bool done) {
  const auto text_or_null = [](std::string_view text) {
    return text.empty() ? std::string("null") : json_quote(text);
  };
  const bool cut = facts.finish == FinishReason::length;
  const std::string_view status = !done ? "in_progress" : cut ? "incomplete" : "completed";
  std::string body = fmt::format(
      R"({{"id":"{}","object":"response","created_at":{},"status":"{}","error":null,"incomplete_details":{},)"
      R"("instructions":{},"max_output_tokens":{},"model":{},"output":[{}],)",
      facts.id, facts.created, status, done && cut ? R"({"reason":"max_output_tokens"})" : "null",
      text_or_null(facts.instructions), facts.max_tokens == 0 ? "null" : fmt::format("{}", facts.max_tokens),
      json_quote(facts.model), done ? message_item(facts, status, text_part(facts.text)) : "");
  body += fmt::format(
      R"("parallel_tool_calls":true,"previous_response_id":{},"reasoning":{{"effort":null,"summary":null}},)"
      R"("store":{},"temperature":0.0,"text":{{"format":{{"type":"text"}}}},"tool_choice":"auto","tools":[],)"
      R"("top_p":1.0,"truncation":"disabled","usage":{},"user":null,"metadata":{{}}}})",
      text_or_null(facts.previous_response_id), facts.store, done ? usage(facts) : "null");
  return body;
}

std::string_view object_name(CallKind kind, bool chunk) {
  if (kind == CallKind::completion) return "text_completion";
  return chunk ? "chat.completion.chunk" : "chat.completion";
}

std::string to_base64(std::string_view bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      group = group << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    }
    for (std::size_t k = 0; k < 4; ++k) {
      text += i + k > bytes.size() ? '=' : kDigits[group >> (18 - 6 * k) & 63];
    }
  }
  return text;
}

}  // namespace

std::string whole_answer(const AnswerFacts& facts) {
  if (facts.kind == CallKind::response) return response_object(facts, true);
  const std::string_view content =
      facts.kind == CallKind::chat ? R"("message":{"role":"assistant","content":")" : R"("text":")";
  const std::string_view close = facts.kind == CallKind::chat ? R"(","refusal":null})" : R"(")";
  return fmt::format(R"({{"id":"{}","object":"{}","created":{},"model":{},"choices":[{{"index":0,{}{}{},)"
                     R"("logprobs":null,"finish_reason":"{}"}}],"usage":{}}})",
                     facts.id, object_name(facts.kind, false), facts.created, json_quote(facts.model),
                     content, facts.text, close, to_string(facts.finish), usage(facts));
}

AnswerStream::AnswerStream(const AnswerFacts& facts)
    : response_(facts.kind == CallKind::response), usage_field_(facts.include_usage) {
  if (response_) {
    before_word_ = fmt::format(
        "event: response.output_text.delta\ndata: {{\"type\":\"response.output_text.delta\","
        R"("item_id":"{}","output_index":0,"content_index":0,"logprobs":[],"delta":")",
        message_id(facts));
    return;
  }
  chunk_start_ = fmt::format(R"(data: {{"id":"{}","object":"{}","created":{},"model":{},"choices":)",
                             facts.id, object_name(facts.kind, true), facts.created, json_quote(facts.model));
  before_word_ = chunk_start_;
  before_word_ +=
      facts.kind == CallKind::chat ? R"([{"index":0,"delta":{"content":")" : R"([{"index":0,"text":")";
  after_word_ = facts.kind == CallKind::chat ? R"("},"logprobs":null,"finish_reason":null}])"
                                             : R"(","logprobs":null,"finish_reason":null}])";
  after_word_ += usage_field_ ? ",\"usage\":null}\n\n" : "}\n\n";
}

void AnswerStream::append_event(std::string_view type, std::string_view fields, std::string& out) {
  fmt::format_to(std::back_inserter(out),
                 "event: {}\ndata: {{\"type\":\"{}\",\"sequence_number\":{},{}}}\n\n", type, type,
                 sequence_number_++, fields);
}

void AnswerStream::append_chunk(std::string_view choices, std::string_view usage, std::string& out) {
  out += chunk_start_;
  out += choices;
  if (usage_field_) {
    out += ",\"usage\":";
    out += usage;
  }
  out += "}\n\n";
}

void AnswerStream::append_head(const AnswerFacts& facts, std::string& out) {
  if (!response_) return;
  const std::string response = "\"response\":" + response_object(facts, false);
  append_event("response.created", response, out);
  append_event("response.in_progress", response, out);
}

void AnswerStream::append_opening(const AnswerFacts& facts, std::string& out) {
  if (facts.kind == CallKind::chat) {
    append_chunk(
        R"([{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}])",
        "null", out);
  }
  if (!response_) return;
  append_event("response.output_item.added",
               fmt::format(R"("output_index":0,"item":{})", message_item(facts, "in_progress", "")), out);
  append_event("response.content_part.added",
               fmt::format(R"("item_id":"{}","output_index":0,"content_index":0,"part":{})",
                           message_id(facts), text_part("")),
               out);
}

void AnswerStream::append_token(const AnswerFacts& facts, std::uint32_t index, std::string& out) {
  out += before_word_;
  out += facts.text.substr(std::size_t{index} * kBytesPerToken, kBytesPerToken);
  out += after_word_;
  if (response_)
    fmt::format_to(std::back_inserter(out), "\",\"sequence_number\":{}}}\n\n", sequence_number_++);
}

void AnswerStream::append_ending(const AnswerFacts& facts, std::string& out) {
  if (response_) {
    const bool cut = facts.finish == FinishReason::length;
    const std::string place =
        fmt::format(R"("item_id":"{}","output_index":0,"content_index":0)", message_id(facts));
    append_event("response.output_text.done",
                 fmt::format(R"({},"text":"{}","logprobs":[])", place, facts.text), out);
    append_event("response.content_part.done", fmt::format(R"({},"part":{})", place, text_part(facts.text)),
                 out);
    append_event("response.output_item.done",
                 fmt::format(R"("output_index":0,"item":{})",
                             message_item(facts, cut ? "incomplete" : "completed", text_part(facts.text))),
                 out);
    append_event(cut ? "response.incomplete" : "response.completed",
                 "\"response\":" + response_object(facts, true), out);
    return;
  }
  const std::string_view empty = facts.kind == CallKind::chat ? R"("delta":{})" : R"("text":"")";
  append_chunk(fmt::format(R"([{{"index":0,{},"logprobs":null,"finish_reason":"{}"}}])", empty,
                           to_string(facts.finish)),
               "null", out);
  if (facts.include_usage) append_chunk("[]", usage(facts), out);
  out += "data: [DONE]\n\n";
}

std::vector<float> embed(std::string_view text, std::uint32_t dimensions) {
  Rng rng(hash_bytes(text));
  std::vector<double> drawn(dimensions);
  double square = 0;
  for (double& value : drawn) {
    value = rng.normal();
    square += value * value;
  }
  std::vector<float> vector(dimensions);
  for (std::size_t i = 0; i < drawn.size(); ++i) vector[i] = static_cast<float>(drawn[i] / std::sqrt(square));
  return vector;
}

std::string embedding_answer(std::string_view model, std::span<const std::vector<float>> vectors, bool base64,
                             std::uint32_t prompt_tokens) {
  std::string body = R"({"object":"list","data":[)";
  const auto out = std::back_inserter(body);
  for (std::size_t i = 0; i < vectors.size(); ++i) {
    fmt::format_to(out, R"({}{{"object":"embedding","index":{},"embedding":)", i == 0 ? "" : ",", i);
    if (base64) {
      std::string bytes(vectors[i].size() * sizeof(float), '\0');
      std::memcpy(bytes.data(), vectors[i].data(), bytes.size());
      fmt::format_to(out, "\"{}\"}}", to_base64(bytes));
    } else {
      fmt::format_to(out, "[{}]}}", fmt::join(vectors[i], ","));
    }
  }
  fmt::format_to(out, R"(],"model":{},"usage":{{"prompt_tokens":{},"total_tokens":{}}}}})", json_quote(model),
                 prompt_tokens, prompt_tokens);
  return body;
}

}  // namespace heng
