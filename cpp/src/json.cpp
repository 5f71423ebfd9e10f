#include "json.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hiresvit {

namespace {

using Json = nlohmann::json;

constexpr std::size_t kDeepest = 40, kLongest = 20;
constexpr std::size_t kAnyNumber = std::numeric_limits<std::size_t>::max();

[[noreturn]] void fail(const std::string& what) { throw Error(kDamaged, what); }

// Builds the value while the text is read, and stops at the first thing that we do not take.
class Builder : public nlohmann::json_sax<Json> {
 public:
  Json result;

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool number_float(number_float_t value, const string_t& text) override {
    if (text.find_first_of(".eE") == std::string::npos && text.size() > kLongest) {
      fail("it has a number of " + std::to_string(text.size()) + " digits");
    }
    if (!std::isfinite(value)) fail("it has " + shown(text, kLongest) + ", which is no finite number");
    return put(value);
  }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& value) override {
    if (open_.back()->contains(value)) fail("it has a key twice");
    key_ = std::move(value);
    return true;
  }
  bool parse_error(std::size_t at, const std::string&, const Json::exception& error) override {
    const bool range = error.id == 406;  // a number beyond what a double holds
    fail(range ? "it has a number that is not finite" : "it is no JSON at byte " + std::to_string(at));
  }

 private:
  Json* place(Json value) {
    if (open_.empty()) {
      result = std::move(value);
      return &result;
    }
    Json& in = *open_.back();
    if (in.is_array()) {
      in.push_back(std::move(value));
      return &in.back();
    }
    return &(in[key_] = std::move(value));
  }
  template <class Value>
  bool put(Value&& value) {
    place(Json(std::forward<Value>(value)));
    return true;
  }
  bool open(Json value) {
    if (open_.size() >= kDeepest) fail("it is nested deeper than " + std::to_string(kDeepest));
    open_.push_back(place(std::move(value)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  std::vector<Json*> open_;  // a value that is open is the last of its list or object, which therefore does not move it
  std::string key_;
};

// The code points of a text that is known to be UTF-8.
std::vector<char32_t> characters(const std::string& text) {
  std::vector<char32_t> out;
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const int more = lead < 0x80 ? 0 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
    char32_t point = more ? lead & (0x3f >> more) : lead;
    for (int k = 1; k <= more && i + static_cast<std::size_t>(k) < text.size(); ++k) {
      point = point << 6 | (static_cast<unsigned char>(text[i + static_cast<std::size_t>(k)]) & 0x3f);
    }
    out.push_back(point);
    i += static_cast<std::size_t>(more) + 1;
  }
  return out;
}

// Of no use in a name: hiresvit/schema.py's UNSEEN.
bool unseen(char32_t c) {
  static constexpr char32_t ranges[][2] = {{0, 0x1f},        {0x7f, 0x9f},     {0x61c, 0x61c},
                                           {0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x2069},
                                           {0xd800, 0xdfff}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}};
  return std::any_of(std::begin(ranges), std::end(ranges), [&](const auto& r) { return c >= r[0] && c <= r[1]; });
}

bool is_alphanumeric(char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

std::string in_words(double value) {
  Json json = value;
  return json.dump();
}

}  // namespace

nlohmann::json read_json(const std::vector<std::uint8_t>& text) {
  Builder builder;
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) fail("it is no JSON");
  return std::move(builder.result);
}

void Node::refuse(const std::string& wanted) const {
  throw Error(kDamaged, (place_.empty() ? "it" : shown(place_)) + " must be " + wanted);
}

std::string Node::text() const {
  if (!value_->is_string()) refuse("a text");
  return value_->get<std::string>();
}

std::string Node::name() const {
  const char* wanted = "a name: at most 1000 characters, all of which can be seen";
  if (!value_->is_string()) refuse(wanted);
  const auto found = characters(value_->get_ref<const std::string&>());
  if (found.size() > 1000 || std::any_of(found.begin(), found.end(), unseen)) refuse(wanted);
  return value_->get<std::string>();
}

std::string Node::word() const {
  const char* wanted = "a plain name: letters, digits and _ . + -";
  if (!value_->is_string()) refuse(wanted);
  std::string word = value_->get<std::string>();
  const auto plain = [](char c) { return is_alphanumeric(c) || c == '_' || c == '.' || c == '+' || c == '-'; };
  const bool begins = !word.empty() && (is_alphanumeric(word[0]) || word[0] == '_');
  if (!begins || word.size() > 200 || !std::all_of(word.begin(), word.end(), plain)) refuse(wanted);
  return word;
}

std::string Node::sha256() const {
  const char* wanted = "a sha256: 64 hexadecimal digits";
  if (!value_->is_string()) refuse(wanted);
  std::string sum = value_->get<std::string>();
  const auto digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  if (sum.size() != 64 || !std::all_of(sum.begin(), sum.end(), digit)) refuse(wanted);
  return sum;
}

bool Node::flag() const {
  if (!value_->is_boolean()) refuse("true or false");
  return value_->get<bool>();
}

std::int64_t Node::whole(std::int64_t least, std::int64_t most) const {
  bool fits = value_->is_number_integer();
  if (fits && value_->is_number_unsigned()) fits = value_->get<std::uint64_t>() <= static_cast<std::uint64_t>(most);
  const std::int64_t value = fits ? value_->get<std::int64_t>() : 0;
  if (!fits || value < least || value > most) {
    refuse("a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return value;
}

double Node::number(double least, double most) const {
  const double value = value_->is_number() ? value_->get<double>() : std::nan("");
  if (!(value >= least && value <= most)) refuse("a number from " + in_words(least) + " to " + in_words(most));
  return value;
}

std::size_t Node::one_of(std::initializer_list<const char*> words) const {
  std::string all;
  std::size_t index = 0;
  for (const char* word : words) {
    if (value_->is_string() && value_->get_ref<const std::string&>() == word) return index;
    ++index;
    all += (all.empty() ? "" : ", ") + std::string(word);
  }
  refuse("one of " + all);
}

std::vector<Node> Node::list(std::size_t least, std::size_t most) const {
  const std::size_t count = value_->is_array() ? value_->size() : 0;
  if (!value_->is_array() || count < least || count > most) {
    refuse("a list of " + (least == most ? std::to_string(least) : "at least " + std::to_string(least)) +
           (most != least && most != kAnyNumber ? " and at most " + std::to_string(most) : ""));
  }
  std::vector<Node> nodes;
  nodes.reserve(count);
  for (const Json& item : *value_) nodes.emplace_back(item, place_ + "[" + std::to_string(nodes.size()) + "]");
  return nodes;
}

void Node::record(std::initializer_list<const char*> needed, std::initializer_list<const char*> optional) const {
  if (!value_->is_object()) refuse("an object");
  for (const char* key : needed) {
    if (!value_->contains(key)) refuse("an object with " + std::string(key));
  }
  for (const auto& item : value_->items()) {
    const auto is = [&](const char* key) { return item.key() == key; };
    if (std::none_of(needed.begin(), needed.end(), is) && std::none_of(optional.begin(), optional.end(), is)) {
      refuse("an object without " + shown(item.key(), 60));
    }
  }
}

Node Node::operator[](const char* key) const {
  if (!has(key)) refuse("an object with " + std::string(key));
  return Node((*value_)[key], place_.empty() ? key : place_ + "." + key);
}

}  // namespace hiresvit
