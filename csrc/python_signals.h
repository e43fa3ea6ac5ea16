// Ctrl-C, and whatever else Python's signal handlers raise, for kernels that hold no GIL.
#pragma once

namespace mtlfast {

// From now on kernels are interrupted by Python's signals; call it with the GIL, once.
void hear_python_signals();

}  // namespace mtlfast
