// Picks the widest instruction set that both this binary and this machine have.
#include <cstring>

#include "kernels.h"
#ifdef MTLFAST_X86_64
#include <cpuid.h>
#endif

namespace mtlfast {

namespace baseline {
extern const CpuKernels table;
}
#ifdef MTLFAST_HAS_x86_64_v3
namespace x86_64_v3 {
extern const CpuKernels table;
}
#endif
#ifdef MTLFAST_HAS_x86_64_v4
namespace x86_64_v4 {
extern const CpuKernels table;
}
#endif

namespace {

#ifdef MTLFAST_X86_64
bool has_f16c() {  // compilers differ in whether __builtin_cpu_supports knows it
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

[[maybe_unused]] bool runs_v3() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
         __builtin_cpu_supports("popcnt") && has_f16c();
}

[[maybe_unused]] bool runs_v4() {
  return runs_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
#endif

int runnable(const CpuKernels* tables[3]) {
  int n = 0;
  tables[n++] = &baseline::table;
#ifdef MTLFAST_HAS_x86_64_v3
  if (runs_v3()) tables[n++] = &x86_64_v3::table;
#endif
#ifdef MTLFAST_HAS_x86_64_v4
  if (runs_v4()) tables[n++] = &x86_64_v4::table;
#endif
  return n;
}

}  // namespace

const CpuKernels* cpu_kernels(const char* isa) {
  const CpuKernels* tables[3];
  const int n = runnable(tables);
  if (isa == nullptr) return tables[n - 1];
  for (int i = 0; i < n; ++i) {
    if (std::strcmp(tables[i]->isa, isa) == 0) return tables[i];
  }
  return nullptr;
}

int cpu_isas(const char* names[3]) {
  const CpuKernels* tables[3];
  const int n = runnable(tables);
  for (int i = 0; i < n; ++i) names[i] = tables[i]->isa;
  return n;
}

}  // namespace mtlfast
