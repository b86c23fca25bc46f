// Reads a request, and writes it as each worker wants it.
#include "gateway/client_request.h"

#include <fmt/format.h>

#include <algorithm>

#include "gateway/forwarding.h"

namespace heng {

namespace {

constexpr std::size_t kModelNameMax = 256;  // it goes into messages and logs

/// JSON under one of its names (RFC 6839 3.1), or what plain `curl -d` says.
bool is_json(std::string_view type) {
  type = type.substr(0, type.find_first_of("; \t"));
  const std::string_view subtype = type.substr(std::min(type.find('/') + 1, type.size()));
  constexpr std::string_view kSuffix = "+json";
  return type.empty() || equals_ignoring_case(subtype, "json") ||
         (subtype.size() > kSuffix.size() &&
          equals_ignoring_case(subtype.substr(subtype.size() - kSuffix.size()), kSuffix)) ||
         equals_ignoring_case(type, "application/x-www-form-urlencoded");
}

/// All fields of that name count: a worker may read another one than we do.
bool is_encoded(const HttpHead& head) {
  return std::ranges::any_of(head.fields, [](const HeaderField& field) {
    return equals_ignoring_case(field.name, "content-encoding") &&
           !equals_ignoring_case(field.value, "identity");
  });
}

bool is_content_type(const HeaderField& field) { return equals_ignoring_case(field.name, "content-type"); }

}  // namespace

bool ClientRequest::is_inference() const {
  if (method_ != "POST") return false;
  const std::string_view path = this->path();
  return path == "/v1/chat/completions" || path == "/v1/completions" || path == "/v1/embeddings" ||
         path == "/v1/responses";
}

bool ClientRequest::stores_resource() const {
  return method_ == "POST" && (!is_inference() || path() == "/v1/responses");
}

std::optional<ApiError> ClientRequest::read(const ServerConnection& connection, const Config& config,
                                            RequestInspector& inspector, bool models_limited) {
  const HttpHead& head = connection.head();
  const std::string_view body = connection.body();
  facts_ = {};
  model_.clear();
  method_ = head.method;
  target_ = head.target;
  if (has_dot_segments(path())) return ApiError{400, "the path must not have '.' or '..' segments", {}, {}};
  if (is_encoded(head)) return ApiError{415, "compressed request bodies are not accepted", {}, {}};
  if (std::ranges::count_if(head.fields, is_content_type) > 1)
    return ApiError{400, "Content-Type is given twice", {}, {}};
  const std::string_view type = head.find("content-type").value_or("");
  const bool json_path = is_inference();
  if (json_path && !is_json(type)) return ApiError{415, "the request body must be application/json", {}, {}};
  // Many workers read a JSON object whatever its type says.
  const std::size_t start = std::min(body.find_first_not_of(" \t\r\n"), body.size());
  if (json_path || body.substr(start).starts_with('{')) {
    if (auto error = inspector.inspect_json(body, config.limits.json_depth, facts_)) return error;
  } else if (starts_ignoring_case(type, "multipart/form-data") && !body.empty()) {
    const auto model = multipart_model(type, body);
    if (!model) return model.error();
    facts_.model = facts_.model_token = *model;
  } else if (models_limited && !body.empty()) {
    return ApiError{415, "with this API key the request body must be a JSON object or a form", {}, {}};
  }
  if (facts_.model.size() > kModelNameMax)
    return ApiError{400, "the model's name is too long", "model", "invalid_value"};
  model_ = facts_.model;
  return std::nullopt;
}

void ClientRequest::keep(ServerConnection& connection, std::string_view id, bool with_credentials) {
  const HttpHead& head = connection.head();
  std::string joined;
  const std::string_view nominated = connection_options(head, joined);
  for (const HeaderField& field : head.fields) {
    if (is_hop_by_hop(field.name) || is_replaced(field.name) || is_nominated(nominated, field.name)) continue;
    if (is_credential(field.name) && !with_credentials) continue;
    std::string& fields = is_credential(field.name) ? credentials_ : fields_;
    // What is compressed cannot be accounted for.
    const bool coding = method_ == "POST" && reads_as(field.name, "accept-encoding");
    const std::string_view value = coding ? "identity" : field.value;
    fields.append(field.name).append(": ").append(value).append("\r\n");
  }
  fields_.append("x-request-id: ").append(id);
  fields_.append("\r\nx-forwarded-for: ").append(connection.peer()).append("\r\n");
  const std::string_view body = connection.body();
  if (!facts_.model_token.empty()) {
    model_token_at_ = static_cast<std::size_t>(facts_.model_token.data() - body.data());
    model_token_size_ = facts_.model_token.size();
  }
  if (!facts_.prompt.empty()) prompt_at_ = static_cast<std::size_t>(facts_.prompt.data() - body.data());
  if (std::optional<Buffer> whole = connection.take_body()) {
    body_ = std::move(*whole);
  } else {
    body_.charge_to(connection.payer());
    body_.append(body);
  }
}

RequestBytes ClientRequest::bytes_for(const Worker& worker, std::string_view model, Buffer& buffer) const {
  const WorkerConfig& config = worker.config();
  const bool rename = model_token_size_ != 0 && model != model_;
  const bool quoted = rename && body_.view()[model_token_at_] == '"';
  const std::string token = !rename ? std::string() : quoted ? json_quote(model) : std::string(model);
  const std::size_t body_bytes = body_.size() - (rename ? model_token_size_ - token.size() : 0);
  buffer.clear();
  buffer.charge_to(body_.account());
  for (const std::string_view part :
       {std::string_view(method_), std::string_view(" "), std::string_view(config.base_path),
        std::string_view(target_), std::string_view(" HTTP/1.1\r\n"),
        std::string_view(worker.address_fields()), std::string_view(fields_),
        config.api_key.empty() ? std::string_view(credentials_) : std::string_view()}) {
    buffer.append(part);
  }
  if (body_bytes != 0 || method_ == "POST" || method_ == "PUT" || method_ == "PATCH") {
    const auto length = fmt::format_to_n(buffer.room(48), 48, "Content-Length: {}\r\n", body_bytes);
    buffer.grow(length.size);
  }
  buffer.append("\r\n");
  RequestBytes bytes{{}, body_.view(), method_ == "HEAD", is_repeatable()};
  if (rename) {
    buffer.append(body_.view().substr(0, model_token_at_));
    buffer.append(token);
    buffer.append(body_.view().substr(model_token_at_ + model_token_size_));
    bytes.body = {};
  }
  bytes.head = buffer.view();
  return bytes;
}

void ClientRequest::release() {
  fields_.clear();
  credentials_.clear();
  body_.clear();
  if (body_.capacity() > kBufferKept) body_.release();
  body_.charge_to(nullptr);
  model_token_at_ = model_token_size_ = prompt_at_ = 0;
}

}  // namespace heng
