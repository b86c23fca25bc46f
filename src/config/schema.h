// The tables of all configuration keys. Strict reading, overrides, the reference page and the example come
// from them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "config/config.h"

namespace heng {

enum class FieldType : std::uint8_t {
  flag,
  count,
  count_or_adaptive,
  bytes,
  number,
  duration,
  text,
  secret,       // like text, but no message repeats it
  path,         // starts with "/"
  header_name,  // or ""
  endpoint,     // host:port or unix:/path
  endpoint_or_off,
  file_path,     // of a file that code of its own reads; or ""
  secret_file,   // names a file; its content goes to the target
  file,          // must be readable; its resolved path goes to the target
  private_file,  // ... and by its owner only
  structure,     // read by code of its own
};

using Target = std::variant<std::monostate, bool*, std::uint32_t*, std::uint64_t*, double*, Duration*,
                            std::string*, Endpoint*, std::optional<Endpoint>*>;

template <class Class, class Member>
Class class_of(Member Class::*);

/// The member's address inside an object of its own class: the variant's type follows from the member's.
template <auto kMember>
Target at(void* object) {
  using Class = decltype(class_of(kMember));
  return &(static_cast<Class*>(object)->*kMember);
}

struct Field {
  std::string_view key;
  FieldType type;
  double min = 0;  // numbers, bytes, seconds
  double max = 0;
  std::string_view doc;     // one line
  Target (*target)(void*);  // the member of the section's struct; nullptr for a structure
  std::string_view
      example;  // what the example file shows where the default says nothing; of a structure, its form
};

/// A nested group of scalar keys.
struct Section {
  std::string_view key;
  std::string_view doc;
  std::span<const Field> fields;
  void* (*at)(Config&);
};

/// Keys outside the groups. `pools` and the groups are structures.
std::span<const Field> root_fields();
std::span<const Section> sections();
std::span<const Field> pool_fields();
std::span<const Field> discover_fields();
std::span<const Field> worker_fields();
std::span<const Field> worker_tls_fields();
/// Of an entry of the keys' file, whose scalars go into a Tenant, and of its `limits`.
std::span<const Field> key_fields();
std::span<const Field> key_limit_fields();

/// Sets the member from text. Relative paths of secret files are taken from `directory`; "" = open no files.
Result<void> set_field(const Field& field, void* object, std::string_view text, const std::string& directory);
/// The member's value as it would be written in the file; "" when there is none.
std::string format_field(const Field& field, void* object);
/// "1s to 24h", "" where any value is fine.
std::string format_range(const Field& field);
std::string_view describe_type(const Field& field);

}  // namespace heng
