// Fixed-width vectors: 64 bytes whatever the instruction set, so that every build adds in the same
// order and gives the same bits. The compiler splits a Vec into what the machine has.
//
// Lane<T> names, for an element type T of W: Real (the arithmetic type), Vec (N Reals) and the loads
// and stores that convert. 16-bit conversions are exact on the way in and round to nearest even on
// the way out, whatever the mode of the machine. float16 takes the instructions of x86 where it has
// them: the same bits in a few steps, not in thirty.
#pragma once

#include <cstdint>
#include <cstring>

#define MTLFAST_INLINE inline __attribute__((always_inline))

namespace mtlfast {
namespace MTLFAST_ISA {

using F32 = float __attribute__((vector_size(64)));
using F64 = double __attribute__((vector_size(64)));
using U64 = uint64_t __attribute__((vector_size(64)));
using U32 = uint32_t __attribute__((vector_size(64)));
using U16 = uint16_t __attribute__((vector_size(32)));

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

template <class V, class T>
MTLFAST_INLINE V load_raw(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class V, class T>
MTLFAST_INLINE void store_raw(T* p, V v) {
  std::memcpy(p, &v, sizeof v);
}

MTLFAST_INLINE F32 from_bits(U32 u) { return (F32)u; }
MTLFAST_INLINE U32 to_bits(F32 f) { return (U32)f; }

MTLFAST_INLINE F32 widen(U16 u, BFloat16) {
  return from_bits(__builtin_convertvector(u, U32) << 16);
}

MTLFAST_INLINE U16 narrow(F32 f, BFloat16) {
  const U32 u = to_bits(f);
  const U32 rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const U32 quiet_nan = (u >> 16) | 0x40u;
  const U32 is_nan = (U32)((u & 0x7fffffffu) > 0x7f800000u);
  return __builtin_convertvector((is_nan & quiet_nan) | (~is_nan & rounded), U16);
}

#ifdef __F16C__

#ifdef __AVX512F__
using HalfLanes = U16;
using FloatLanes = F32;
#else
using HalfLanes = uint16_t __attribute__((vector_size(16)));
using FloatLanes = float __attribute__((vector_size(32)));
#endif
constexpr int kParts = sizeof(F32) / sizeof(FloatLanes);

MTLFAST_INLINE F32 widen(U16 u, Float16) {
  HalfLanes half[kParts];
  FloatLanes part[kParts];
  std::memcpy(half, &u, sizeof u);
  for (int i = 0; i < kParts; ++i) asm("vcvtph2ps %1, %0" : "=v"(part[i]) : "v"(half[i]));
  F32 f;
  std::memcpy(&f, part, sizeof f);
  return f;
}

MTLFAST_INLINE U16 narrow(F32 f, Float16) {
  HalfLanes half[kParts];
  FloatLanes part[kParts];
  std::memcpy(part, &f, sizeof f);
  for (int i = 0; i < kParts; ++i) asm("vcvtps2ph $0, %1, %0" : "=v"(half[i]) : "v"(part[i]));
  U16 u;
  std::memcpy(&u, half, sizeof u);
  const U16 is_nan = (U16)((u & 0x7fffu) > 0x7c00u);
  return (is_nan & ((u & 0x8000u) | 0x7e00u)) | (~is_nan & u);
}

#else

#ifdef MTLFAST_X86_64  // machines without AVX2: time to compile counts for more
#define MTLFAST_FLOAT16 inline __attribute__((noinline))
#else
#define MTLFAST_FLOAT16 MTLFAST_INLINE
#endif

MTLFAST_FLOAT16 F32 widen(U16 u, Float16) {
  const U32 h = __builtin_convertvector(u, U32);
  const U32 sign = (h & 0x8000u) << 16;
  const U32 magnitude = (h & 0x7fffu) << 13;
  const U32 exponent = magnitude & 0x0f800000u;
  const U32 is_special = (U32)(exponent == 0x0f800000u);  // Inf, NaN
  const U32 is_tiny = (U32)(exponent == 0u);              // zero, subnormal
  const U32 normal = magnitude + (112u << 23);
  const U32 special = magnitude + (224u << 23);
  // a subnormal h·2⁻²⁴ as the difference of two normal floats: exact, also with denormals flushed
  const F32 offset = from_bits((U32){} + (113u << 23));
  const U32 tiny = to_bits(from_bits(magnitude + (113u << 23)) - offset);
  const U32 r = (is_special & special) | (is_tiny & tiny) | (~is_special & ~is_tiny & normal);
  return from_bits(r | sign);
}

MTLFAST_FLOAT16 U16 narrow(F32 f, Float16) {
  const U32 u = to_bits(f);
  const U32 sign = (u >> 16) & 0x8000u;
  const U32 a = u & 0x7fffffffu;
  const U32 is_nan = (U32)(a > 0x7f800000u);
  const U32 is_big = (U32)(a >= ((127u + 16u) << 23));
  const U32 is_tiny = (U32)(a < (113u << 23));
  const U32 normal = (a + 0xc8000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;  // exponent bias −112
  // below 2⁻¹⁴: adding ½ lets the float unit round to a multiple of 2⁻²⁴, to nearest even
  const U32 half = (U32){} + 0x3f000000u;
  const U32 tiny = to_bits(from_bits(a) + from_bits(half)) - half;
  const U32 special = 0x7c00u | (is_nan & 0x200u);
  const U32 r = (is_big & special) | (~is_big & is_tiny & tiny) | (~is_big & ~is_tiny & normal);
  return __builtin_convertvector(r | sign, U16);
}

#undef MTLFAST_FLOAT16
#endif

template <class T>
struct Lane {  // 16-bit types
  using Real = float;
  using Vec = F32;
  static constexpr int N = 16;
  static MTLFAST_INLINE Vec load(const T* p) { return widen(load_raw<U16>(p), T{}); }
  static MTLFAST_INLINE void store(T* p, Vec v) { store_raw(p, narrow(v, T{})); }
};

template <>
struct Lane<float> {
  using Real = float;
  using Vec = F32;
  static constexpr int N = 16;
  static MTLFAST_INLINE Vec load(const float* p) { return load_raw<Vec>(p); }
  static MTLFAST_INLINE void store(float* p, Vec v) { store_raw(p, v); }
};

template <>
struct Lane<double> {
  using Real = double;
  using Vec = F64;
  static constexpr int N = 8;
  static MTLFAST_INLINE Vec load(const double* p) { return load_raw<Vec>(p); }
  static MTLFAST_INLINE void store(double* p, Vec v) { store_raw(p, v); }
};

// The first n < N elements; the other lanes are zero.
template <class T>
MTLFAST_INLINE typename Lane<T>::Vec load_part(const T* p, int64_t n) {
  T part[Lane<T>::N] = {};
  for (int64_t l = 0; l < n; ++l) part[l] = p[l];
  return Lane<T>::load(part);
}

template <class T>
MTLFAST_INLINE void store_part(T* p, typename Lane<T>::Vec v, int64_t n) {
  T part[Lane<T>::N];
  Lane<T>::store(part, v);
  for (int64_t l = 0; l < n; ++l) p[l] = part[l];
}

// The first n lanes of v; the others become zero, whatever they held.
MTLFAST_INLINE F32 keep_first(F32 v, int64_t n) {
  constexpr U32 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return from_bits(to_bits(v) & (U32)(lane < uint32_t(n)));
}

MTLFAST_INLINE F64 keep_first(F64 v, int64_t n) {
  constexpr U64 lane = {0, 1, 2, 3, 4, 5, 6, 7};
  return (F64)((U64)v & (U64)(lane < uint64_t(n)));
}

// The lanes as double, eight to a vector.
MTLFAST_INLINE void widen_lanes(F64 v, F64* out) { out[0] = v; }
MTLFAST_INLINE void widen_lanes(F32 v, F64* out) {
  using Half = float __attribute__((vector_size(32)));
  Half half[2];
  std::memcpy(half, &v, sizeof v);
  out[0] = __builtin_convertvector(half[0], F64);
  out[1] = __builtin_convertvector(half[1], F64);
}
MTLFAST_INLINE bool is_finite(double x) { return x - x == 0; }

// Sum of the lanes in double, in lane order.
template <class V>
MTLFAST_INLINE double lane_sum(V v) {
  double s = 0;
  for (unsigned l = 0; l < sizeof(V) / sizeof(v[0]); ++l) s += double(v[l]);
  return s;
}

// Compensated sum (Neumaier): the order is the caller's, the rounding of one addition is kept.
struct Sum {
  double total = 0, rest = 0;
  MTLFAST_INLINE void add(double x) {
    const double t = total + x;
    const double abs_total = total < 0 ? -total : total, abs_x = x < 0 ? -x : x;
    rest += abs_total >= abs_x ? (total - t) + x : (x - t) + total;
    total = t;
  }
  double value() const {
    const double v = total + rest;
    return v == v ? v : total;  // Inf − Inf in `rest` must not turn Inf into NaN
  }
};

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
