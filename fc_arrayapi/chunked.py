"""Contractions of chunked Dask arrays, block by block.

A function of in-memory arrays is mapped over the blocks. It checks each block again inside
the task, which is where unknown chunk sizes are compared. Contractions are made of ``blockwise``
and ``reduction`` alone: both work with ``array.query-planning`` on and off, and building computes
nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import namespace
from .alignment import Operand, align, bounds, dask_array, one_block
from .namespace import Array


@dataclass(frozen=True)
class Output:
    """One result of a contraction.

    Parameters
    ----------
    index : tuple of str
        The index of each of its axes.
    dtype : dtype, optional
        Its dtype, where the function of the blocks gives a wider one for sums.
    """

    index: tuple[str, ...]
    dtype: Any = None


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
        The results, all made by the same tasks, as dW and dB over the blocks of the batch. The first one has
        the indices of the others too.

    Returns
    -------
    tuple of dask arrays
        Indices of an output keep their chunks. The blocks of any other index are summed as a tree of pairs:
        one thread holds at most log2(blocks) + 2 terms.

    Raises
    ------
    ValueError
        If chunk sizes are unknown and the operands have different numbers of blocks.
    """
    operands = align([_one_index_an_axis(position, operand, operands) for position, operand in enumerate(operands)])
    made = func(*(operand.array._meta for operand in operands))
    metas = made if len(outputs) > 1 else (made,)
    terms, index = _sum_of_terms(func, operands, outputs[0].index, metas[0])
    if len(outputs) == 1 and len(index) == len(outputs[0].index) and outputs[0].dtype in (None, metas[0].dtype):
        return (terms,)
    return tuple(
        _finished(terms, index, output, meta, part if len(outputs) > 1 else None)
        for part, (output, meta) in enumerate(zip(outputs, metas, strict=True))
    )


def _sum_of_terms(
    func: Callable[..., Any], operands: Sequence[Operand], output: tuple[str, ...], meta: Array
) -> tuple[Array, tuple[str, ...]]:
    """Return what `func` makes of the blocks, summed over blocks, and the index of each of its axes.

    A block of it is what `func` returns, whatever its shape: only `_finish` looks at it.
    """
    da = dask_array()
    blocks = {
        label: count
        for operand in operands
        for label, count in zip(operand.index, operand.array.numblocks, strict=True)
    }
    # A summed index of one block is left to `func`, which gets that block in a list.
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
    # One index at a time: over several at once Dask's tree holds 2 to the power of their number.
    for axis in range(len(output), len(index)):
        terms = da.reduction(
            terms,
            chunk=_keep,
            aggregate=_add,
            axis=axis,
            keepdims=True,
            concatenate=False,
            split_every=2,
            dtype=meta.dtype,
            meta=meta,
        )
    return terms, index


def _finished(terms: Array, index: Sequence[str], output: Output, meta: Array, part: int | None) -> Array:
    """Take a part of the summed terms, in the dtype of the result."""
    dtype = meta.dtype if output.dtype is None else output.dtype
    return dask_array().blockwise(
        _finish,
        output.index,
        terms,
        index,
        part=part,
        dtype_of_sum=dtype,
        align_arrays=False,
        meta=namespace.of(meta).zeros((0,) * len(output.index), dtype=dtype),
    )


def _one_index_an_axis(position: int, operand: Operand, operands: Sequence[Operand]) -> Operand:
    """Give the second axis of a diagonal an index of its own; a diagonal lies in one block of every operand."""
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
    """Take the one block out of the nested lists in which Dask hands over an index that the output has not."""
    while isinstance(block, list):
        (block,) = block
    return block


def _keep(term: Any, axis: Any = None, keepdims: Any = None) -> Any:
    return term


def _add(terms: Any, axis: Any = None, keepdims: Any = None) -> Any:
    """Add terms that come in a list, nested once for each axis; a term may be a tuple of arrays."""
    if not isinstance(terms, list):
        return terms
    total = _add(terms[0])
    for other in terms[1:]:
        term = _add(other)
        total = tuple(map(operator.add, total, term)) if isinstance(term, tuple) else total + term
    return total


def _finish(total: Any, part: int | None, dtype_of_sum: Any) -> Array:
    """Take one part of a sum, and round it to the dtype of the result."""
    total = _only(total)
    total = total if part is None else total[part]
    return namespace.cast(namespace.of(total), total, dtype_of_sum)


# Blocks to and from files.


def from_source(source: Any, rows: int) -> Array:
    """Make a Dask array of whatever has a shape, a dtype and slices, with `rows` rows in a block."""
    return dask_array().from_array(source, chunks=(rows, *source.shape[1:]), fancy=False)


def each_block(func: Callable[..., None], array: Array, **fixed: Any) -> Array:
    """Call a function with each block and where it lies, for what it does and not for what it returns.

    Parameters
    ----------
    func : callable
        Called in a task of its own with the block, a pair (start, stop) for each axis, and `fixed`.
    array : dask array
        With blocks of known sizes.
    **fixed
        Arguments of `func` by name, the same for every block.

    Returns
    -------
    dask array of bool
        One element for each block.
    """
    da = dask_array()
    index = tuple(range(array.ndim))
    places = [da.from_array(np.asarray(bounds(sizes)).ravel(), chunks=2) for sizes in array.chunks]
    return da.blockwise(
        _on_block,
        index,
        array,
        index,
        *(part for axis, place in enumerate(places) for part in (place, (axis,))),
        apply=func,
        fixed=fixed,
        adjust_chunks=dict.fromkeys(index, 1),
        align_arrays=False,
        meta=np.empty((0,) * array.ndim, dtype=bool),
    )


def only_blocks(arrays: Sequence[Array], wanted: Sequence[Sequence[int]]) -> Any:
    """Return one lazy value that computes some blocks of each array, by number in C order, and nothing else.

    What the blocks share is computed once. Slices would not do: under query planning a sliced
    source is another source, so that a block which a sum needs too would be read twice.
    """
    from dask.base import tokenize
    from dask.core import flatten
    from dask.delayed import Delayed

    graph: dict[Any, Any] = {}
    keys = []
    for array, numbers in zip(arrays, wanted, strict=True):
        graph.update(array.__dask_graph__())
        all_keys = list(flatten(array.__dask_keys__()))
        keys += [all_keys[number] for number in numbers]
    name = f"blocks-{tokenize(keys)}"
    return Delayed(name, {**graph, name: keys})


def _on_block(block: Array, *places: Any, apply: Callable[..., None], fixed: dict[str, Any]) -> Any:
    apply(block, tuple((int(start), int(stop)) for start, stop in places), **fixed)
    return np.ones((1,) * block.ndim, dtype=bool)
