// The Python module's side of a binding: `Module`, `GilReleased`, `MTLFAST_MODULE`.
//
// pybind11 binds a module that is built for one Python. A wheel that is to serve every Python takes
// the limited API instead, which pybind11 does not: the same names, for the few types that bind/
// passes.
// MTLFAST_BINDING_HEADER names a third, for a program that calls the bound functions without Python.
#pragma once

#if defined(MTLFAST_BINDING_HEADER)
#include MTLFAST_BINDING_HEADER
#elif defined(MTLFAST_LIMITED_API)
#include "bind/limited_api.h"
#else
#include "bind/with_pybind11.h"
#endif
