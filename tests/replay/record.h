// A record of calls, as tools/recording.py writes it: words of eight bytes and contents of arrays.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "binding.h"

namespace replay {

enum class Element : int64_t { float32 = 0, float64 = 1, bfloat16 = 2, float16 = 3, integer = 4 };

struct Bytes {
  const char* data;
  int64_t size;
};

struct Array {
  Element element;
  Bytes before, after;
};

struct Argument {
  Value value;
  int64_t array, offset;  // in bytes, where the value is an array
};

struct Call {
  std::string name;
  std::vector<Array> arrays;
  std::vector<Argument> args;
  Value result;
};

class Record {
 public:
  explicit Record(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    text_.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    if (bytes().size == 0) throw std::runtime_error("no record in " + path);
    std::vector<Bytes> contents;
    for (int64_t n = word(); n > 0; --n) contents.push_back(bytes());
    for (int64_t n = word(); n > 0; --n) calls.push_back(call(contents));
    if (at_ != text_.size()) throw std::runtime_error("the record is longer than it says");
  }

  std::vector<Call> calls;

 private:
  Bytes bytes(int64_t size) {
    if (size < 0 || uint64_t(size) > text_.size() - at_) {
      throw std::runtime_error("the record ends too early");
    }
    at_ += size_t(size);
    return {text_.data() + at_ - size, size};
  }
  Bytes bytes() { return bytes(word()); }

  template <class T = int64_t>
  T word() {
    static_assert(sizeof(T) == 8);
    T value;
    std::memcpy(&value, bytes(8).data, 8);
    return value;
  }

  Value value() {
    Value value;
    value.kind = word<Value::Kind>();
    if (value.kind == Value::real) {
      value.real_number = word<double>();
    } else {
      value.number = word();
    }
    return value;
  }

  Call call(const std::vector<Bytes>& contents) {
    Call call;
    const Bytes name = bytes();
    call.name.assign(name.data, size_t(name.size));
    for (int64_t n = word(); n > 0; --n) {
      Array array;
      array.element = word<Element>();
      array.before = contents.at(size_t(word()));
      array.after = contents.at(size_t(word()));
      call.arrays.push_back(array);
    }
    for (int64_t n = word(); n > 0; --n) {
      Argument argument;
      argument.value = value();
      argument.array = argument.value.number;
      argument.offset = argument.value.kind == Value::array ? word() : 0;
      call.args.push_back(argument);
    }
    call.result = value();
    return call;
  }

  std::string text_;
  size_t at_ = 0;
};

}  // namespace replay
