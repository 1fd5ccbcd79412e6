"""Gradients of single samples on Dask: norms and inner products of each block, whose samples lie in it as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from .._arrays.namespace import Array
from .._math import per_sample as in_memory
from .._math import sample_checks
from . import blocks, blockwise
from .blockwise import Output
from .unify_chunks import Operand, align


def norms(X: Array, dY: Array, needs: Sequence[str], sample_axes: int) -> Array:
    """Return the norm of each sample's gradient, in the blocks of the samples of X."""
    sample_checks.check_per_sample("per_sample_norms", X, dY, sample_axes)
    operands = _samples("n", sample_axes, X=X, dY=dY)
    of_block = partial(in_memory.norms, needs=tuple(needs), sample_axes=sample_axes)
    (found,) = blockwise.contract(of_block, operands, Output(operands[0].index[:sample_axes]))
    return found


def dots(X: Array, dY: Array, Xq: Array, dYq: Array, needs: Sequence[str], sample_axes: int) -> Array:
    """Return the inner products with the gradients of the queries, in the blocks of the samples of X."""
    sample_checks.check_per_sample("per_sample_dots", X, dY, sample_axes, Xq, dYq)
    operands = _samples("n", sample_axes, X=X, dY=dY)
    queries = {name: blocks.lift(name, array, X) for name, array in (("Xq", Xq), ("dYq", dYq))}
    operands += _samples("q", sample_axes, **queries)
    of_block = partial(in_memory.dots, needs=tuple(needs), sample_axes=sample_axes)
    index = operands[0].index[:sample_axes] + operands[2].index[:sample_axes]
    (found,) = blockwise.contract(of_block, operands, Output(index))
    return found


def _samples(label: str, sample_axes: int, **arrays: Array) -> list[Operand]:
    """Return X and dY of some samples: their positions and features are in one block each."""
    operands = []
    for (name, array), feature in zip(arrays.items(), "cs", strict=True):
        for axis in range(sample_axes, array.ndim):
            array = blocks.one_block(array, axis)
        axes = [f"{label}{axis}" for axis in range(array.ndim - 1)]
        operands.append(Operand(name, array, (*axes, label + feature)))
    return align(operands)
