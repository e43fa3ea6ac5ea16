// Calls kernels as a record says and compares what they give, bit by bit: a program without Python,
// so that a compiler or a machine without one can be tested.
//
//     replay RECORD          all that is recorded, every instruction set, one thread and two
//     replay RECORD NAME     the calls of one function
//
// A NaN counts as a NaN: which sign and payload an operation gives it is the machine's. Then one bit of
// what a call should give is turned, for every kernel and dtype: it must be noticed. Ends with an error
// where a call differs, or where a kernel or a dtype of it is not in the record.
#include <stdlib.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <exception>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "binding.h"
#include "kernels.h"
#include "python_signals.h"
#include "record.h"

void mtlfast::hear_python_signals() {}  // nobody interrupts

namespace {

using replay::Call;
using replay::Element;
using replay::Value;

constexpr const char* kDTypes[] = {"float32", "float64", "bfloat16", "float16", "no dtype"};
constexpr int64_t kElementBytes[] = {4, 8, 2, 2, 1};

// One of Gram matrices, for float32 and 16-bit types alone.
bool is_gram_route(const std::string& name) { return name.rfind("trace_norm_gram_", 0) == 0; }

bool is_nan(Element element, const char* p) {
  if (element == Element::float64) {
    double x;
    std::memcpy(&x, p, sizeof x);
    return x != x;
  }
  if (element == Element::float32) {
    float x;
    std::memcpy(&x, p, sizeof x);
    return x != x;
  }
  uint16_t x;
  std::memcpy(&x, p, sizeof x);
  return (x & 0x7fff) > (element == Element::bfloat16 ? 0x7f80 : 0x7c00);
}

struct Difference {
  int64_t elements = 0, nans = 0, first = -1;  // of another NaN; not counted among the elements
};

// Whole elements; what comes after the last is compared by bytes.
Difference compared(Element element, const char* got, const replay::Bytes& want) {
  Difference found;
  if (std::memcmp(got, want.data, size_t(want.size)) == 0) return found;
  const int64_t step = kElementBytes[int(element)];
  for (int64_t i = 0; i < want.size; i += step) {
    const int64_t n = std::min(step, want.size - i);
    if (std::memcmp(got + i, want.data + i, size_t(n)) == 0) continue;
    const bool both = element != Element::integer && n == step && is_nan(element, got + i) &&
                      is_nan(element, want.data + i);
    if (both) {
      ++found.nans;
    } else {
      if (found.elements++ == 0) found.first = i / step;
    }
  }
  return found;
}

using Block = std::unique_ptr<char, void (*)(void*)>;

// Aligned as torch's allocator does, and with nothing behind it, for AddressSanitizer.
Block copy_of(const replay::Bytes& bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, size_t(bytes.size > 0 ? bytes.size : 1)) != 0) {
    throw std::bad_alloc();
  }
  std::memcpy(memory, bytes.data, size_t(bytes.size));
  return Block(static_cast<char*>(memory), free);
}

struct Outcome {
  bool agrees = true;
  int64_t nans = 0;
  std::string what;
};

Outcome outcome_of(const Call& call, const replay::Bound& bound, int threads) {
  std::vector<Block> blocks;
  for (const replay::Array& array : call.arrays) blocks.push_back(copy_of(array.before));
  std::vector<Value> values;
  for (const replay::Argument& argument : call.args) {
    values.push_back(argument.value);
    if (argument.value.kind == Value::array) {
      values.back().address = blocks.at(size_t(argument.array)).get() + argument.offset;
    }
  }
  const Value result = bound.call(values, threads);
  Outcome outcome;
  const auto add = [&](const std::string& where, const Difference& found) {
    outcome.nans += found.nans;
    if (found.elements == 0) return;
    outcome.agrees = false;
    outcome.what += " " + where + ": " + std::to_string(found.elements) + " from element " +
                    std::to_string(found.first) + " on;";
  };
  for (size_t k = 0; k < blocks.size(); ++k) {
    const replay::Array& array = call.arrays[k];
    add("array " + std::to_string(k), compared(array.element, blocks[k].get(), array.after));
  }
  if (result.kind != call.result.kind || result.number != call.result.number) {
    add("result", {1, 0, 0});
  } else if (result.kind == Value::real) {
    const char* want = reinterpret_cast<const char*>(&call.result.real_number);
    const char* got = reinterpret_cast<const char*>(&result.real_number);
    add("result", compared(Element::float64, got, {want, sizeof(double)}));
  }
  return outcome;
}

int dtype_of(const Call& call, const replay::Bound& bound) {
  return bound.takes_dtype ? int(call.args.at(0).value.number) : 4;
}

using Counts = std::map<std::string, std::array<int64_t, 5>>;

// Returns how many calls differ, and counts those that agree.
int64_t run(const replay::Record& record, const replay::Functions& functions,
            const std::string& only, int threads, Counts& counts) {
  int64_t agreeing = 0, different = 0, nans = 0;
  for (const Call& call : record.calls) {
    if (!only.empty() && call.name != only) continue;
    const auto found = functions.kernels.find(call.name);
    if (found == functions.kernels.end()) throw std::runtime_error("there is no " + call.name);
    const int dtype = dtype_of(call, found->second);
    Outcome outcome;
    try {
      outcome = outcome_of(call, found->second, threads);
    } catch (const std::exception& error) {
      outcome = {false, 0, std::string(" ") + error.what()};
    }
    nans += outcome.nans > 0;
    if (outcome.agrees) {
      ++agreeing;
      ++counts[call.name].at(size_t(dtype));
    } else if (different++ < 20) {
      std::printf("  differs: %s %s, call %d:%s\n", call.name.c_str(), kDTypes[dtype],
                  int(&call - record.calls.data()), outcome.what.c_str());
    }
  }
  std::printf("%lld calls agree, %lld differ; another NaN in %lld\n", (long long)agreeing,
              (long long)different, (long long)nans);
  return different;
}

// Turns the lowest bit of the last number that a call gives; false where it gives none. `content` then
// holds what the array should be.
bool plant(Call& call, std::string& content) {
  for (replay::Array& array : call.arrays) {
    const int64_t step = kElementBytes[int(array.element)];
    for (int64_t i = array.after.size / step * step - step; i >= 0; i -= step) {
      const char* after = array.after.data + i;
      if (std::memcmp(array.before.data + i, after, size_t(step)) == 0) continue;
      if (array.element != Element::integer && is_nan(array.element, after)) continue;
      content.assign(array.after.data, size_t(array.after.size));
      content[size_t(i)] ^= 1;  // little-endian
      array.after.data = content.data();
      return true;
    }
  }
  if (call.result.kind == Value::nothing) return false;
  call.result.number ^= call.result.kind == Value::integer;
  call.result.real_number = std::nextafter(call.result.real_number, 1);
  return true;
}

// Whether a turned bit is noticed, in one call of every kernel and dtype.
bool planted_are_noticed(const replay::Record& record, const replay::Functions& functions,
                         const Counts& counts) {
  std::set<std::pair<std::string, int>> noticed;
  size_t wanted = 0;
  for (const auto& [name, agreeing] : counts) {
    for (const int64_t n : agreeing) wanted += n > 0;
  }
  for (const Call& call : record.calls) {
    const auto found = functions.kernels.find(call.name);
    const std::pair<std::string, int> key(call.name, dtype_of(call, found->second));
    if (counts.count(call.name) == 0 || noticed.count(key) > 0) continue;
    Call wrong = call;
    std::string content;
    if (plant(wrong, content) && !outcome_of(wrong, found->second, 1).agrees) noticed.insert(key);
  }
  std::printf("%zu of %zu planted differences were noticed\n", noticed.size(), wanted);
  return noticed.size() == wanted;
}

// Names of kernels and dtypes that no call has tried.
std::set<std::string> missing(const Counts& counts, const replay::Functions& functions) {
  std::set<std::string> names;
#define MTLFAST_NAME(name) names.insert(#name);
  MTLFAST_KERNELS(MTLFAST_NAME)
#undef MTLFAST_NAME
  for (const auto& [name, bound] : functions.kernels) names.insert(name);
  std::set<std::string> missing;
  for (const std::string& name : names) {
    const auto bound = functions.kernels.find(name);
    const auto count = counts.find(name);
    if (bound == functions.kernels.end() || count == counts.end()) {
      missing.insert(name);
      continue;
    }
    for (int dtype = 0; bound->second.takes_dtype && dtype < 4; ++dtype) {
      const bool left_out = is_gram_route(name) && dtype == int(mtlfast::DType::float64);
      if (count->second[size_t(dtype)] == 0 && !left_out) {
        missing.insert(name + " " + kDTypes[dtype]);
      }
    }
  }
  return missing;
}

int replay_all(const std::string& path, const std::string& only) {
  const replay::Record record(path);
  const replay::Functions functions = replay::bound_functions();
  const char* isas[3];
  const int count = mtlfast::cpu_isas(isas);
  int64_t different = 0;
  Counts counts;
  for (int k = 0; k < count; ++k) {
    functions.use_isa(isas[k]);
#ifdef _OPENMP
    constexpr int kMostThreads = 2;
#else
    constexpr int kMostThreads = 1;
#endif
    for (int threads = 1; threads <= kMostThreads; ++threads) {
      std::printf("%s, threads %d: ", isas[k], threads);
      std::fflush(stdout);
      counts.clear();
      different += run(record, functions, only, threads, counts);
    }
  }
  for (const auto& [name, agreeing] : counts) {
    std::printf("  %s:", name.c_str());
    for (int dtype = 0; dtype < 5; ++dtype) {
      const int64_t n = agreeing[size_t(dtype)];
      if (n > 0) std::printf(" %s %lld", kDTypes[dtype], (long long)n);
    }
    std::printf("\n");
  }
  if (different > 0 || !planted_are_noticed(record, functions, counts)) return 1;
  if (!only.empty()) return 0;
  const auto untried = missing(counts, functions);
  for (const std::string& name : untried) std::printf("not in the record: %s\n", name.c_str());
  return untried.empty() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    std::fprintf(stderr, "replay RECORD [NAME]\n");
    return 2;
  }
  try {
    return replay_all(argv[1], argc == 3 ? argv[2] : "");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "replay: %s\n", error.what());
    return 2;
  }
}
