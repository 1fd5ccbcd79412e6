"""Blocks of Dask arrays: their borders and sizes, NumPy weights as one block, blocks from and to files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from .._arrays import namespace
from .._arrays.namespace import Array
from .._arrays.text import shape_text

if TYPE_CHECKING:
    import dask.array

    DaskArray = dask.array.Array
else:
    DaskArray = Any


def dask_array() -> Any:
    """Return Dask's array module."""
    try:
        import dask.array
    except ImportError:
        raise ImportError("chunked arrays need Dask: pip install 'dask[array]' threadpoolctl") from None
    return dask.array


def bounds(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Return the start and stop of each block along an axis, from the sizes of the blocks."""
    stops = list(accumulate(map(int, sizes)))
    return list(zip([0, *stops], stops, strict=False))


def has_unknown_blocks(*arrays: Array) -> bool:
    """Say whether the size of any block is unknown."""
    return any(size != size for array in arrays for chunks in array.chunks for size in chunks)


def one_block(array: Array, axis: int) -> Array:
    """Return the array with one block along an axis."""
    axis %= array.ndim
    return array if array.numblocks[axis] == 1 else array.rechunk({axis: -1})


def lift(name: str, array: Array, like: Array) -> Array:
    """Return a Dask array unchanged; a NumPy array becomes one chunk, named by a hash of its content."""
    if namespace.is_chunked(namespace.of(array)):
        if has_unknown_blocks(array):
            raise ValueError(
                f"{name} has blocks of unknown size, its shape is {shape_text(array.shape)}: "
                f"call {name}.compute_chunk_sizes() first"
            )
        return array
    # Converted to the library of the blocks, so that a NumPy weight meets CuPy blocks as CuPy.
    return dask_array().from_array(namespace.of(like._meta, "a block of X").asarray(array), chunks=-1)


def from_source(source: Any, rows: int | tuple[int, ...]) -> Array:
    """Make a Dask array of anything with a shape, a dtype and slicing, from the rows of a block, or of each."""
    meta = np.empty((0,) * source.ndim, dtype=source.dtype)  # else Dask reads a slice to see what comes
    return dask_array().from_array(source, chunks=(rows, *source.shape[1:]), fancy=False, meta=meta)


def each_block(func: Callable[..., None], array: Array, **fixed: Any) -> Array:
    """Call a function with each block and its place, for its side effect.

    Parameters
    ----------
    func : callable
        Called in one task for each block, with the block, a pair (start, stop) for each axis, and `fixed`.
    array : dask array
        With blocks of known sizes.
    **fixed
        Keyword arguments of `func`, the same for every block.

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
    """Return one lazy value that computes only some blocks of each array, by number in C order.

    Tasks that blocks share run once. Slices would not achieve this: under query planning a sliced
    source is another source, so a block that a sum needs too would be read twice.
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
