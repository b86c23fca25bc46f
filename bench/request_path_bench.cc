// What reading costs: heads of requests and answers, request bodies of two sizes, chunk framing. And what
// recording a request costs.
#include <benchmark/benchmark.h>

#include "base/buffer.h"
#include "base/hash.h"
#include "flow/inspect.h"
#include "flow/prompt_blocks.h"
#include "host/event_log.h"
#include "live/http1.h"
#include "wire.h"

namespace heng {
namespace {

void request_head(benchmark::State& state) {
  // What the official Python client sends.
  const std::string head =
      "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAccept-Encoding: gzip, deflate\r\n"
      "Connection: keep-alive\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
      "User-Agent: OpenAI/Python 1.50.0\r\nX-Stainless-Lang: python\r\nX-Stainless-Package-Version: "
      "1.50.0\r\n"
      "X-Stainless-OS: Linux\r\nX-Stainless-Arch: x64\r\nX-Stainless-Runtime: CPython\r\n"
      "X-Stainless-Runtime-Version: 3.11.2\r\nAuthorization: Bearer sk-0123456789abcdef\r\n"
      "X-Stainless-Async: false\r\nContent-Length: 400\r\n\r\n";
  HttpHead parsed;
  llhttp_t parser;
  while (state.KeepRunning()) {
    if (scan_head(head, 0, {}).state != HeadScan::State::complete) state.SkipWithError("head refused");
    if (parse_request_head(head, {}, parsed, parser)) state.SkipWithError("head refused");
  }
}
BENCHMARK(request_head);

void answer_head(benchmark::State& state) {
  const std::string head =
      "HTTP/1.1 200 OK\r\ndate: Tue, 01 Jul 2025 10:00:00 GMT\r\nserver: uvicorn\r\n"
      "content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
  HttpHead parsed;
  llhttp_t parser;
  while (state.KeepRunning()) {
    if (scan_head(head, 0, {}).state != HeadScan::State::complete) state.SkipWithError("head refused");
    if (parse_response_head(head, {}, false, parsed, parser)) state.SkipWithError("head refused");
  }
}
BENCHMARK(answer_head);

void chunks(benchmark::State& state) {
  const std::string head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
  const std::string chunk = "c8\r\n" + bench::Event().text + "\r\n";
  HttpHead parsed;
  llhttp_t parser;
  if (parse_response_head(head, {}, false, parsed, parser)) state.SkipWithError("head refused");
  std::vector<std::string_view> pieces;
  while (state.KeepRunning()) {
    pieces.clear();
    if (decode_chunks(parser, chunk, pieces).state != ChunkResult::State::more)
      state.SkipWithError("chunk refused");
    benchmark::DoNotOptimize(pieces.data());
  }
}
BENCHMARK(chunks);

void body(benchmark::State& state) {
  Buffer body;
  body.append(bench::request_body(static_cast<std::size_t>(state.range(0)), true));
  std::memset(body.room(Buffer::kPadding), 0, Buffer::kPadding);
  RequestInspector inspector;
  RequestFacts facts;
  while (state.KeepRunning()) {
    if (inspector.inspect_json(body.view(), 64, facts)) state.SkipWithError("body refused");
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(body)->Arg(400)->Arg(4'000)->Arg(400'000);

/// Naming the blocks of a prompt.
void blocks(benchmark::State& state) {
  const std::string prompt(static_cast<std::size_t>(state.range(0)), 'x');
  std::vector<std::uint64_t> chain;
  while (state.KeepRunning()) {
    chain_prompt_blocks(prompt, kPromptBlockBytes, chain);
    benchmark::DoNotOptimize(chain.data());
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(blocks)->Arg(16'000)->Arg(400'000);

/// All lines of a request whose prompt has so many hashed blocks, as `heng serve --record` writes them.
void record(benchmark::State& state) {
  std::vector<std::uint64_t> prefix;
  for (std::int64_t i = 0; i < state.range(0); ++i) prefix.push_back(mix(static_cast<std::uint64_t>(i)));
  using Kind = LogLine::Kind;
  LogLine line{.process = 12345, .pool = 1, .name = "req_0123456789abcdef00000001", .request = 1234567};
  line.event.worker = 3;
  line.event.request = {.id = 1234567,
                        .affinity = mix(1),
                        .prompt_tokens = 4003.0625,
                        .output_tokens_max = 512,
                        .stream = true,
                        .prefix = prefix,
                        .block_tokens = 63.98461538461538};
  line.event.attempt = {.worker = 3,
                        .request = 1234567,
                        .elapsed = 2345678901ns,
                        .time_to_first_byte = 345678901ns,
                        .prompt_tokens = 4000,
                        .cached_tokens = 2048,
                        .output_tokens = 300};
  std::string text;
  Duration now = 1234567890123456ns;
  const auto put = [&](Kind kind, PoolEvent::Kind event = {}) {
    line.kind = kind;
    line.event.kind = event;
    line.at = Instant(now += 12345678ns);
    write_log_line(line, text);
  };
  while (state.KeepRunning()) {
    text.clear();
    put(Kind::request);
    put(Kind::event, PoolEvent::Kind::reserve);
    put(Kind::event, PoolEvent::Kind::first_byte);
    put(Kind::event, PoolEvent::Kind::end);
    put(Kind::done);
    benchmark::DoNotOptimize(text.data());
  }
  state.counters["bytes"] = static_cast<double>(text.size());
}
BENCHMARK(record)->Arg(0)->Arg(62)->Arg(1562);  // 400 KB

}  // namespace
}  // namespace heng

BENCHMARK_MAIN();
