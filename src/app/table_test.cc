// Tables show what they are given, and nothing of it reaches the terminal as a command.
#include "app/table.h"

#include <gtest/gtest.h>

namespace heng {
namespace {

TEST(Table, ColumnsAreAsWideAsTheirWidestCellAndNumbersStandToTheRight) {
  Table table({"model", "n"});
  table.add({"a", "1"});
  table.add({"long", "23"});
  EXPECT_EQ(table.text(true), "model   n\na       1\nlong   23\n");
}

TEST(Table, ControlCharactersAreMadeVisible) {
  Table table({"model"});
  table.add(
      {"a\x1b[31m\n\x7f\xc2\x9b"
       "2J"});
  EXPECT_EQ(table.text(false), "a\\x1b[31m\\x0a\\x7f\\x9b2J\n");
}

TEST(Table, OtherLettersStayAsTheyAre) {
  Table table({"model"});
  table.add({"größe-模型"});
  EXPECT_EQ(table.text(false), "größe-模型\n");
}

}  // namespace
}  // namespace heng
