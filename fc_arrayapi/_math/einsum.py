"""einsum in memory: checks, then one step for one or two operands, or the steps of a path."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from .._arrays import advice, namespace
from .._arrays.libraries import library
from .._arrays.namespace import Array, Namespace, keep
from .._arrays.numpy_kernels import CAST_ELEMENTS, HALVES
from .._arrays.text import shape_text, with_article
from .checks import check_devices
from .costs import Cost, Sized
from .equations import sum_dtypes
from .lowering import Step, copied_operands, lower
from .products import held_by_product, is_narrow, itemsize_of_sums
from .subscripts import Equation, SubscriptsError, check_sizes, find_path, parse, shown
from .summation import PLAIN_ROWS, held_by_rows, held_by_sum

# Subscripts with types, dtypes and ranks of operands for which only sizes are left to check, and `Library.plain`.
_READY: dict[Any, tuple[Namespace, Equation, Step | None, Callable[..., bool] | None]] = {}


def einsum(
    subscripts: str,
    operands: tuple[Array, ...],
    optimize: Any = "auto",
    memory_limit: float | str | None = None,
    rounded: bool = True,
) -> Array:
    """Contract arrays in memory; return NotImplemented where one is lazy.

    Without `rounded`, float16 and bfloat16 come back in float32, to be added to other partial sums.
    """
    try:
        xp, equation, step, plain = _READY[subscripts, *[(type(x), x.dtype, x.ndim) for x in operands]]
        known = plain is None or plain(*operands)
    except (AttributeError, KeyError, TypeError):
        known = False
    if not known:  # after the handler, so that no error below has a KeyError before it
        if any(map(namespace.is_lazy, operands)):
            return NotImplemented
        operands, xp, equation, step = _prepared(subscripts, operands)
        if (in_own_dtypes := namespace.own_dtypes(operands[0])) is not None:
            with in_own_dtypes:
                return einsum(subscripts, operands, optimize, memory_limit, rounded)
    for operand, axis, other, other_axis in equation.equal:
        if operands[operand].shape[axis] != operands[other].shape[other_axis]:
            check_sizes(subscripts, equation, operands)
            break
    if step is not None:
        return step(xp, *operands, rounded)
    remaining = list(operands)
    dtype = operands[0].dtype
    each = rounded and not (dtype in HALVES and library(xp).openblas)  # other libraries have quick kernels of float16
    for positions, text in find_path(equation, operands, optimize, memory_limit):
        remaining.append(lower(text)(xp, *[remaining.pop(position) for position in positions], each))
    return remaining[0] if each or not rounded else namespace.cast(xp, remaining[0], sum_dtypes(xp, (dtype,))[0])


def cost_of_step(step: str, rounded: bool, *operands: Sized) -> Cost:
    """State the cost of an equation of one or two operands."""
    inputs, _, output = step.partition("->")
    labels = inputs.split(",")
    sizes = dict(zip("".join(labels), [size for x in operands for size in x.shape], strict=True))

    def count(some: Iterable[str]) -> int:
        return math.prod(sizes[label] for label in some)

    dtypes = {x.dtype for x in operands}
    common, itemsize = max(dtypes, key=lambda dtype: dtype.itemsize), itemsize_of_sums(*dtypes)
    held = sum(count(x) for x, array in zip(labels, operands, strict=True) if array.dtype != common) * itemsize
    narrow, halved = is_narrow(common), rounded and common in HALVES  # sums come in a wider dtype, and are cast
    if len(operands) == 1:
        kept = "".join(label for label in labels[0] if label in output)
        if labels[0].startswith(kept):  # NumPy adds along the last axes without copies
            return Cost(count(sizes), held + (min(CAST_ELEMENTS, count(sizes)) * itemsize if narrow else 0))
        last = next(label for label in reversed(labels[0]) if label not in output)
        others = count(set(sizes) - {last})
        return Cost(count(sizes), held + others * itemsize + held_by_rows(sizes[last], others, itemsize, narrow))
    left, right = labels
    both = set(left) & set(right)
    batch, summed = count(both & set(output)), count(both - set(output))
    rows, columns = count(set(left) - both), count(set(right) - both)
    held += sum(count(labels[k]) for k in copied_operands(step)) * itemsize
    over_rows = batch == 1 and len(left) == len(right) == 2 and left[0] == right[0]
    if over_rows:
        held += held_by_sum(summed, rows, columns, itemsize, narrow)
    elif both - set(output):
        held += held_by_product(rows, summed, columns, (common, common), batch)
    if halved and (over_rows or summed > PLAIN_ROWS):
        held += count(output) * itemsize
    return Cost(2 * count(sizes), held)


def write_into(out: Array, subscripts: str, operands: tuple[Array, ...], *how: Any) -> Array:
    """Contract arrays in memory and write the result into another array, which is checked before; return that one."""
    xp, equation, promoted = prepare(subscripts, operands)
    check_sizes(subscripts, equation, promoted)
    sizes = dict(zip("".join(equation.inputs), [size for x in promoted for size in x.shape], strict=True))
    _check_out(xp, out, tuple(sizes[label] for label in equation.output), promoted[0])
    result = einsum(subscripts, operands, *how)
    if len(operands) == 1:  # the result may be a view of the operand, and the operand `out`
        result = xp.astype(result, result.dtype, copy=True)
    out[...] = result
    return out


def _check_out(xp: Namespace, out: Array, shape: tuple[int, ...], like: Array) -> None:
    """Check that a result can be written into an array: library, device, shape, dtype."""
    instead = "use the result that einsum returns"
    if namespace.of(out, "out") is not xp:
        names = [with_article(library(space).name) for space in (namespace.of(out), xp)]
        raise TypeError(f"out is {names[0]} array, the operands are {names[1]} array each: {instead}")
    if library(xp).plain is not None and namespace.device(out) != namespace.device(like):
        raise TypeError(f"out is on {namespace.device(out)}, the operands on {namespace.device(like)}: {instead}")
    if tuple(out.shape) != shape:
        raise ValueError(f"out has shape {shape_text(out.shape)}, the result {shape_text(shape)}: give out that shape")
    dtype, wanted = namespace.dtype_name(out.dtype), namespace.dtype_name(like.dtype)
    if dtype != wanted:
        raise TypeError(f"out has dtype {dtype}, the result {wanted}: give out that dtype")
    try:
        nothing = (slice(0, 0), ...) if shape else ()
        out[nothing] = out[nothing]
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"out: this {library(xp).name} array can't be written to ({error}): {instead}") from None


def _prepared(
    subscripts: str, operands: tuple[Array, ...]
) -> tuple[tuple[Array, ...], Namespace, Equation, Step | None]:
    """Check everything but sizes, and cache the result in _READY if no operand was converted."""
    xp, equation, promoted = prepare(subscripts, operands)
    step = lower(equation.text) if len(operands) <= 2 else None
    if promoted is operands:
        ready = xp, equation, step, library(xp).plain
        keep(_READY, (subscripts, *[(type(x), x.dtype, x.ndim) for x in operands]), ready)
    return promoted, xp, equation, step


def prepare(subscripts: str, operands: tuple[Array, ...]) -> tuple[Namespace, Equation, tuple[Array, ...]]:
    """Check libraries, dtypes and ranks, and promote the operands to one dtype.

    If all have one dtype already, `operands` itself is returned.
    """
    if not operands:
        raise SubscriptsError(f"{shown(subscripts)}: there are no operands")
    names = [f"operand {position}" for position in range(len(operands))]
    xp = namespace.common(names, operands, lifted=names)
    for name, operand in zip(names, operands, strict=True):
        if not namespace.is_numeric(xp, operand.dtype):
            raise TypeError(
                f"{shown(subscripts)}: {name} has dtype {namespace.dtype_name(operand.dtype)}; einsum takes numbers: "
                f"{advice.to_numbers(operand, name)}"
            )
    check_devices(shown(subscripts), xp, names, operands)
    equation = parse(subscripts, *[len(operand.shape) for operand in operands])
    dtype = operands[0].dtype
    if any(operand.dtype != dtype for operand in operands):
        # Before any step, so that no operand is summed in a narrower dtype than the result's.
        dtype = xp.result_type(*[operand.dtype for operand in operands])
        operands = tuple(namespace.cast(namespace.of(operand), operand, dtype) for operand in operands)
    return xp, equation, operands
