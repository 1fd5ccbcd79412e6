"""Arrays that are open already are read from their files, block by block: memmaps and their views, HDF5 datasets."""

from __future__ import annotations

import io
import os

import h5py
import numpy as np
import pytest
from helpers.assertions import nothing_computes, refused
from helpers.formats import write_hdf5

import fc_arrayapi as fc
from fc_arrayapi._files.opened import open_object

pytestmark = [pytest.mark.only("dask.array"), pytest.mark.needs("the_disk")]

OFFSET = 4096 + 8  # the mapping begins a page before the numbers


@pytest.fixture
def x(rng):
    return rng.normal(size=(1000, 8)).astype("float32")


@pytest.fixture
def raw(tmp_path, x):
    """Return the path of a file with the numbers of x behind some bytes."""
    (tmp_path / "x.bin").write_bytes(bytes(OFFSET) + x.tobytes())
    return tmp_path / "x.bin"


VIEWS = {
    "all": lambda m: m,
    "from a row on": lambda m: m[50:],
    "transposed": lambda m: m.T,
    "every third row": lambda m: m[10:-5:3],
    "backwards": lambda m: m[::-1],
    "columns backwards": lambda m: m[5:, ::-2],
    "a view of a view": lambda m: m[50:].T[2:][:, 100:],
    "another shape": lambda m: m.reshape(500, 2, 8),
    "another dtype": lambda m: m.view("int16"),
    "one axis": lambda m: m[:, 3],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_memmap_and_its_views(backend, raw, x, view):
    mapped = view(np.memmap(raw, "float32", "r", OFFSET, x.shape))
    with nothing_computes(backend):
        opened = fc.open_array(mapped, rows=60)
    assert opened.dtype == mapped.dtype
    np.testing.assert_array_equal(opened.compute(), view(x))
    assert fc.open_array(mapped, rows=60).name == opened.name
    source = open_object(mapped, False)
    assert not hasattr(source, "copy")
    assert source.copies((60,)) == 0


def test_views_have_names_of_their_own(backend, raw, x):
    mapped = np.memmap(raw, "float32", "r", OFFSET, x.shape)
    names = {fc.open_array(view(mapped)).name for view in VIEWS.values()}
    assert len(names) == len(VIEWS)


def test_what_was_written_through_a_memmap_is_read(backend, raw, x):
    mapped = np.memmap(raw, "float32", "r+", OFFSET, x.shape)
    before = fc.open_array(mapped).name
    os.utime(raw, ns=(0, 10**9))
    mapped[:] = 3
    opened = fc.open_array(mapped)
    assert opened.name != before
    np.testing.assert_array_equal(opened.compute(), np.full_like(x, 3))


def test_a_file_that_changed_after_its_memmap_was_opened(backend, raw, x):
    opened = fc.open_array(np.memmap(raw, "float32", "r", OFFSET, x.shape))
    os.utime(raw, ns=(0, 10**9))
    with refused(ValueError, str(raw), "changed", "open"):
        opened.compute()


def test_a_memmap_whose_changes_are_in_memory_is_refused(backend, raw, x):
    with refused(ValueError, str(raw), "'c'", "'r'"):
        fc.open_array(np.memmap(raw, "float32", "c", OFFSET, x.shape))


def test_a_memmap_without_a_file_is_refused(backend, raw, x):
    mapped = np.memmap(raw, "float32", "r", OFFSET, x.shape)
    with open(raw, "rb") as file:
        of_a_name = np.memmap(file, "float32", "r", OFFSET, x.shape)
    np.testing.assert_array_equal(fc.open_array(of_a_name).compute(), x)
    for copy in (mapped + 1, mapped[[1, 2]], np.memmap.copy(mapped)):
        with refused(TypeError, "numpy.memmap", "in memory"):
            fc.open_array(copy)


def test_a_dataset(backend, tmp_path, x):
    path = write_hdf5(tmp_path, x, chunks=(100, 8))
    file, _, name = path.partition("::")
    with h5py.File(file) as opened:
        X = fc.open_array(opened[name], rows=300)
        assert X.name == fc.open_array(path, rows=300).name
        np.testing.assert_array_equal(X.compute(), x)  # while it is open
    np.testing.assert_array_equal(X.compute(), x)
    with h5py.File(file) as opened:
        dataset = opened[name]
    with refused(ValueError, "h5py.Dataset", "closed"):
        fc.open_array(dataset)


def test_a_dataset_that_is_in_memory_is_refused(backend, x):
    for options in ({"driver": "core", "backing_store": False}, {}):
        with h5py.File("in memory" if options else io.BytesIO(), "w", **options) as file:
            file["X"] = x
            with refused(ValueError, "/X", "no file"):
                fc.open_array(file["X"])


def test_arrays_in_memory_are_refused(backend, x):
    for array in (x, backend.asarray(x), {"X": x}, 3, None, [x]):
        with refused(TypeError, "path is", "list of paths", "dask.array.from_array"):
            fc.open_array(array)
