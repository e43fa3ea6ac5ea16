"""Says what of an installed mtlfast is in use, and fails where that is not what its wheel promises.

python try_wheel.py native      or pure; run by tools/wheel.py in an empty environment and a folder
                                that holds the tests, and no package
"""

import sys
import warnings
from pathlib import Path

import torch

import mtlfast


def openmp_runtimes():
    """The files of the OpenMP runtimes in this process."""
    mapped = (line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines())
    files = {Path(fields[5]) for fields in mapped if len(fields) == 6}
    return {file for file in files if file.name.startswith(("libgomp", "libomp", "libiomp"))}


def call_every_kernel():
    sys.path.insert(0, "tests")
    import native_calls

    for _, (function, arguments) in native_calls.calls():
        function(*arguments)


def main(kind):
    config = mtlfast.show_config()
    print(config)
    assert Path(sys.prefix) in Path(mtlfast.__file__).parents, mtlfast.__file__
    torch.set_num_threads(2)
    W = torch.randn(20_000, 64, requires_grad=True)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        mtlfast.pairwise_reg(W).backward()
    said = [str(w.message) for w in said if issubclass(w.category, mtlfast.FallbackWarning)]
    if kind == "native":
        assert "CPU: native kernels" in config and not said, said
        call_every_kernel()
        (runtime,) = openmp_runtimes()  # two would have two sets of threads
        assert Path(torch.__file__).parent in runtime.parents, runtime
    else:
        assert "CPU: pure-PyTorch reference" in config and len(said) == 1, said
        assert "without kernels" in config and "without kernels" in said[0], said


if __name__ == "__main__":
    main(sys.argv[1])
