"""The gradients of an einsum on Dask: the steps of `gradient_steps`, each contracted block by block as einsum does.

An index that a gradient lacks, and one that its operand repeats, are added block by block too. Where sizes of blocks
are unknown, each block of a gradient is compared with that of its operand.
"""

from __future__ import annotations

from functools import partial

from .._arrays import namespace
from .._arrays.namespace import Array, is_lazy
from .._math import einsum_backward as in_memory
from .._math.equations import sum_dtypes
from .._math.gradient_steps import gradient_steps
from . import blocks, blockwise
from .blockwise import Output
from .einsum import Term, contract
from .unify_chunks import Operand


def einsum_backward(
    subscripts: str, operands: tuple[Array, ...], dY: Array, wanted: tuple[int, ...] | None
) -> tuple[Array | None, ...]:
    """Return a tuple with the gradient of each wanted operand, and None for others."""
    arrays = (*operands, dY)
    xp, equation, with_dY = in_memory.prepare(subscripts, arrays)
    in_memory.check_shapes(subscripts, equation, with_dY, arrays)
    program = gradient_steps(equation, in_memory.every(wanted, operands), operands)
    arrays = in_memory.in_one_dtype(xp, arrays, program)
    dtype, acc_dtype = sum_dtypes(xp, tuple(array.dtype for array in arrays))
    like = next(array for array in arrays if is_lazy(array))
    names = [*(f"operand {position}" for position in range(len(operands))), "dY"]
    values: list[Term] = [
        (array, True) if is_lazy(array) else (blocks.lift(name, array, like), False)
        for name, array in zip(names, arrays, strict=True)
    ]
    steps, found = program
    results_at = {result[0] for result in found if result is not None}
    for text, taken, _ in steps:
        result_dtype = dtype if len(values) in results_at else acc_dtype
        values.append(contract(text, [values[place] for place in taken], result_dtype, acc_dtype))
    results: list[Array | None] = []
    for k, (labels, result) in enumerate(zip(equation.inputs, found, strict=True)):
        if result is None:
            results.append(None)
        else:
            place, kept = result
            results.append(_finished(labels, kept, operand=values[k][0], gradient=values[place][0]))
    return tuple(results)


def _finished(labels: str, kept: str, *, operand: Array, gradient: Array) -> Array:
    """Give a gradient the indices of its operand, and compare blocks of unknown size with those of the operand."""
    unknown = blocks.has_unknown_blocks(operand, gradient)
    if kept == labels and not unknown:
        return gradient
    # Each axis has its own index; a diagonal lies in one block.
    index = [label if labels.index(label) == axis else f"{label} of axis {axis}" for axis, label in enumerate(labels)]
    for axis, label in enumerate(labels):
        if labels.count(label) > 1:
            operand = blocks.one_block(operand, axis)
            if label in kept:
                gradient = blocks.one_block(gradient, kept.index(label))
    term = Operand("the gradient", gradient, tuple(kept))
    if unknown:
        like = Operand("its operand", operand, tuple(index))
        compared = partial(in_memory.spread_block, kept, labels)
        (result,) = blockwise.contract(compared, [like, term], Output(tuple(index)))
    else:  # sizes are enough: no block of the operand is read
        new = [axis for axis, label in enumerate(index) if label not in kept]
        zeros = blocks.dask_array().zeros
        sizes = [zeros(operand.shape[axis], chunks=(operand.chunks[axis],), dtype="int8") for axis in new]
        others = [Operand(index[axis], array, (index[axis],)) for axis, array in zip(new, sizes, strict=True)]
        spread = partial(_spread_block, kept, labels, tuple(new))
        (result,) = blockwise.contract(spread, [term, *others], Output(tuple(index)))
    return result


def _spread_block(kept: str, labels: str, new: tuple[int, ...], gradient: Array, *like: Array) -> Array:
    """Give a block of a gradient the indices of its operand; `like` have the sizes of those that it lacks."""
    sizes = dict(zip(new, (int(array.shape[0]) for array in like), strict=True))
    shape = tuple(
        sizes[axis] if axis in sizes else gradient.shape[kept.index(label)] for axis, label in enumerate(labels)
    )
    return in_memory.spread(namespace.of(gradient), kept, labels, gradient, shape)
