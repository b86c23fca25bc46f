// What reading costs: heads of requests and answers, request bodies of two sizes, chunk framing.
#include <benchmark/benchmark.h>

#include "base/buffer.h"
#include "flow/inspect.h"
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

}  // namespace
}  // namespace heng

BENCHMARK_MAIN();
