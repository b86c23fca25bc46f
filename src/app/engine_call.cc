// Implementation of the body reader on simdjson's DOM, which validates the whole text.
#include "app/engine_call.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

#include "base/buffer.h"
#include "sim/prompt.h"

namespace heng {
namespace {

namespace dom = simdjson::dom;

constexpr std::size_t kInputsMax = 2048;  // per embedding request, as at OpenAI
constexpr std::uint32_t kDimensionsMax = 8192;
constexpr double kSpeedMax = 1000;

static_assert(simdjson::SIMDJSON_PADDING <= Buffer::kPadding);

/// What is wrong, if anything.
using Check = std::optional<CallError>;

CallError bad(std::string message, std::string_view param = {}) {
  return {400, std::move(message), param.empty() ? "" : "invalid_value", std::string(param)};
}

CallError wrong_type(std::string_view param, std::string_view wanted) {
  return bad(fmt::format("'{}' must be {}.", param, wanted), param);
}

void pad(std::string& text) { text.resize(count_tokens(text.size()) * kBytesPerToken, ' '); }

/// Null counts as absent, as in OpenAI's API.
std::optional<dom::element> field(dom::object object, std::string_view key) {
  dom::element value;
  if (object.at_key(key).get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
  return value;
}

Check read_flag(dom::object object, std::string_view key, bool& flag) {
  const auto value = field(object, key);
  if (value && value->get(flag) != simdjson::SUCCESS) return wrong_type(key, "true or false");
  return {};
}

Check read_text(dom::object object, std::string_view key, std::string& text) {
  const auto value = field(object, key);
  std::string_view view;
  if (!value) return {};
  if (value->get(view) != simdjson::SUCCESS) return wrong_type(key, "a string");
  text = view;
  return {};
}

Check read_count(dom::object object, std::string_view key, std::uint32_t& count) {
  const auto value = field(object, key);
  std::int64_t number = 0;
  if (!value) return {};
  if (value->get(number) != simdjson::SUCCESS || number < 1)
    return wrong_type(key, "an integer of at least 1");
  count =
      static_cast<std::uint32_t>(std::min<std::int64_t>(number, std::numeric_limits<std::uint32_t>::max()));
  return {};
}

/// Text of a message's content: a string, or parts of which those with text give it and others count as their
/// JSON.
std::string content_text(dom::element content) {
  std::string_view whole;
  if (content.get(whole) == simdjson::SUCCESS) return std::string(whole);
  dom::array parts;
  if (content.get(parts) != simdjson::SUCCESS) return simdjson::minify(content);
  std::string text;
  for (const dom::element part : parts) {
    std::string_view piece;
    if (part["text"].get(piece) == simdjson::SUCCESS) {
      text += piece;
    } else {
      text += simdjson::minify(part);
    }
  }
  return text;
}

/// Messages of a chat, or items of a response's input (those without a role count as their JSON).
Check render_messages(dom::array messages, std::string_view param, bool roles_needed, std::string& prompt) {
  for (const dom::element message : messages) {
    dom::object object;
    if (message.get(object) != simdjson::SUCCESS) return wrong_type(param, "a list of objects");
    std::string_view role;
    if (object.at_key("role").get(role) != simdjson::SUCCESS) {
      if (roles_needed) return bad("Every message needs a 'role'.", param);
      append_message(prompt, "item", simdjson::minify(message));
      continue;
    }
    const auto content = field(object, "content");
    std::string text = content ? content_text(*content) : std::string();
    if (const auto calls = field(object, "tool_calls")) text += simdjson::minify(*calls);
    append_message(prompt, role, text);
  }
  return {};
}

/// Tokens given by number: each as four bytes, so that it is one token again.
Check render_tokens(dom::array numbers, std::string_view param, std::string& prompt) {
  for (const dom::element element : numbers) {
    std::uint64_t number = 0;
    if (element.get(number) != simdjson::SUCCESS)
      return wrong_type(param, "a string or a list of token numbers");
    const std::uint32_t token = static_cast<std::uint32_t>(number);
    char bytes[kBytesPerToken];
    std::memcpy(bytes, &token, sizeof bytes);
    prompt.append(bytes, sizeof bytes);
  }
  return {};
}

Check read_limits(dom::object object, EngineCall& call) {
  if (Check error = read_flag(object, "stream", call.stream)) return error;
  std::uint32_t choices = 1;
  if (Check error = read_count(object, "n", choices)) return error;
  if (choices != 1) return bad("Only n = 1 is supported.", "n");
  if (Check error = read_count(object, "max_tokens", call.max_tokens)) return error;
  if (call.kind == CallKind::chat) {
    if (Check error = read_count(object, "max_completion_tokens", call.max_tokens)) return error;
  }
  const auto options = field(object, "stream_options");
  dom::object stream_options;
  if (!options) return {};
  if (options->get(stream_options) != simdjson::SUCCESS) return wrong_type("stream_options", "an object");
  return read_flag(stream_options, "include_usage", call.include_usage);
}

Check read_chat(dom::object object, EngineCall& call) {
  const auto messages = field(object, "messages");
  dom::array list;
  if (!messages || messages->get(list) != simdjson::SUCCESS)
    return wrong_type("messages", "a list of messages");
  if (list.begin() == list.end()) return bad("'messages' must not be empty.", "messages");
  if (const auto tools = field(object, "tools"))
    append_message(call.prompt, "tools", simdjson::minify(*tools));
  if (Check error = render_messages(list, "messages", true, call.prompt)) return error;
  append_answer_mark(call.prompt);
  return read_limits(object, call);
}

Check read_completion(dom::object object, EngineCall& call) {
  const auto prompt = field(object, "prompt");
  if (!prompt) return bad("'prompt' is missing.", "prompt");
  std::string_view text;
  dom::array list;
  dom::element only = *prompt;  // a list of one text counts as the text
  if (prompt->get(list) == simdjson::SUCCESS && list.size() == 1 &&
      list.at(0).get(text) == simdjson::SUCCESS) {
    only = *list.begin();
  }
  if (only.get(text) == simdjson::SUCCESS) {
    call.prompt = text;
  } else if (only.get(list) != simdjson::SUCCESS) {
    return wrong_type("prompt", "a string or a list of token numbers");
  } else if (Check error = render_tokens(list, "prompt", call.prompt)) {
    return error;
  }
  if (call.prompt.empty()) return bad("'prompt' must not be empty.", "prompt");
  pad(call.prompt);  // the answer begins with a whole token
  return read_limits(object, call);
}

Check read_response(dom::object object, EngineCall& call) {
  const auto input = field(object, "input");
  if (!input) return bad("'input' is missing.", "input");
  std::string_view text;
  dom::array list;
  if (const auto tools = field(object, "tools"))
    append_message(call.prompt, "tools", simdjson::minify(*tools));
  if (input->get(text) == simdjson::SUCCESS) {
    append_message(call.prompt, "user", text);
  } else if (input->get(list) == simdjson::SUCCESS) {
    if (Check error = render_messages(list, "input", false, call.prompt)) return error;
  } else {
    return wrong_type("input", "a string or a list of items");
  }
  append_answer_mark(call.prompt);
  if (Check error = read_flag(object, "stream", call.stream)) return error;
  if (Check error = read_flag(object, "store", call.store)) return error;
  if (Check error = read_count(object, "max_output_tokens", call.max_tokens)) return error;
  if (Check error = read_text(object, "instructions", call.instructions)) return error;
  return read_text(object, "previous_response_id", call.previous_response_id);
}

Check read_embedding_inputs(dom::element input, EngineCall& call) {
  std::string_view text;
  dom::array list;
  if (input.get(text) == simdjson::SUCCESS) {
    call.inputs.emplace_back(text);
    return {};
  }
  if (input.get(list) != simdjson::SUCCESS) return wrong_type("input", "a string or a list");
  std::uint64_t number = 0;
  if (list.at(0).get(number) == simdjson::SUCCESS) {
    return render_tokens(list, "input", call.inputs.emplace_back());
  }
  for (const dom::element element : list) {
    if (call.inputs.size() == kInputsMax) return bad("'input' has more than 2048 elements.", "input");
    dom::array tokens;
    if (element.get(text) == simdjson::SUCCESS) {
      call.inputs.emplace_back(text);
    } else if (element.get(tokens) != simdjson::SUCCESS) {
      return wrong_type("input", "made of strings or lists of token numbers");
    } else if (Check error = render_tokens(tokens, "input", call.inputs.emplace_back())) {
      return error;
    }
  }
  return {};
}

Check read_embedding(dom::object object, EngineCall& call) {
  const auto input = field(object, "input");
  if (!input) return bad("'input' is missing.", "input");
  if (Check error = read_embedding_inputs(*input, call)) return error;
  if (call.inputs.empty()) return bad("'input' must not be empty.", "input");
  for (const std::string& text : call.inputs) {
    if (text.empty()) return bad("'input' must not have empty elements.", "input");
  }
  std::string format = "float";
  if (Check error = read_text(object, "encoding_format", format)) return error;
  if (format != "float" && format != "base64") return wrong_type("encoding_format", "float or base64");
  call.base64 = format == "base64";
  if (Check error = read_count(object, "dimensions", call.dimensions)) return error;
  if (call.dimensions > kDimensionsMax) return bad("'dimensions' must be at most 8192.", "dimensions");
  return {};
}

Check read_kind(dom::object object, EngineCall& call) {
  switch (call.kind) {
    case CallKind::chat:
      return read_chat(object, call);
    case CallKind::completion:
      return read_completion(object, call);
    case CallKind::response:
      return read_response(object, call);
    case CallKind::embedding:
      return read_embedding(object, call);
  }
  return {};
}

}  // namespace

void append_message(std::string& prompt, std::string_view role, std::string_view text) {
  prompt += "<|";
  prompt += role;
  prompt += "|>";
  pad(prompt);
  prompt += text;
  pad(prompt);
}

void append_answer_mark(std::string& prompt) { append_message(prompt, "assistant", {}); }

struct CallReader::Parser {
  dom::parser dom;

  std::expected<dom::object, CallError> object(std::string_view body) {
    dom::element root;
    // The body has padding behind it; simdjson must not copy it.
    if (const auto error = dom.parse(body.data(), body.size(), false).get(root)) {
      return std::unexpected(
          CallError{400, fmt::format("The body is not valid JSON: {}", simdjson::error_message(error)),
                    "invalid_json", ""});
    }
    dom::object top;
    if (root.get(top) != simdjson::SUCCESS) return std::unexpected(bad("The body must be a JSON object."));
    return top;
  }
};

CallReader::CallReader() : parser_(std::make_unique<Parser>()) {}
CallReader::~CallReader() = default;

std::expected<EngineCall, CallError> CallReader::read(CallKind kind, std::string_view body,
                                                      std::string_view model) {
  const auto object = parser_->object(body);
  if (!object) return std::unexpected(object.error());
  std::string wanted;
  if (const Check error = read_text(*object, "model", wanted)) return std::unexpected(*error);
  if (wanted.empty()) return std::unexpected(bad("You must provide a model parameter.", "model"));
  if (wanted != model) {
    return std::unexpected(
        CallError{404, fmt::format("The model `{}` does not exist.", wanted), "model_not_found", "model"});
  }
  EngineCall call;
  call.kind = kind;
  if (Check error = read_kind(*object, call)) return std::unexpected(std::move(*error));
  return call;
}

std::expected<double, CallError> CallReader::read_speed(std::string_view body) {
  const auto object = parser_->object(body);
  if (!object) return std::unexpected(object.error());
  double speed = 0;
  if (object->at_key("speed").get(speed) != simdjson::SUCCESS || !(speed > 0) || speed > kSpeedMax) {
    return std::unexpected(wrong_type("speed", "a number above 0, at most 1000"));
  }
  return speed;
}

}  // namespace heng
