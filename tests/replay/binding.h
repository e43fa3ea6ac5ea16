// What stands in for Python (csrc/bind/module.h): the bound functions by name, called with values that
// were read from a record. Included by csrc/module.cpp and by replay.cpp.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace replay {

// An argument or a result, as Python has it: an array is where it begins.
struct Value {
  enum Kind : int64_t { nothing = 0, integer = 1, real = 2, array = 3 };
  Kind kind = nothing;
  int64_t number = 0;
  double real_number = 0;
  char* address = nullptr;
};

struct Bound {
  bool takes_dtype;  // as its first argument
  std::function<Value(const std::vector<Value>&, int threads)> call;
};

// What csrc/module.cpp binds.
struct Functions {
  std::map<std::string, Bound> kernels;  // all that take arrays
  std::string (*use_isa)(const std::string&) = nullptr;
};
Functions bound_functions();

template <class T>
T from_value(const Value& value) {
  if constexpr (std::is_same_v<T, std::uintptr_t>) {
    if (value.kind == Value::array) return reinterpret_cast<T>(value.address);
    if (value.kind == Value::integer && value.number == 0) return 0;
    throw std::runtime_error("an array is needed");
  } else if constexpr (std::is_floating_point_v<T>) {
    if (value.kind == Value::real) return T(value.real_number);
    if (value.kind == Value::integer) return T(value.number);
    throw std::runtime_error("a number is needed");
  } else {
    if (value.kind == Value::integer && int64_t(T(value.number)) == value.number) {
      return T(value.number);
    }
    throw std::runtime_error("an integer is needed");
  }
}

inline Value to_value(double value) { return {Value::real, 0, value, nullptr}; }
inline Value to_value(int64_t value) { return {Value::integer, value, 0, nullptr}; }

template <class Result, class... Args, size_t... I>
Value call(Result (*function)(Args...), const std::vector<Value>& values, int threads,
           std::index_sequence<I...>) {
  if (values.size() != sizeof...(Args)) throw std::runtime_error("another number of arguments");
  std::tuple<Args...> args{from_value<Args>(values[I])...};
  // the last argument, where it is an int, is the number of threads
  auto& last = std::get<sizeof...(Args) - 1>(args);
  if constexpr (std::is_same_v<std::decay_t<decltype(last)>, int>) last = threads;
  if constexpr (std::is_void_v<Result>) {
    std::apply(function, args);
    return {};
  } else {
    return to_value(std::apply(function, args));
  }
}

}  // namespace replay

namespace {

class GilReleased {
 public:
  GilReleased() {}
};

class Module {
 public:
  explicit Module(replay::Functions& functions) : functions_(functions) {}

  template <class Result, class First, class... Rest>
  void def(const char* name, Result (*function)(First, Rest...)) {
    const auto call = [function](const std::vector<replay::Value>& values, int threads) {
      const auto each = std::make_index_sequence<1 + sizeof...(Rest)>();
      return replay::call(function, values, threads, each);
    };
    functions_.kernels[name] = {std::is_same_v<First, int>, call};
  }

  void def(const char*, std::string (*use_isa)(const std::string&)) {
    functions_.use_isa = use_isa;
  }

  // what the module says about itself
  template <class Result>
  void def(const char*, Result (*)()) {}

  void def_memory() {}

 private:
  replay::Functions& functions_;
};

}  // namespace

#define MTLFAST_MODULE(doc_string, fill)        \
  replay::Functions replay::bound_functions() { \
    replay::Functions functions;                \
    Module module(functions);                   \
    fill(module);                               \
    return functions;                           \
  }
