"""plan: the cost of a pass over a lazy batch before it runs: flops, bytes, blocks, tasks, memory."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

from . import _linear
from ._arrays import namespace
from ._arrays.libraries import library
from ._arrays.namespace import Array, Namespace
from ._arrays.numpy_kernels import CAST_ELEMENTS
from ._arrays.text import size_text
from ._arrays.types import StandardArray
from ._dask import blocks, inspect, unify_chunks
from ._dask import linear as layer_on_dask
from ._files.default_rows import BLOCK_BYTES
from ._files.open import source_of
from ._math import checks
from ._math.equations import AXES, GRADIENTS, axis_label, result_dtype, sum_dtypes
from ._math.summation import Schedule, rows_cast_at_once, schedule

# With many blocks below this size, the millisecond that Dask spends on the tasks of a block dominates.
SMALL_BLOCK = 8 * 2**20
MANY_BLOCKS = 100
LARGE_BLOCK = 2**30
# glibc keeps the memory of smaller blocks after they are freed (M_MMAP_THRESHOLD grows to 32 MiB).
KEPT_BLOCK = 2**25


@dataclass(frozen=True, repr=False)
class Plan:
    """The cost of a pass; it prints as a table. A number is None if it depends on unknown block sizes.

    Parameters
    ----------
    results : tuple of str
        The results: ``("Y",)`` or ``("dX", "dW", "dB")``.
    flops : int or None
        Additions and multiplications: 2NCS for Y; for the gradients twice that, and NS.
    bytes_read : int or None
        The size of X, W and dY, each of which `compute` and `store` read once.
    bytes_written : int or None
        The size of the results.
    blocks : int
        Blocks of the batch, which are those of X; 1 in memory.
    block_bytes : int or None
        Bytes of the largest block of X, with all C features unless they stay in several blocks.
    tasks : int
        Dask's tasks before it fuses some, including those of X and dY; 1 in memory.
    threads : int
        Threads of a worker: the number of blocks computed at a time.
    peak_memory : int or None
        An estimate of the anonymous memory in bytes that the pass adds on each worker: the
        blocks of X, dY and the result in its threads, a copy of W, and for dW log2(blocks) + 2
        partial sums, two more for each further thread. Y and dX count block by block, as
        `store` writes them; `compute` holds them completely, which adds their `bytes_written`.
        Blocks of ``.npy`` files are views and do not count. For Zarr arrays the chunks that
        are read at a time count beside the block, twice if they are compressed.
    warnings : tuple of str
        Reasons why the pass will be slow or fail, each with the call that avoids it.
    """

    results: tuple[str, ...]
    flops: int | None
    bytes_read: int | None
    bytes_written: int | None
    blocks: int
    block_bytes: int | None
    tasks: int
    threads: int
    peak_memory: int | None
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        rows = {
            "pass for": ", ".join(self.results),
            "flops": "unknown" if self.flops is None else f"{self.flops:.3g}",
            "read": size_text(self.bytes_read),
            "written": size_text(self.bytes_written),
            "blocks of X": f"{self.blocks:,} of {size_text(self.block_bytes)}",
            "tasks": f"{self.tasks:,}",
            "peak memory": f"{size_text(self.peak_memory)} with {threads}",
        }
        lines = [f"{name:<12} {value}" for name, value in rows.items()]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


def plan(X: StandardArray, W: StandardArray, dY: StandardArray | None = None) -> Plan:
    """Estimate the cost of a pass over the batch. Nothing is computed.

    Parameters
    ----------
    X : array, shape (..., C)
        The batch, a lazy Dask array. An array in memory is one block, without warnings.
    W : array, shape (C, S)
        The weight.
    dY : array, shape (..., S), optional
        The gradient of the loss with respect to Y. Without it the plan is for `forward`,
        Y = XW + B; with it for `backward`, one pass for dX, dW and dB.

    Returns
    -------
    Plan

    Raises
    ------
    TypeError, ValueError
        As `forward` and `backward`.

    Examples
    --------
    >>> import dask, numpy as np, dask.array as da
    >>> import fc_arrayapi as fc
    >>> X = da.ones((1_000_000, 256), chunks=(125_000, 256), dtype="float32")
    >>> W = np.ones((256, 10), dtype="float32")
    >>> with dask.config.set(num_workers=2):
    ...     fc.plan(X, W)
    pass for     Y
    flops        5.12e+09
    read         977 MiB
    written      38.1 MiB
    blocks of X  8 of 122 MiB
    tasks        17
    peak memory  254 MiB with 2 threads
    """
    xp = checks.check_forward(X, W, None) if dY is None else checks.check_backward(X, W, dY)
    return _on_dask(X, W, dY) if namespace.is_chunked(xp) else _in_memory(xp, X, W, dY)


def _on_dask(X: Array, W: Array, dY: Array | None) -> Plan:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # building warns of features that stay in several blocks
        made: tuple[Any, ...] = (_linear.forward(X, W),) if dY is None else tuple(_linear.backward(X, W, dY))
    threads, limit = inspect.workers(*made)
    c, s = _features_of_block(X, W, dY)
    features = c, s, max(made[0].chunks[-1])
    sizes = _Sizes.of(namespace.of(X._meta), X, W, dY, _most_rows(X), math.prod(X.numblocks[:-1]), features)
    inputs = {"X": X} if dY is None else {"X": X, "dY": dY}
    advice = list(dict.fromkeys(str(warning.message) for warning in caught))
    advice += [] if advice else _feature_advice(inputs)
    advice += _batch_advice(X, dY, sizes, threads)
    held = [_held(array, X, sizes.block(name), n) for (name, array), n in zip(inputs.items(), (c, s), strict=False)]
    peak = sizes.peak(held, threads)
    advice += _memory_advice(X, sizes, peak, threads, limit)
    return sizes.plan(inspect.count_tasks(*made), threads, peak, advice)


@dataclass(frozen=True)
class _Sizes:
    """The sizes of one pass; N and rows are nan where unknown."""

    N: float
    C: int
    S: int
    c: int  # features of a block of X: all of them, unless they stay in several
    s: int  # of W or dY
    made: int  # of Y or dX
    rows: float  # of the largest block
    blocks: int
    itemsize: dict[str, int]  # of X, W, Y or of X, W, dY, dX, dW, dB
    acc_itemsize: int  # of the partial sums of dW
    converted: float  # bytes that are cast at a time before the product for Y or dX
    converted_for_sum: float  # bytes of X and of dY that are cast at a time before the product for dW
    cut: Schedule  # of the sum of dW over a block

    @classmethod
    def of(
        cls,
        xp: Namespace,
        X: Array,
        W: Array,
        dY: Array | None,
        rows: float,
        blocks: int,
        features: tuple[int, int, int],
    ) -> _Sizes:
        C, S = W.shape
        given = {"X": X, "W": W} if dY is None else {"X": X, "W": W, "dY": dY}
        dtypes = {name: array.dtype for name, array in given.items()}
        results = ("Y",) if dY is None else GRADIENTS
        dtypes |= {name: result_dtype(xp, name, given) for name in results}
        own, acc_dtype, for_sum, rows_for_sum = library(xp), X.dtype, 0, rows
        # On Dask a whole block is cast where two dtypes meet; else OpenBLAS gets rows that are cast in runs.
        on_dask = namespace.is_chunked(namespace.of(X))
        whole_block = not own.openblas
        if dY is not None:
            common, acc_dtype = sum_dtypes(xp, (X.dtype, dY.dtype))
            for_sum = _converted(xp, X.dtype, acc_dtype, C) + _converted(xp, dY.dtype, acc_dtype, S)
            whole_block |= on_dask and not X.dtype == dY.dtype == common
            if for_sum and not whole_block:
                rows_for_sum = min(rows, rows_cast_at_once(C + S))
        cut = schedule(own, int(rows_for_sum) if rows == rows else rows, C, S)
        acc_itemsize, converted_for_sum = _itemsize(xp, acc_dtype), rows_for_sum * for_sum
        if cut.leaf_rows and not (on_dask and whole_block):
            converted_for_sum = min(converted_for_sum, min(rows, cut.leaf_rows) * (C + S) * acc_itemsize)
        (operand, result), features_in = (("X", "Y"), C) if dY is None else (("dY", "dX"), S)
        for_product = _converted(xp, dtypes[operand], dtypes[result], features_in)
        rows_for_product = min(rows, CAST_ELEMENTS // max(1, C + S)) if own.openblas and not on_dask else rows
        itemsize = {name: _itemsize(xp, dtype) for name, dtype in dtypes.items()}
        N = math.prod(X.shape[:-1])
        return cls(
            N, C, S, *features, rows, blocks, itemsize, acc_itemsize,
            rows_for_product * for_product, converted_for_sum, cut,
        )  # fmt: skip

    @property
    def results(self) -> tuple[str, ...]:
        return GRADIENTS if "dY" in self.itemsize else ("Y",)

    def bytes(self, name: str) -> float:
        """Return the size of X, W, dY or a result."""
        sizes = {"n": self.N, "c": self.C, "s": self.S}
        return math.prod(sizes[axis] for axis in AXES[name]) * self.itemsize[name]

    def block(self, name: str) -> float:
        """Return the size of the largest block of X, Y, dY or dX."""
        features = {"X": self.c, "dY": self.s, "Y": self.made, "dX": self.made}
        return self.rows * features[name] * self.itemsize[name]

    def sums(self, threads: int) -> float:
        """Return the bytes of the partial sums of dW that are held at a time: two more for each further thread."""
        if self.results == ("Y",):
            return 0
        terms = min(_terms(self.blocks) + 2 * (threads - 1), self.blocks + 1)  # all, and a sum of two of them
        return terms * self.C * self.S * self.acc_itemsize

    @property
    def products(self) -> tuple[float, float]:
        """The bytes of the products that a block's part of dW is the sum of, and of converted rows of X and dY.

        See summation.schedule.
        """
        if self.results == ("Y",):
            return 0, 0
        if not self.cut.leaf_rows:
            return 0, self.converted_for_sum
        rows = min(self.rows, self.cut.leaf_rows)
        return rows // self.cut.run_rows * self.C * self.S * self.acc_itemsize, self.converted_for_sum

    def peak(self, held: list[float], threads: int) -> float:
        """Return the anonymous memory of a pass, given that of a block of X (and of dY).

        A thread computes its part of dW from a block of X and of dY, and a block of dX from
        that of dY, one after the other: it does not hold blocks of X and of dX at the same
        time, unless there are enough threads for both. The products that dW is the sum of are
        so small that the allocator keeps their memory.
        """
        (products, cast), converted = self.products, self.converted
        if self.results == ("Y",):
            one = held[0] + converted + self.block("Y") * _terms(math.ceil(self.C / max(1, self.c)))
        else:
            both = sum if self.blocks < threads else max
            dX = self.block("dX") * _terms(math.ceil(self.S / max(1, self.s)))
            one = held[1] + both((held[0] + cast, converted + dX)) + products
        return min(threads, self.blocks) * one + self.bytes("W") + self.sums(threads)

    def plan(self, tasks: int, threads: int, peak: float, advice: list[str]) -> Plan:
        products = 2 * self.N * self.C * self.S
        read = [name for name in ("X", "W", "dY") if name in self.itemsize]
        return Plan(
            results=self.results,
            flops=_whole(products if self.results == ("Y",) else 2 * products + self.N * self.S),
            bytes_read=_whole(sum(map(self.bytes, read))),
            bytes_written=_whole(sum(map(self.bytes, self.results))),
            blocks=self.blocks,
            block_bytes=_whole(self.block("X")),
            tasks=tasks,
            threads=threads,
            peak_memory=_whole(peak),
            warnings=tuple(advice),
        )


def _in_memory(xp: Namespace, X: Array, W: Array, dY: Array | None) -> Plan:
    """Plan one call in memory: it adds the results and the products that dW is the sum of."""
    features = (*W.shape, W.shape[1 if dY is None else 0])
    sizes = _Sizes.of(xp, X, W, dY, math.prod(X.shape[:-1]), 1, features)
    return sizes.plan(1, 1, sum(map(sizes.bytes, sizes.results)) + sum(sizes.products), [])


def _feature_advice(inputs: dict[str, Array]) -> list[str]:
    """Name the arrays whose features have several blocks."""
    return [
        f"{name} has {array.numblocks[-1]} blocks along axis {axis_label(AXES[name][-1])}, which every pass "
        f"merges: call {name}.rechunk({{{array.ndim - 1}: -1}}) before you write it"
        for name, array in inputs.items()
        if array.numblocks[-1] > 1
    ]


def _batch_advice(X: Array, dY: Array | None, sizes: _Sizes, threads: int) -> list[str]:
    """Warn of unsuitable blocks along the batch."""
    advice = []
    for name, array, unknown in (
        ("X", X, "so flops, bytes and memory are unknown"),
        ("dY", dY, "they can be compared with those of X only in the pass"),
    ):
        if array is not None and blocks.has_unknown_blocks(array):
            advice.append(f"{name} has blocks of unknown size: {unknown}: call {name}.compute_chunk_sizes() first")
    for axis, n in enumerate(X.shape[:-1]):
        if dY is not None and n == dY.shape[axis] and X.chunks[axis] != dY.chunks[axis]:
            advice.append(
                f"axis n (batch, axis {axis}): X has {len(X.chunks[axis])} blocks, dY has {len(dY.chunks[axis])}, with "
                f"other borders, so every pass rechunks dY: call dY.rechunk({{{axis}: X.chunks[{axis}]}}) before "
                f"you write it"
            )
    block, row_bytes = sizes.block("X"), max(1, X.shape[-1] * sizes.itemsize["X"])
    rows = max(1, int(BLOCK_BYTES // row_bytes))
    call = _other_blocks(X, rows)
    if block < SMALL_BLOCK and sizes.blocks > MANY_BLOCKS:
        advice.append(
            f"blocks too small: X has {sizes.blocks:,} blocks of {size_text(block)}, and Dask's overhead for each "
            f"takes longer than its product: {call}"
        )
    elif block > LARGE_BLOCK:
        advice.append(f"blocks too large: X has blocks of {size_text(block)}, {threads} at once: {call}")
    elif sizes.blocks < threads and block > BLOCK_BYTES:
        advice.append(f"blocks too large: X has {sizes.blocks}, fewer than the {threads} threads of a worker: {call}")
    return advice


def _other_blocks(X: Array, rows: int) -> str:
    """Write how to get blocks of X with this number of rows."""
    source = source_of(X)
    if source is not None and min(source.rows_at_once, source.shape[0]) > rows:
        return (
            f"each chunk of {source.path.name} spans {min(source.rows_at_once, source.shape[0]):,} rows, and can only "
            f"be read whole: write the file anew in chunks of {rows:,} rows, for example with "
            f"fc.store({{'x.zarr': X.rechunk({{0: {rows}}})}})"
        )
    return f"open X with rows={rows}, or call X.rechunk({{0: {rows}}})"


def _memory_advice(X: Array, sizes: _Sizes, peak: float, threads: int, limit: int | None) -> list[str]:
    """Compare the planned memory with that of a worker."""
    if limit is None:
        return []
    has = f"a worker has {size_text(limit)}"
    sums = sizes.sums(threads)
    if sizes.bytes("W") + sums > limit:
        for_sums = f" and {size_text(sums)} for the sums of dW" if sums else ""
        half = max(1, sizes.S // 2)
        return [
            f"W too large: every worker holds W, {size_text(sizes.bytes('W'))}{for_sums}, and {has}: give workers more "
            f"memory, or take the output features in parts, W[:, :{half}] and W[:, {half}:]"
        ]
    blocks = sum(map(sizes.block, ("X", "Y") if sizes.results == ("Y",) else ("X", "dY", "dX")))
    task = sizes.bytes("W") + blocks
    if task > limit:
        rows = max(1, int(sizes.rows * (limit - sizes.bytes("W")) / blocks / (2 * threads)))
        return [f"a task needs {size_text(task)}, and {has}: {_other_blocks(X, rows)}"]
    if peak > limit:
        return [
            f"the {threads} threads of a worker need {size_text(peak)} together, and {has}: smaller blocks, fewer "
            f"threads for each worker, or more memory"
        ]
    return []


def _most_rows(array: Array) -> float:
    """Return the rows of the largest block; nan where any is unknown."""
    return math.nan if blocks.has_unknown_blocks(array) else float(math.prod(map(max, array.chunks[:-1])))


def _terms(blocks: int) -> float:
    """Return how many terms of a sum over blocks one thread holds in a tree of pairs."""
    return math.log2(blocks) + 2 if blocks > 1 else 1


def _features_of_block(X: Array, W: Array, dY: Array | None) -> tuple[int, int]:
    """Return the input and output features of a block when it is contracted."""
    other = ("W", blocks.lift("W", W, X)) if dY is None else ("dY", dY)
    operands = [layer_on_dask.operand(name, array, X.ndim - 1) for name, array in (("X", X), other)]
    for label in ("c", "s"):
        operands, _ = unify_chunks.merge_blocks(operands, label)
    return max(operands[0].array.chunks[-1]), max(operands[1].array.chunks[-1])


def _held(array: Array, X: Array, block: float, features: int) -> float:
    """Return the memory of a block of X or dY while it is contracted, given the size of its data.

    If it is merged or cut from other blocks, those are held beside it.
    """
    if max(array.chunks[-1]) == features and array.chunks[:-1] == X.chunks[:-1]:
        return _taken(_copies(array) * block, block)
    as_it_comes = features * int(array.dtype.itemsize) * _most_rows(array)
    return block + _taken(_copies(array) * as_it_comes, as_it_comes)


def _taken(copies: float, block: float) -> float:
    """Return the memory of copies of a block; more if the allocator keeps it (1 to 2 times was measured)."""
    return copies * (1.5 if block < KEPT_BLOCK else 1)


def _copies(array: Array) -> float:
    """Return how many times the size of a block reading it allocates; 0 for a view."""
    source = source_of(array)
    return 1 if source is None else source.copies(array.chunks[0])


def _converted(xp: Namespace, dtype: Any, wanted: Any, features: int) -> int:
    """Return the bytes of the copy of a row that is needed if the dtype or byte order differs."""
    return 0 if dtype == wanted else features * _itemsize(xp, wanted)


def _itemsize(xp: Namespace, dtype: Any) -> int:
    return int(xp.finfo(dtype).bits) // 8


def _whole(number: float) -> int | None:
    return None if number != number else round(number)
