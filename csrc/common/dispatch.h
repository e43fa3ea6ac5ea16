// Calls body.template operator()<T>() style generic lambdas with the element type that a DType names.
#pragma once

#include "common/lanes.h"
#include "types.h"

namespace mtlfast {
namespace MTLFAST_ISA {

template <class T>
struct Type {
  using type = T;
};

template <class Body>
inline void with_type(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::float32: body(Type<float>{}); break;
    case DType::float64: body(Type<double>{}); break;
    case DType::bfloat16: body(Type<BFloat16>{}); break;
    case DType::float16: body(Type<Float16>{}); break;
  }
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
