"""How many rows a block has by default: few enough for the cache and for memory, enough for Dask.

What is known is X, and not what is made of it. A block costs Dask about half a millisecond, in which 4 MiB are read. A
block of Y with 1,000 outputs is 64 MiB for 16,384 rows, and a loss holds several. glibc uses freed memory of up to
32 MiB again; fresh pages would take a third of a pass. docs/larger_than_memory.md has a table of what comes out of it.
"""

from __future__ import annotations

import math

from .source import Source

# A block is never larger by default, except where a chunk of the file is.
BLOCK_BYTES = 2**27
# As much is read at a time from a file in which blocks are views, or where each is a copy.
VIEW_BYTES, COPY_BYTES = 2**26, 2**25
# A block has no more rows than these, so that Y with 1,000 outputs stays below 32 MiB; targets and wide X have the same
# blocks. Where a row is narrow its products are quick, and fewer blocks count for more.
ROWS = 2**13
NARROW, NARROW_ROWS, NARROW_BYTES = 2**10, 2**15, 2**24
# A pass over a file of terabytes has about as many blocks, if they stay within BLOCK_BYTES.
BLOCKS = 10_000
# Threads have equal work where blocks are a multiple of their number, as long as blocks are not smaller than this.
EVEN, LEAST_BYTES = 8, 2**22

# Dask takes 80 bytes and 2 us for each block as soon as the array is created, and metadata may claim any number. These
# are 25 TB by default.
MOST_BLOCKS = 200_000


def is_too_large(source: Source, rows: int) -> bool:
    """Say whether a block of this many rows is larger than one should be."""
    return rows * _row_bytes(source) > BLOCK_BYTES


def default_rows(source: Source) -> int:
    """Return the rows of blocks of about equal size, whole chunks of the file."""
    N, step = source.shape[0], source.rows_at_once
    most = _most_rows(source)
    if source.in_groups:
        return most
    steps, most = max(1, math.ceil(N / step)), max(1, most // step)
    count = math.ceil(steps / most)
    even = EVEN
    while even > 1 and count < EVEN and N * _row_bytes(source) < even * LEAST_BYTES:
        even //= 2
    equal = math.ceil(steps / (math.ceil(count / even) * even))
    if equal < most and _views(source, most * step) and not _views(source, equal * step):
        return most * step  # blocks that end with the files of a folder
    return equal * step


def _row_bytes(source: Source) -> int:
    """Return the bytes of a row as it is computed: float16 goes through float32."""
    itemsize = source.dtype.itemsize
    return (max(4, itemsize) if source.dtype.kind == "f" else itemsize) * math.prod(source.shape[1:])


def _most_rows(source: Source) -> int:
    N, row = source.shape[0], _row_bytes(source)
    if not row:
        return max(1, N)
    if source.block_bytes:
        return max(1, source.block_bytes // row)
    views = source.copies([min(N, 1)]) == 0 and source.dtype.itemsize * math.prod(source.shape[1:]) == row
    few = ROWS if row >= NARROW else min(NARROW_ROWS, NARROW_BYTES // row)
    rows = max(min((VIEW_BYTES if views else COPY_BYTES) // row, few), math.ceil(N / BLOCKS))
    return max(1, min(rows, BLOCK_BYTES // row))


def _views(source: Source, rows: int) -> bool:
    """Say whether blocks of this many rows are views of a file."""
    N = source.shape[0]
    if MOST_BLOCKS * rows < N:
        return False
    return source.copies([min(rows, N - start) for start in range(0, N, rows)] or [0]) == 0
