// Ctrl-C, and whatever else Python's signal handlers raise, for kernels that hold no GIL.
#pragma once

namespace mtlfast {

// An error of Python that is set in the thread, as its C functions set it; what is thrown reaches
// Python with that error.
struct PythonError {};

// From now on kernels are interrupted by Python's signals; call it with the GIL, once.
void hear_python_signals();

}  // namespace mtlfast
