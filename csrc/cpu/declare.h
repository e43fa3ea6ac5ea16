// Declares the kernels of a family, kernels/<family>.h, in the namespace of an instruction set, as in
// MTLFAST_DECLARE(MTLFAST_PAIRWISE). One that is defined with other arguments does not link.
#pragma once

#define MTLFAST_DECLARE_ONE(name) signature::name name;
#define MTLFAST_DECLARE(family) \
  namespace mtlfast {           \
  namespace MTLFAST_ISA {       \
  family(MTLFAST_DECLARE_ONE)   \
  }                             \
  }
