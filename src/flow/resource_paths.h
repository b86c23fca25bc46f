// What paths and answers name that belongs to somebody.
#pragma once

#include <algorithm>
#include <string_view>

namespace heng {

/// The segments behind "/v1/", one after the other.
template <class OnSegment>
void each_segment(std::string_view path, OnSegment on_segment) {
  path.remove_prefix(std::min<std::size_t>(path.size(), 4));
  while (!path.empty()) {
    const std::size_t slash = std::min(path.find('/'), path.size());
    on_segment(path.substr(0, slash));
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
}

/// A part of the API, like "responses"; anything else may be an id (of which none consists of small letters
/// only).
inline bool is_plain_word(std::string_view segment) {
  return std::ranges::all_of(segment, [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; });
}

/// Loads or unloads adapters: the operator's affair.
inline bool changes_worker(std::string_view path) { return path.contains("lora_adapter"); }

/// A call that anybody may make since it neither names nor lists what belongs to somebody: inference, and
/// making something new. Not what changes the worker itself.
inline bool is_open_call(std::string_view method, std::string_view path) {
  std::string_view first;
  bool words_only = true;
  int segments = 0;
  each_segment(path, [&](std::string_view segment) {
    words_only = words_only && is_plain_word(segment);
    if (segments++ == 0) first = segment;
  });
  if (!words_only || changes_worker(path)) return false;
  if (first == "audio" || first == "images") return true;
  return method == "POST" && (segments == 1 || first == "chat" || first == "messages");
}

/// The id of what an answer describes, from its beginning: `id` of its JSON object, or in a stream that of an
/// event or of the event's `response`. What lies deeper may be what the client wrote. "" as long as there is
/// none; ids that read like a part of the API are none.
std::string_view answer_id(std::string_view text, bool event_stream);

}  // namespace heng
