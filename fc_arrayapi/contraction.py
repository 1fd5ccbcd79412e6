"""einsum on the array API standard alone, and opt_einsum's backend functions.

opt_einsum parses the subscripts and finds the path; every step of one or two operands is
lowered to the standard's functions in lowering.py. An index has one size: an axis of size 1
does not broadcast.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import opt_einsum

from . import alignment, chunked, namespace
from .alignment import Operand
from .chunked import Output
from .lowering import Step, lower
from .namespace import Array, Namespace, keep
from .text import in_code

# Stands for a size that is not known, where a path is chosen.
ASSUMED_SIZE = 1000


class SubscriptsError(ValueError):
    """The subscripts of an einsum are malformed, or do not fit the operands' ranks."""


@dataclass(frozen=True, eq=False)  # known by identity, which is quick to look up
class _Equation:
    """Subscripts with the ellipsis written out: one letter for each axis."""

    inputs: tuple[str, ...]
    output: str
    # The letters that stand for axes of the ellipsis, which the caller has not named.
    unnamed: str
    # Axes that must have one size: (operand, axis, other operand, its axis).
    equal: tuple[tuple[int, int, int, int], ...]
    # For one operand or two, the whole contraction; for more, the path depends on the sizes.
    step: Step | None


_Path = tuple[tuple[tuple[int, ...], str], ...]

_EQUATIONS: dict[tuple[str | int, ...], _Equation] = {}
# Equations with types, dtypes and ranks of operands in memory for which only sizes are left to check.
_READY: dict[Any, tuple[Namespace, _Equation]] = {}
_PATHS: dict[Any, _Path] = {}


def einsum(subscripts: Any, /, *operands: Any, optimize: Any = "auto", out: None = None) -> Array:
    """Contract arrays by Einstein's summation convention, with functions of the standard alone.

    Parameters
    ----------
    subscripts : str
        ``"nc,cs->ns"``; without ``->`` the output has, in alphabetical order, the indices that
        occur once. An ellipsis stands for any number of axes, and is summed where the output
        has none. opt_einsum's interleaved form ``einsum(X, [0, 1], W, [1, 2], [0, 2])`` works too.
    *operands : array
        Arrays of one library, of any numeric dtype. With a Dask array first, the others may
        be NumPy arrays.
    optimize : str, bool, path or optimizer
        How opt_einsum orders the contractions of three operands and more.
    out : None
        opt_einsum passes it; arrays of the standard can't be written to.

    Returns
    -------
    array
        In the dtype to which the operands are promoted. It may be an operand itself, or a view
        of it, where nothing is summed or multiplied. Lazy for Dask arrays.

    Raises
    ------
    SubscriptsError
        For malformed subscripts, and for subscripts that do not fit the operands.
    ValueError
        If an index has two sizes. The message names the index, the operands and both sizes.
        Also for an `optimize` that gives no path to one operand.
    TypeError
        For operands of several libraries, or none, and for bools, whose sum every library
        takes for something else.

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
    if out is not None:
        raise TypeError("out: arrays of the standard can't be written to; use the result that einsum returns")
    try:
        xp, equation = _READY[subscripts, *[(type(x), x.dtype, x.ndim) for x in operands]]
    except (AttributeError, KeyError, TypeError):
        subscripts, operands, xp, equation = _prepare(subscripts, operands)
    for operand, axis, other, other_axis in equation.equal:
        if operands[operand].shape[axis] != operands[other].shape[other_axis]:
            _check_sizes(subscripts, equation, operands)
            break
    if namespace.is_chunked(xp):
        return _einsum_chunked(equation, operands, optimize)
    if equation.step is not None:
        return equation.step(xp, *operands)
    remaining = list(operands)
    for positions, step in _path(equation, operands, optimize):
        remaining.append(lower(step)(xp, *[remaining.pop(position) for position in positions]))
    return remaining[0]


def _prepare(subscripts: Any, operands: tuple[Any, ...]) -> tuple[str, tuple[Array, ...], Namespace, _Equation]:
    """Check everything but sizes, and bring the operands to one dtype.

    What needs no work the next time is kept in _READY.
    """
    if not isinstance(subscripts, str):
        subscripts, operands = _from_interleaved((subscripts, *operands))
    if not operands:
        raise SubscriptsError(f"{_shown(subscripts)}: there are no operands")
    names = [f"operand {position}" for position in range(len(operands))]
    xp = namespace.common(names, operands, lifted=names[1:])
    for name, operand in zip(names, operands, strict=True):
        if not namespace.is_numeric(xp, operand.dtype):
            raise TypeError(
                f"{_shown(subscripts)}: {name} has dtype {namespace.dtype_name(operand.dtype)}; einsum takes numbers: "
                f"convert it first, for example xp.astype({in_code(name)}, xp.int64)"
            )
    ranks = tuple(len(operand.shape) for operand in operands)
    key = (subscripts, *ranks)
    equation = _EQUATIONS.get(key) or keep(_EQUATIONS, key, _parse(subscripts, *ranks))
    dtype = operands[0].dtype
    if any(operand.dtype != dtype for operand in operands):
        # Before any step, so that no operand is summed in a narrower dtype than the result's.
        dtype = xp.result_type(*[operand.dtype for operand in operands])
        operands = tuple(namespace.cast(namespace.of(operand), operand, dtype) for operand in operands)
    elif not namespace.is_chunked(xp):
        keep(_READY, (subscripts, *[(type(x), x.dtype, x.ndim) for x in operands]), (xp, equation))
    return subscripts, operands, xp, equation


def tensordot(a: Array, b: Array, axes: Any = 2) -> Array:
    """Contract the last axes of one array with the first of another, or the axes named.

    Parameters
    ----------
    a, b : array
        Arrays of one library.
    axes : int or pair of ints or of sequences of int
        The number of axes, or the axes of `a` and those of `b`.

    Returns
    -------
    array
        The axes that are left of `a`, then those of `b`, in the dtype to which both are
        promoted. Lazy for Dask arrays.

    Raises
    ------
    ValueError
        If two axes that meet have different sizes, an axis is out of range or named twice, or
        there are more axes of one array than of the other.
    TypeError
        As `einsum`; also for `axes` that are no whole numbers, or not those of two arrays.

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
    return einsum(_tensordot_subscripts(a.ndim, b.ndim, own, others), a, b)


def transpose(a: Array, axes: Sequence[int] | None = None) -> Array:
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
        If `a` is no array or has no numbers, as in `einsum`; also for `axes` that are no
        sequence of whole numbers.

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
    """Return the axes of both arrays; those of one are a number, or any sequence of numbers, arrays too."""

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
    """Return axes counted from the front, after checking that each is there and named once."""
    for axis in axes:
        if not -ndim <= axis < ndim:
            raise ValueError(f"axes: {name} has {ndim} axes, and no axis {axis}")
    counted = tuple(axis % ndim for axis in axes)
    if len(set(counted)) != len(counted):
        raise ValueError(f"axes: an axis of {name} is named twice in {axes}")
    return counted


def _tensordot_subscripts(ndim: int, other_ndim: int, own: tuple[int, ...], others: tuple[int, ...]) -> str:
    letters = [opt_einsum.get_symbol(axis) for axis in range(ndim + other_ndim)]
    left, right = letters[:ndim], letters[ndim:]
    if len(own) != len(others):
        raise ValueError(f"axes: {len(own)} axes of a meet {len(others)} of b: name as many of each")
    for axis, other in zip(own, others, strict=True):
        right[other] = left[axis]
    kept = [letter for letter in (*left, *right) if (letter in left) != (letter in right)]
    return f"{''.join(left)},{''.join(right)}->{''.join(kept)}"


def _from_interleaved(arguments: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    try:
        subscripts, operands = opt_einsum.parser.convert_interleaved_input(arguments)
    except Exception as error:
        raise SubscriptsError(
            "einsum takes subscripts and arrays, or arrays and lists of indices in turn, "
            f"einsum(X, [0, 1], W, [1, 2], [0, 2]): {error}"
        ) from None
    return subscripts, operands


def _parse(subscripts: str, *ranks: int) -> _Equation:
    """Write the ellipsis out and check the subscripts against the ranks."""
    for character in subscripts:
        if not (character in ",.-> " or (character.isascii() and character.isalpha()) or ord(character) > 127):
            raise SubscriptsError(f"{_shown(subscripts)}: {character!r} is no letter that can name an index")
    try:
        written, output, _ = opt_einsum.parser.parse_einsum_input((subscripts, *[(1,) * n for n in ranks]), shapes=True)
    except Exception as error:
        raise SubscriptsError(f"{_shown(subscripts)}: {error}") from None
    inputs = tuple(written.split(","))
    for position, (labels, rank) in enumerate(zip(inputs, ranks, strict=True)):
        if len(labels) != rank:
            raise SubscriptsError(
                f"{_shown(subscripts)}: operand {position} has {rank} axes, its subscripts name {len(labels)}"
            )
    for character in output:
        if not any(character in labels for labels in inputs):
            raise SubscriptsError(f"{_shown(subscripts)}: the output has {character!r}, the operands have not")
    first: dict[str, tuple[int, int]] = {}
    equal = []
    for operand, labels in enumerate(inputs):
        for axis, label in enumerate(labels):
            if label in first:
                equal.append((*first[label], operand, axis))
            first.setdefault(label, (operand, axis))
    unnamed = "".join(label for label in first if label not in subscripts)
    step = lower(f"{written}->{output}") if len(inputs) <= 2 else None
    return _Equation(inputs, output, unnamed, tuple(equal), step)


def _check_sizes(subscripts: str, equation: _Equation, operands: Sequence[Array]) -> None:
    """Raise if an index has two sizes; sizes that are not known pass."""
    for operand, axis, other, other_axis in equation.equal:
        size, other_size = operands[operand].shape[axis], operands[other].shape[other_axis]
        if size == other_size or not (_known(size) and _known(other_size)):
            continue
        label = equation.inputs[operand][axis]
        index = "an axis of the ellipsis" if label in equation.unnamed else f"index {label}"
        hint = "; an axis of size 1 does not broadcast" if 1 in (size, other_size) else ""
        raise ValueError(
            f"{_shown(subscripts)}: {index}: operand {operand} has {size} (axis {axis}), "
            f"operand {other} has {other_size} (axis {other_axis}){hint}"
        )


def _known(size: Any) -> bool:
    return size is not None and size == size


def _path(equation: _Equation, operands: Sequence[Array], optimize: Any) -> _Path:
    """Return the steps: the positions of the operands to take out, and their equation; the result is appended."""
    sizes: dict[str, int] = {}
    for labels, operand in zip(equation.inputs, operands, strict=True):
        sizes.update((label, int(size)) for label, size in zip(labels, operand.shape, strict=True) if _known(size))
    known = tuple(tuple(sizes.get(label, ASSUMED_SIZE) for label in labels) for labels in equation.inputs)
    if not (optimize is None or isinstance(optimize, (str, bool, list, tuple))):  # an optimizer may go on searching
        return _find_path(equation, known, optimize)
    key = (equation, known, type(optimize), repr(optimize))
    return _PATHS.get(key) or keep(_PATHS, key, _find_path(equation, known, optimize))


def _find_path(equation: _Equation, shapes: Sequence[tuple[int, ...]], optimize: Any) -> _Path:
    subscripts = f"{','.join(equation.inputs)}->{equation.output}"
    try:
        path, _ = opt_einsum.contract_path(subscripts, *shapes, shapes=True, optimize=optimize)
        groups = [tuple(map(operator.index, group)) for group in path]
    except Exception as error:
        raise ValueError(
            f"optimize is {optimize!r}, by which opt_einsum finds no path ({type(error).__name__}: {error}): pass "
            f"'auto', 'greedy', 'optimal', an optimizer of opt_einsum, or a path such as [(0, 1), (0, 1)]"
        ) from error
    remaining = list(equation.inputs)
    steps = []
    for group in groups:
        # A group of more than two is contracted two at a time, from the left.
        if not all(-len(remaining) <= position < len(remaining) for position in group):
            raise ValueError(f"optimize: the step {group} of the path names more than {len(remaining)} operands")
        positions = sorted({position % len(remaining) for position in group})
        while True:
            taken = positions[:2]
            terms = [remaining[position] for position in taken]
            for position in reversed(taken):
                remaining.pop(position)
            needed = set(equation.output).union(*remaining)
            result = "".join(label for label in dict.fromkeys("".join(terms)) if label in needed)
            if not remaining:
                result = equation.output
            # Popped one after the other, so the second position has moved.
            pops = tuple(position - index for index, position in enumerate(taken))
            steps.append((pops, f"{','.join(terms)}->{result}"))
            remaining.append(result)
            if len(positions) <= 2:
                break
            positions = [position - 2 for position in positions[2:]] + [len(remaining) - 1]
    if len(remaining) != 1:
        raise ValueError(f"optimize: the path {groups} leaves {len(remaining)} operands: it must end with one")
    return tuple(steps)


def _einsum_chunked(equation: _Equation, operands: Sequence[Array], optimize: Any) -> Array:
    """Contract Dask arrays: every step block by block, by the plan that arrays in memory take."""
    remaining = [
        operand if _is_chunked(operand) else alignment.lift(f"operand {position}", operand, operands[0])
        for position, operand in enumerate(operands)
    ]
    if equation.step is not None:
        steps: _Path = (((0,) * len(operands), f"{','.join(equation.inputs)}->{equation.output}"),)
    else:
        steps = _path(equation, operands, optimize)
    for positions, step in steps:
        inputs, output = step.split("->")
        terms = [
            Operand(f"operand {k} of {step}", remaining.pop(position), tuple(labels))
            for k, (position, labels) in enumerate(zip(positions, inputs.split(","), strict=True))
        ]
        if len(terms) == 2:
            # One product of wide blocks instead of a sum of products of narrow ones; but not
            # along the first axis, which is the batch.
            for label in sorted(set(terms[0].index[1:]) & set(terms[1].index) - set(output)):
                terms, _ = alignment.merge_blocks(terms, label)
        remaining += chunked.contract(partial(_einsum_blocks, step), terms, Output(tuple(output)))
    return remaining[0]


def _einsum_blocks(step: str, *blocks: Array) -> Array:
    """Contract blocks, whose sizes may only be known now."""
    return einsum(step, *blocks)


def _is_chunked(operand: Array) -> bool:
    return namespace.is_chunked(namespace.of(operand))


def _shown(subscripts: str) -> str:
    return f"einsum {subscripts!r}"
