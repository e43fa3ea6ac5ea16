"""Records calls of the compiled module: arguments, and every array before the call and after it.

What tests/replay reads: words of eight bytes, little-endian, and contents of arrays, each once.
"""

import contextlib
import hashlib
import struct
from unittest import mock

import torch

from mtlfast import _dtypes, _native

NOTHING, INTEGER, REAL, ARRAY = range(4)  # binding.h, Value::Kind
ELEMENTS = _dtypes.CODES  # record.h, Element
NO_FLOAT = 4


def _bytes(storage):
    flat = torch.empty(0, dtype=torch.uint8).set_(storage)
    return flat.numpy().tobytes()


class Recorder:
    """While it is active, calls of ``mtlfast._C`` that take arrays go into ``calls``.

    An argument is an array if somebody asked a tensor for that address before.
    """

    def __init__(self):
        self.contents, self.places = [], {}  # of arrays, and where each hash lies among them
        self.calls = []
        self._tensors = {}  # by the addresses they gave

    @contextlib.contextmanager
    def active(self):
        ask = torch.Tensor.data_ptr

        def data_ptr(tensor):
            address = ask(tensor)
            if address:
                self._tensors[address] = tensor
            return address

        names = {n for n in dir(_native._C) if not n.startswith(("_", "cuda_"))}
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(torch.Tensor, "data_ptr", data_ptr))
            for name in names - {"Memory"}:
                call = self._recorded(name, getattr(_native._C, name))
                stack.enter_context(mock.patch.object(_native._C, name, call))
            yield self

    def _recorded(self, name, function):
        def call(*args):
            tensors, self._tensors = self._tensors, {}
            storages, words = [], []
            for argument in args:
                words.append(self._argument(argument, tensors, storages))
            before = [_bytes(storage) for storage, _ in storages]
            result = function(*args)
            if storages:
                after = [_bytes(storage) for storage, _ in storages]
                elements = [element for _, element in storages]
                arrays = list(zip(elements, before, after, strict=True))
                self._keep(name, arrays, words, result)
            return result

        return call

    @staticmethod
    def _argument(argument, tensors, storages):
        if isinstance(argument, float):
            return struct.pack("<qd", REAL, argument)
        if argument not in tensors:
            assert abs(int(argument)) < 1 << 40, f"an address of no tensor: {argument}"
            return struct.pack("<qq", INTEGER, argument)
        storage = tensors[argument].untyped_storage()
        begin = storage.data_ptr()
        known = [s.data_ptr() for s, _ in storages]
        if begin not in known:
            known.append(begin)
            storages.append((storage, ELEMENTS.get(tensors[argument].dtype, NO_FLOAT)))
        return struct.pack("<qqq", ARRAY, known.index(begin), argument - begin)

    def _keep(self, name, arrays, words, result):
        parts = [_sized(name.encode()), struct.pack("<q", len(arrays))]
        for element, before, after in arrays:
            parts.append(struct.pack("<qqq", element, self._place(before), self._place(after)))
        parts += [struct.pack("<q", len(words)), *words]
        if result is None:
            parts.append(struct.pack("<qq", NOTHING, 0))
        elif isinstance(result, float):
            parts.append(struct.pack("<qd", REAL, result))
        else:
            parts.append(struct.pack("<qq", INTEGER, result))
        self.calls.append((name, b"".join(parts)))

    def _place(self, content):
        key = hashlib.sha256(content).digest()
        if key not in self.places:
            self.places[key] = len(self.contents)
            self.contents.append(content)
        return self.places[key]

    def write(self, path):
        with open(path, "wb") as file:
            file.write(_sized(b"calls of mtlfast._C"))
            file.write(struct.pack("<q", len(self.contents)))
            file.writelines(_sized(content) for content in self.contents)
            file.write(struct.pack("<q", len(self.calls)))
            file.writelines(call for _, call in self.calls)


def _sized(content):
    return struct.pack("<q", len(content)) + content
