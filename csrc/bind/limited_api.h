// See module.h. One thunk for each signature turns Python's arguments into those of a function, in
// order and none by keyword: integers, floats, booleans and strings. Python ≥ 3.11, the first whose
// limited API has buffers.
#pragma once

#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <cstdint>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "memory.h"
#include "python_signals.h"

namespace {

class GilReleased {
 public:
  GilReleased() : thread_(PyEval_SaveThread()) {}
  ~GilReleased() { PyEval_RestoreThread(thread_); }
  GilReleased(const GilReleased&) = delete;
  GilReleased& operator=(const GilReleased&) = delete;

 private:
  PyThreadState* const thread_;
};

// Where Python's error is set already: the end of the thunk.
PyObject* unless_failed(PyObject* object) {
  if (object == nullptr) throw mtlfast::PythonError();
  return object;
}

// A call that reports a failure by setting Python's error.
template <class T>
T unless_error(T value) {
  if (PyErr_Occurred() != nullptr) throw mtlfast::PythonError();
  return value;
}

template <class T>
T from_python(PyObject* object) {
  if constexpr (std::is_same_v<T, bool>) {
    if (object != Py_True && object != Py_False) {
      PyErr_SetString(PyExc_TypeError, "mtlfast._C: a bool is needed");
      throw mtlfast::PythonError();
    }
    return object == Py_True;
  } else if constexpr (std::is_same_v<T, std::string>) {
    Py_ssize_t size = 0;
    const char* text = PyUnicode_AsUTF8AndSize(object, &size);
    if (text == nullptr) throw mtlfast::PythonError();
    return std::string(text, size_t(size));
  } else if constexpr (std::is_floating_point_v<T>) {
    return T(unless_error(PyFloat_AsDouble(object)));
  } else if constexpr (std::is_unsigned_v<T>) {
    static_assert(sizeof(T) == sizeof(unsigned long long));
    return T(unless_error(PyLong_AsUnsignedLongLong(object)));
  } else {
    const long long value = unless_error(PyLong_AsLongLong(object));
    if (value != (long long)(T(value))) {
      PyErr_SetString(PyExc_OverflowError, "mtlfast._C: an integer is too large");
      throw mtlfast::PythonError();
    }
    return T(value);
  }
}

PyObject* to_python(double value) { return PyFloat_FromDouble(value); }
PyObject* to_python(int64_t value) { return PyLong_FromLongLong(value); }
PyObject* to_python(const std::string& value) {
  return PyUnicode_FromStringAndSize(value.data(), Py_ssize_t(value.size()));
}

// Runs `body` and hands its exceptions to Python, as pybind11 does.
template <class Body>
PyObject* guarded(const Body& body) {
  try {
    return body();
  } catch (const mtlfast::PythonError&) {
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

// `function` is a capsule around a pointer to a function of this type.
template <class Result, class... Args>
struct Thunk {
  using Function = Result(Args...);

  static PyObject* call(PyObject* capsule, PyObject* const* args, Py_ssize_t count) {
    return guarded([&] {
      if (count != Py_ssize_t(sizeof...(Args))) {
        PyErr_Format(PyExc_TypeError, "mtlfast._C: %zd arguments are needed, got %zd",
                     Py_ssize_t(sizeof...(Args)), count);
        throw mtlfast::PythonError();
      }
      auto* function = *static_cast<Function**>(PyCapsule_GetPointer(capsule, nullptr));
      return with(function, args, std::index_sequence_for<Args...>());
    });
  }

  template <size_t... I>
  static PyObject* with(Function* function, [[maybe_unused]] PyObject* const* args,
                        std::index_sequence<I...>) {
    std::tuple<std::decay_t<Args>...> values{from_python<std::decay_t<Args>>(args[I])...};
    if constexpr (std::is_void_v<Result>) {
      std::apply(function, values);
      Py_INCREF(Py_None);
      return Py_None;
    } else {
      return unless_failed(to_python(std::apply(function, values)));
    }
  }
};

// An object of Python that owns memory and lends it by the buffer protocol.
struct MemoryObject {
  PyObject head;
  mtlfast::Memory* memory;

  static mtlfast::Memory& of(PyObject* self) {
    return *reinterpret_cast<MemoryObject*>(self)->memory;
  }

  static PyObject* make(PyTypeObject* type, PyObject* args, PyObject*) {
    return guarded([&]() -> PyObject* {
      long long bytes = 0;
      if (!PyArg_ParseTuple(args, "L", &bytes)) throw mtlfast::PythonError();
      auto* allocate = reinterpret_cast<allocfunc>(PyType_GetSlot(type, Py_tp_alloc));
      PyObject* self = unless_failed(allocate(type, 0));
      try {
        reinterpret_cast<MemoryObject*>(self)->memory = new mtlfast::Memory(bytes);
      } catch (...) {
        Py_DECREF(self);
        throw;
      }
      return self;
    });
  }

  static void free(PyObject* self) {
    PyTypeObject* type = Py_TYPE(self);
    delete reinterpret_cast<MemoryObject*>(self)->memory;
    reinterpret_cast<freefunc>(PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
  }

  static int lend(PyObject* self, Py_buffer* view, int flags) {
    return PyBuffer_FillInfo(view, self, of(self).data(), Py_ssize_t(of(self).bytes()), 0, flags);
  }
};

class Module {
 public:
  explicit Module(PyObject* module) : module_(module) {}

  template <class Result, class... Args>
  void def(const char* name, Result (*function)(Args...)) {
    // both live as long as the module, which Python never unloads
    auto* kept = new (Result (*)(Args...))(function);
    auto* method = new PyMethodDef{name, nullptr, METH_FASTCALL, nullptr};
    method->ml_meth =
        reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&Thunk<Result, Args...>::call));
    PyObject* capsule = unless_failed(PyCapsule_New(kept, nullptr, nullptr));
    add(name, PyCFunction_NewEx(method, capsule, nullptr));
    Py_DECREF(capsule);  // the function holds it
  }

  void def_memory() {
    static PyType_Slot slots[] = {
        {Py_tp_new, reinterpret_cast<void*>(&MemoryObject::make)},
        {Py_tp_dealloc, reinterpret_cast<void*>(&MemoryObject::free)},
        {Py_bf_getbuffer, reinterpret_cast<void*>(&MemoryObject::lend)},
        {0, nullptr},
    };
    static PyType_Spec spec = {"mtlfast._C.Memory", int(sizeof(MemoryObject)), 0,
                               Py_TPFLAGS_DEFAULT, slots};
    add("Memory", PyType_FromSpec(&spec));
  }

  // Takes the reference.
  void add(const char* name, PyObject* object) {
    const int failed = PyModule_AddObjectRef(module_, name, unless_failed(object));
    Py_DECREF(object);
    if (failed) throw mtlfast::PythonError();
  }

 private:
  PyObject* const module_;
};

}  // namespace

#define MTLFAST_MODULE(doc_string, fill)                                                           \
  PyMODINIT_FUNC PyInit__C() {                                                                     \
    static PyModuleDef definition = {                                                              \
        PyModuleDef_HEAD_INIT, "_C", doc_string, -1, nullptr, nullptr, nullptr, nullptr, nullptr}; \
    PyObject* object = PyModule_Create(&definition);                                               \
    if (object == nullptr) return nullptr;                                                         \
    PyObject* filled = guarded([&] {                                                               \
      Module module(object);                                                                       \
      fill(module);                                                                                \
      return object;                                                                               \
    });                                                                                            \
    if (filled == nullptr) Py_DECREF(object);                                                      \
    return filled;                                                                                 \
  }
