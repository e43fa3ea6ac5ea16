"""What public functions accept, as names for hints: each form of an argument is told here once.

For type checkers alone: the modules of the package name these under ``if TYPE_CHECKING``, so that
nothing is imported for them when a program runs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, ValuesView
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, device, dtype
from torch.nn import Parameter, ParameterList

from mtlfast.graphs import TaskGraph
from mtlfast.nn import Regularizer


class SupportsArray(Protocol):
    """What NumPy makes an array of: its own arrays, tensors, columns of a data frame."""

    def __array__(self) -> np.ndarray[Any, Any]: ...


class SparseMatrix(Protocol):
    """A matrix or an array of scipy.sparse, which need not be installed."""

    @property
    def format(self) -> str: ...
    @property
    def nnz(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    def tocoo(self) -> Any: ...


class DataFrame(Protocol):
    """Of pandas and the like, which need not be installed."""

    @property
    def columns(self) -> Any: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


class NetworkxGraph(Protocol):
    """A graph of networkx, which need not be installed."""

    @property
    def nodes(self) -> Any: ...
    @property
    def edges(self) -> Any: ...
    def is_directed(self) -> bool: ...


class HasCoefficients(Protocol):
    """A fitted linear model, of this package or of scikit-learn."""

    @property
    def coef_(self) -> Any: ...


class Splitter(Protocol):
    """Of cross-validation, as those of scikit-learn."""

    def split(self, X: Any, y: Any = ..., groups: Any = ...) -> Iterable[Any]: ...


# The parameters of K tasks. What comes back in the same form is a list for all but the first three.
Several: TypeAlias = list[Parameter] | ParameterList | ValuesView[Tensor]
Rows: TypeAlias = Tensor | tuple[Tensor, ...] | list[Tensor] | Several
FormT = TypeVar("FormT", Tensor, tuple[Tensor, ...], list[Tensor])
RowsT = TypeVar("RowsT", bound=Rows)  # the very object, changed in place

# Numbers: finite real ones, NumPy's too, and tensors without dimensions.
Number: TypeAlias = float | np.floating[Any] | np.integer[Any] | Tensor
Integer: TypeAlias = int | np.integer[Any]
Reduction: TypeAlias = Literal["sum", "mean"]

# Numbers or labels in a tensor, an array, or lists, nested as there are dimensions.
Array: TypeAlias = Tensor | SupportsArray | list[Any] | tuple[Any, ...]
Graph: TypeAlias = (
    TaskGraph | Tensor | NDArray[Any] | SparseMatrix | tuple[Array, Array] | tuple[Array, None]
)
TaskIds: TypeAlias = int | np.integer[Any] | Array

# What an optimiser takes.
LossT = TypeVar("LossT")
OtherLossT = TypeVar("OtherLossT")
Closure: TypeAlias = Callable[[], LossT]
Terms: TypeAlias = Mapping[Any, Regularizer]  # by a tensor, or a tuple of tensors

# What a linear model takes.
NotTensor: TypeAlias = NDArray[Any] | SparseMatrix | DataFrame | Sequence[Any]
Features: TypeAlias = Tensor | NotTensor
Column: TypeAlias = Tensor | SupportsArray | Sequence[Any]
RegularizerT = TypeVar("RegularizerT", bound=Regularizer)
Penalty: TypeAlias = Regularizer | Sequence[Regularizer] | None
Device: TypeAlias = device | str | int
DType: TypeAlias = dtype | str | type[Any] | np.dtype[Any]
FitIntercept: TypeAlias = bool | Literal["penalized"]
Solver: TypeAlias = Literal["auto", "cg", "fista", "admm"]
Unknown: TypeAlias = Literal["error", "mean"]
Folds: TypeAlias = Integer | Splitter | Iterable[tuple[Any, Any]]
RandomState: TypeAlias = int | Sequence[int] | np.random.SeedSequence | np.random.Generator | None
Metric: TypeAlias = Literal["euclidean", "cosine", "correlation"]
