"""The types of the public signatures, for mypy and pyright."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypedDict

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # one with a default, which the type checkers bring along
else:
    from typing import TypeVar as _TypeVar

    def TypeVar(name, default=None, **options):
        """Leave out the default, which Python has from 3.13 on."""
        return _TypeVar(name, **options)


class StandardArray(Protocol):
    """An array of any library of the array API standard."""

    @property
    def shape(self) -> Any: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def ndim(self) -> int: ...


ArrayT = TypeVar("ArrayT", bound=StandardArray)
# The arrays of a layer; the bias may be None.
WeightT = TypeVar("WeightT", bound=StandardArray, covariant=True, default=Any)
BiasT = TypeVar("BiasT", bound=StandardArray | None, covariant=True, default=Any)
# The gradients; None where one was not asked for.
InputGradT = TypeVar("InputGradT", default=Any)
WeightGradT = TypeVar("WeightGradT", default=Any)
BiasGradT = TypeVar("BiasGradT", default=Any)

AnyPath: TypeAlias = str | bytes | os.PathLike[Any]
# The default limit for the weights that are read from a file, together.
MAX_BYTES = 16 * 2**30

# The libraries whose names and axes of W and B a file may have.
LayoutName = Literal["torch", "keras", "flax"]

# What `needs` may hold, and its subsets in any order.
Need = Literal["dX", "dW", "dB"]
_X: TypeAlias = Literal["dX"]
_W: TypeAlias = Literal["dW"]
_B: TypeAlias = Literal["dB"]
NeedsX: TypeAlias = tuple[_X]
NeedsW: TypeAlias = tuple[_W]
NeedsB: TypeAlias = tuple[_B]
NeedsXW: TypeAlias = tuple[_X, _W] | tuple[_W, _X]
NeedsXB: TypeAlias = tuple[_X, _B] | tuple[_B, _X]
NeedsWB: TypeAlias = tuple[_W, _B] | tuple[_B, _W]
NeedsAll: TypeAlias = (
    tuple[_X, _W, _B]
    | tuple[_X, _B, _W]
    | tuple[_W, _X, _B]
    | tuple[_W, _B, _X]
    | tuple[_B, _X, _W]
    | tuple[_B, _W, _X]
)


class SumOptions(TypedDict, total=False):
    """The options of `backward` that do not change the types of the gradients."""

    sample_weight: StandardArray | None
    acc_dtype: Any
