"""Arrays in stores of zarr that need no server; tests/s3 has those that do."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from helpers.assertions import nothing_computes, refused
from helpers.batches import B, W, X
from helpers.results import Source, layer, lazy
from zarr.storage import LocalStore, MemoryStore, StorePath

import fc_arrayapi as fc

pytestmark = pytest.mark.only("dask.array")


def written(store, **how):
    array = zarr.create_array(store, shape=X.shape, chunks=(10, 3), dtype=X.dtype, **how)
    array[...] = X
    return array


def test_array_in_memory_is_read_block_by_block(backend):
    array = written(MemoryStore())
    with nothing_computes(backend):
        x = fc.open_array(array, rows=25)
        Y = fc.forward(x, W, B)
    assert x.chunks == ((20,) * 5, (6,))
    np.testing.assert_allclose(fc.compute(Y)[0], X @ W + B, rtol=1e-12)


def test_array_on_disk_is_opened_as_its_path(backend, tmp_path):
    array = written(tmp_path / "x.zarr")
    assert fc.open_array(array).name == fc.open_array(tmp_path / "x.zarr").name
    with refused(ValueError, "group", "pass one of its arrays"):
        fc.open_array(zarr.open_group(tmp_path / "g.zarr", mode="w"))


def test_store_without_versions_is_not_resumed(backend, tmp_path):
    array = written(MemoryStore())
    assert fc.open_array(array).name != fc.open_array(array).name
    with refused(ValueError, "resume=True", "could mix old and new rows"):
        fc.store({tmp_path / "y.npy": fc.forward(fc.open_array(array), W)}, resume=True)


def test_pass_into_a_store_reads_every_block_once(backend):
    source, Y, grads = layer(backend)
    store = MemoryStore()
    fc.store([(StorePath(store, "y"), Y), (StorePath(store, "dw"), grads.dW), (StorePath(store, "db"), grads.dB)])
    np.testing.assert_array_equal(source.reads, 1)
    np.testing.assert_allclose(zarr.open_array(store, path="y")[...], X @ W + B, rtol=1e-12)
    assert sorted(zarr.open_group(store, path="", mode="a").array_keys()) == ["db", "dw", "y"]


@pytest.mark.parametrize("on_disk", [False, True])
def test_broken_pass_into_a_store_is_resumed(backend, tmp_path, on_disk):
    store = LocalStore(tmp_path) if on_disk else MemoryStore()
    source = Source(X, fail_at=55)
    x = lazy(backend, source)
    with pytest.raises(RuntimeError) as error:
        fc.store([(store, x)])
    assert "resume=True" in error.value.__notes__[0]
    with pytest.raises(FileNotFoundError):
        zarr.open_array(store, mode="r")
    with refused(FileExistsError, "unfinished result", "resume=True", "overwrite=True"):
        fc.store([(store, x)])
    source.mend()
    fc.store([(store, x)], resume=True)
    assert source.reads[50:60].tolist() == [1] * 10
    np.testing.assert_array_equal(zarr.open_array(store, mode="r")[...], X)
    with refused(FileExistsError, "already exists", "overwrite=True"):
        fc.store([(store, x)])
    fc.store([(store, x + 1)], overwrite=True)
    np.testing.assert_array_equal(zarr.open_array(store, mode="r")[...], X + 1)


def test_array_that_is_read_in_the_pass_is_not_replaced(backend):
    array = written(MemoryStore())
    with refused(ValueError, "is read to compute what would replace it"):
        fc.store([(array.store, fc.forward(fc.open_array(array), W))], overwrite=True)
    np.testing.assert_array_equal(array[...], X)


def test_other_addresses_are_refused(backend):
    x = fc.open_array(written(MemoryStore()))
    with refused(ValueError, "ftp://host/x", "s3://", "gs://", "https://"):
        fc.store({"ftp://host/x": x})
