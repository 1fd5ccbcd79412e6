"""Operands on Dask, rechunked so that their blocks meet: along the batch and along the features."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from .._arrays.namespace import Array
from .._arrays.text import shape_text, size_text
from .._math.equations import AXES, axis_label


@dataclass(frozen=True, eq=False)
class Operand:
    """One array of a contraction.

    Parameters
    ----------
    name : str
        Its name in messages.
    array : dask array
        The array.
    index : tuple of str
        The index of each of its axes; equal indices are contracted together.
    """

    name: str
    array: Array
    index: tuple[str, ...]


def align(operands: Sequence[Operand]) -> list[Operand]:
    """Rechunk operands: along each index they get the chunks of the first operand that has it.

    Raises
    ------
    ValueError
        If chunk sizes are unknown and the numbers of blocks differ.
    """
    first: dict[str, tuple[Operand, tuple[Any, ...]]] = {}
    aligned = []
    for operand in operands:
        array = operand.array
        for axis, (label, chunks) in enumerate(zip(operand.index, operand.array.chunks, strict=True)):
            other, wanted = first.setdefault(label, (operand, chunks))
            if wanted == chunks:  # the usual case; rechunk would take longer to find out
                continue
            if sum(wanted) == sum(chunks):  # never true if one is nan
                array = array.rechunk({axis: wanted})
            elif len(wanted) != len(chunks):
                raise ValueError(_different_blocks(label, [(other, wanted), (operand, chunks)]))
        aligned.append(replace(operand, array=array))
    return aligned


def _different_blocks(label: str, pair: Sequence[tuple[Operand, tuple[Any, ...]]]) -> str:
    axis = f"n (batch, axis {label[1:]})" if label[1:].isdecimal() else label
    blocks = ", ".join(f"{operand.name} has {len(sizes)} blocks" for operand, sizes in pair)
    shapes = ", ".join(f"{operand.name} has shape {shape_text(operand.array.shape)}" for operand, _ in pair)
    unknown = " and ".join(operand.name for operand, sizes in pair if sum(sizes) != sum(sizes))
    return (
        f"axis {axis}: {blocks}, and not all sizes are known; {shapes}: call compute_chunk_sizes() on {unknown} first"
    )


def whole_features(where: str, operands: Sequence[Operand]) -> list[Operand]:
    """Merge the blocks along c and s, the features, where no block gets larger than Dask's array.chunk-size.

    Otherwise features stay in their blocks, the same in every operand, and a warning gives the call that
    avoids it: blockwise over features takes more and smaller products.
    """
    operands = list(operands)
    for label in ("c", "s"):
        operands, too_large = merge_blocks(operands, label)
        for position in too_large:
            message = _features_in_blocks(where, operands[position], label)
            warnings.warn(message, UserWarning, stacklevel=_callers_level())
    return operands


def merge_blocks(operands: Sequence[Operand], label: str) -> tuple[list[Operand], list[int]]:
    """Bring an index into one block in every operand, if all these blocks fit Dask's array.chunk-size.

    Returns
    -------
    operands : list of Operand
        Merged, or with the blocks of the first one that does not fit.
    too_large : list of int
        The positions of those that do not fit.
    """
    merged = list(operands)
    axes = {k: operand.index.index(label) for k, operand in enumerate(operands) if label in operand.index}
    split = [k for k, axis in axes.items() if operands[k].array.numblocks[axis] > 1]
    if any(size != size for k in split for size in operands[k].array.chunks[axes[k]]):
        return merged, []  # unknown sizes: compared block by block
    too_large = [k for k in split if _block_bytes(operands[k].array, axes[k]) > _chunk_size()]
    wanted = operands[too_large[0]].array.chunks[axes[too_large[0]]] if too_large else -1
    for k in axes if too_large else split:
        merged[k] = replace(operands[k], array=operands[k].array.rechunk({axes[k]: wanted}))
    return merged, too_large


def limit_product(operands: Sequence[Operand], output: Sequence[str]) -> list[Operand]:
    """Split operands so that a block of their product fits Dask's array.chunk-size, or is no larger than one of theirs.

    A product may have many times the size of what it is made of: ``nij,nkl->ijkl``. Axes that one operand has are
    split first, the one that is largest in a block before others; then axes that operands share; last the batch, the
    first axis of the first operand. Axes of unknown size and those of a diagonal stay as they are.

    Returns
    -------
    list of Operand
        The first one that has an axis is split along it; `align` splits the others alike.
    """
    operands = list(operands)
    labels = [label for operand in operands for label in operand.index]
    doubled = {label for operand in operands for label in operand.index if operand.index.count(label) > 1}
    owners = {label: next(k for k, operand in enumerate(operands) if label in operand.index) for label in output}
    sizes = {}
    for label, k in owners.items():
        axis, array = operands[k].index.index(label), operands[k].array
        sizes[label] = array.shape[axis] if label in doubled else max(array.chunks[axis])
    sizes = {label: size for label, size in sizes.items() if size == size}  # not nan
    limit = max(_chunk_size(), *(_block_bytes(operand.array) for operand in operands))
    elements = limit // operands[0].array.dtype.itemsize
    wanted = dict(sizes)

    def rank(label: str) -> tuple[bool, int]:
        return label == labels[0], labels.count(label)

    for _, group in groupby(sorted(sizes.keys() - doubled, key=lambda label: (rank(label), label)), rank):
        candidates = list(group)
        while math.prod(wanted.values()) > elements and max(wanted[label] for label in candidates) > 1:
            largest = max(candidates, key=lambda label: wanted[label])
            wanted[largest] -= 1 + wanted[largest] // 8
    for label, size in wanted.items():
        if size < sizes[label]:
            operand = operands[owners[label]]
            axis = operand.index.index(label)
            chunks = tuple(part for block in operand.array.chunks[axis] for part in _even_parts(block, size))
            operands[owners[label]] = replace(operand, array=operand.array.rechunk({axis: chunks}))
    return operands


def warn_of_wide_blocks(where: str, result: Operand, batch: Operand) -> None:
    """Warn of blocks that pass Dask's array.chunk-size because a row of the result is wider than one of the batch."""
    if result.array.numblocks[-1] > 1 or batch.array.numblocks[-1] > 1:  # `whole_features` says how many rows
        return
    largest, limit = _block_bytes(result.array), _chunk_size()
    if not (largest > limit and largest > _block_bytes(batch.array)):  # unknown sizes are neither
        return
    rows = max(1, int(max(batch.array.chunks[0]) * limit // largest))
    warnings.warn(
        f"{where}: a block of {result.name} has shape {shape_text(tuple(map(max, result.array.chunks)))} and "
        f"{size_text(largest)}, more than Dask's array.chunk-size of {size_text(limit)}, in every thread: open "
        f"{batch.name} with rows={rows}, or call {batch.name}.rechunk({{0: {rows}}}) before",
        UserWarning,
        stacklevel=_callers_level(),
    )


def _even_parts(block: int, most: int) -> list[int]:
    """Cut a block into parts of nearly equal size, none larger than `most`."""
    count = max(1, -(-block // most))
    return [block * (k + 1) // count - block * k // count for k in range(count)]


def _block_bytes(array: Array, merged: int | None = None) -> float:
    """Return the bytes of the largest block, after an axis is merged into one block."""
    sizes = [array.shape[axis] if axis == merged else max(chunks) for axis, chunks in enumerate(array.chunks)]
    return float(math.prod(sizes) * array.dtype.itemsize)


def _features_in_blocks(where: str, operand: Operand, label: str) -> str:
    limit, axis = _chunk_size(), operand.index.index(label)
    name, array = operand.name, operand.array
    largest = _block_bytes(array, axis)
    rows = max(1, int(max(array.chunks[0]) * limit // largest))
    # A batch may be split into more blocks; the other axis of a weight has features too.
    call = f"{name}.rechunk(-1)" if AXES.get(name) == AXES["W"] else f"{name}.rechunk({{0: {rows}, {axis}: -1}})"
    return (
        f"{where}: {name} has {array.numblocks[axis]} blocks along axis {axis_label(label)}, and in one block of all "
        f"{array.shape[axis]} it would have blocks of {size_text(largest)}, more than Dask's array.chunk-size of "
        f"{size_text(limit)}: so it is contracted block by block along {label} too, which takes longer; "
        f"call {call} before"
    )


def _callers_level() -> int:
    """Return the stacklevel that points a warning at the first line outside the package."""
    frame, level = sys._getframe(1), 1
    package = __name__.partition(".")[0]
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level


def _chunk_size() -> int:
    import dask.config
    import dask.utils

    return int(dask.utils.parse_bytes(dask.config.get("array.chunk-size")))
