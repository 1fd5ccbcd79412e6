"""Arrays in S3 and in other stores of zarr: values, names, requests, and what is refused."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
import traceback

import dask
import icechunk
import numpy as np
import obstore
import obstore.store
import pytest
import zarr
from helpers.s3_server import KEY, SECRET, TOKEN, options

import fc_arrayapi as fc

X = np.random.default_rng(0).standard_normal((40, 6)).astype("float32")
W = np.random.default_rng(1).standard_normal((6, 3)).astype("float32")


@pytest.mark.parametrize("how", [{}, {"zarr_format": 2}, {"shards": (20, 6)}, {"compressors": None}])
def test_url_reads_as_written(bucket, library, how):
    bucket.write("x.zarr", X, (10, 3), **how)
    lazy = fc.open_array(bucket.url("x.zarr"), rows=20, storage_options=bucket.options)
    assert lazy.chunks == ((20, 20), (6,))
    np.testing.assert_array_equal(lazy.compute(), X)
    np.testing.assert_allclose(fc.compute(fc.forward(lazy, W))[0], X @ W, rtol=1e-5)


def test_default_blocks_are_small(bucket):
    made = zarr.create_array(
        bucket.url("x.zarr"), storage_options=bucket.options, shape=(2**20, 64), chunks=(2**12, 64), dtype="f4"
    )
    assert set(fc.open_array(made).chunks[0]) == {2**16}  # 16 MiB


def test_rows_within_a_shard_are_read_by_ranges(bucket, library):
    bucket.write("x.zarr", X, (5, 6), shards=(20, 6))
    lazy = fc.open_array(bucket.url("x.zarr"), storage_options=bucket.options)
    np.testing.assert_array_equal(lazy[3:22].compute(), X[3:22])


def test_arrays_in_a_group_and_lists_of_urls(bucket, library):
    bucket.write("data.zarr/a", X, (10, 6))
    bucket.write("data.zarr/b", X + 1, (10, 6))
    zarr.open_group(bucket.url("data.zarr"), storage_options=bucket.options, mode="a")
    urls = [bucket.url("data.zarr/a"), bucket.url("data.zarr/b")]
    lazy = fc.open_array(urls, storage_options=bucket.options)
    np.testing.assert_array_equal(lazy.compute(), np.concatenate([X, X + 1]))
    with pytest.raises(ValueError, match=r"data.zarr: is a Zarr group: open .*data.zarr/a or .*data.zarr/b"):
        fc.open_array(bucket.url("data.zarr"), storage_options=bucket.options)


def stores(bucket):
    s3 = obstore.store.S3Store(
        bucket.name,
        endpoint=bucket.options["endpoint_url"],
        access_key_id=KEY,
        secret_access_key=SECRET,
        client_options={"allow_http": True},
    )
    return {
        "obstore": zarr.storage.ObjectStore(s3),
        "fsspec": zarr.storage.FsspecStore.from_url(f"s3://{bucket.name}", storage_options=bucket.options),
        "memory": zarr.storage.MemoryStore(),
        "icechunk": icechunk.Repository.create(icechunk.in_memory_storage()).writable_session("main").store,
    }


@pytest.mark.parametrize("kind", ["obstore", "fsspec", "memory", "icechunk"])
def test_open_arrays_of_any_store(bucket, kind):
    store = stores(bucket)[kind]
    array = zarr.create_array(store, name="x", shape=X.shape, chunks=(10, 6), dtype="f4")
    array[...] = X
    np.testing.assert_array_equal(fc.open_array(array).compute(), X)


def test_open_array_of_a_folder_is_opened_as_its_path(tmp_path):
    array = zarr.create_array(tmp_path / "x.zarr", shape=X.shape, chunks=(10, 6), dtype="f4")
    array[...] = X
    assert fc.open_array(array).name == fc.open_array(tmp_path / "x.zarr").name
    with pytest.raises(ValueError, match="is a Zarr group: pass one of its arrays"):
        fc.open_array(zarr.open_group(tmp_path / "g.zarr", mode="w"))


def test_name_is_equal_in_each_run_and_changes_with_any_object(bucket, library):
    bucket.write("x.zarr", X, (10, 6))

    def name():
        return fc.open_array(bucket.url("x.zarr"), storage_options=bucket.options).name

    first = name()
    code = (
        f"import sys; sys.modules['obstore'] = None if {library == 's3fs'} else __import__('obstore')\n"
        f"import fc_arrayapi as fc\n"
        f"print(fc.open_array({bucket.url('x.zarr')!r}, storage_options={bucket.options!r}).name)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == first
    array = zarr.open_array(bucket.url("x.zarr"), storage_options=bucket.options)
    array[10:20] = 0
    second = name()
    assert second != first
    array[10:20] = X[10:20]
    assert name() == first  # the bytes are what they were, and so is their ETag
    assert fc.open_array(array).name == first


def test_name_of_icechunk_is_its_snapshot():
    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repository.writable_session("main")
    array = zarr.create_array(session.store, name="x", shape=X.shape, chunks=(10, 6), dtype="f4")
    array[...] = X
    uncommitted = [fc.open_array(array).name for _ in range(2)]
    assert uncommitted[0] != uncommitted[1]
    session.commit("first")

    def name():
        return fc.open_array(zarr.open_array(repository.readonly_session("main").store, path="x", mode="r")).name

    first = name()
    assert name() == first
    session = repository.writable_session("main")
    zarr.open_array(session.store, path="x")[0] = 0
    session.commit("second")
    assert name() != first


def test_store_without_versions_is_named_anew_and_not_resumed(tmp_path):
    array = zarr.create_array(zarr.storage.MemoryStore(), shape=X.shape, chunks=(10, 6), dtype="f4")
    assert fc.open_array(array).name != fc.open_array(array).name
    with pytest.raises(ValueError, match="could mix old and new rows"):
        fc.store({tmp_path / "y.npy": fc.forward(fc.open_array(array), W)}, resume=True)


def test_pass_reads_each_chunk_once(bucket, proxy, library):
    bucket.write("x.zarr", X, (5, 6))
    lazy = fc.open_array(bucket.url("x.zarr"), rows=20, storage_options=options(proxy.port))
    proxy.requests.clear()
    Y = fc.forward(lazy, W)
    fc.compute(Y.sum(), fc.backward(lazy, W, Y, needs=("dW",)))
    read = [path for method, path in proxy.requests if "/c/" in path]
    assert len(read) == len(set(read)) == 8
    assert [path for method, path in proxy.requests if "/c/" not in path] == []


def test_building_reads_no_chunk(bucket, proxy, library):
    bucket.write("x.zarr", X, (5, 6))
    with dask.config.set(scheduler=lambda *given, **more: pytest.fail("computed")):
        fc.forward(fc.open_array(bucket.url("x.zarr"), storage_options=options(proxy.port)), W)
    assert [path for method, path in proxy.requests if "/c/" in path] == []


@pytest.mark.parametrize("fault", [500, 503, 0.5, "cut"])
def test_passing_faults_are_tried_again(bucket, proxy, fault):
    bucket.write("x.zarr", X, (10, 6), compressors=None)
    lazy = fc.open_array(bucket.url("x.zarr"), storage_options=options(proxy.port))
    left = {f"/{bucket.name}/x.zarr/c/{number}/0": 2 for number in range(4)}

    def fail_twice(method, path):
        left[path] -= 1
        return fault if left[path] >= 0 else None

    proxy.fault = fail_twice
    np.testing.assert_array_equal(fc.compute(lazy)[0], X)
    assert max(left.values()) <= (1 if fault == 0.5 else 0)


def test_lasting_fault_ends_the_pass_with_the_address(bucket, proxy, library):
    bucket.write("x.zarr", X, (10, 6))
    lazy = fc.open_array(bucket.url("x.zarr"), storage_options=options(proxy.port))
    proxy.fault = lambda method, path: 403 if "/c/2" in path else None
    with pytest.raises(PermissionError, match=f"{bucket.url('x.zarr/c/2/0')}"):
        fc.compute(lazy)


def test_missing_array_is_named(bucket, library):
    with pytest.raises(FileNotFoundError, match=bucket.url("none.zarr")):
        fc.open_array(bucket.url("none.zarr"), storage_options=bucket.options)
    with pytest.raises(FileNotFoundError, match=r"s3://no-such-bucket/x.zarr"):
        fc.open_array("s3://no-such-bucket/x.zarr", storage_options=bucket.options)


def test_wrong_credentials_are_an_error_with_the_address(bucket, proxy, library):
    bucket.write("x.zarr", X, (10, 6))
    wrong = options(proxy.port, key="AKIDWRONG")
    with pytest.raises(PermissionError, match=bucket.url("x.zarr")):
        fc.open_array(bucket.url("x.zarr"), storage_options=wrong)


def test_vanished_chunk_is_an_error(bucket, library):
    bucket.write("x.zarr", X, (10, 6))
    lazy = fc.open_array(bucket.url("x.zarr"), storage_options=bucket.options)
    bucket.files.rm(f"{bucket.name}/x.zarr/c/2/0")
    with pytest.raises(ValueError, match=f"{bucket.url('x.zarr/c/2/0')}: is missing"):
        fc.compute(lazy)


def test_chunk_that_was_never_written_is_the_fill_value(bucket, library):
    array = bucket.write("x.zarr", X, (10, 6), fill_value=7)
    bucket.files.rm(f"{bucket.name}/x.zarr/c/2/0")
    values = fc.open_array(bucket.url("x.zarr"), storage_options=bucket.options).compute()
    np.testing.assert_array_equal(values, array[...])
    assert (values[20:30] == 7).all()


def test_chunk_that_was_changed_is_an_error(bucket):
    array = bucket.write("x.zarr", X, (10, 6))
    lazy = fc.open_array(bucket.url("x.zarr"), storage_options=bucket.options)
    time.sleep(1.1)  # times in HTTP are in seconds
    array[20:30] = 5
    with pytest.raises(ValueError, match=f"{bucket.url('x.zarr/c/2/0')}: has changed since it was opened"):
        fc.compute(lazy)


def test_damaged_chunk_is_an_error(bucket, library):
    bucket.write("x.zarr", X, (10, 6))
    bucket.files.pipe(f"{bucket.name}/x.zarr/c/2/0", b"nonsense")
    lazy = fc.open_array(bucket.url("x.zarr"), rows=10, storage_options=bucket.options)
    with pytest.raises(ValueError, match=f"{bucket.url('x.zarr')}: rows 20 to 30 cannot be read"):
        fc.compute(lazy)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"node_type": "array"}', b" " * (2**20 + 1)])
def test_metadata_that_lie_are_refused(bucket, library, content):
    bucket.files.pipe(f"{bucket.name}/x.zarr/zarr.json", content)
    with pytest.raises(ValueError, match=f"{bucket.url('x.zarr')}: is not a Zarr array"):
        fc.open_array(bucket.url("x.zarr"), storage_options=bucket.options)


def test_chunk_that_expands_too_far_is_refused(bucket, library):
    bucket.write("x.zarr", X, (10, 6))
    other = bucket.write("zeros.zarr", np.zeros((10**6, 6), "f4"), (10**6, 6), fill_value=1)
    assert other.nchunks == 1
    bucket.files.copy(f"{bucket.name}/zeros.zarr/c/0/0", f"{bucket.name}/x.zarr/c/2/0")
    lazy = fc.open_array(bucket.url("x.zarr"), storage_options=bucket.options)
    with pytest.raises(ValueError, match="may expand to"):
        fc.compute(lazy)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/x.zarr", "know s3://, gs://, https://, http://"),
        ("s3:///x.zarr", "names no bucket"),
        (f"https://user:{SECRET}@host/x.zarr", "has a user or a query"),
        (f"https://host/x.zarr?X-Amz-Signature={SECRET}", "has a user or a query"),
    ],
)
def test_wrong_address_is_refused(url, said):
    with pytest.raises(ValueError, match=said) as error:
        fc.open_array(url)
    assert SECRET not in str(error.value)


def test_https_reads_and_is_named_by_its_metadata(bucket, library):
    bucket.write("x.zarr", X, (10, 6))
    bucket.files.chmod(f"{bucket.name}/x.zarr", "public-read", recursive=True)
    url = f"http://127.0.0.1:{bucket.port}/{bucket.name}/x.zarr"
    lazy = fc.open_array(url)
    assert lazy.name == fc.open_array(url).name
    np.testing.assert_array_equal(lazy.compute(), X)
    with pytest.raises(FileNotFoundError, match=r"none\.zarr"):
        fc.open_array(url.replace("x.zarr", "none.zarr"))
    bucket.files.pipe(f"{bucket.name}/x.zarr/zarr.json", b" " * (2**20 + 1))
    bucket.files.chmod(f"{bucket.name}/x.zarr", "public-read", recursive=True)
    with pytest.raises(ValueError, match="metadata have at most"):
        fc.open_array(url)


def test_credentials_are_in_no_name_repr_or_message(bucket, proxy, library):
    bucket.write("x.zarr", X, (10, 6))
    given = options(proxy.port, token=TOKEN)
    lazy = fc.open_array(bucket.url("x.zarr"), storage_options=given)
    names = [repr(lazy), lazy.name, *map(repr, lazy.__dask_graph__().items())]
    proxy.fault = lambda method, path: 403 if "/c/2" in path else None
    with pytest.raises(PermissionError) as error:
        fc.compute(lazy)
    told = ["".join(traceback.format_exception(error.value)), *names]
    assert [text for text in told for secret in (KEY, SECRET, TOKEN) if secret in text] == []
    assert fc.open_array(bucket.url("x.zarr"), storage_options=options(proxy.port)).name == lazy.name


def test_blocks_are_read_in_other_processes(bucket, library):
    bucket.write("x.zarr", X, (10, 6))
    lazy = fc.open_array(bucket.url("x.zarr"), storage_options=bucket.options)
    source = next(value for value in lazy.__dask_graph__().values() if hasattr(value, "place"))
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[20:30, 0:6], X[20:30])
    with dask.config.set(scheduler="processes", num_workers=1):
        np.testing.assert_array_equal(lazy.compute(), X)
