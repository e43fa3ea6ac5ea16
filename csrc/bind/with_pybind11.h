// See module.h.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>

#include "memory.h"
#include "python_signals.h"

namespace {

using GilReleased = pybind11::gil_scoped_release;

class Module {
 public:
  explicit Module(pybind11::module_& module) : module_(module) {}

  template <class Function>
  void def(const char* name, Function* function) {
    module_.def(name, function);
  }

  void def_memory() {
    using mtlfast::Memory;
    namespace py = pybind11;
    py::class_<Memory>(module_, "Memory", py::buffer_protocol())
        .def(py::init<int64_t>())
        .def_buffer([](Memory& memory) {
          return py::buffer_info(static_cast<unsigned char*>(memory.data()), memory.bytes());
        });
  }

 private:
  pybind11::module_& module_;
};

// Python's own error is set by whoever throws it.
void keep_python_error(std::exception_ptr error) {
  try {
    if (error) std::rethrow_exception(error);
  } catch (const mtlfast::PythonError&) {}
}

}  // namespace

#define MTLFAST_MODULE(doc_string, fill)                        \
  PYBIND11_MODULE(_C, m) {                                      \
    m.doc() = doc_string;                                       \
    pybind11::register_exception_translator(keep_python_error); \
    Module module(m);                                           \
    fill(module);                                               \
  }
