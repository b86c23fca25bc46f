// JSON inspection on simdjson's on-demand parser, with the checks it leaves to its callers.
#include "flow/inspect.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/ascii.h"
#include "base/buffer.h"
#include "base/hash.h"
#include "flow/json_text.h"

namespace heng {

static_assert(Buffer::kPadding >= simdjson::SIMDJSON_PADDING);

namespace {

namespace od = simdjson::ondemand;

constexpr std::size_t kParserKept = 4 << 20;  // bytes of input the parser's memory may stay sized for
constexpr std::size_t kPromptStartBytes =
    1024;  // of a plain prompt: what makes two prompts the same conversation
/// Of the messages that do so: where these agree, the same worker is best anyway.
constexpr std::size_t kFirstMessagesBytes = 64 << 10;
constexpr double kTokensMax = 1e8;   // no model writes that much; a typo or an attack
constexpr double kChoicesMax = 128;  // OpenAI's own limit of `n`

struct Invalid {
  ApiError error;
};

Invalid invalid(std::string message, std::string param = {}, std::string code = {}) {
  return {{400, std::move(message), std::move(param), std::move(code)}};
}

std::string_view trimmed(std::string_view token) {
  return token.substr(0, token.find_last_not_of(" \t\r\n") + 1);
}

bool valid_scalar(std::string_view token) {
  if (token.starts_with('"')) {
    return token.size() >= 2 && token.back() == '"' && valid_escapes(token.substr(1, token.size() - 2));
  }
  return token == "true" || token == "false" || token == "null" || valid_number(token);
}

Invalid malformed() { return invalid("the request body is not valid JSON"); }

/// The key as written, escapes checked.
std::string_view checked_key(od::field& field) {
  const char* begin = field.key().raw();
  // The quotes are paired already: the key ends at the first quote that is not escaped.
  const char* end = begin;
  while (*end != '"') end += *end == '\\' ? 2 : 1;
  const std::string_view key(begin, static_cast<std::size_t>(end - begin));
  if (!valid_escapes(key)) throw malformed();
  return key;
}

std::string_view checked_scalar(od::value& value) {
  const std::string_view raw = value.raw_json_token();
  // What follows is looked at here, since simdjson takes a string before a colon for a key wherever it stands
  // and skips what comes then unread.
  const char next = *raw.end();
  if (next != ',' && next != '}' && next != ']') throw malformed();
  const std::string_view token = trimmed(raw);
  if (!valid_scalar(token)) throw malformed();
  return token;
}

/// Checks the grammar of one value and all below it. Throws simdjson_error where simdjson finds fault,
/// Invalid where we do. Recursion is bounded by `depth_left`.
void check_value(od::value value, std::uint32_t depth_left) {
  const od::json_type type = value.type();
  if (type != od::json_type::object && type != od::json_type::array) {
    checked_scalar(value);
    return;
  }
  if (depth_left == 0) throw invalid("the request body's JSON is nested too deeply");
  if (type == od::json_type::object) {
    od::object object = value.get_object();
    for (od::field field : object) {
      checked_key(field);
      check_value(field.value(), depth_left - 1);
    }
  } else {
    od::array array = value.get_array();
    for (od::value element : array) check_value(element, depth_left - 1);
  }
}

/// A whole number in [0, max], or null (= absent, 0).
double bounded_number(std::string_view token, std::string_view key, double max) {
  if (token == "null") return 0;
  double number = -1;
  const auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), number);
  const bool read = error == std::errc() && end == token.data() + token.size();
  if (!read || !(number >= 0 && number <= max) || number != std::floor(number)) {
    throw invalid(fmt::format("'{}' must be a whole number from 0 to {:.0f}", key, max), std::string(key),
                  "invalid_value");
  }
  return number;
}

enum class Key : std::uint8_t { model, stream, max_tokens, choices, logprobs, prompt, user, previous };

struct KnownKey {
  std::string_view name;
  Key meaning;
};
constexpr KnownKey kKnownKeys[] = {{"model", Key::model},       {"messages", Key::prompt},
                                   {"prompt", Key::prompt},     {"input", Key::prompt},
                                   {"stream", Key::stream},     {"max_tokens", Key::max_tokens},
                                   {"n", Key::choices},         {"max_completion_tokens", Key::max_tokens},
                                   {"user", Key::user},         {"max_output_tokens", Key::max_tokens},
                                   {"best_of", Key::choices},   {"previous_response_id", Key::previous},
                                   {"logprobs", Key::logprobs}, {"top_logprobs", Key::logprobs}};

}  // namespace

struct RequestInspector::Parser {
  od::parser parser;
  od::document document;

  void read(std::string_view body, std::uint32_t depth_max, RequestFacts& facts);
  void read_field(Key known, std::string_view key, od::value value, std::uint32_t depth_left,
                  RequestFacts& facts);
  std::string_view read_string(od::value value, std::string_view key);
  void read_prompt(od::value value, std::uint32_t depth_left, RequestFacts& facts);
  bool check_message(od::value value, std::uint32_t depth_left);
};

std::string_view RequestInspector::Parser::read_string(od::value value, std::string_view key) {
  const std::string_view token = checked_scalar(value);
  if (token == "null") return {};
  if (!token.starts_with('"')) {
    throw invalid(fmt::format("'{}' must be a string", key), std::string(key), "invalid_type");
  }
  return value.get_string();
}

/// True for a message with role "user".
bool RequestInspector::Parser::check_message(od::value value, std::uint32_t depth_left) {
  const od::json_type type = value.type();
  if (type != od::json_type::object || depth_left == 0) {
    check_value(value, depth_left);
    return false;
  }
  bool is_user = false;
  od::object object = value.get_object();
  for (od::field field : object) {
    const bool is_role = checked_key(field) == "role";
    od::value member = field.value();
    if (is_role) is_user = trimmed(member.raw_json_token()) == "\"user\"";
    check_value(member, depth_left - 1);
  }
  return is_user;
}

/// A conversation keeps its system prompt and first user message through all its turns: the hash covers the
/// messages up to that one, as far as there are bytes for it, or the start of a plain prompt.
void RequestInspector::Parser::read_prompt(od::value value, std::uint32_t depth_left, RequestFacts& facts) {
  const std::string_view first = value.raw_json_token();
  std::uint64_t hash = 0;
  if (first.starts_with('[') && depth_left > 0) {
    bool user_seen = false;
    std::size_t bytes_left = kFirstMessagesBytes;
    od::array array = value.get_array();
    for (od::value element : array) {
      const std::string_view token = element.raw_json_token();
      const bool is_user = check_message(element, depth_left - 1);
      if (user_seen) continue;
      user_seen = is_user;
      const char* end = document.current_location();
      const std::string_view message = trimmed({token.data(), static_cast<std::size_t>(end - token.data())});
      hash = hash_bytes(message.substr(0, bytes_left), hash);
      bytes_left -= std::min(bytes_left, message.size());
    }
  } else {
    check_value(value, depth_left);
    const std::string_view text = trimmed(first);
    // Without the closing quote, so that a longer prompt with the same start has the same hash.
    if (text.size() > 2) hash = hash_bytes(text.substr(0, std::min(text.size() - 1, kPromptStartBytes)));
  }
  const char* end = document.current_location();
  const std::string_view prompt(first.data(), static_cast<std::size_t>(end - first.data()));
  facts.prompt_bytes += prompt.size();
  if (prompt.size() > facts.prompt.size()) facts.prompt = prompt;
  if (hash != 0) facts.prompt_start_hash = hash;
}

void RequestInspector::Parser::read_field(Key known, std::string_view key, od::value value,
                                          std::uint32_t depth_left, RequestFacts& facts) {
  if (known != Key::prompt) {
    const od::json_type type = value.type();
    if (type == od::json_type::object || type == od::json_type::array) {
      throw invalid(fmt::format("'{}' must not be an object or an array", key), std::string(key),
                    "invalid_type");
    }
  }
  switch (known) {
    case Key::model:
      if (const std::string_view token = trimmed(value.raw_json_token()); token != "null")
        facts.model_token = token;
      facts.model = read_string(value, key);
      return;
    case Key::previous:
      facts.previous_response_id = read_string(value, key);
      return;
    case Key::user:
      facts.user = read_string(value, key);
      return;
    case Key::prompt:
      return read_prompt(value, depth_left, facts);
    case Key::stream: {
      const std::string_view token = checked_scalar(value);
      if (token != "true" && token != "false" && token != "null") {
        throw invalid("'stream' must be true or false", "stream", "invalid_type");
      }
      facts.stream = token == "true";
      return;
    }
    case Key::max_tokens:
      // Two names of the same: whichever the worker heeds, it is no more than the larger.
      facts.output_tokens_max =
          std::max(facts.output_tokens_max,
                   static_cast<std::uint32_t>(bounded_number(checked_scalar(value), key, kTokensMax)));
      return;
    case Key::choices:
      bounded_number(checked_scalar(value), key, kChoicesMax);
      return;
    case Key::logprobs: {
      const std::string_view token = checked_scalar(value);
      if (token != "true" && token != "false") bounded_number(token, key, kChoicesMax);
      return;
    }
  }
}

void RequestInspector::Parser::read(std::string_view body, std::uint32_t depth_max, RequestFacts& facts) {
  document = parser.iterate(body.data(), body.size(), body.size() + Buffer::kPadding);
  if (document.type() != od::json_type::object) throw invalid("the request body must be a JSON object");
  std::uint32_t seen = 0;  // bits of kKnownKeys
  od::object object = document.get_object();
  for (od::field field : object) {
    std::string_view key = checked_key(field);
    // "mod\u0065l" is "model" to the worker, so it must be for us.
    if (key.find('\\') != key.npos) key = field.unescaped_key();
    const auto* known = std::ranges::find(kKnownKeys, key, &KnownKey::name);
    if (known == std::end(kKnownKeys)) {
      check_value(field.value(), depth_max - 1);
      continue;
    }
    const std::uint32_t bit = 1u << (known - kKnownKeys);
    // A worker could take the other one of two.
    if ((seen & bit) != 0) {
      throw invalid(fmt::format("'{}' is given twice", key), std::string(key), "duplicate_key");
    }
    seen |= bit;
    read_field(known->meaning, key, field.value(), depth_max - 1, facts);
  }
  if (document.current_location().error() != simdjson::OUT_OF_BOUNDS)
    throw invalid("bytes after the end of the request body's JSON");
}

RequestInspector::RequestInspector() : parser_(std::make_unique<Parser>()) {}

RequestInspector::~RequestInspector() = default;

std::optional<ApiError> RequestInspector::inspect_json(std::string_view body, std::uint32_t depth_max,
                                                       RequestFacts& facts) {
  facts = {};
  if (body.empty()) return ApiError{400, "the request has no body", {}, {}};
  if (parser_->parser.capacity() > kParserKept && body.size() < kParserKept)
    parser_ = std::make_unique<Parser>();
  try {
    parser_->read(body, std::max(depth_max, 1u), facts);
    return std::nullopt;
  } catch (const Invalid& problem) {
    return problem.error;
  } catch (const simdjson::simdjson_error& problem) {
    return ApiError{400, fmt::format("the request body is not valid JSON: {}", problem.what()), {}, {}};
  }
}

namespace {

std::string_view without_space(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  return text.substr(0, text.find_last_not_of(" \t") + 1);
}

/// Calls `use(name, value)` for the parameters of a field's value, quotes removed. False where it is not
/// clear what they are.
template <class Use>
bool each_parameter(std::string_view text, Use use) {
  text.remove_prefix(std::min(text.find(';'), text.size()));
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of("; \t"), text.size()));
    if (text.empty()) return true;
    const std::size_t equals = text.find_first_of("=;");
    if (equals == text.npos || text[equals] == ';') return false;
    const std::string_view name = without_space(text.substr(0, equals));
    text.remove_prefix(equals + 1);
    text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
    std::size_t end = std::min(text.find(';'), text.size());
    std::string_view value = without_space(text.substr(0, end));
    if (text.starts_with('"')) {
      std::size_t quote = 1;
      while (quote < text.size() && text[quote] != '"') quote += text[quote] == '\\' ? 2 : 1;
      if (quote >= text.size()) return false;
      value = text.substr(1, quote - 1);
      end = std::min(text.find(';', quote), text.size());
      if (!without_space(text.substr(quote + 1, end - quote - 1)).empty()) return false;
    }
    if (!use(name, value)) return false;
    text.remove_prefix(end);
  }
}

/// Whether the part of a form with these header lines is its `model`; nothing if it is not clear.
std::optional<bool> names_model(std::string_view lines) {
  std::optional<std::string_view> name;
  while (!lines.empty()) {
    const std::size_t end = std::min(lines.find("\r\n"), lines.size());
    const std::string_view line = lines.substr(0, end);
    lines.remove_prefix(std::min(end + 2, lines.size()));
    const std::size_t colon = line.find(':');
    if (colon == line.npos || line.starts_with(' ') || line.find_first_of("\t\r\n") != line.npos)
      return std::nullopt;
    if (!equals_ignoring_case(without_space(line.substr(0, colon)), "content-disposition")) continue;
    if (name) return std::nullopt;
    const bool clear =
        each_parameter(line.substr(colon), [&](std::string_view parameter, std::string_view value) {
          // "name*" is another way to write it (RFC 2231), as is an escape.
          if (parameter.size() > 4 && equals_ignoring_case(parameter.substr(0, 5), "name*")) return false;
          if (!equals_ignoring_case(parameter, "name")) return true;
          if (name || value.contains('\\')) return false;
          name = value;
          return true;
        });
    if (!clear || !name) return std::nullopt;
  }
  return name == "model";
}

}  // namespace

std::expected<std::string_view, ApiError> multipart_model(std::string_view content_type,
                                                          std::string_view body) {
  const auto unclear = [](std::string_view what) {
    return std::unexpected(ApiError{400, fmt::format("the multipart/form-data body {}", what), {}, {}});
  };
  std::string_view boundary;
  const bool clear = each_parameter(content_type, [&](std::string_view name, std::string_view value) {
    if (!equals_ignoring_case(name.substr(0, 8), "boundary")) return true;
    const bool only = name.size() == 8 && boundary.empty();
    boundary = value;
    return only;
  });
  // RFC 2046 5.1.1
  if (!clear || boundary.empty() || boundary.size() > 70 || boundary.contains('\\'))
    return unclear("needs one boundary in its Content-Type");
  // A delimiter stands at the start of a line (RFC 2046 5.1.1); only the first line has no line break before
  // it.
  const std::string delimiter = fmt::format("\r\n--{}", boundary);
  std::size_t at = body.starts_with(std::string_view(delimiter).substr(2)) ? delimiter.size() - 2 : body.npos;
  if (at == body.npos && (at = body.find(delimiter)) != body.npos) at += delimiter.size();
  std::optional<std::string_view> model;
  while (at != body.npos && body.substr(at, 2) != "--") {
    const std::size_t head = body.find("\r\n", at);
    const std::size_t content = body.find("\r\n\r\n", head);
    const std::size_t next = content == body.npos ? content : body.find(delimiter, content + 2);
    if (next == body.npos || !without_space(body.substr(at, head - at)).empty()) return unclear("is cut off");
    const auto is_model = names_model(body.substr(head + 2, content - std::min(content, head + 2)));
    if (!is_model) return unclear("has a part whose name is not clear");
    if (*is_model) {
      if (model) return std::unexpected(ApiError{400, "'model' is given twice", "model", "duplicate_key"});
      model = body.substr(content + 4,
                          next - std::min(next, content + 4));  // an empty one has one line break for both
    }
    at = next + delimiter.size();
  }
  if (at == body.npos) return unclear("does not have the boundary that its Content-Type says");
  return model.value_or(std::string_view());
}

}  // namespace heng
