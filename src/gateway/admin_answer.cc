// Values of pools and queries as the admin API shows and takes them.
#include "gateway/admin_answer.h"

#include <charconv>

namespace heng {

std::vector<Slot> members_of(const ModelPool& pool) {
  std::vector<Slot> members;
  for (Slot slot = 0; slot < pool.pool().slots(); ++slot) {
    if (pool.pool().is_member(slot)) members.push_back(slot);
  }
  return members;
}

std::vector<double> shares_of(const ModelPool& pool) {
  const PoolView view = pool.pool().view();
  const std::span<const double> own = pool.pool().policy().weights();
  if (!own.empty()) return {own.begin(), own.end()};
  std::vector<double> shares(pool.pool().slots(), 0.0);
  double total = 0;
  for (const Slot slot : view.eligible) total += view.weight[slot];
  for (const Slot slot : view.eligible) shares[slot] = view.weight[slot] / total;
  return shares;
}

std::string slot_values(std::span<const double> values, std::span<const Slot> slots) {
  std::string list;
  if (values.empty()) return "[]";
  for (const Slot slot : slots)
    append_element(list, slot < values.size() ? json_number(values[slot]) : "null");
  return "[" + list + "]";
}

std::string query_value(std::string_view query, std::string_view key) {
  for (std::size_t at = 0; at < query.size();) {
    const std::size_t end = std::min(query.find('&', at), query.size());
    const std::string_view pair = query.substr(at, end - at);
    if (pair.starts_with(key) && pair.substr(key.size()).starts_with('='))
      return std::string(pair.substr(key.size() + 1));
    at = end + 1;
  }
  return {};
}

std::optional<std::string> percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '%') {
      out += text[at];
      continue;
    }
    const std::string_view digits = text.substr(at + 1, 2);
    unsigned char byte = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
    if (digits.size() != 2 || error != std::errc() || end != digits.data() + 2) return {};
    out += static_cast<char>(byte);
    at += 2;
  }
  return out;
}

}  // namespace heng
