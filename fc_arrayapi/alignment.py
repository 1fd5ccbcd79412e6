"""Bringing Dask arrays into common blocks: along the batch, along the features, and NumPy weights as one block."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from . import namespace
from .namespace import Array
from .validation import shape_text, size_text


def dask_array() -> Any:
    """Return Dask's array module."""
    try:
        import dask.array
    except ImportError:
        raise ImportError("chunked arrays need Dask: pip install 'dask[array]'") from None
    return dask.array


def is_chunked(array: Any) -> bool:
    """Say whether something is a Dask array; unlike `namespace.of`, of anything at all."""
    return isinstance(array, dask_array().Array)


def bounds(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Return where each block of an axis starts and stops, from their sizes."""
    stops = list(accumulate(map(int, sizes)))
    return list(zip([0, *stops], stops, strict=False))


def align(names: Sequence[str], arrays: Sequence[Array], indices: Sequence[Sequence[str]]) -> tuple[Array, ...]:
    """Give every array the chunks that the first one with an index has along that index.

    Raises
    ------
    ValueError
        If chunk sizes are unknown and the numbers of blocks differ.
    """
    first: dict[str, tuple[str, Array, tuple[Any, ...]]] = {}
    aligned = []
    for name, array, index in zip(names, arrays, indices, strict=True):
        for axis, (label, chunks) in enumerate(zip(index, array.chunks, strict=True)):
            other, others, wanted = first.setdefault(label, (name, array, chunks))
            if wanted == chunks:  # as a rule: rechunk would find that out too, in longer
                continue
            if sum(wanted) == sum(chunks):  # never so where one of them is nan
                array = array.rechunk({axis: wanted})
            elif len(wanted) != len(chunks):
                raise ValueError(_different_blocks(label, {other: (others, wanted), name: (array, chunks)}))
        aligned.append(array)
    return tuple(aligned)


def _different_blocks(label: str, arrays: dict[str, tuple[Array, tuple[Any, ...]]]) -> str:
    axis = f"n (batch, axis {label[1:]})" if label[1:].isdecimal() else label
    blocks = ", ".join(f"{name} has {len(sizes)} blocks" for name, (_, sizes) in arrays.items())
    shapes = ", ".join(f"{name} has shape {shape_text(array.shape)}" for name, (array, _) in arrays.items())
    unknown = " and ".join(name for name, (_, sizes) in arrays.items() if sum(sizes) != sum(sizes))
    return f"axis {axis}: {blocks}, not all of known sizes; {shapes}: call compute_chunk_sizes() on {unknown} first"


def has_unknown_blocks(*arrays: Array) -> bool:
    """Say whether the size of any block is unknown."""
    return any(size != size for array in arrays for chunks in array.chunks for size in chunks)


def one_block(array: Array, axis: int) -> Array:
    """Return the array with one block along an axis."""
    axis %= array.ndim
    return array if array.numblocks[axis] == 1 else array.rechunk({axis: -1})


def whole_features(
    where: str, names: Sequence[str], operands: Sequence[Array], indices: Sequence[Sequence[str]]
) -> list[Array]:
    """Bring c and s, the features, into one block each, where no block gets larger than Dask's own are.

    Otherwise features stay in the blocks they have, the same in every operand, and a warning
    says what to call before: blockwise over features takes more and smaller products.
    """
    operands = list(operands)
    for label in ("c", "s"):
        for k, axis in merge_blocks(operands, indices, label):
            message = _features_in_blocks(where, names[k], indices[k], operands[k], axis)
            warnings.warn(message, UserWarning, stacklevel=_callers_level())
    return operands


def merge_blocks(operands: list[Array], indices: Sequence[Sequence[str]], label: str) -> list[tuple[int, int]]:
    """Bring an index into one block in every operand, in place, if all these blocks fit Dask's array.chunk-size.

    Returns the operands and axes that would not fit; all have the blocks of the first of them then.
    """
    having = [
        (k, index.index(label)) for k, index in zip(range(len(operands)), indices, strict=False) if label in index
    ]
    split = [(k, axis) for k, axis in having if operands[k].numblocks[axis] > 1]
    if any(size != size for k, axis in split for size in operands[k].chunks[axis]):
        return []  # unknown sizes: compared block by block
    too_large = [(k, axis) for k, axis in split if _block_bytes(operands[k], axis) > _chunk_size()]
    if not too_large:
        for k, axis in split:
            operands[k] = one_block(operands[k], axis)
        return []
    first, first_axis = too_large[0]
    wanted = operands[first].chunks[first_axis]
    for k, axis in having:
        operands[k] = operands[k].rechunk({axis: wanted})
    return too_large


def _block_bytes(array: Array, axis: int) -> float:
    """Return the bytes of the largest block that there is once an axis is one block; nan counts as nothing."""
    sizes = [array.shape[axis] if own == axis else max(chunks) for own, chunks in enumerate(array.chunks)]
    return float(math.prod(sizes) * array.dtype.itemsize)


def _features_in_blocks(where: str, name: str, index: Sequence[str], array: Array, axis: int) -> str:
    limit, label = _chunk_size(), index[axis]
    feature = {"c": "input features", "s": "output features"}[label]
    largest = _block_bytes(array, axis)
    rows = max(1, int(max(array.chunks[0]) * limit // largest))
    # A batch may be cut in more blocks; the other axis of a weight has features too.
    call = f"{name}.rechunk(-1)" if {"c", "s"} <= {*index} else f"{name}.rechunk({{0: {rows}, {axis}: -1}})"
    return (
        f"{where}: {name} has {array.numblocks[axis]} blocks along axis {label} ({feature}), and in one block of all "
        f"{array.shape[axis]} it would have blocks of {size_text(largest)}, more than Dask's array.chunk-size of "
        f"{size_text(limit)}: it is contracted block by block along {label} too, which takes longer; "
        f"call {call} before"
    )


def _callers_level() -> int:
    """Return the stacklevel that points a warning at the first line outside the package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__package__") == __package__:
        frame, level = frame.f_back, level + 1
    return level


def _chunk_size() -> int:
    import dask.config
    import dask.utils

    return int(dask.utils.parse_bytes(dask.config.get("array.chunk-size")))


def lift(name: str, array: Array, like: Array) -> Array:
    """Return a Dask array as it is, and a NumPy array as one of one block, under a name made from its content."""
    if namespace.is_chunked(namespace.of(array)):
        if has_unknown_blocks(array):
            raise ValueError(
                f"{name} has blocks of unknown size, its shape is {shape_text(array.shape)}: "
                f"call compute_chunk_sizes() on it first"
            )
        return array
    # The library of the blocks decides, so that a NumPy weight meets CuPy blocks as CuPy.
    return dask_array().from_array(namespace.of(like._meta, "a block of X").asarray(array), chunks=-1)
