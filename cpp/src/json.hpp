// A JSON text read strictly, and its values asked for by place: what is wrong is said with where it stands.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "error.hpp"

namespace hiresvit {

// The value of a text, as hiresvit/schema.py's read_json: UTF-8, no key twice, no number that is not finite or has more
// than 64 bits, nothing deeper than 40. Throws Error (damaged) that says only what is wrong.
nlohmann::json read_json(const std::vector<std::uint8_t>& text);

// A value and where it stands. Every function throws Error (damaged) unless the value is what is asked for.
class Node {
 public:
  Node(const nlohmann::json& value, std::string place) : value_(&value), place_(std::move(place)) {}

  bool null() const { return value_->is_null(); }
  std::string text() const;
  std::string name() const;    // at most 1000 characters, all of which can be seen
  std::string word() const;    // letters, digits and _ . + -
  std::string sha256() const;  // 64 hexadecimal digits
  bool flag() const;
  std::int64_t whole(std::int64_t least, std::int64_t most) const;
  double number(double least, double most) const;
  // Which of some words it is.
  std::size_t one_of(std::initializer_list<const char*> words) const;
  std::vector<Node> list(std::size_t least, std::size_t most) const;
  // An object with these keys, some that may be missing, and no other.
  void record(std::initializer_list<const char*> needed, std::initializer_list<const char*> optional = {}) const;
  bool has(const char* key) const { return value_->is_object() && value_->contains(key); }
  Node operator[](const char* key) const;
  bool is_text() const { return value_->is_string(); }
  [[noreturn]] void refuse(const std::string& wanted) const;

 private:
  const nlohmann::json* value_;
  std::string place_;
};

}  // namespace hiresvit
