"""A pass that is broken off: nothing finished is lost, nothing unfinished looks whole, and it is taken up again."""

from __future__ import annotations

import errno
import functools
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from helpers.assertions import lacks, refused
from helpers.batches import B, W, X, dY
from helpers.results import (
    PART,
    Source,
    break_off_at_the_end,
    finished_blocks,
    finished_rows,
    layer,
    lazy,
    lose_everything,
    names,
    own_threads,
    read,
)

import fc_arrayapi as fc
from fc_arrayapi._files import npy, result, unfinished, zarr_writer
from fc_arrayapi._files import store as store_module

pytestmark = pytest.mark.only("dask.array")


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_an_exception_in_a_block_loses_nothing_that_was_finished(backend, tmp_path, suffix):
    path = tmp_path / f"y{suffix}"
    source, Y, _ = layer(backend, fail_at=55)
    with own_threads(), pytest.raises(RuntimeError, match="this block cannot be read") as raised:
        fc.store({path: Y})
    (note,) = raised.value.__notes__
    assert lacks(note, "finished blocks", "resume=True") == []
    assert names(tmp_path) == [f"y{suffix}{PART}"]
    finished = finished_rows(path)
    assert 0 < finished.sum() < 100
    assert finished.max() == 1
    source.mend()
    fc.store({path: Y}, resume=True)
    np.testing.assert_array_equal(source.reads, 1 - finished)
    np.testing.assert_allclose(read(path), X @ W + B, rtol=1e-12)
    assert names(tmp_path) == [f"y{suffix}"]


def test_an_unfinished_sum_reads_every_block_once_more(backend, tmp_path):
    source, Y, grads = layer(backend, fail_at=55)
    wanted = {tmp_path / "y.zarr": Y, tmp_path / "dw.npy": grads.dW}
    with own_threads(), pytest.raises(RuntimeError):
        fc.store(wanted)
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob(f"y.zarr{PART}/*/data/c.*.0")}
    assert 0 < len(kept) < 10
    source.mend()
    fc.store(wanted, resume=True)
    np.testing.assert_array_equal(source.reads, 1)
    np.testing.assert_allclose(read(tmp_path / "y.zarr"), X @ W + B, rtol=1e-12)
    np.testing.assert_allclose(read(tmp_path / "dw.npy"), X.T @ dY, rtol=1e-12)
    for file, written in kept.items():
        assert (tmp_path / "y.zarr" / file.name).stat().st_mtime_ns == written


def lose_two_chunks(data):
    (data / "c.3.0").unlink()
    os.truncate(data / "c.7.0", 8)
    return 3, 7


def lose_the_metadata(data):
    (data / "zarr.json").unlink()
    return range(10)


def lose_the_end(data):
    os.truncate(data, 1000)
    return range(10)


@pytest.mark.parametrize(
    ("suffix", "lose"),
    [
        (".zarr", lose_two_chunks),
        (".zarr", lose_the_metadata),
        (".zarr", lose_everything),
        (".npy", lose_the_end),
        (".npy", lose_everything),
    ],
)
def test_store_resume_recomputes_removed_chunks(backend, tmp_path, suffix, lose):
    path = tmp_path / f"y{suffix}"
    source, Y, _ = layer(backend)
    break_off_at_the_end({path: Y})
    assert finished_rows(path).sum() == 100
    (data,) = tmp_path.glob(f"y{suffix}{PART}/*/data")
    lost = np.repeat(np.isin(range(10), lose(data)), 10)
    source.mend()
    fc.store({path: Y}, resume=True)
    np.testing.assert_array_equal(source.reads, lost)
    np.testing.assert_allclose(read(path), X @ W + B, rtol=1e-12)


def test_store_rolls_back_if_a_target_cannot_be_prepared(backend, tmp_path, monkeypatch):
    """One target has an older file, one an unfinished result, and one can't be made."""
    x = lazy(backend, Source(X))
    fc.store({tmp_path / "old.npy": x})
    y = lazy(backend, Source(X + 1))
    break_off_at_the_end({tmp_path / "part.npy": y})
    before = finished_blocks(tmp_path / "part.npy")

    def fail(self):
        raise error

    wanted = {tmp_path / "old.npy": x, tmp_path / "part.npy": y, tmp_path / "new.zarr": x}
    for error in (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()):
        with monkeypatch.context() as patch:
            patch.setattr(zarr_writer.ZarrWriter, "create", fail)
            with pytest.raises(type(error)) as raised:
                fc.store(wanted, resume=True, overwrite=True)
        if isinstance(error, OSError):
            assert lacks(str(raised.value), os.strerror(errno.ENOSPC), f"'{tmp_path / 'new.zarr'}'") == []
        assert names(tmp_path) == ["old.npy", f"part.npy{PART}"]
        assert finished_blocks(tmp_path / "part.npy") == before
        np.testing.assert_array_equal(read(tmp_path / "old.npy"), X)


def test_resume_begins_where_there_is_nothing_to_take_up(backend, tmp_path):
    (tmp_path / f"x.npy{PART}" / "12ab").mkdir(parents=True)  # killed before anything was recorded
    fc.store({tmp_path / "x.npy": backend.asarray(X), tmp_path / "x.zarr": backend.asarray(X)}, resume=True)
    np.testing.assert_array_equal(read(tmp_path / "x.npy"), X)
    assert names(tmp_path) == ["x.npy", "x.zarr"]


@pytest.mark.parametrize(
    ("other", "facts"),
    [
        (lambda x: x[:90], ("shape", "[100, 6] before", "[90, 6] now")),
        (lambda x: x.astype("float32"), ("dtype", "'float64' before", "'float32' now")),
        (
            lambda x: x.rechunk((20, 6)),
            ("chunks", "[[10, 10,", "[[20, 20, 20, 20, 20], [6]] now"),
        ),
        (lambda x: x + 1, ("inputs", "parameters", "changed", "name")),
    ],
)
def test_resume_refuses_another_array(backend, tmp_path, other, facts):
    path = tmp_path / "x.npy"
    source = Source(X, fail_at=50)
    x = lazy(backend, source)
    with own_threads(), pytest.raises(RuntimeError):
        fc.store({path: x})
    before = finished_blocks(path)
    source.mend()
    with refused(ValueError, f"{path}{PART}", "another array", *facts, "overwrite=True", "not resume=True"):
        fc.store({tmp_path / "y.npy": x, path: other(x)}, resume=True)
    assert names(tmp_path) == [f"x.npy{PART}"]
    assert finished_blocks(path) == before
    fc.store({path: other(x)}, overwrite=True)
    np.testing.assert_array_equal(read(path), other(backend.asarray(X, chunks=(10, 6))).compute())


def test_another_weight_or_file_is_another_array(backend, tmp_path):
    np.save(tmp_path / "x.npy", X)

    def Y(weight=W):
        return fc.forward(fc.open_array(tmp_path / "x.npy", rows=10), weight)

    def fail(*_):
        raise RuntimeError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(npy.NpyWriter, "write", fail)
        with pytest.raises(RuntimeError):
            fc.store({tmp_path / "y.npy": Y()})
    with refused(ValueError, f"y.npy{PART}", "inputs", "parameters", "changed", "overwrite=True"):
        fc.store({tmp_path / "y.npy": Y(W + 1)}, resume=True)
    os.utime(tmp_path / "x.npy", ns=(1, 1))
    with refused(ValueError, f"y.npy{PART}", "inputs", "parameters", "changed", "overwrite=True"):
        fc.store({tmp_path / "y.npy": Y()}, resume=True)


def test_an_unfinished_result_is_not_opened(backend, tmp_path):
    path = tmp_path / "y.zarr"
    source, Y, _ = layer(backend, fail_at=55)
    with own_threads(), pytest.raises(RuntimeError):
        fc.store({path: Y})
    with pytest.raises(FileNotFoundError):
        fc.open_array(path)
    (data,) = tmp_path.glob(f"y.zarr{PART}/*/data")
    for place in (data, data.parent, data.parent.parent):
        with refused(ValueError, str(place), "unfinished", "resume=True"):
            fc.open_array(place)
    with refused(FileExistsError, f"{path}{PART}", "unfinished", "resume=True", "overwrite=True"):
        fc.store({path: Y})
    source.mend()
    fc.store({path: Y}, overwrite=True)
    np.testing.assert_array_equal(source.reads, 1)
    np.testing.assert_allclose(read(path), X @ W + B, rtol=1e-12)


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_a_block_still_under_way_touches_nothing_of_the_next_pass(backend, tmp_path, monkeypatch, suffix):
    path = tmp_path / f"x{suffix}"
    write, late = result.write_block, []

    def write_some(block, place, **fixed):
        if place[0][0] == 50:
            late.append((block, place, fixed))
            raise RuntimeError
        write(block, place, **fixed)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_block", write_some)
        with own_threads(), pytest.raises(RuntimeError):
            fc.store({path: lazy(backend, Source(X))})
    source = Source(X + 1, fail_at=50)
    x = lazy(backend, source)
    with own_threads(), pytest.raises(RuntimeError):
        fc.store({path: x}, overwrite=True)
    before = finished_blocks(path)
    for block, place, fixed in late:
        with pytest.raises(FileNotFoundError):
            write(block, place, **fixed)
    assert finished_blocks(path) == before
    source.mend()
    fc.store({path: x}, resume=True)
    np.testing.assert_array_equal(read(path), X + 1)


# A full disk, and signals.


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_a_full_disk(backend, tmp_path, monkeypatch, suffix):
    path = tmp_path / f"y{suffix}"
    source, Y, _ = layer(backend)
    left, lock = [20], threading.Lock()

    def full(descriptor, fsync=os.fsync):
        with lock:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        left[0] = 6 if suffix == ".npy" else 20
        patch.setattr(npy.os, "fsync", full)
        with own_threads(), refused(OSError, os.strerror(errno.ENOSPC), f"'{path}'") as raised:
            fc.store({path: Y})
    assert raised.value.errno == errno.ENOSPC
    finished = finished_rows(path)
    assert 0 < finished.sum() < 100
    source.reads[:] = 0
    fc.store({path: Y}, resume=True)
    np.testing.assert_array_equal(source.reads, 1 - finished)
    np.testing.assert_allclose(read(path), X @ W + B, rtol=1e-12)


def test_half_a_block_on_a_full_disk_is_computed_again(backend, tmp_path, monkeypatch):
    path = tmp_path / "x.npy"
    write = npy.NpyWriter.write

    def write_half(self, block, start):
        if start[0] != 50:
            return write(self, block, start)
        write(self, block[:5], start)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    x = lazy(backend, Source(X))
    with monkeypatch.context() as patch:
        patch.setattr(npy.NpyWriter, "write", write_half)
        with own_threads(), refused(OSError, os.strerror(errno.ENOSPC), f"'{path}'"):
            fc.store({path: x})
    assert [[50, 60], [0, 6]] not in finished_blocks(path)
    fc.store({path: x}, resume=True)
    np.testing.assert_array_equal(read(path), X)


@pytest.mark.parametrize(("suffix", "file"), [(".npy", "data"), (".zarr", "data/c.0.0")])
def test_a_block_is_finished_only_when_it_is_on_the_disk(backend, tmp_path, monkeypatch, suffix, file):
    path = tmp_path / f"x{suffix}"
    work = tmp_path / f"x{suffix}{PART}" / "12ab"
    work.mkdir(parents=True)
    (work / "finished").touch()
    writer = unfinished.WRITERS[suffix].of(str(work / "data"), backend.asarray(X, chunks=(10, 6)))
    writer.create()
    record = functools.partial(unfinished.record_line, str(work / "finished"))
    on_disk = {}
    monkeypatch.setattr(
        npy.os, "fsync", lambda opened: on_disk.update({os.fstat(opened).st_ino: len(finished_blocks(path))})
    )
    result.write_block(X[:10], ((0, 10), (0, 6)), writer=writer, record=record, where=str(path))
    assert on_disk[(work / file).stat().st_ino] == 0
    assert set(on_disk.values()) == {0}
    assert finished_blocks(path) == [[[0, 10], [0, 6]]]


PASS = """
import itertools, signal, sys
from pathlib import Path
import dask.array as da, numpy as np
import fc_arrayapi as fc

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
folder, blocks, resume = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "resume"
reads, number = [], itertools.count()

class Halting:
    shape, dtype, ndim = (100, 6), np.dtype(float), 2

    def __dask_tokenize__(self):
        return "Halting"

    def __getitem__(self, index):
        if index[0].stop > index[0].start:
            if next(number) >= blocks:
                sys.stdin.read()  # until the one who started this process closes it
            reads.append(index[0].start)
        return np.load(folder / "x.npy")[index]

X = da.from_array(Halting(), chunks=(10, 6))
W = np.ones((6, 5))
fc.store({folder / "y.npy": fc.forward(X, W), folder / "y.zarr": fc.forward(X, W)}, resume=resume)
print(sorted(reads))
"""


def run_pass(backend, folder, blocks, resume):
    return subprocess.Popen(
        [sys.executable, "-c", PASS, str(folder), str(blocks), resume],
        env={**os.environ, **backend.environment}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_pass_that_is_killed_is_taken_up(backend, tmp_path, sent):
    rows = np.repeat(np.arange(100.0)[:, None], 6, axis=1)
    np.save(tmp_path / "x.npy", rows)
    paths = [tmp_path / "y.npy", tmp_path / "y.zarr"]
    killed = run_pass(backend, tmp_path, 6, "begin")
    deadline = time.monotonic() + 60
    while not all(list(p.with_name(p.name + PART).glob("*/finished")) and len(finished_blocks(p)) > 2 for p in paths):
        assert time.monotonic() < deadline
        assert killed.poll() is None, killed.stderr.read()
        time.sleep(0.01)
    killed.send_signal(sent)
    _, said = killed.communicate(timeout=60)
    assert killed.returncode not in (0, None)
    if sent == signal.SIGINT:
        assert lacks(said.rpartition("KeyboardInterrupt\n")[2], "finished blocks", "resume=True") == []
    assert names(tmp_path) == ["x.npy", f"y.npy{PART}", f"y.zarr{PART}"]

    for path in paths:  # as if the process had been killed in the middle of a line
        (file,) = path.with_name(path.name + PART).glob("*/finished")
        with open(file, "a") as torn:
            torn.write("\n[[90, 100], [0")
    lines = [file.read_text().split("\n") for path in paths for file in tmp_path.glob(f"{path.name}{PART}/*/finished")]
    finished = [{line for line in some if line.endswith("]]")} for some in lines]
    assert all(0 < len(blocks) < 10 for blocks in finished)
    needed = sorted(
        first for first in range(0, 100, 10) if not all(f"[[{first}, {first + 10}], [0, 5]]" in f for f in finished)
    )

    taken_up = run_pass(backend, tmp_path, 10, "resume")
    out, said = taken_up.communicate(timeout=60)
    assert out == f"{needed}\n", said
    for path in paths:
        np.testing.assert_array_equal(read(path), rows @ np.ones((6, 5)))
    assert names(tmp_path) == ["x.npy", "y.npy", "y.zarr"]


# Refused before anything is computed or written.
