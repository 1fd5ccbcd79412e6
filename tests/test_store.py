"""Lazy arrays written to files in one pass, and what is refused."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
import zarr
from helpers.assertions import lacks, nothing_computes, refused
from helpers.batches import B, W, X, dY, numbers
from helpers.results import PART, Source, lazy, names, read

import fc_arrayapi as fc

pytestmark = pytest.mark.only("dask.array")


def test_all_targets_in_one_pass_that_reads_every_block_once(backend, tmp_path):
    sources = [Source(X), Source(dY)]
    x, dy = (lazy(backend, source) for source in sources)
    with nothing_computes(backend):
        Y, grads = fc.forward(x, W, B), fc.backward(x, W, dy)
        loss = ((Y - dy) ** 2).sum()
    wanted = {"y.zarr": Y, "y.npy": Y, "dx.npy": grads.dX, "dw.npy": grads.dW, "db.zarr": grads.dB, "loss.npy": loss}
    assert fc.store({tmp_path / name: array for name, array in wanted.items()}) is None
    for source in sources:
        np.testing.assert_array_equal(source.reads, 1)
    expected = fc.testing.reference_backward(X, W, dY)
    for name, reference in {
        "y.zarr": X @ W + B, "y.npy": X @ W + B, "dx.npy": expected.dX, "dw.npy": expected.dW, "db.zarr": expected.dB,
        "loss.npy": ((X @ W + B - dY) ** 2).sum(),
    }.items():  # fmt: skip
        np.testing.assert_allclose(read(tmp_path / name), reference, rtol=1e-12, atol=1e-12)
    assert names(tmp_path) == sorted(wanted)
    assert zarr.open_array(tmp_path / "y.zarr").chunks == (10, 5)
    assert zarr.open_array(tmp_path / "y.zarr").compressors == ()


@pytest.mark.parametrize(
    ("sizes", "chunk"),
    [
        ((30, 30, 30, 10), 30),
        ((40, 20, 40), 20),
        ((50, 0, 50), 50),
        ((7, 90, 3), 90),
        ((33, 33, 34), 33),
        ((100,), 100),
    ],
    ids=str,
)
def test_no_two_blocks_share_a_zarr_chunk(backend, tmp_path, sizes, chunk):
    source = Source(X)
    x = lazy(backend, source).rechunk((sizes, 6))
    fc.store({tmp_path / "y.zarr": fc.forward(x, W), tmp_path / "dw.npy": fc.grad_weight(x, x)})
    array = zarr.open_array(tmp_path / "y.zarr")
    assert array.chunks == (chunk, 5)
    np.testing.assert_allclose(array[:], X @ W, rtol=1e-12)
    np.testing.assert_allclose(read(tmp_path / "dw.npy"), X.T @ X, rtol=1e-12)
    np.testing.assert_array_equal(source.reads, 1)


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_blocks_along_every_axis(backend, tmp_path, suffix):
    array = numbers(7, 5, 6, 4)
    path = tmp_path / f"x{suffix}"
    for chunks in ((3, 5, 6, 4), (3, 2, 6, 4), (3, 5, 2, 4), (3, 2, 4, 3), ((1, 4, 2), (4, 1), (1, 5), (3, 1))):
        fc.store({path: backend.asarray(array, chunks=chunks)}, overwrite=True)
        np.testing.assert_array_equal(read(path), array)


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
@pytest.mark.parametrize("dtype", ["float16", "float32", ">f8", "int8", "uint64", "bool", "complex64"])
def test_dtypes(backend, tmp_path, suffix, dtype):
    array = numbers(20, 3).astype(dtype)
    path = tmp_path / f"x{suffix}"
    fc.store({path: backend.asarray(array, chunks=(6, 3))})
    np.testing.assert_array_equal(read(path), array)
    assert read(path).dtype.newbyteorder("=") == array.dtype.newbyteorder("=")


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), ()], ids=str)
def test_arrays_with_no_rows_and_with_no_axes(backend, tmp_path, suffix, shape):
    path = tmp_path / f"x{suffix}"
    fc.store({path: backend.asarray(np.ones(shape))})
    assert read(path).shape == shape
    np.testing.assert_array_equal(read(path), np.ones(shape))


def test_stored_arrays_open_in_the_same_blocks(backend, tmp_path):
    fc.store({tmp_path / "x.zarr": backend.asarray(X, chunks=(30, 6))})
    assert fc.open_array(tmp_path / "x.zarr", rows=30).chunks == ((30, 30, 30, 10), (6,))


def test_blocks_are_written_by_other_processes(backend, tmp_path):
    import dask

    np.save(tmp_path / "x.npy", X)
    x = fc.open_array(tmp_path / "x.npy", rows=30)
    with dask.config.set(scheduler="processes", num_workers=2):
        fc.store({tmp_path / "y.npy": fc.forward(x, W), tmp_path / "y.zarr": fc.forward(x, W)})
    np.testing.assert_allclose(read(tmp_path / "y.npy"), X @ W, rtol=1e-12)
    np.testing.assert_allclose(read(tmp_path / "y.zarr"), X @ W, rtol=1e-12)


def test_targets_may_be_bytes(backend, tmp_path):
    paths = [tmp_path / "x.npy", tmp_path / "x.zarr"]
    fc.store({os.fsencode(path): backend.asarray(X) for path in paths})
    for path in paths:
        np.testing.assert_array_equal(read(path), X)


# Broken off and taken up again.


@pytest.mark.parametrize(
    ("name", "array", "error", "facts"),
    [
        ("x.csv", "lazy", ValueError, (".npy", ".zarr")),
        ("x", "lazy", ValueError, (".npy", ".zarr")),
        ("none/x.npy", "lazy", FileNotFoundError, ("folder",)),
        ("x.npy", X, TypeError, ("ndarray", "lazy", "numpy.save")),
        ("x.npy", [1.0], TypeError, ("list", "lazy", "numpy.save")),
        ("x.npy", None, TypeError, ("None", "backward", "needs")),
        ("x.npy", "nan", ValueError, ("axis 0", "unknown size", "compute_chunk_sizes()")),
        ("x.npy", "objects", TypeError, ("dtype object", "float32")),
        ("x.zarr", "longdouble", TypeError, ("dtype float128", "float32")),
    ],
)
def test_store_refuses_arrays_and_paths_it_cannot_write(backend, tmp_path, name, array, error, facts):
    x = backend.asarray(X)
    if isinstance(array, str):
        array = {
            "lazy": x,
            "nan": x.map_blocks(np.asarray, chunks=((np.nan,) * 3, x.chunks[1]), meta=X[:0, :0]),
            "objects": x.astype(object),
            "longdouble": x.astype("longdouble"),
        }[array]
    with nothing_computes(backend), refused(error, str(tmp_path / name), *facts):
        fc.store({tmp_path / "a.npy": x, tmp_path / name: array})
    assert names(tmp_path) == []


def test_targets_are_paths(backend, tmp_path):
    x = backend.asarray(X)
    path = tmp_path / "y.npy"
    for given, facts in (
        (([x],), ("targets", "list", 'store({"y.zarr": Y})')),
        ((str(path), x), ("one mapping", f'store({{"{path}": Y}})')),
        ((x, path), ("one mapping", f'store({{"{path}": Y}})')),
        ((os.fsencode(path),), ("targets", "bytes", f'store({{"{path}": Y}})')),
        (({path: x}, True), ("one mapping", "options by name")),
    ):
        with nothing_computes(backend), refused(TypeError, *facts):
            fc.store(*given)
    with refused(TypeError, "target", "int", "path"):
        fc.store({1: x})
    with refused(ValueError, "x.npy", "two arrays"):
        fc.store({os.fsencode(tmp_path / "x.npy"): x, tmp_path / "." / "x.npy": x})
    assert names(tmp_path) == []


def test_store_refuses_blocks_unlike_the_metadata_of_the_array(backend, tmp_path):
    x = backend.asarray(X, chunks=(50, 6))
    for change, facts in (
        (lambda block: block[:-1], ("shape (49, 6)", "float64", "(50, 6)", "<f8")),
        (lambda block: block.astype("f4"), ("shape (50, 6)", "float32", "<f8")),
    ):
        other = x.map_blocks(change, dtype=float, meta=np.empty((0, 0)))
        with refused(ValueError, str(tmp_path / "x.npy"), "(0, 6)", *facts) as raised:
            fc.store({tmp_path / "x.npy": other}, overwrite=True)
        assert any(lacks(str(raised.value), f"(({row}, {row + 50}), (0, 6))") == [] for row in (0, 50))
    assert names(tmp_path) == [f"x.npy{PART}"]


def test_a_file_replaces_no_folder_and_a_folder_no_file(backend, tmp_path):
    (tmp_path / "x.npy").mkdir()
    (tmp_path / "x.npy" / "part-0.npy").touch()
    (tmp_path / "x.zarr").write_text("a file")
    (tmp_path / f"y.npy{PART}").write_text("a file")
    for name, facts in {
        "x.npy": ("x.npy", "a folder", "file"),
        "x.zarr": ("x.zarr", "a file", "a folder"),
        "y.npy": (f"y.npy{PART}", "a file", "a folder"),
    }.items():
        wanted = {tmp_path / "a.npy": backend.asarray(X), tmp_path / name: backend.asarray(X)}
        for options in ({}, {"overwrite": True}, {"resume": True}, {"overwrite": True, "resume": True}):
            with nothing_computes(backend), refused(FileExistsError, *facts):
                fc.store(wanted, **options)
    assert names(tmp_path) == ["x.npy", "x.zarr", f"y.npy{PART}"]
    assert names(tmp_path / "x.npy") == ["part-0.npy"]
    assert (tmp_path / "x.zarr").read_text() == "a file"


def test_a_missing_zarr_is_named(backend, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with refused(ImportError, ".zarr", "pip install zarr"):
        fc.store({tmp_path / "x.zarr": backend.asarray(X)})
    assert names(tmp_path) == []


def test_a_missing_threadpoolctl_is_said_before_anything_is_written(backend, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with refused(ImportError, "pip install threadpoolctl"):
        fc.store({tmp_path / "y.npy": backend.asarray(np.ones((4, 2)))})
    assert list(tmp_path.iterdir()) == []
