"""Stores, groups and sessions as targets: what is written where."""

from __future__ import annotations

import dask
import dask.array as da
import icechunk
import numpy as np
import obstore.store
import pytest
import zarr
from helpers.s3_server import KEY, SECRET
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ObjectStore, StorePath

import fc_arrayapi as fc
from fc_arrayapi._files import unfinished_objects

X = np.random.default_rng(0).standard_normal((40, 6)).astype("float32")


def x(values=X):
    return da.from_array(values, chunks=(10, 6))


@pytest.fixture(params=["obstore", "fsspec", "memory", "local"])
def store(request, bucket, tmp_path):
    if request.param == "memory":
        return MemoryStore()
    if request.param == "local":
        return LocalStore(tmp_path)
    if request.param == "fsspec":
        return FsspecStore.from_url(f"s3://{bucket.name}/below", storage_options=bucket.options)
    return ObjectStore(
        obstore.store.S3Store(
            bucket.name,
            prefix="below",
            endpoint=bucket.options["endpoint_url"],
            access_key_id=KEY,
            secret_access_key=SECRET,
            client_options={"allow_http": True},
        )
    )


def keys(store):
    async def collect():
        return sorted([key async for key in store.list_prefix("")])

    return sync(collect())


WRITTEN = [*(f"c.{number}.0" for number in range(4)), "zarr.json"]


def test_store_takes_the_array_at_its_root(store):
    assert fc.store([(store, x())]) is None
    assert keys(store) == WRITTEN
    np.testing.assert_array_equal(zarr.open_array(store, mode="r")[...], X)
    with pytest.raises(FileExistsError, match="already exists"):
        fc.store([(store, x())])
    fc.store([(store, x(X + 1))], overwrite=True)
    np.testing.assert_array_equal(fc.open_array(zarr.open_array(store, mode="r")).compute(), X + 1)


def test_store_path_takes_the_array_at_its_path(store):
    fc.store([(StorePath(store, "a/y"), x()), (StorePath(store, "z"), x(X + 1))])
    assert keys(store) == [*(f"a/y/{key}" for key in WRITTEN), *(f"z/{key}" for key in WRITTEN)]
    np.testing.assert_array_equal(zarr.open_array(store, path="z", mode="r")[...], X + 1)


def test_local_store_keeps_no_folder_of_the_pass(tmp_path):
    fc.store([(StorePath(LocalStore(tmp_path), "y"), x())])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["y"]


def test_empty_group_is_replaced_by_the_array(store):
    root = zarr.open_group(store, mode="w")
    fc.store([(root.create_group("y"), x())])
    assert keys(store) == [*(f"y/{key}" for key in WRITTEN), "zarr.json"]
    np.testing.assert_array_equal(root["y"][...], X)


def test_group_with_members_is_not_replaced(store):
    root = zarr.open_group(store, mode="w")
    root.create_group("y")
    before = keys(store)
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="is no part of a Zarr array"):
            fc.store([(root, x())], overwrite=overwrite)
    assert keys(store) == before


def test_unfinished_result_at_the_root_is_resumed(store):
    computed = []

    def fail_once(block, block_info=None):
        computed.append(block_info[0]["chunk-location"][0])
        if computed == [3, 2, 1]:
            raise RuntimeError
        return block

    lazy = x().map_blocks(fail_once, dtype=X.dtype, meta=X[:0])
    with dask.config.set(scheduler="sync"):
        with pytest.raises(RuntimeError):
            fc.store([(store, lazy)])
        assert keys(store)[0] == ".fc_arrayapi.part/fingerprint.json"
        assert "zarr.json" not in keys(store)
        fc.store([(store, lazy)], resume=True)
    assert computed == [3, 2, 1, 1, 0]
    assert keys(store) == WRITTEN
    np.testing.assert_array_equal(zarr.open_array(store, mode="r")[...], X)


def test_wrong_targets_are_refused(bucket, store):
    with pytest.raises(ValueError, match="is the target of two arrays"):
        fc.store([(store, x()), (store, x())])
    with pytest.raises(ValueError, match="is open to be read only"):
        fc.store([(store.with_read_only(True), x())])
    array = zarr.create_array(MemoryStore(), shape=X.shape, chunks=(10, 6), dtype="f4")
    with pytest.raises(TypeError, match="not a path, nor a group or store of zarr"):
        fc.store([(array, x())])
    with pytest.raises(TypeError, match="targets is of type list"):
        fc.store([x()])


def test_lost_blocks_are_noticed(store, monkeypatch):
    write = unfinished_objects.ObjectWriter.write
    monkeypatch.setattr(
        unfinished_objects.ObjectWriter, "write", lambda self, block, start: start[0] == 10 or write(self, block, start)
    )
    with pytest.raises(FileNotFoundError, match="1 of 4 blocks were written and are not there"):
        fc.store([(store, x())])
    assert "zarr.json" not in keys(store)


@pytest.mark.parametrize("of", [lambda session: session, lambda session: session.store])
def test_icechunk_is_committed_once(of):
    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repository.writable_session("main")
    fc.store([(of(session), x())])
    assert [commit.message for commit in repository.ancestry(branch="main")][:-1] == ["fc_arrayapi.store: the root"]
    np.testing.assert_array_equal(zarr.open_array(repository.readonly_session("main").store, mode="r")[...], X)
    with pytest.raises(ValueError, match="is committed or read only"):
        fc.store([(of(session), x())])


def test_icechunk_takes_all_results_of_a_pass_in_one_commit():
    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repository.writable_session("main")
    group = zarr.open_group(session.store, mode="w").create_group("db")
    paths = [StorePath(session.store, "y"), StorePath(session.store, "a/dw")]
    fc.store([(paths[0], x()), (paths[1], x()[:25]), (group, x().sum(axis=0))])
    assert len(list(repository.ancestry(branch="main"))) == 2
    read = zarr.open_group(repository.readonly_session("main").store, mode="r")
    np.testing.assert_array_equal(read["y"][...], X)
    np.testing.assert_array_equal(read["a/dw"][...], X[:25])
    np.testing.assert_allclose(read["db"][...], X.sum(axis=0), rtol=1e-5, atol=1e-5)
    again = repository.writable_session("main")
    with pytest.raises(FileExistsError, match="already exists"):
        fc.store([(StorePath(again.store, "y"), x())])
    with pytest.raises(FileExistsError, match="is a group with other arrays, such as"):
        fc.store([(again, x())], overwrite=True)
    fc.store([(StorePath(again.store, "y"), x(X + 1)[:20])], overwrite=True)
    np.testing.assert_array_equal(zarr.open_array(repository.readonly_session("main").store, path="y")[...], X[:20] + 1)


def test_icechunk_shows_nothing_of_a_pass_that_fails():
    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repository.writable_session("main")

    def fail(block, block_info=None):
        if block_info[0]["chunk-location"][0] == 1:
            raise RuntimeError
        return block

    with pytest.raises(RuntimeError) as error:
        fc.store([(session, x().map_blocks(fail, dtype=X.dtype, meta=X[:0]))])
    assert error.value.__notes__ == ["Nothing was committed: discard the changes of the session, and store again."]
    assert keys(repository.readonly_session("main").store) in ([], ["zarr.json"])
    session.discard_changes()
    fc.store([(session, x())])
    np.testing.assert_array_equal(zarr.open_array(repository.readonly_session("main").store, mode="r")[...], X)
