"""What the tests of store write and look at: counted sources, finished blocks, whole results."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import zarr

import fc_arrayapi as fc
from helpers.batches import B, W, X, dY

PART = ".fc_arrayapi.part"


class Source:
    """An array-like that counts how often each row is read, and fails where it is told to until it is mended.

    Each has a name of its own: under query planning one of an equal name would be taken instead.
    """

    count = itertools.count()

    def __init__(self, array, fail_at=None):
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim
        self.reads = np.zeros(len(array), int)
        self.fail_at = fail_at
        self.lock, self.number = threading.Lock(), next(self.count)

    def __dask_tokenize__(self):
        return ("Source", self.number)

    def mend(self):
        self.fail_at, self.reads[:] = None, 0

    def __getitem__(self, index):
        with self.lock:
            self.reads[index[0]] += 1
        if self.fail_at is not None and self.fail_at in range(len(self.array))[index[0]]:
            raise RuntimeError("this block cannot be read")
        return self.array[index]


def lazy(backend, source, rows=10):
    return backend.xp.from_array(source, chunks=(rows, -1))


def layer(backend, **options):
    """Return a source of X, and Y, dX, dW and dB of it."""
    source = Source(X, **options)
    x, dy = lazy(backend, source), lazy(backend, Source(dY))
    return source, fc.forward(x, W, B), fc.backward(x, W, dy)


def finished_blocks(path):
    """Return the places of the blocks that an unfinished result says are finished."""
    (file,) = path.with_name(path.name + PART).glob("*/finished")
    return [json.loads(line) for line in file.read_text().split("\n") if line]


def finished_rows(path):
    rows = np.zeros(100, int)
    for (start, stop), *_ in finished_blocks(path):
        rows[start:stop] += 1
    return rows


def read(path):
    return np.load(path) if path.suffix == ".npy" else zarr.open_array(path, mode="r")[...]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# One pass.


@contextmanager
def own_threads():
    """Run passes in two threads that have ended afterwards, with the blocks that were under way when one failed."""
    import dask

    with ThreadPoolExecutor(2) as pool, dask.config.set(pool=pool):
        yield


def break_off_at_the_end(targets, **options):
    """Compute every block, and break off before the first target gets its name."""

    def replace(old, new):
        if new in targets:
            raise KeyboardInterrupt
        os.rename(old, new)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            fc.store(targets, **options)


def lose_everything(data):
    data.unlink() if data.is_file() else shutil.rmtree(data)
    return range(10)
