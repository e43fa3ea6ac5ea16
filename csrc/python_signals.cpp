// Plan     Python handles signals in its main thread alone, so only there the GIL is taken, for the time of a
//          handler. Other threads would gain nothing, and one that waits for the GIL while Python
//          ends is killed, which no parallel region survives.
// Locks    the hook is asked where no lock of ours is held; whoever holds the GIL meanwhile may wait
//          for a kernel only by giving it up, as for its end.
// Python   its C functions are called here without pybind11, for both bindings (bind/module.h).
#include "python_signals.h"

#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#include <atomic>

#include "interrupt.h"

namespace mtlfast {
namespace {

std::atomic<unsigned long> main_thread{0};

class Gil {
 public:
  Gil() : state_(PyGILState_Ensure()) {}
  ~Gil() { PyGILState_Release(state_); }
  Gil(const Gil&) = delete;
  Gil& operator=(const Gil&) = delete;

 private:
  const PyGILState_STATE state_;
};

void ask() {
  if (PyThread_get_thread_ident() != main_thread) return;
  const Gil gil;
  // an error that was thrown once and did not arrive is thrown again
  if (PyErr_Occurred() != nullptr || PyErr_CheckSignals() != 0) throw PythonError();
}

// A reference that is let go at the end.
class Reference {
 public:
  explicit Reference(PyObject* object) : object_(object) {
    if (object == nullptr) throw PythonError();
  }
  ~Reference() { Py_DECREF(object_); }
  Reference(const Reference&) = delete;
  Reference& operator=(const Reference&) = delete;
  PyObject* get() const { return object_; }

 private:
  PyObject* const object_;
};

PyObject* forked(PyObject*, PyObject*) {
  main_thread = PyThread_get_thread_ident();
  Py_INCREF(Py_None);
  return Py_None;
}

PyMethodDef forked_method = {"forked", forked, METH_NOARGS, nullptr};

}  // namespace

void hear_python_signals() {
  const Reference threading(PyImport_ImportModule("threading"));
  const Reference main(PyObject_CallMethod(threading.get(), "main_thread", nullptr));
  const Reference ident(PyObject_GetAttrString(main.get(), "ident"));
  main_thread = PyLong_AsUnsignedLong(ident.get());
  // a process that forks goes on with the thread that did, as its main thread
  const Reference os(PyImport_ImportModule("os"));
  const Reference register_at_fork(PyObject_GetAttrString(os.get(), "register_at_fork"));
  const Reference nothing(PyTuple_New(0));
  const Reference function(PyCFunction_NewEx(&forked_method, nullptr, nullptr));
  const Reference keywords(Py_BuildValue("{sO}", "after_in_child", function.get()));
  const Reference done(PyObject_Call(register_at_fork.get(), nothing.get(), keywords.get()));
  set_interrupt_hook(ask);
}

}  // namespace mtlfast
