"""Which sources a pass can be resumed over: those of which the name changes with their content."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import zarr
from helpers.assertions import nothing_computes, refused
from helpers.batches import W, X
from helpers.results import Source, lazy, names, own_threads, read

import fc_arrayapi as fc

pytestmark = pytest.mark.only("dask.array")


def of_open_array(da, folder):
    np.save(folder / "x.npy", X)
    return fc.open_array(folder / "x.npy", rows=10)


def of_numpy(da, folder):
    return da.from_array(X, chunks=(10, 6))


def of_a_memmap(da, folder):
    np.save(folder / "x.npy", X)
    return da.from_array(np.load(folder / "x.npy", mmap_mode="r"), chunks=(10, 6))


def of_a_function_of_another(da, folder):
    return of_open_array(da, folder).map_blocks(lambda block: block * 2)


def of_ones(da, folder):
    return da.ones((100, 6), chunks=(10, 6))


def of_zeros(da, folder):
    return da.zeros((100, 6), chunks=(10, 6), dtype="float32")


def of_a_number(da, folder):
    return da.full((100, 6), 3.0, chunks=(10, 6))


def of_a_generator(da, folder):
    return da.random.default_rng(0).random((100, 6), chunks=(10, 6))


def of_a_random_state(da, folder):
    return da.random.RandomState(0).normal(size=(100, 6), chunks=(10, 6))


def of_its_own_token(da, folder):
    return da.from_array(Source(X), chunks=(10, 6))


def of_tri(da, folder):
    return da.tri(100, 6, chunks=10)


def of_a_masked_array(da, folder):
    return da.ma.filled(da.from_array(np.ma.masked_greater(X, 3), chunks=(10, 6)), 0)


def of_an_argument(da, folder):
    return of_open_array(da, folder).map_blocks(np.add, X[:10])


def of_a_part(da, folder):
    return da.from_array(np.arange(1800.0).reshape(300, 6)[::3], chunks=(10, 4))


@pytest.mark.parametrize(
    "make",
    [
        of_an_argument, of_a_part,
        of_open_array, of_numpy, of_a_memmap, of_a_function_of_another, of_ones, of_zeros, of_a_number, of_a_generator,
        of_a_random_state, of_its_own_token,
    ],
)  # fmt: skip
def test_a_source_whose_name_is_made_from_its_content(backend, tmp_path, make):
    x = make(backend.xp, tmp_path)
    fc.store({tmp_path / "y.npy": fc.forward(x, W.astype(x.dtype)), tmp_path / "x.zarr": x}, resume=True)
    np.testing.assert_array_equal(read(tmp_path / "x.zarr"), x.compute())


@pytest.mark.parametrize("make", [of_tri, of_a_masked_array])
@pytest.mark.needs("other_sources")
def test_a_source_that_query_planning_lacks(backend, tmp_path, make):
    test_a_source_whose_name_is_made_from_its_content(backend, tmp_path, make)


def of_zarr(da, folder):
    zarr.create_array(folder / "x.zarr", data=X, chunks=(10, 6))
    return da.from_zarr(str(folder / "x.zarr"))


def of_hdf5(da, folder):
    file = h5py.File(folder / "x.h5", "w")
    return da.from_array(file.create_dataset("x", data=X), chunks=(10, 6))


def of_hdf5_in_each_task(da, folder):
    file = h5py.File(folder / "x.h5", "w")
    return da.from_array(file.create_dataset("x", data=X), chunks=(10, 6), inline_array=True)


def of_a_name(da, folder):
    return da.from_array(X, chunks=(10, 6), name="x")


def of_delayed(da, folder):
    from dask import delayed

    np.save(folder / "x.npy", X)
    return da.from_delayed(delayed(np.load, pure=True)(str(folder / "x.npy")), X.shape, X.dtype)


def of_a_stack(da, folder):
    da.to_npy_stack(str(folder / "stack"), da.from_array(X, chunks=(10, 6)))
    return da.from_npy_stack(str(folder / "stack"))


def of_a_reader(da, folder):
    np.save(folder / "x.npy", X)
    return da.map_blocks(lambda: np.load(folder / "x.npy"), chunks=((100,), (6,)), dtype=X.dtype)


def of_an_argument_that_is_a_file(da, folder):
    file = zarr.create_array(folder / "x.zarr", data=X[:10])
    return da.from_array(X, chunks=(10, 6)).map_blocks(lambda block, added: block + 0 * added[:], file, dtype=X.dtype)


def of_a_keyword_that_is_a_file(da, folder):
    added = h5py.File(folder / "x.h5", "w").create_dataset("x", data=X[:10])
    return da.from_array(X, chunks=(10, 6)).map_blocks(lambda block, w: block + 0 * w[:], w=added, dtype=X.dtype)


def of_a_class_that_reads(da, folder):
    np.save(folder / "x.npy", X)
    file = str(folder / "x.npy")
    return da.map_blocks(np.memmap, file, X.dtype, "r", 128, X.shape, chunks=((100,), (6,)), dtype=X.dtype)


def of_a_dataset_that_was_computed(da, folder):
    return of_hdf5(da, folder).persist()


def of_what_was_computed(da, folder):
    return of_zarr(da, folder).persist()


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (of_zarr, "zarr.core.array.Array"),
        (of_hdf5, "h5py._hl.dataset.Dataset"),
        (of_hdf5_in_each_task, "h5py._hl.dataset.Dataset"),
        (of_a_name, "numpy.ndarray (x)"),
        (of_delayed, "load"),
        (of_a_stack, "from-npy-stack"),
        (of_a_reader, "of_a_reader"),
        (of_what_was_computed, "from-zarr"),
        (of_an_argument_that_is_a_file, "zarr.core.array.Array"),
        (of_a_keyword_that_is_a_file, "h5py._hl.dataset.Dataset"),
        (of_a_class_that_reads, "memmap"),
        (of_a_dataset_that_was_computed, "array-"),
    ],
)
@pytest.mark.needs("other_sources")
def test_a_source_that_may_change_and_keep_its_name(backend, tmp_path, make, what):
    x = make(backend.xp, tmp_path)
    Y = fc.forward(x, W)
    before = names(tmp_path)
    for wanted in (x, Y, fc.grad_weight(x, Y)):
        with nothing_computes(backend), pytest.raises(ValueError, match="open_array") as raised:
            fc.store({tmp_path / "a.npy": backend.asarray(X), tmp_path / "y.npy": wanted}, resume=True)
        assert str(tmp_path / "y.npy") in str(raised.value)
        assert what in str(raised.value)
        assert "resume=True" in str(raised.value)
    assert names(tmp_path) == before
    fc.store({tmp_path / "y.npy": Y})  # a whole pass needs no name
    np.testing.assert_allclose(read(tmp_path / "y.npy"), X @ W, rtol=1e-12)


@pytest.mark.needs("other_sources")
def test_a_broken_pass_advises_resume_only_where_it_may(backend, tmp_path):
    zarr.create_array(tmp_path / "x.zarr", data=X, chunks=(10, 6))
    x = backend.xp.from_zarr(str(tmp_path / "x.zarr")) + lazy(backend, Source(X, fail_at=55))
    with own_threads(), pytest.raises(RuntimeError) as raised:
        fc.store({tmp_path / "y.npy": x})
    (note,) = raised.value.__notes__
    assert "resume=True" not in note
    assert "zarr.core.array.Array" in note
    with refused(FileExistsError, str(tmp_path / "y.npy"), "unfinished", "overwrite=True"):
        fc.store({tmp_path / "y.npy": x})
