"""The gradients of an einsum in memory: checks, then the steps of `gradient_steps`, each contracted as einsum does."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

from .._arrays import advice, namespace
from .._arrays.libraries import library
from .._arrays.namespace import Array, Namespace, keep
from .._arrays.numpy_kernels import HALVES
from .._arrays.text import counted, is_unknown, shape_text
from .checks import check_arrays
from .equations import sum_dtypes
from .gradient_steps import Program, gradient_steps
from .lowering import lower
from .subscripts import Equation, SubscriptsError, check_sizes, parse, shown

# Subscripts and positions with types, dtypes and ranks for which only sizes are left to check, and `Library.plain`.
_READY: dict[Any, tuple[Namespace, Equation, Equation, Program | None, Callable[..., bool] | None]] = {}


def einsum_backward(subscripts: str, operands: tuple[Array, ...], dY: Array, wanted: tuple[int, ...] | None) -> Any:
    """Return a tuple with the gradient of each wanted operand and None for others; NotImplemented for lazy arrays."""
    if dY is None:
        raise TypeError(
            f"{where(subscripts)}: dY is None, which is not an array of a library of the array API standard: pass the "
            f"gradient of the loss with respect to the result, dY=..."
        )
    arrays = (*operands, dY)
    try:
        xp, equation, with_dY, program, plain = _READY[
            subscripts, wanted, *[(type(x), x.dtype, x.ndim) for x in arrays]
        ]
        known = plain is None or plain(*arrays)
    except (AttributeError, KeyError, TypeError, RuntimeError):  # the last one by a closed file of h5py
        known = False
    if not known:  # after the handler, so that no error below has a KeyError before it
        if any(map(namespace.is_lazy, arrays)):
            return NotImplemented
        xp, equation, with_dY = prepare(subscripts, arrays)
        program = gradient_steps(equation, every(wanted, operands), operands) if len(operands) < 3 else None
        dtype = arrays[0].dtype
        if all(array.dtype == dtype for array in arrays):
            ready = xp, equation, with_dY, program, library(xp).plain
            keep(_READY, (subscripts, wanted, *[(type(x), x.dtype, x.ndim) for x in arrays]), ready)
        if (in_own_dtypes := namespace.own_dtypes(arrays[0])) is not None:
            with in_own_dtypes:
                check_shapes(subscripts, equation, with_dY, arrays)
                return _gradients(xp, equation, arrays, every(wanted, operands), program)
    for first, axis, second, second_axis in with_dY.equal:
        if arrays[first].shape[axis] != arrays[second].shape[second_axis]:
            check_shapes(subscripts, equation, with_dY, arrays)
            break
    return _gradients(xp, equation, arrays, every(wanted, operands), program)


def _gradients(
    xp: Namespace, equation: Equation, arrays: tuple[Array, ...], wanted: tuple[int, ...], program: Program | None
) -> tuple[Array | None, ...]:
    program = program or gradient_steps(equation, wanted, arrays[:-1])
    steps, found = program
    values = list(in_one_dtype(xp, arrays, program))
    each = not (library(xp).openblas and any(value.dtype in HALVES for value in values))  # as in `einsum`
    for text, taken, done in steps:
        values.append(lower(text)(xp, *[values[place] for place in taken], each))
        for place in done:
            values[place] = None
    results: list[Array | None] = []
    for labels, operand, result in zip(equation.inputs, arrays, found, strict=False):  # dY is the last array
        if result is None:
            results.append(None)
        else:
            place, kept = result
            gradient = values[place]
            if not each:
                gradient = namespace.cast(xp, gradient, sum_dtypes(xp, tuple(array.dtype for array in arrays))[0])
            results.append(gradient if kept == labels else spread(xp, kept, labels, gradient, operand.shape))
    return tuple(results)


def every(wanted: tuple[int, ...] | None, operands: tuple[Array, ...]) -> tuple[int, ...]:
    """Return the positions of the wanted gradients; all by default."""
    return tuple(range(len(operands))) if wanted is None else wanted


def in_one_dtype(xp: Namespace, arrays: tuple[Array, ...], program: Program) -> tuple[Array, ...]:
    """Promote operands and dY before any step, as einsum does; those that no step needs stay as they are."""
    dtype = arrays[0].dtype
    if all(array.dtype == dtype for array in arrays):
        return arrays
    dtype = xp.result_type(*[array.dtype for array in arrays])
    steps, results = program
    used = {place for _, taken, _ in steps for place in taken} | {result[0] for result in results if result}
    return tuple(
        namespace.cast(namespace.of(array), array, dtype) if k in used else array for k, array in enumerate(arrays)
    )


def spread(xp: Namespace, kept: str, labels: str, gradient: Array, shape: tuple[Any, ...]) -> Array:
    """Give a gradient the indices of its operand: those that it lacks are repeated, repeated ones lie on a diagonal.

    Parameters
    ----------
    xp : namespace
        The namespace of `gradient`.
    kept : str
        The indices of `gradient`.
    labels : str
        The indices of the operand, in their order, which begin with those of `kept`.
    gradient : array
        The gradient with respect to the operand after its diagonals are taken and its own indices are summed.
    shape : tuple of int
        The shape of the operand.

    Returns
    -------
    array
        A new array; beside it only identities are held.

    Examples
    --------
    >>> import numpy as np
    >>> spread(np, "b", "aab", np.asarray([5.0, 6.0]), (2, 2, 2)).tolist()
    [[[5.0, 6.0], [0.0, 0.0]], [[0.0, 0.0], [5.0, 6.0]]]
    """
    first = [labels.index(label) == axis for axis, label in enumerate(labels)]
    own = [label not in kept and labels.count(label) == 1 for label in labels]
    gradient = gradient[
        tuple(slice(None) if f and label in kept else None for f, label in zip(first, labels, strict=True))
    ]
    # Where devices can be compared, a constant is put on that of the gradient.
    on = {} if library(xp).plain is None else {"device": namespace.device(gradient)}
    for axis, label in enumerate(labels):
        if not first[axis]:  # a choice and not a product, which would make nan of inf and 0
            zero = xp.zeros((), dtype=gradient.dtype, **on)
            pair = labels.index(label), axis
            identity = xp.eye(shape[axis], dtype=(zero == zero).dtype, **on)
            identity = identity[tuple(slice(None) if k in pair else None for k in range(len(labels)))]
            gradient = xp.where(identity, gradient, zero)
    if any(own):
        one = xp.ones((), dtype=gradient.dtype, **on)
        gradient = xp.multiply(xp.broadcast_to(gradient, tuple(shape)), one)
    return gradient


def spread_block(kept: str, labels: str, like: Array, gradient: Array) -> Array:
    """Do what `spread` does for a block of a gradient, after comparing its sizes with the operand's block."""
    for axis, label in enumerate(kept):
        other = labels.index(label)
        size, wanted = gradient.shape[axis], like.shape[other]
        if size != wanted:
            raise ValueError(
                f"einsum_backward: index {label}: a block of the gradient has {size} (axis {axis}), the block of its "
                f"operand {wanted} (axis {other}): pass a dY of the shape of the result, in the same blocks"
            )
    return spread(namespace.of(gradient), kept, labels, gradient, like.shape)


def where(subscripts: str) -> str:
    """Write how messages begin."""
    return f"einsum_backward {subscripts!r}"


def check_positions(subscripts: str, needs: Any, count: int) -> tuple[int, ...]:
    """Return `needs` as sorted positions of operands, each once."""
    wrong = f"needs is {needs!r}: pass a tuple of the operands' positions, for example needs=(0,)"
    if isinstance(needs, (str, bytes)) or not isinstance(needs, Iterable):
        raise TypeError(f"{where(subscripts)}: {wrong}")
    positions = set()
    for position in needs:
        try:
            if isinstance(position, bool):
                raise TypeError
            number = operator.index(position)
        except TypeError:
            raise TypeError(f"{where(subscripts)}: {wrong}") from None
        if not 0 <= number < count:
            raise ValueError(
                f"{where(subscripts)}: needs has {number}, and there {'is' if count == 1 else 'are'} "
                f"{counted(count, 'operand')}: pass positions from 0 to {count - 1}"
            )
        positions.add(number)
    return tuple(sorted(positions))


def prepare(subscripts: str, arrays: tuple[Array, ...]) -> tuple[Namespace, Equation, Equation]:
    """Check libraries, dtypes, devices and ranks of operands and dY, the last array.

    Returns
    -------
    namespace
        The one that all arrays share.
    Equation
        The einsum.
    Equation
        The same with dY as one more operand, for the sizes that must be equal.
    """
    *operands, dY = arrays
    if not operands:
        raise SubscriptsError(f"{shown(subscripts)}: there are no operands")
    names = [*(f"operand {position}" for position in range(len(operands))), "dY"]
    xp = check_arrays(where(subscripts), names, arrays, lifted=names, taker="einsum_backward")
    equation = parse(subscripts, *[len(operand.shape) for operand in operands])
    if len(dY.shape) != len(equation.output):
        check_sizes(subscripts, equation, operands)
        axes = "1 axis" if len(dY.shape) == 1 else f"{len(dY.shape)} axes"
        raise ValueError(
            f"{where(subscripts)}: dY has {axes}, the result has {len(equation.output)}; dY has shape "
            f"{shape_text(dY.shape)}: {_right_dY(equation, arrays)}"
        )
    with_dY = parse(f"{','.join((*equation.inputs, equation.output))}->", *[len(array.shape) for array in arrays])
    return xp, equation, with_dY


def check_shapes(subscripts: str, equation: Equation, with_dY: Equation, arrays: tuple[Array, ...]) -> None:
    """Raise if an index has two sizes among operands, or in dY; unknown sizes are accepted."""
    *operands, dY = arrays
    check_sizes(subscripts, equation, operands)
    for first, axis, second, dY_axis in with_dY.equal:
        size, other = arrays[first].shape[axis], arrays[second].shape[dY_axis]
        if second < len(operands) or size == other or is_unknown(size) or is_unknown(other):
            continue
        label = equation.output[dY_axis]
        index = f"axis {dY_axis} (of the ellipsis)" if label in equation.unnamed else f"axis {dY_axis} (index {label})"
        nothing = "nothing broadcasts: " if 1 in (size, other) else ""
        raise ValueError(
            f"{where(subscripts)}: {index}: dY has {other}, operand {first} has {size} (axis {axis}); dY has shape "
            f"{shape_text(dY.shape)}: {nothing}{_right_dY(equation, arrays)}"
        )


def _right_dY(equation: Equation, arrays: tuple[Array, ...]) -> str:
    """Write what to pass for dY."""
    *operands, dY = arrays
    sizes: dict[str, Any] = {}
    for labels, operand in zip(equation.inputs, operands, strict=True):
        for label, size in zip(labels, operand.shape, strict=True):
            sizes[label] = size if is_unknown(sizes.get(label)) else sizes[label]
    shape = [sizes[label] for label in equation.output]
    text = f"pass a dY of the shape of the result, {shape_text(shape)}"
    if any(map(is_unknown, (*shape, *dY.shape))) or math.prod(shape) != math.prod(dY.shape):
        return text
    return f"{text}, for example {advice.call('reshape', dY, 'dY', shape_text(shape))}"
