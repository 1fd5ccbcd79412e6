"""Contractions of Dask arrays, block by block.

A function of in-memory arrays is mapped over the blocks. It checks each block again inside
the task, where unknown chunk sizes are known. Only ``blockwise`` and ``reduction`` are used:
both work with ``array.query-planning`` on and off, and building the graph computes nothing.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .._arrays import namespace
from .._arrays.namespace import Array
from .blocks import dask_array, one_block
from .unify_chunks import Operand, align

# One task adds this many terms of the tree of pairs where each has few numbers: a task costs 0.1 ms.
TERMS, SMALL_TERM = 8, 2**15


@dataclass(frozen=True)
class Output:
    """One result of a contraction.

    Parameters
    ----------
    index : tuple of str
        The index of each of its axes.
    dtype : dtype, optional
        Its dtype, if the function of the blocks returns a wider one for sums.
    lengths : mapping of str to int
        Those of indices that no block of the first output has: such an axis is one block.
    """

    index: tuple[str, ...]
    dtype: Any = None
    lengths: Mapping[str, int] = field(default_factory=dict)


def contract(func: Callable[..., Any], operands: Sequence[Operand], *outputs: Output) -> tuple[Array, ...]:
    """Contract chunked arrays block by block with a function of in-memory arrays.

    Parameters
    ----------
    func : callable
        Contracts one block of each operand to a block of the output, or to a tuple of blocks where there are
        several outputs. Importable, so that a task can travel to another process.
    operands : sequence of Operand
        Those after the first take its chunks along the indices that they share.
    *outputs : Output
        The results, all computed by the same tasks, such as dW and dB over the blocks of the batch. The first
        one has the indices of all others, but those in their `lengths`.

    Returns
    -------
    tuple of dask arrays
        Indices of an output keep their chunks. The blocks of any other index are summed as a tree of pairs:
        one thread holds at most log2(blocks) + 2 terms, or 8 log8(blocks) of those up to 32,768 numbers.

    Raises
    ------
    ValueError
        If chunk sizes are unknown and the operands have different numbers of blocks.
    """
    operands = align([_one_index_an_axis(position, operand, operands) for position, operand in enumerate(operands)])
    made = func(*(operand.array._meta for operand in operands))
    metas = made if len(outputs) > 1 else (made,)
    joined = TERMS if _term_size(operands, outputs) <= SMALL_TERM else 2
    terms, index = _sum_of_terms(func, operands, outputs[0].index, metas[0], joined)
    if len(outputs) == 1 and len(index) == len(outputs[0].index) and outputs[0].dtype in (None, metas[0].dtype):
        return (terms,)
    return tuple(
        _finished(terms, index, output, meta, part if len(outputs) > 1 else None)
        for part, (output, meta) in enumerate(zip(outputs, metas, strict=True))
    )


def in_dtype(func: Callable[..., Array], dtype: Any, *blocks: Array) -> Array:
    """Contract blocks in the dtype in which their products are added: float16 would overflow before they meet."""
    return func(*(namespace.cast(namespace.of(block), block, dtype) for block in blocks))


def _sum_of_terms(
    func: Callable[..., Any], operands: Sequence[Operand], output: tuple[str, ...], meta: Array, joined: int
) -> tuple[Array, tuple[str, ...]]:
    """Apply `func` to the blocks and sum over blocks, `joined` terms in a task; return this and the index of each axis.

    Its blocks are the values that `func` returns, of any shape: only `_finish` looks into them.
    """
    da = dask_array()
    blocks = {
        label: count
        for operand in operands
        for label, count in zip(operand.index, operand.array.numblocks, strict=True)
    }
    # An index of one block is summed by `func`; Dask passes that block in a list.
    summed = tuple(label for label, count in blocks.items() if count > 1 and label not in output)
    index = (*output, *summed)
    meta = namespace.of(meta).zeros((0,) * len(index), dtype=meta.dtype)
    terms = da.blockwise(
        _contract_blocks,
        index,
        *(part for operand in operands for part in (operand.array, operand.index)),
        apply=func,
        adjust_chunks=dict.fromkeys(summed, 1),
        align_arrays=False,
        meta=meta,
    )
    # One index after the other: over k indices at once, a node of Dask's tree holds terms to the power of k.
    for axis in range(len(output), len(index)):
        terms = da.reduction(
            terms,
            chunk=_keep,
            aggregate=_add,
            axis=axis,
            keepdims=True,
            concatenate=False,
            split_every=joined,
            dtype=meta.dtype,
            meta=meta,
        )
    return terms, index


def _term_size(operands: Sequence[Operand], outputs: Sequence[Output]) -> float:
    """Return how many numbers the sum of a block has, in all outputs together; nan if sizes are unknown."""
    sizes = {
        label: max(sizes, default=0)
        for operand in operands
        for label, sizes in zip(operand.index, operand.array.chunks, strict=True)
    }
    return sum(
        math.prod(float(output.lengths.get(label, sizes.get(label, math.inf))) for label in output.index)
        for output in outputs
    )


def _finished(terms: Array, index: Sequence[str], output: Output, meta: Array, part: int | None) -> Array:
    """Take one part of the sum, in the dtype of the result."""
    dtype = meta.dtype if output.dtype is None else output.dtype
    return dask_array().blockwise(
        _finish,
        output.index,
        terms,
        index,
        part=part,
        dtype_of_sum=dtype,
        new_axes=dict(output.lengths),
        align_arrays=False,
        meta=namespace.of(meta).zeros((0,) * len(output.index), dtype=dtype),
    )


def _one_index_an_axis(position: int, operand: Operand, operands: Sequence[Operand]) -> Operand:
    """Give each axis of a diagonal its own index, and merge the diagonal into one block in every operand."""
    doubled = {label for other in operands for label in other.index if other.index.count(label) > 1}
    array, index = operand.array, list(operand.index)
    for axis, label in enumerate(operand.index):
        if label in doubled:
            array = one_block(array, axis)
        if axis != operand.index.index(label):
            index[axis] = f"{label} of axis {axis} of operand {position}"
    return replace(operand, array=array, index=tuple(index))


def _contract_blocks(*blocks: Any, apply: Callable[..., Any]) -> Any:
    """Contract one block of each operand."""
    return apply(*map(_only, blocks))


def _only(block: Any) -> Array:
    """Unpack the one block from nested lists, in which Dask passes an index that is not in the output."""
    while isinstance(block, list):
        (block,) = block
    return block


def _keep(term: Any, axis: Any = None, keepdims: Any = None) -> Any:
    return term


def _add(terms: Any, axis: Any = None, keepdims: Any = None) -> Any:
    """Add terms in nested lists, one level for each axis, neighbours first; a term may be a tuple of arrays."""
    if not isinstance(terms, list):
        return terms
    terms = [_add(term) for term in terms]
    while len(terms) > 1:
        pairs = [_add_two(*terms[k : k + 2]) for k in range(0, len(terms) - 1, 2)]
        terms = pairs + terms[2 * len(pairs) :]
    return terms[0]


def _add_two(first: Any, second: Any) -> Any:
    return tuple(map(operator.add, first, second)) if isinstance(first, tuple) else first + second


def _finish(total: Any, part: int | None, dtype_of_sum: Any) -> Array:
    """Take one part of a sum and round it to the dtype of the result."""
    total = _only(total)
    total = total if part is None else total[part]
    return namespace.cast(namespace.of(total), total, dtype_of_sum)
