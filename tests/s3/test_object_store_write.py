"""store to S3: what lies where while a pass runs and after it, resumed, replaced, killed, and refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import traceback

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from helpers.s3_server import KEY, SECRET, TOKEN, options

import fc_arrayapi as fc
from fc_arrayapi._files import unfinished_objects

N, ROWS = 40, 10
X = np.random.default_rng(0).standard_normal((N, 6)).astype("float32")
dY = np.random.default_rng(2).standard_normal((N, 3)).astype("float32")
W = np.random.default_rng(1).standard_normal((6, 3)).astype("float32")
PART = ".fc_arrayapi.part"


class Source:
    """Rows that are counted, and fail where they are told to. Its name is made of the content."""

    def __init__(self, values, fail_at=None):
        self.values, self.shape, self.dtype, self.ndim = values, values.shape, values.dtype, values.ndim
        self.fail_at, self.reads = fail_at, np.zeros(len(values), int)

    def __dask_tokenize__(self):
        return ("Source", self.values.tobytes())

    def __getitem__(self, index):
        self.reads[index[0]] += 1
        if self.fail_at in range(len(self.values))[index[0]]:
            raise RuntimeError("this block cannot be read")
        return self.values[index]


def lazy(values, fail_at=None):
    source = Source(values, fail_at)
    return source, da.from_array(source, chunks=(ROWS, -1))


def store(bucket, targets, **how):
    urls = {bucket.url(name): array for name, array in targets.items()}
    with_threads = {"storage_options": bucket.options, **how}
    fc.store(urls, **with_threads)


def in_order():
    """Compute the blocks one after the other; Dask begins with the last."""
    return dask.config.set(scheduler="sync")


def broken_off(bucket, fail_at=15):
    with in_order(), pytest.raises(RuntimeError):
        store(bucket, {"y.zarr": fc.forward(lazy(X, fail_at)[1], W)})


def test_all_results_of_one_pass(bucket, library):
    source, x = lazy(X)
    _, dy = lazy(dY)
    grads = fc.backward(x, W, dy)
    store(bucket, {"y.zarr": fc.forward(x, W), "a/dx.zarr": grads.dX, "dw.zarr": grads.dW, "db.zarr": grads.dB})
    np.testing.assert_array_equal(source.reads, 1)
    np.testing.assert_allclose(bucket.read("y.zarr"), X @ W, rtol=1e-5)
    np.testing.assert_allclose(bucket.read("a/dx.zarr"), dY @ W.T, rtol=1e-5)
    np.testing.assert_allclose(bucket.read("dw.zarr"), X.T @ dY, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bucket.read("db.zarr"), dY.sum(axis=0), rtol=1e-4, atol=1e-5)
    assert bucket.keys("y.zarr") == [*(f"y.zarr/c.{number}.0" for number in range(4)), "y.zarr/zarr.json"]
    assert not any(PART in key for key in list(bucket.keys()))
    np.testing.assert_array_equal(
        fc.open_array(bucket.url("y.zarr"), storage_options=bucket.options).compute(), bucket.read("y.zarr")
    )


@pytest.mark.parametrize("sizes", [(10, 10, 10, 10), (20, 10, 10), (7, 30, 3), (33, 7), (0, 40)])
def test_blocks_of_any_sizes(bucket, sizes):
    x = da.from_array(X, chunks=(sizes, (4, 2)))
    store(bucket, {"x.zarr": x})
    np.testing.assert_array_equal(bucket.read("x.zarr"), X)


@pytest.mark.parametrize("values", [X[:0], np.float64(3.0), np.arange(5, dtype=">i4"), X.astype("c16")])
def test_any_shape_and_dtype(bucket, values):
    store(bucket, {"x.zarr": da.from_array(np.asarray(values))})
    np.testing.assert_array_equal(bucket.read("x.zarr"), values)


def test_nothing_opens_before_the_end(bucket, library):
    seen = []

    def look(block):
        with pytest.raises((FileNotFoundError, ValueError)):
            zarr.open_array(bucket.url("y.zarr"), storage_options=bucket.options, mode="r")
        with pytest.raises((FileNotFoundError, ValueError), match=r"y\.zarr"):
            fc.open_array(bucket.url("y.zarr"), storage_options=bucket.options)
        seen.append(len(block))
        return block

    x = da.from_array(X, chunks=(ROWS, -1)).map_blocks(look, dtype=X.dtype, meta=X[:0])
    store(bucket, {"y.zarr": x})
    assert seen == [ROWS] * 4
    np.testing.assert_array_equal(bucket.read("y.zarr"), X)


def test_metadata_are_written_last(bucket, proxy, library):
    store(bucket, {"y.zarr": lazy(X)[1]}, storage_options=options(proxy.port))
    written = [path.partition("/y.zarr")[2] for method, path in proxy.requests if method == "PUT"]
    assert written[0] == f"{PART}/fingerprint.json"
    assert written[-1] == "/zarr.json"
    assert {path for path in written if path.startswith("/c.")} == {f"/c.{number}.0" for number in range(4)}


def test_resume_computes_the_missing_blocks_alone(bucket, library):
    broken_off(bucket)
    assert bucket.keys(f"y.zarr{PART}") == [
        f"y.zarr{PART}/fingerprint.json", f"y.zarr{PART}/finished/20-30_0-3", f"y.zarr{PART}/finished/30-40_0-3",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"y\.zarr: is unfinished: complete it"):
        fc.open_array(bucket.url("y.zarr"), storage_options=bucket.options)
    source, x = lazy(X)
    with pytest.raises(FileExistsError, match=r"is an unfinished result of y\.zarr: pass resume=True"):
        store(bucket, {"y.zarr": fc.forward(x, W)})
    store(bucket, {"y.zarr": fc.forward(x, W)}, resume=True)
    np.testing.assert_array_equal(source.reads, [1] * 20 + [0] * 20)
    np.testing.assert_array_equal(bucket.read("y.zarr"), fc.forward(da.from_array(X, chunks=(ROWS, -1)), W).compute())
    assert [key for key in list(bucket.keys()) if PART in key] == []


def test_resume_refuses_another_array(bucket, library):
    broken_off(bucket)
    with pytest.raises(ValueError, match="is an unfinished result of another array: its inputs or parameters"):
        store(bucket, {"y.zarr": fc.forward(lazy(X + 1)[1], W)}, resume=True)
    with pytest.raises(ValueError, match=r"another array: shape \[40, 3\] before, \[40, 6\] now"):
        store(bucket, {"y.zarr": lazy(X)[1]}, resume=True)
    store(bucket, {"y.zarr": lazy(X)[1]}, overwrite=True)
    np.testing.assert_array_equal(bucket.read("y.zarr"), X)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"[" * 100_000])
def test_damaged_fingerprint_is_refused(bucket, content):
    broken_off(bucket)
    bucket.files.pipe(f"{bucket.name}/y.zarr{PART}/fingerprint.json", content)
    with pytest.raises(ValueError, match=r"is damaged: pass overwrite=True and not resume=True"):
        store(bucket, {"y.zarr": fc.forward(lazy(X)[1], W)}, resume=True)


def test_resume_computes_lost_and_truncated_chunks_again(bucket, library):
    broken_off(bucket, fail_at=5)
    bucket.files.rm(f"{bucket.name}/y.zarr/c.3.0")
    bucket.files.pipe(f"{bucket.name}/y.zarr/c.2.0", b"short")
    source, x = lazy(X)
    store(bucket, {"y.zarr": fc.forward(x, W)}, resume=True)
    np.testing.assert_array_equal(source.reads, [1] * 10 + [0] * 10 + [1] * 20)
    np.testing.assert_allclose(bucket.read("y.zarr"), X @ W, rtol=1e-5)


def test_resume_without_an_unfinished_result_starts(bucket):
    store(bucket, {"y.zarr": lazy(X)[1]}, resume=True)
    np.testing.assert_array_equal(bucket.read("y.zarr"), X)
    with pytest.raises(FileExistsError, match="already exists and is complete, so there is nothing to resume"):
        store(bucket, {"y.zarr": lazy(X)[1]}, resume=True)


def test_existing_array_is_replaced_only_if_asked(bucket, library):
    bucket.write("y.zarr", np.zeros((100, 6), "f4") + 1, (5, 3))
    before = bucket.keys()
    with pytest.raises(FileExistsError, match=f"{bucket.url('y.zarr')}: already exists"):
        store(bucket, {"y.zarr": lazy(X)[1]})
    assert bucket.keys() == before
    store(bucket, {"y.zarr": lazy(X)[1]}, overwrite=True)
    np.testing.assert_array_equal(bucket.read("y.zarr"), X)
    assert bucket.keys() == [*(f"y.zarr/c.{number}.0" for number in range(4)), "y.zarr/zarr.json"]


def test_overwrite_removes_the_metadata_first(bucket, proxy):
    bucket.write("y.zarr", np.ones((100, 6), "f4"), (5, 3))
    deleted = []

    def look(method, path):
        if method == "DELETE" or (method == "POST" and "delete" in path):
            deleted.append(bucket.keys("y.zarr"))

    proxy.fault = look
    store(bucket, {"y.zarr": lazy(X)[1]}, overwrite=True, storage_options=options(proxy.port))
    assert "y.zarr/zarr.json" in deleted[0]
    later = [keys for keys in deleted[1:] if any(key.startswith("y.zarr/c/") for key in keys)]
    assert later
    assert [keys for keys in later if "y.zarr/zarr.json" in keys] == []


def test_overwrite_that_is_broken_off_is_resumed(bucket, library):
    bucket.write("y.zarr", np.ones((100, 6), "f4"), (5, 3))
    _, x = lazy(X, fail_at=15)
    with in_order(), pytest.raises(RuntimeError):
        store(bucket, {"y.zarr": x}, overwrite=True)
    source, x = lazy(X)
    store(bucket, {"y.zarr": x}, resume=True)
    assert source.reads.sum() == 20
    np.testing.assert_array_equal(bucket.read("y.zarr"), X)


def test_array_that_is_read_in_the_pass_is_not_replaced(bucket, library):
    bucket.write("y.zarr", X, (10, 6))
    x = fc.open_array(bucket.url("y.zarr"), storage_options=bucket.options)
    with pytest.raises(ValueError, match="is read to compute what would replace it"):
        store(bucket, {"y.zarr": x + 1}, overwrite=True)
    both = fc.open_array([bucket.url("y.zarr")] * 2, storage_options=bucket.options)
    with pytest.raises(ValueError, match="is read to compute what would replace it"):
        store(bucket, {"y.zarr": both}, overwrite=True)
    np.testing.assert_array_equal(bucket.read("y.zarr"), X)


@pytest.mark.parametrize("key", ["y.zarr/notes.txt", "y.zarr/a/zarr.json", f"y.zarr{PART}/notes.txt"])
def test_foreign_objects_are_not_removed(bucket, key):
    store(bucket, {"y.zarr": lazy(X)[1]})
    bucket.files.pipe(f"{bucket.name}/{key}", b"mine")
    with pytest.raises(FileExistsError, match=f"{key}: is no part of a Zarr array"):
        store(bucket, {"y.zarr": lazy(X)[1]}, overwrite=True)
    assert bucket.files.cat(f"{bucket.name}/{key}") == b"mine"
    np.testing.assert_array_equal(bucket.read("y.zarr"), X)


def test_array_that_appears_during_the_pass_is_not_overwritten(bucket):
    def appear(block):
        if not bucket.files.exists(f"{bucket.name}/y.zarr/zarr.json"):
            bucket.files.pipe(f"{bucket.name}/y.zarr/zarr.json", b"{}")
        return block

    x = da.from_array(X, chunks=(ROWS, -1)).map_blocks(appear, dtype=X.dtype, meta=X[:0])
    with pytest.raises(FileExistsError, match="was created by another process during the pass"):
        store(bucket, {"y.zarr": x})


def test_second_pass_ends_the_first(bucket):
    inner = []

    def begin_another(block):
        if not inner:
            inner.append(store(bucket, {"y.zarr": lazy(X + 1)[1]}, overwrite=True))
        return block

    x = da.from_array(X, chunks=(ROWS, -1)).map_blocks(begin_another, dtype=X.dtype, meta=X[:0])
    with in_order(), pytest.raises(FileNotFoundError, match="was removed while a pass wrote"):
        store(bucket, {"y.zarr": x})
    np.testing.assert_array_equal(bucket.read("y.zarr"), X + 1)


def test_nothing_is_written_where_another_target_is_refused(bucket):
    bucket.write("b.zarr", X, (10, 6))
    with pytest.raises(FileExistsError, match=r"b\.zarr"):
        store(bucket, {"a.zarr": lazy(X)[1], "b.zarr": lazy(X)[1]})
    assert [key for key in list(bucket.keys()) if not key.startswith("b.zarr")] == []


def test_first_target_is_left_as_it_was_where_the_second_is_denied(bucket, proxy):
    proxy.fault = lambda method, path: 403 if method == "PUT" and "/b.zarr" in path else None
    with pytest.raises(PermissionError, match=r"b\.zarr"):
        store(bucket, {"a.zarr": lazy(X)[1], "b.zarr": lazy(X)[1]}, storage_options=options(proxy.port))
    assert bucket.keys() == []


def test_pass_that_was_killed_at_its_very_end_only_tidies_up(bucket, library, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(unfinished_objects.UnfinishedObjects, "remove", lambda self: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            store(bucket, {"y.zarr": lazy(X)[1]})
    np.testing.assert_array_equal(bucket.read("y.zarr"), X)
    with pytest.raises(FileExistsError, match="is an unfinished result"):
        store(bucket, {"y.zarr": lazy(X)[1]})
    source, x = lazy(X)
    store(bucket, {"y.zarr": x}, resume=True)
    assert source.reads.sum() == 0
    assert not any(PART in key for key in list(bucket.keys()))
    with pytest.raises(ValueError, match="is an unfinished result: complete it"):
        fc.open_array(bucket.url(f"y.zarr{PART}/data"), storage_options=bucket.options)


def test_denied_writing_is_an_error_before_anything_is_computed(bucket, proxy, library):
    source, x = lazy(X)
    proxy.fault = lambda method, path: 403 if method == "PUT" else None
    with pytest.raises(PermissionError, match=bucket.url("y.zarr")):
        store(bucket, {"y.zarr": x}, storage_options=options(proxy.port))
    assert source.reads.sum() == 0
    with pytest.raises(PermissionError, match=bucket.url("y.zarr")):
        store(bucket, {"y.zarr": x}, storage_options=options(proxy.port, key="AKIDWRONG"))


@pytest.mark.parametrize("fault", [500, 503, 0.2])
def test_passing_faults_are_tried_again(bucket, proxy, fault):
    seen = {}

    def fail_once(method, path):
        seen[method, path] = seen.get((method, path), 0) + 1
        return fault if seen[method, path] == 1 else None

    proxy.fault = fail_once
    store(bucket, {"y.zarr": lazy(X)[1]}, storage_options=options(proxy.port))
    np.testing.assert_array_equal(bucket.read("y.zarr"), X)


def test_lasting_fault_keeps_the_finished_blocks(bucket, proxy, library):
    proxy.fault = lambda method, path: 403 if method == "PUT" and "/c.0" in path else None
    with in_order(), pytest.raises(PermissionError, match=bucket.url("y.zarr")) as error:
        store(bucket, {"y.zarr": lazy(X)[1]}, storage_options=options(proxy.port))
    assert "The finished blocks are kept: pass resume=True" in error.value.__notes__[0]
    source, x = lazy(X)
    store(bucket, {"y.zarr": x}, resume=True)
    assert source.reads.sum() == 10
    np.testing.assert_array_equal(bucket.read("y.zarr"), X)


KILLED = textwrap.dedent("""
    import sys, time
    import dask, numpy as np
    import fc_arrayapi as fc
    if sys.argv[3] == "s3fs":
        sys.modules["obstore"] = None
    options = {options}
    X = fc.open_array(sys.argv[1], rows=10, storage_options=options)
    Y = fc.forward(X, np.ones((6, 3), "f4"))
    from fc_arrayapi._files import store as module
    write = module.write_block
    def slowly(block, place, **fixed):
        if {slow} and place[0][0] == 10:
            print("here", flush=True)
            time.sleep(60)
        return write(block, place, **fixed)
    slowly.__module__ = write.__module__
    module.write_block = slowly
    with dask.config.set(scheduler="sync"):
        fc.store({{sys.argv[2]: Y}}, storage_options=options, resume=not {slow})
""")


def test_killed_pass_is_resumed_bit_for_bit(bucket, library):
    bucket.write("x.zarr", X, (10, 6))
    urls = [bucket.url("x.zarr"), bucket.url("y.zarr")]

    def command(slow):
        code = KILLED.format(options=bucket.options, slow=slow)
        return [sys.executable, "-c", code, *urls, library]

    with subprocess.Popen(command(True), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises((FileNotFoundError, ValueError)):
        bucket.read("y.zarr")
    assert len([key for key in list(bucket.keys()) if "/finished/" in key]) == 2
    times = {key: bucket.files.info(f"{bucket.name}/{key}")["LastModified"] for key in bucket.keys("y.zarr/")}
    time.sleep(1.1)
    subprocess.run(command(False), check=True)
    whole = fc.forward(fc.open_array(urls[0], rows=10, storage_options=bucket.options), np.ones((6, 3), "f4"))
    assert bucket.read("y.zarr").tobytes() == whole.compute().tobytes()
    bucket.files.invalidate_cache()
    for key in ("y.zarr/c.2.0", "y.zarr/c.3.0"):  # which were not written anew
        assert bucket.files.info(f"{bucket.name}/{key}")["LastModified"] == times[key]


def test_https_is_only_read(bucket):
    with pytest.raises(ValueError, match="over https is only read"):
        fc.store({"https://127.0.0.1/y.zarr": lazy(X)[1]})


def test_credentials_are_in_no_name_fingerprint_or_message(bucket, proxy, library):
    proxy.fault = lambda method, path: 403 if "/c.0" in path else None
    given = options(proxy.port, token=TOKEN)
    with in_order(), pytest.raises(PermissionError) as error:
        store(bucket, {"y.zarr": lazy(X)[1]}, storage_options=given)
    told = ["".join(traceback.format_exception(error.value))]
    told += [bucket.files.cat(f"{bucket.name}/{key}").decode("latin1") for key in list(bucket.keys())]
    told += bucket.keys()
    assert [text for text in told for secret in (KEY, SECRET, TOKEN) if secret in text] == []
    store(bucket, {"y.zarr": lazy(X)[1]}, resume=True)  # with other credentials
