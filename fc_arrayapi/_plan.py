"""plan: what a pass takes before it runs: flops, bytes, blocks, tasks, memory, time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._arrays.summary import html_table
from ._arrays.text import count_text, flops_text, seconds_text, size_text

NOT_COUNTED = "memory is what the pass adds: without the interpreter, and without pages of files in the system's cache"


@dataclass(frozen=True, repr=False)
class Plan:
    """What a pass takes; it prints as a table, also in a notebook.

    Parameters
    ----------
    flops : int
        Additions and multiplications of contractions: 2NCS for each of Y, dX and dW. Steps that
        Dask takes element by element are not counted.
    bytes_read : int
        The sizes of all blocks that are read, from files or from memory, or made by Dask.
    bytes_written : int
        The size of the results.
    blocks : int
        Blocks of the largest array that is read.
    tasks : int
        Those that Dask runs.
    threads : int
        Threads of a worker: the number of tasks that run at a time.
    peak_memory : int
        Bytes that the pass adds on each worker, at most: the blocks that its threads hold, the
        sums on the way, and what stays. On one machine the graph is among them, 4 to 14 kB for each
        task, which counts from 1,000 blocks on. Results that go to files count block by block,
        others as they are returned. Blocks of mapped files are views and do not count.
    seconds : float or None
        The time that it takes, from blocks read and a product made now; None without `measure`.
    warnings : tuple of str
        Reasons why the pass will be slow or fail, each with the call that avoids it.
    """

    flops: int
    bytes_read: int
    bytes_written: int
    blocks: int
    tasks: int
    threads: int
    peak_memory: int
    seconds: float | None
    warnings: tuple[str, ...]

    def _table(self) -> list[tuple[str, str]]:
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        rows = [
            ("flops", flops_text(self.flops)),
            ("read", f"{size_text(self.bytes_read)} in {count_text(self.blocks, 'block')}"),
            ("written", size_text(self.bytes_written)),
            ("tasks", f"{self.tasks:,}"),
            ("peak memory", f"{size_text(self.peak_memory)} with {threads}"),
        ]
        rows += [] if self.seconds is None else [("time", seconds_text(self.seconds))]
        return [*rows, *(("warning", text) for text in self.warnings)]

    def __repr__(self) -> str:
        return "\n".join([*(f"{name:<12} {value}" for name, value in self._table()), f"({NOT_COUNTED})"])

    def _repr_html_(self) -> str:
        return f"{html_table([''], self._table())}<p>{NOT_COUNTED}</p>"


def plan(*results: Any, measure: bool = False) -> Plan:
    """Say what a pass takes, before it runs. Nothing of it is read or computed.

    The tasks that `compute` or `store` would give to Dask are followed in Dask's order, on as many
    threads as there are, with the sizes of blocks in the place of blocks.

    Parameters
    ----------
    *results : dask arrays, nested tuples of them such as `Gradients`, or targets
        What `compute` takes; a mapping of paths to arrays, or a list of pairs, is what `store`
        takes. Values that are not lazy take nothing.
    measure : bool
        Estimate the time too: two blocks are read and a product made on this machine, some 100 ms.

    Returns
    -------
    Plan
        Functions of which sizes are not known, such as those of ``map_blocks``, are not called:
        their results count as large as their first argument, with a copy beside, and a warning
        names them.

    Examples
    --------
    >>> import dask, numpy as np, dask.array as da
    >>> import fc_arrayapi as fc
    >>> X = da.ones((1_000_000, 256), chunks=(8000, 256), dtype="float32")
    >>> Y = fc.forward(X, np.ones((256, 10), dtype="float32"))
    >>> with dask.config.set(num_workers=2):
    ...     plan = fc.plan(fc.backward(X, np.ones((256, 10), dtype="float32"), Y, needs=("dW",)))
    >>> plan.flops, plan.blocks, plan.warnings
    (10240000000, 125, ())
    """
    from ._dask import planned  # here, as in compute: it takes a twentieth of the package's import

    found = planned.plan_of(results, measure)
    return Plan(
        flops=found.costs.flops,
        bytes_read=found.costs.bytes_read,
        bytes_written=found.costs.bytes_written,
        blocks=found.costs.blocks,
        tasks=found.costs.tasks,
        threads=found.threads,
        peak_memory=found.costs.peak,
        seconds=found.seconds,
        warnings=found.warnings,
    )
