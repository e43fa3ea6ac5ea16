"""What of mtlfast is in use on this machine, and why not the rest."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

import torch

from mtlfast import _native

if TYPE_CHECKING:
    from typing import Any


def _version():
    try:
        return importlib.metadata.version("mtlfast")
    except importlib.metadata.PackageNotFoundError:  # imported from a source tree
        return "unknown"


def build_info() -> dict[str, Any]:
    """What the compiled module was built with, as a dict.

    Returns:
        ``version``; ``native``: whether the compiled module is in use; ``cpu_isas``: the
        instruction sets it can run on this machine, widest last; ``built_isas``: those it holds;
        ``cuda``: whether it holds CUDA kernels, and ``cuda_archs`` for which architectures (+PTX:
        for newer ones too); ``compiler``; ``openmp``: the OpenMP version (the date of its
        standard) or None.
        Without the compiled module the tuples are empty and ``compiler`` is None.

    Raises: nothing.

    Cost: none worth naming. Deterministic.

    Example:
        >>> import mtlfast
        >>> sorted(mtlfast.build_info())
        ['built_isas', 'compiler', 'cpu_isas', 'cuda', 'cuda_archs', 'native', 'openmp', 'version']
    """
    info = {
        "version": _version(),
        "native": not _native.missing,
        "cpu_isas": (),
        "built_isas": (),
        "cuda": False,
        "cuda_archs": (),
        "compiler": None,
        "openmp": None,
    }
    if not _native.missing:
        info |= _native.build_info()
        info["cpu_isas"] = _native.cpu_isas()
    return info


def show_config() -> str:
    """Which path each device takes, on which instruction set and with how many threads, as text.

    Returns:
        Several lines to print or to paste into a report.

    Raises: nothing.

    Cost: none worth naming. Deterministic.

    Example:
        >>> import mtlfast
        >>> mtlfast.show_config().splitlines()[0].startswith("mtlfast")
        True
    """
    info = build_info()
    lines = [f"mtlfast {info['version']}, torch {torch.__version__}"]
    if info["native"]:
        lines.append(
            f"CPU: native kernels on {_native.use_isa()} (can run: {', '.join(info['cpu_isas'])}), "
            f"{torch.get_num_threads()} threads, OpenMP {info['openmp'] or 'absent'}"
        )
        lines.append(f"compiler: {info['compiler']}")
    else:
        lines.append(f"CPU: pure-PyTorch reference, because {_native.missing}")
    if info["cuda"]:
        lines.append(f"CUDA: native kernels, architectures {', '.join(info['cuda_archs'])}")
    else:
        lines.append("CUDA: pure-PyTorch reference, because this build holds no CUDA kernels")
    lines.append("other devices: pure-PyTorch reference")
    return "\n".join(lines)
