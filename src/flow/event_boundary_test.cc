// Where an error event may be put into a stream, whatever way it was cut into pieces.
#include "flow/event_boundary.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <string>

namespace heng {
namespace {

bool between_events_after(std::string_view text) {
  EventBoundary boundary;
  boundary.take(text);
  return boundary.between_events();
}

TEST(EventBoundary, IsAtTheStartAndAfterBlankLines) {
  for (const std::string_view text :
       {"", "\n", "\r\n", "data: a\n\n", "data: a\r\n\r\n", "data: a\r\r", "data: a\r\n\n", "data: a\n\r\n"})
    EXPECT_TRUE(between_events_after(text)) << text;
  for (const std::string_view text : {"d", "da", "data: a", "data: a\n", "data: a\r\n", "data: a\r",
                                      "data: a\n\nd", "data: a\n\ndata: b\n"})
    EXPECT_FALSE(between_events_after(text)) << text;
}

/// Line by line, as the standard says it.
bool between_events_by_lines(const std::string& text) {
  bool blank = true;
  std::string line;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '\r' && text[at] != '\n') {
      line += text[at];
      continue;
    }
    if (text[at] == '\r' && at + 1 < text.size() && text[at + 1] == '\n') ++at;
    blank = line.empty();
    line.clear();
  }
  return blank && line.empty();
}

TEST(EventBoundary, CountsEventsHoweverTheyAreCut) {
  const std::string_view text = "data: a\n\ndata: b\r\n\r\nevent: c\ndata: c\n\ndata: [DONE]\n\ndata: cut\n";
  for (std::size_t at = 0; at <= text.size(); ++at) {
    for (std::size_t to = at; to <= text.size(); ++to) {
      EventBoundary boundary;
      for (const auto piece : {text.substr(0, at), text.substr(at, to - at), text.substr(to)})
        boundary.take(piece);
      ASSERT_EQ(boundary.events(), 4u) << at << " " << to;
    }
  }
}

RC_GTEST_PROP(EventBoundaryProperty, AgreesWithAReaderOfLinesHoweverThePiecesAreCut, ()) {
  EventBoundary boundary;
  std::string whole;
  for (const auto& piece : *rc::gen::container<std::vector<std::string>>(
           rc::gen::container<std::string>(rc::gen::element('\r', '\n', 'a')))) {
    whole += piece;
    boundary.take(piece);
    RC_ASSERT(boundary.between_events() == between_events_by_lines(whole));
  }
}

TEST(EventBoundary, KnowsTheLastEventOfAStreamInWhateverPieces) {
  for (const std::string_view end : {"data: [DONE]\n\n", "data: [DONE]\r\n\r\n", "data:[DONE]\n\n"}) {
    const std::string text = "data: {\"choices\": []}\n\n" + std::string(end);
    EventBoundary boundary;
    EXPECT_FALSE(boundary.says_done());
    for (const char& byte : text) boundary.take({&byte, 1});
    EXPECT_TRUE(boundary.says_done()) << end;
    EXPECT_TRUE(boundary.between_events());
    boundary.take("data: more, of an answer that goes on\n\n");
    EXPECT_FALSE(boundary.says_done());
  }
}

}  // namespace
}  // namespace heng
