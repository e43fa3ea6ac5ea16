// Compiled once per instruction set: the kernels of that set.
#include "cpu/declare.h"
#include "kernels.h"

MTLFAST_DECLARE(MTLFAST_KERNELS)

namespace mtlfast {
namespace MTLFAST_ISA {

#define MTLFAST_STRING(x) #x
#define MTLFAST_NAME(x) MTLFAST_STRING(x)
#define MTLFAST_ENTRY(name) name,

extern const CpuKernels table;
const CpuKernels table = {MTLFAST_NAME(MTLFAST_ISA), MTLFAST_KERNELS(MTLFAST_ENTRY)};

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
