"""Contractions of chunked Dask arrays, block by block.

A function of in-memory arrays is mapped over the blocks. It checks each block again inside
the task, which is where unknown chunk sizes are compared. Contractions are made of ``blockwise``
and ``reduction`` alone: both work with ``array.query-planning`` on and off, and building computes
nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import namespace
from .alignment import align, bounds, dask_array, one_block
from .namespace import Array


def contract(
    func: Callable[..., Array],
    names: Sequence[str],
    operands: Sequence[Array],
    indices: Sequence[Sequence[str]],
    output: Sequence[str],
    *,
    dtype: Any = None,
) -> Array:
    """Contract chunked arrays block by block with a function of in-memory arrays.

    Parameters
    ----------
    func : callable
        Contracts one block of each operand to a block of the output. Importable, so that a
        task can travel to another process.
    names : sequence of str
        The operands' names, for errors.
    operands : sequence of dask arrays
        Those after the first take its chunks along the indices that they share.
    indices : sequence of sequence of str
        The index of each axis of each operand.
    output : sequence of str
        The index of each axis of the result.
    dtype : dtype, optional
        The dtype of the result, where `func` gives a wider one for sums.

    Returns
    -------
    dask array
        Indices that the output has keep their chunks. The blocks of an index that it has not
        are summed as a tree of pairs: one thread holds at most log2(blocks) + 2 terms.

    Raises
    ------
    ValueError
        If chunk sizes are unknown and the operands have different numbers of blocks.
    """
    operands, indices = _one_index_an_axis(operands, indices)
    meta = func(*(array._meta for array in operands))
    terms, index = _sum_of_terms(func, names, operands, indices, output, meta)
    dtype = meta.dtype if dtype is None else dtype
    if len(index) == len(output) and dtype == meta.dtype:
        return terms
    return _finished(terms, index, output, meta, dtype, part=None)


def contract_together(
    func: Callable[..., tuple[Array, ...]],
    names: Sequence[str],
    operands: Sequence[Array],
    indices: Sequence[Sequence[str]],
    outputs: Sequence[Sequence[str]],
    dtypes: Sequence[Any],
) -> tuple[Array, ...]:
    """Make several sums over the same blocks in the same tasks, as dW and dB over those of the batch.

    The parameters are those of `contract`; `func` returns a block for each of `outputs`, whose
    first one has the indices of the others too.
    """
    metas = func(*(array._meta for array in operands))
    terms, index = _sum_of_terms(func, names, operands, indices, outputs[0], metas[0])
    return tuple(
        _finished(terms, index, output, meta, dtype, part)
        for part, (output, meta, dtype) in enumerate(zip(outputs, metas, dtypes, strict=True))
    )


def _sum_of_terms(
    func: Callable[..., Any],
    names: Sequence[str],
    operands: Sequence[Array],
    indices: Sequence[Sequence[str]],
    output: Sequence[str],
    meta: Array,
) -> tuple[Array, tuple[str, ...]]:
    """Return what `func` makes of the blocks, summed over blocks, and the index of each of its axes.

    A block of it is what `func` returns, whatever its shape: only `_finish` looks at it.
    """
    da = dask_array()
    operands = align(names, operands, indices)
    blocks = {
        label: count
        for array, index in zip(operands, indices, strict=True)
        for label, count in zip(index, array.numblocks, strict=True)
    }
    # A summed index of one block is left to `func`, which gets that block in a list.
    summed = tuple(label for label, count in blocks.items() if count > 1 and label not in output)
    index = (*output, *summed)
    meta = namespace.of(meta).zeros((0,) * len(index), dtype=meta.dtype)
    terms = da.blockwise(
        _contract_blocks,
        index,
        *(part for pair in zip(operands, indices, strict=True) for part in pair),
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


def _finished(
    terms: Array, index: Sequence[str], output: Sequence[str], meta: Array, dtype: Any, part: int | None
) -> Array:
    """Take a part of the summed terms, in the dtype of the result."""
    return dask_array().blockwise(
        _finish,
        tuple(output),
        terms,
        index,
        part=part,
        dtype_of_sum=dtype,
        align_arrays=False,
        meta=namespace.of(meta).zeros((0,) * len(output), dtype=dtype),
    )


def _one_index_an_axis(
    arrays: Sequence[Array], indices: Sequence[Sequence[str]]
) -> tuple[list[Array], list[tuple[str, ...]]]:
    """Give the second axis of a diagonal an index of its own; a diagonal lies in one block of every operand."""
    doubled = {label for index in indices for label in index if index.count(label) > 1}
    single, unique = [], []
    for position, (array, index) in enumerate(zip(arrays, indices, strict=True)):
        own = list(index)
        for axis, label in enumerate(index):
            if label in doubled:
                array = one_block(array, axis)
            if axis != index.index(label):
                own[axis] = f"{label} of axis {axis} of operand {position}"
        single.append(array)
        unique.append(tuple(own))
    return single, unique


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
