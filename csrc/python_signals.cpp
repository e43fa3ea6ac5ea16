// Plan     Python handles signals in its main thread alone, so only there the GIL is taken, for the time of a
//          handler. Other threads would gain nothing, and one that waits for the GIL while Python
//          ends is killed, which no parallel region survives.
// Locks    the hook is asked where no lock of ours is held; whoever holds the GIL meanwhile may wait
//          for a kernel only by giving it up, as for its end.
#include "python_signals.h"

#include <pybind11/pybind11.h>

#include <atomic>

#include "interrupt.h"

namespace py = pybind11;

namespace mtlfast {
namespace {

std::atomic<unsigned long> main_thread{0};

void ask() {
  if (PyThread_get_thread_ident() != main_thread) return;
  const py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

}  // namespace

void hear_python_signals() {
  const py::object main = py::module_::import("threading").attr("main_thread")();
  main_thread = main.attr("ident").cast<unsigned long>();
  // a process that forks goes on with the thread that did, as its main thread
  py::module_::import("os").attr("register_at_fork")(
      py::arg("after_in_child") =
          py::cpp_function([] { main_thread = PyThread_get_thread_ident(); }));
  set_interrupt_hook(ask);
}

}  // namespace mtlfast
