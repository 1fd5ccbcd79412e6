"""einsum, tensordot and transpose: for users, and for opt_einsum, which looks them up in a backend."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, overload

import opt_einsum

from . import _dask
from ._arrays import namespace
from ._arrays.namespace import is_lazy
from ._arrays.types import ArrayT, StandardArray
from ._math import einsum as in_memory
from ._math.subscripts import from_interleaved, tensordot_subscripts

MemoryLimit: TypeAlias = float | Literal["max_input"] | None


@overload
def einsum(
    subscripts: str,
    operand: ArrayT,
    /,
    *operands: StandardArray,
    optimize: Any = ...,
    memory_limit: MemoryLimit = ...,
    out: ArrayT | None = ...,
) -> ArrayT: ...
@overload
def einsum(
    operand: ArrayT,
    indices: Sequence[Any],
    /,
    *interleaved: Any,
    optimize: Any = ...,
    memory_limit: MemoryLimit = ...,
    out: ArrayT | None = ...,
) -> ArrayT: ...
def einsum(
    subscripts: Any,
    /,
    *operands: Any,
    optimize: Any = "auto",
    memory_limit: MemoryLimit = None,
    out: Any = None,
) -> Any:
    """Contract arrays by Einstein's summation convention, with functions of the standard alone.

    Parameters
    ----------
    subscripts : str
        ``"nc,cs->ns"``; without ``->`` the output has, in alphabetical order, the indices that
        occur once. An ellipsis stands for any number of axes, and is summed where the output
        has none. Arrays and lists of integers in turn, ``einsum(X, [0, 1], W, [1, 2], [0, 2])``,
        work too; without an output list the output has the indices that occur once, sorted.
    *operands : array
        Arrays of one library, of any numeric dtype. Beside a Dask array, in any place, the others
        may be NumPy arrays.
    optimize : str, bool, path or optimizer
        How opt_einsum orders the contractions of three operands and more.
    memory_limit : int, "max_input" or None
        opt_einsum's: the elements, not the bytes, that an intermediate of three operands and more
        should have at most; ``"max_input"`` means as many as the largest operand. It guides the
        path. What fits no path is contracted two operands at a time nevertheless, since the
        standard has no function of three. With a path in `optimize` it is ignored.
    out : array, optional
        Where the result is written: an array of the operands' library with the shape and the
        dtype of the result, which can be written to (NumPy, torch, CuPy; not JAX, nor Dask). It
        may be an operand. opt_einsum passes it.

    Returns
    -------
    array
        `out` if given; else in the dtype to which the operands are promoted. It may be an operand itself, or a view
        of it, where nothing is summed or multiplied. Lazy if an operand is a Dask array.

    Raises
    ------
    SubscriptsError
        For malformed subscripts, and for subscripts that do not fit the operands.
    ValueError
        If an index has two sizes. The message names the index, the operands and both sizes.
        Also for an `optimize` that gives no path to one operand, and an `out` of another shape.
    TypeError
        For operands of several libraries, or none, and for bools, whose sum every library
        takes for something else. Also for an `out` of another library, device or dtype, or one
        that can't be written to.

    Examples
    --------
    >>> import numpy as np
    >>> import fc_arrayapi as fc
    >>> X, U, V = np.ones((5, 4)), np.ones((4, 2)), np.ones((2, 3))
    >>> fc.einsum("nc,cr,rs->ns", X, U, V).shape  # a weight of low rank
    (5, 3)
    >>> fc.einsum("...ii->...", np.ones((2, 3, 3)))  # traces
    array([3., 3.])
    """
    if not isinstance(subscripts, str):
        subscripts, operands = from_interleaved((subscripts, *operands))
    if out is not None:
        if any(map(is_lazy, (*operands, out))):
            raise TypeError("out: a Dask array is lazy and can't be written to: use the result that einsum returns")
        return in_memory.write_into(out, subscripts, operands, optimize, memory_limit)
    result = in_memory.einsum(subscripts, operands, optimize, memory_limit)
    if result is NotImplemented:
        return _dask.einsum.einsum(subscripts, operands, optimize, memory_limit)
    return result


def tensordot(a: ArrayT, b: StandardArray, axes: Any = 2) -> ArrayT:
    """Contract the last axes of one array with the first of another, or the axes named.

    Parameters
    ----------
    a, b : array
        Arrays of one library, or one a Dask array and the other a NumPy array.
    axes : int or pair of ints or of sequences of int
        The number of axes, or the axes of `a` and those of `b`.

    Returns
    -------
    array
        The axes that are left of `a`, then those of `b`, in the dtype to which both are
        promoted. Lazy if one is a Dask array.

    Raises
    ------
    ValueError
        If two axes that meet have different sizes, an axis is out of range or named twice, or
        there are more axes of one array than of the other.
    TypeError
        As `einsum`; also for `axes` that are not integers, or not a pair.

    Examples
    --------
    >>> import numpy as np
    >>> import fc_arrayapi as fc
    >>> fc.tensordot(np.ones((2, 3, 4)), np.ones((4, 3, 5)), axes=((1, 2), (1, 0))).shape
    (2, 5)
    """
    namespace.of(a, "a"), namespace.of(b, "b")
    try:
        count = operator.index(axes)
    except TypeError:
        own, others = _pair_of_axes(axes)
        own, others = _checked_axes("a", own, a.ndim), _checked_axes("b", others, b.ndim)
    else:
        if not 0 <= count <= min(a.ndim, b.ndim):
            raise ValueError(f"axes is {count}: a has {a.ndim} axes and b has {b.ndim}")
        own, others = tuple(range(a.ndim - count, a.ndim)), tuple(range(count))
    return einsum(tensordot_subscripts(a.ndim, b.ndim, own, others), a, b)


def transpose(a: ArrayT, axes: Sequence[int] | None = None) -> ArrayT:
    """Turn the axes of an array; by default to the reverse order.

    Parameters
    ----------
    a : array
        The array.
    axes : sequence of int, optional
        The axes of `a` in their new order.

    Returns
    -------
    array
        In the dtype of `a`: a view of it where its library has views. Lazy for Dask arrays.

    Raises
    ------
    ValueError
        If an axis is out of range, named twice, or not named.
    TypeError
        If `a` is not a numeric array, as in `einsum`; also for `axes` that are not a sequence
        of integers.

    Examples
    --------
    >>> import numpy as np
    >>> import fc_arrayapi as fc
    >>> fc.transpose(np.ones((2, 3, 4)), (1, 2, 0)).shape
    (3, 4, 2)
    """
    namespace.of(a, "a")
    if axes is None:
        order = tuple(reversed(range(a.ndim)))
    else:
        try:
            order = tuple(map(operator.index, axes))
        except TypeError:
            raise TypeError(
                f"axes is {axes!r}: name each axis of a once, in the new order, for example (1, 0)"
            ) from None
        order = _checked_axes("a", order, a.ndim)
    if len(order) != a.ndim:
        raise ValueError(f"axes: {len(order)} are named, a has {a.ndim}: name each once, in the new order")
    letters = [opt_einsum.get_symbol(axis) for axis in range(a.ndim)]
    return einsum(f"{''.join(letters)}->{''.join(letters[axis] for axis in order)}", a)


def _pair_of_axes(axes: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the axes of both arrays, each an integer or any sequence of integers, also an array."""

    def numbers(side: Any) -> tuple[int, ...]:
        try:
            return (operator.index(side),)
        except TypeError:
            return tuple(map(operator.index, side))

    try:
        own, others = axes
        return numbers(own), numbers(others)
    except (TypeError, ValueError):
        raise TypeError(
            f"axes is {axes!r}: give their number, or the axes of a and those of b, for example ((1,), (0,))"
        ) from None


def _checked_axes(name: str, axes: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """Return non-negative axes, after checking that each exists and is named once."""
    for axis in axes:
        if not -ndim <= axis < ndim:
            raise ValueError(f"axes: {name} has {ndim} axes, and no axis {axis}")
    counted = tuple(axis % ndim for axis in axes)
    if len(set(counted)) != len(counted):
        raise ValueError(f"axes: an axis of {name} is named twice in {axes}")
    return counted
