"""einsum on Dask: each step of the path is contracted block by block, by einsum in memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

from .._arrays.namespace import Array, is_lazy
from .._math import einsum as in_memory
from .._math.costs import costs
from .._math.equations import sum_dtypes
from .._math.subscripts import Path, check_sizes, find_path
from . import blocks, blockwise, unify_chunks
from .blockwise import Output
from .unify_chunks import Operand

# A Dask array, and whether it was one before: a NumPy array becomes one block, which does not decide about others.
Term: TypeAlias = tuple[Array, bool]


def einsum(
    subscripts: str, operands: tuple[Array, ...], optimize: Any = "auto", memory_limit: float | str | None = None
) -> Array:
    """Contract Dask arrays, and NumPy arrays beside them, along the path for arrays in memory."""
    xp, equation, operands = in_memory.prepare(subscripts, operands)
    dtype, acc_dtype = sum_dtypes(xp, (operands[0].dtype,))
    check_sizes(subscripts, equation, operands)
    like = next(operand for operand in operands if is_lazy(operand))
    remaining = [
        (operand, True) if is_lazy(operand) else (blocks.lift(f"operand {position}", operand, like), False)
        for position, operand in enumerate(operands)
    ]
    steps: Path = (((0,) * len(operands), equation.text),)
    if len(operands) > 2:
        steps = find_path(equation, operands, optimize, memory_limit)
    for number, (positions, step) in enumerate(steps, 1):
        result_dtype = dtype if number == len(steps) else acc_dtype
        remaining.append(contract(step, [remaining.pop(position) for position in positions], result_dtype, acc_dtype))
    return remaining[0][0]


def contract(step: str, taken: Sequence[Term], dtype: Any, acc_dtype: Any) -> Term:
    """Contract one or two Dask arrays block by block.

    Parameters
    ----------
    step : str
        The subscripts of a step, or of a whole equation of one or two operands.
    taken : sequence of Term
        Its arrays.
    dtype, acc_dtype : dtype
        The dtype of the result, and that in which the sums of blocks are added.

    Returns
    -------
    Term
    """
    inputs, output = step.split("->")
    ordered = [(array, own, labels) for (array, own), labels in zip(taken, inputs.split(","), strict=True)]
    ordered.sort(key=lambda term: not term[1])  # the blocks of the first one decide: not one that was NumPy
    step = f"{','.join(labels for _, _, labels in ordered)}->{output}"
    terms = [Operand(f"operand {k} of {step}", array, tuple(labels)) for k, (array, _, labels) in enumerate(ordered)]
    if len(terms) == 2:
        # One product of wide blocks is faster than a sum of narrow ones. The first axis stays: it is the batch.
        for label in sorted(set(terms[0].index[1:]) & set(terms[1].index) - set(output)):
            terms, _ = unify_chunks.merge_blocks(terms, label)
        terms = unify_chunks.limit_product(terms, output)
    # float16 and bfloat16 come in float32 from blocks that are added, and from those of a result on the way.
    wide = all(array.dtype == acc_dtype for array, _ in taken)
    rounded = wide or (dtype != acc_dtype and not _sums_over_blocks(terms, output))
    of_blocks = partial(_contract_blocks, step, rounded)
    (result,) = blockwise.contract(of_blocks, terms, Output(tuple(output), dtype))
    return result, any(own for _, own in taken)


def _sums_over_blocks(terms: list[Operand], output: str) -> bool:
    """Say whether a summed index has several blocks."""
    return any(
        count > 1 and label not in output
        for term in terms
        for label, count in zip(term.index, term.array.numblocks, strict=True)
    )


@costs(in_memory.cost_of_step)
def _contract_blocks(step: str, rounded: bool, *blocks: Array) -> Array:
    """Contract blocks; unknown sizes are known and compared here."""
    return in_memory.einsum(step, blocks, rounded=rounded)
