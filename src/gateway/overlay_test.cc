// Changes at run time over a configuration: what comes out, and that they survive being written and read.
#include "gateway/overlay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <set>

namespace heng {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

WorkerConfig worker(const std::string& yaml, WorkerOrigin origin = WorkerOrigin::file) {
  WorkerListLoad load = parse_worker_list("[" + yaml + "]");
  EXPECT_EQ(format_issues("worker", load.issues), "");
  load.workers.front().origin = origin;
  return load.workers.front();
}

PoolConfig pool_of(std::initializer_list<const char*> workers) {
  PoolConfig pool;
  pool.model = "m";
  for (const char* text : workers) pool.workers.push_back(worker(text));
  return pool;
}

std::vector<std::string> names(const std::vector<WorkerConfig>& workers) {
  std::vector<std::string> list;
  for (const WorkerConfig& one : workers) list.push_back(one.name);
  return list;
}

TEST(WorkerOverlay, NothingChangedIsTheConfiguration) {
  const PoolConfig pool = pool_of({"'http://a:1'", "{url: 'http://b:1', weight: 3}"});
  EXPECT_EQ(WorkerOverlay().apply(pool, {}), pool.workers);
}

TEST(WorkerOverlay, ChangesGoByNameAndPool) {
  const PoolConfig pool = pool_of({"'http://a:1'", "'http://b:1'", "'http://c:1'"});
  WorkerOverlay overlay;
  overlay.put({.pool = "m", .worker = "a:1", .drained = true});
  overlay.put({.pool = "m", .worker = "b:1", .removed = true});
  overlay.put({.pool = "m", .worker = "c:1", .weight = 5, .capacity = 7});
  overlay.put({.pool = "other", .worker = "c:1", .removed = true});
  const auto workers = overlay.apply(pool, {});
  ASSERT_THAT(names(workers), ElementsAre("a:1", "c:1"));
  EXPECT_TRUE(workers[0].drained);
  EXPECT_EQ(workers[1].weight, 5);
  EXPECT_EQ(workers[1].capacity, 7);
  overlay.put({.pool = "m", .worker = "a:1"});
  EXPECT_EQ(overlay.find("m", "a:1"), nullptr) << "a change that changes nothing is not kept";
}

TEST(WorkerOverlay, AddedOnesComeLastAndGiveWayToTheConfiguration) {
  WorkerOverlay overlay;
  overlay.put({.pool = "m",
               .worker = "new",
               .added = worker("{url: 'http://n:1', name: new}", WorkerOrigin::runtime)});
  EXPECT_THAT(names(overlay.apply(pool_of({"'http://a:1'"}), {})), ElementsAre("a:1", "new"));
  EXPECT_THAT(names(overlay.apply(pool_of({"'http://n:1'"}), {})), ElementsAre("n:1"));
  EXPECT_THAT(names(overlay.apply(pool_of({"{url: 'http://a:1', name: new}"}), {})), ElementsAre("new"));
  overlay.put({.pool = "m", .worker = "n:1", .removed = true});
  EXPECT_THAT(names(overlay.apply(pool_of({"'http://n:1'"}), {})), ElementsAre("new"))
      << "what was removed is not in the way";
}

TEST(WorkerOverlay, DiscoveredOnesAreTakenOnceAndNeverTakeANameAway) {
  const std::vector<WorkerConfig> found = {worker("'http://a:1'", WorkerOrigin::dns),
                                           worker("{url: 'http://d:1', name: 'a:1'}", WorkerOrigin::dns)};
  const auto workers = WorkerOverlay().apply(pool_of({"'http://a:1'"}), found);
  ASSERT_THAT(names(workers), ElementsAre("a:1", "http://d:1"));
  EXPECT_EQ(workers[0].origin, WorkerOrigin::file);
  EXPECT_EQ(workers[1].origin, WorkerOrigin::dns);
}

TEST(WorkerOverlay, BrokenTextIsRefusedWithAReason) {
  for (const char* text : {"", "{}", "[]", R"({"changes":[{}]})", R"({"changes":[{"pool":"m","worker":1}]})",
                           R"({"changes":[{"pool":"m","worker":"w","added":{"url":"nonsense"}}]})"}) {
    const auto overlay = parse_overlay(text);
    ASSERT_FALSE(overlay.has_value()) << text;
    EXPECT_FALSE(overlay.error().message.empty());
  }
}

std::string any_name() {
  return *rc::gen::nonEmpty(rc::gen::container<std::string>(rc::gen::inRange<char>(' ' + 1, 127)));
}

RC_GTEST_PROP(WorkerOverlayProperty, SurvivesWritingAndReading, ()) {
  WorkerOverlay overlay;
  const int count = *rc::gen::inRange(0, 6);
  for (int i = 0; i < count; ++i) {
    WorkerChange change{.pool = *rc::gen::element<std::string>("", "m", "org/model \"x\""),
                        .worker = any_name()};
    if (*rc::gen::arbitrary<bool>()) {
      change.added =
          worker("{url: 'https://10.0.0.1:8000/base', tls: {verify: false}}", WorkerOrigin::runtime);
      change.added->name = change.worker;
      change.added->model = *rc::gen::element<std::string>("", "org/own: #1");
      change.added->api_key = *rc::gen::element<std::string>("", "sk-\"\\ 'x'");
      change.added->weight = *rc::gen::inRange(1, 1000000) / 1000.0;
    }
    change.removed = *rc::gen::arbitrary<bool>();
    change.drained = *rc::gen::arbitrary<bool>();
    if (*rc::gen::arbitrary<bool>()) change.weight = *rc::gen::inRange(1, 1000) / 7.0;
    if (*rc::gen::arbitrary<bool>()) change.capacity = *rc::gen::inRange(0, 1000) / 7.0;
    overlay.put(change);
  }
  const auto again = parse_overlay(to_json(overlay));
  RC_ASSERT(again.has_value());
  RC_ASSERT(*again == overlay);
}

/// Whatever is laid over whatever: no name and no URL twice, nothing removed, nothing invented.
RC_GTEST_PROP(WorkerOverlayProperty, WorkersStayDistinct, ()) {
  const auto some = [](WorkerOrigin origin) {
    std::vector<WorkerConfig> list;
    const int count = *rc::gen::inRange(0, 5);
    for (int i = 0; i < count; ++i) {
      WorkerConfig one;
      one.url = "http://" + *rc::gen::element<std::string>("a", "b", "c", "d");
      one.name = *rc::gen::element<std::string>("a", "b", "c", "http://a", "http://b");
      one.origin = origin;
      list.push_back(one);
    }
    return list;
  };
  PoolConfig pool;
  pool.model = "m";
  pool.workers = some(WorkerOrigin::file);
  const std::vector<WorkerConfig> found = some(WorkerOrigin::dns);
  WorkerOverlay overlay;
  for (const WorkerConfig& one : some(WorkerOrigin::runtime)) {
    WorkerChange change{.pool = "m", .worker = one.name, .removed = *rc::gen::arbitrary<bool>()};
    if (!change.removed) change.added = one;
    overlay.put(change);
  }
  std::set<std::string> urls, known;
  for (const WorkerConfig& one : overlay.apply(pool, found)) {
    RC_ASSERT(urls.insert(one.url).second);
    RC_ASSERT(known.insert(one.name).second);
    const WorkerChange* change = overlay.find("m", one.name);
    RC_ASSERT((change == nullptr || !change->removed));
  }
}

}  // namespace
}  // namespace heng
