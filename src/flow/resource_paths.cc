// A look at the outer levels of an answer's JSON, which need not be whole.
#include "flow/resource_paths.h"

namespace heng {

std::string_view answer_id(std::string_view text, bool event_stream) {
  constexpr std::string_view kWhite = " \t\r\n";
  std::size_t at = event_stream ? text.find('{') : text.find_first_not_of(kWhite);
  if (at >= text.size() || text[at] != '{') return {};
  int depth = 0;
  std::string_view outer, key;  // the last key of the outermost object; the one whose value comes now
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (c == ':' || kWhite.contains(c)) continue;
    if (c != '"') {
      key = {};
      depth += c == '{' || c == '[' ? 1 : c == '}' || c == ']' ? -1 : 0;
      if (depth <= 0 && !event_stream) return {};
      continue;
    }
    const std::size_t open = at++;
    while (at < text.size() && text[at] != '"') at += text[at] == '\\' ? 2 : 1;
    const std::size_t next = text.find_first_not_of(kWhite, at + 1);
    if (next >= text.size()) return {};  // more must come
    const std::string_view token = text.substr(open + 1, at - open - 1);
    if (text[next] == ':') {
      key = token;
      if (depth == 1) outer = token;
    } else if (key == "id" && (depth == 1 || (event_stream && depth == 2 && outer == "response"))) {
      return token.contains('\\') || is_plain_word(token) ? std::string_view() : token;
    } else {
      key = {};
    }
  }
  return {};
}

}  // namespace heng
