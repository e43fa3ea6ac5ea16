// The rotation by which one-sided Jacobi makes two columns orthogonal, in double.
#pragma once

#include <cmath>

#include "common/scalar.h"

namespace mtlfast {
namespace MTLFAST_ISA {

constexpr double kOrthogonal2 = 0x1p-102;  // squared cosine that counts as orthogonal
constexpr double kZero2 = 1e-36;           // squared norm that counts as zero
constexpr int kMaxSweeps = 40;             // 6 to 14 are needed

// x' = c·x − s·y,  y' = s·x + c·y.
struct Rotation {
  double c, s;
};

// For columns of squared norms a and b with the product d; false where they stay as they are.
MTLFAST_BOTH bool find_rotation(double a, double b, double d, double orthogonal2, Rotation* out) {
  if (!(d * d > orthogonal2 * (a * b) && a > kZero2 && b > kZero2)) return false;
  const double gap = b - a, twice = d + d;
  const double width = fabs(gap) + sqrt(gap * gap + twice * twice);
  const double tangent = (gap < 0 ? -twice : twice) / width;
  // c = 1/√(1+t²) as 1 − t²/(r(1+r)): taken directly, c is biased upwards for small t, and the
  // lengths of the columns drift by u/4 a rotation
  const double r = sqrt(1 + tangent * tangent), inverse = 1 / (r * (1 + r));
  *out = {1 - tangent * tangent * inverse, tangent * ((1 + r) * inverse)};
  return true;
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
