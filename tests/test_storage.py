"""Arrays on disk that open lazily."""

from __future__ import annotations

import os

import numpy as np
import pytest

import fc_arrayapi as fc
from fc_arrayapi.npy import read_npy_header

ROWS = np.arange(6.0).reshape(2, 3)


@pytest.mark.only("dask.array")
def test_open_array_is_lazy_and_in_blocks(backend, tmp_path, rng):
    X = rng.normal(size=(1000, 8)).astype("float32")
    np.save(tmp_path / "x.npy", X)
    opened = fc.open_array(tmp_path / "x.npy", rows=300)
    assert opened.chunks == ((300, 300, 300, 100), (8,))
    assert opened.dtype == np.float32
    np.testing.assert_array_equal(opened.compute(), X)
    assert fc.open_array(tmp_path / "x.npy").chunks == ((1000,), (8,))
    np.save(tmp_path / "f.npy", np.asfortranarray(X))
    np.testing.assert_array_equal(fc.open_array(tmp_path / "f.npy", rows=7).compute(), X)
    np.save(tmp_path / "e.npy", X[:0])
    assert fc.open_array(tmp_path / "e.npy").compute().shape == (0, 8)


@pytest.mark.only("dask.array")
def test_blocks_hold_128_mebibytes_by_default(backend, tmp_path):
    array = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "float32", (2**17, 512))  # 256 MiB, sparse
    del array
    assert fc.open_array(tmp_path / "x.npy").chunks == ((2**16, 2**16), (512,))


@pytest.mark.only("dask.array")
def test_the_name_changes_with_the_file_and_not_with_the_call(backend, tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, ROWS)
    name = fc.open_array(path).name
    assert fc.open_array(str(path)).name == name
    np.save(path, ROWS + 1)
    os.utime(path, ns=(1, 1))
    assert fc.open_array(path).name != name


@pytest.mark.only("dask.array")
def test_a_file_that_is_changed_after_it_was_opened_is_refused(backend, tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.ones((10, 4)))
    X = fc.open_array(path, rows=3)
    np.save(path, np.ones((6, 4)))
    with pytest.raises(ValueError, match=r"x.npy: was changed since it was opened: open it again$"):
        X.compute()


@pytest.mark.only("dask.array")
def test_open_array_refuses_what_it_can_not_read(backend, tmp_path):
    with pytest.raises(FileNotFoundError):
        fc.open_array(tmp_path / "missing.npy")
    with pytest.raises(ValueError, match=r"x.csv: open_array reads .npy files; "):
        fc.open_array(tmp_path / "x.csv")
    path = tmp_path / "x.npy"
    np.save(path, ROWS)
    with pytest.raises(ValueError, match=r"^rows is 0: a block has a whole number of rows, at least one$"):
        fc.open_array(path, rows=0)
    for rows in (-1, 2.5, "3", [3], True):
        with pytest.raises(ValueError, match=r"^rows is .*: a block has a whole number of rows, at least one$"):
            fc.open_array(path, rows=rows)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"x.npy: has 175 bytes, its header asks for 176: the file was cut short$"):
        fc.open_array(path)
    path.write_bytes(b"not an array")
    with pytest.raises(ValueError, match=r"x.npy: has no .npy header \("):
        fc.open_array(path)
    np.save(path, np.asarray([None]))
    with pytest.raises(ValueError, match=r"x.npy: holds Python objects, which are never unpickled here$"):
        fc.open_array(path)
    np.save(path, np.asarray(1.0))
    with pytest.raises(ValueError, match=r"x.npy: holds a single number, not an array of rows$"):
        fc.open_array(path)


def test_headers_of_every_version_are_read(tmp_path):
    for version in ((1, 0), (2, 0), (3, 0)):
        with open(tmp_path / "x.npy", "wb") as file:
            np.lib.format.write_array(file, ROWS, version=version)
        with open(tmp_path / "x.npy", "rb") as file:
            assert read_npy_header(file, "x", 10**6)[0] == ROWS.shape
