"""Arrays on disk that open lazily."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import time
import tracemalloc

import h5py
import numpy as np
import pytest
import zarr
from helpers.assertions import lacks, nothing_computes, refused
from helpers.formats import (
    write_arrow,
    write_hdf5,
    write_npy,
    write_npz,
    write_parquet,
    write_parquet_folder,
    write_parts,
    write_safetensors,
    write_shards,
    write_stream,
    write_zarr,
)

import fc_arrayapi as fc
from fc_arrayapi._files import default_rows
from fc_arrayapi._files.formats import open_path
from fc_arrayapi._files.mapped import MappedArray
from fc_arrayapi._files.npy import read_npy_header

ROWS = np.arange(6.0).reshape(2, 3)
# What open_array reads, and what to do else.
READ = (
    ".npy", ".npz", ".safetensors", ".parquet", ".arrow", ".h5", "Zarr", "::name", "numpy.memmap", "numpy.save",
    "torch.load",
)  # fmt: skip


@pytest.fixture
def x(rng):
    return rng.normal(size=(1000, 8)).astype("float32")


def set_back(folder):
    """Set the time of each file a second back, so that what is written next has another."""
    for path in folder.rglob("*"):
        time = path.stat().st_mtime_ns - 10**9
        os.utime(path, ns=(time, time))


KINDS = pytest.mark.parametrize(
    "write",
    [
        write_npy, write_parts, write_zarr, write_hdf5, write_npz, write_safetensors, write_shards, write_parquet,
        write_parquet_folder, write_arrow, write_stream,
    ],
)  # fmt: skip


@KINDS
@pytest.mark.only("dask.array")
def test_open_array_is_lazy_and_in_blocks(backend, tmp_path, x, write):
    path = write(tmp_path, x)
    with nothing_computes(backend):
        opened = fc.open_array(path, rows=300)
    assert opened.chunks == ((300, 300, 300, 100), (8,))
    assert opened.dtype == np.float32
    np.testing.assert_array_equal(opened.compute(), x)
    assert fc.open_array(path).chunks == ((1000,), (8,))
    for index in (slice(250, 850), slice(None, None, -7), 5, (slice(90, 440, 3), 2), (slice(0, 5), slice(1, 3))):
        np.testing.assert_array_equal(opened[index].compute(), x[index])


@KINDS
@pytest.mark.only("dask.array")
def test_no_rows_and_no_columns(backend, tmp_path, x, write):
    for array in (x[:0], x[:, :0]):
        assert fc.open_array(write(tmp_path, array)).compute().shape == array.shape


@pytest.mark.only("dask.array")
def test_fortran_order_and_other_byte_orders(backend, tmp_path, x):
    np.testing.assert_array_equal(fc.open_array(write_npy(tmp_path, np.asfortranarray(x)), rows=7).compute(), x)
    opened = fc.open_array(write_parts(tmp_path, x.astype(">f8")), rows=7)
    assert opened.dtype == ">f8"
    np.testing.assert_array_equal(opened.compute(), x)


@pytest.mark.only("dask.array")
@pytest.mark.parametrize(
    ("shape", "dtype", "rows"),
    [
        ((2**17, 1024), "float32", 8192),  # 32 MiB, so that Y with 1,000 outputs is no larger
        ((2**17, 1024), "float16", 8192),
        ((20_000, 4096), "float32", 2500),  # 8 blocks of equal size, where 64 MiB would give 5
        ((20_000, 4096), "float16", 1250),  # half the bytes of float32, since each block is cast
        ((10**6, 128), "float32", 31_250),  # narrow rows
        ((10**6, 10), "float32", 31_250),  # targets, in the same blocks
        ((10**6,), "int64", 31_250),
        ((3000, 256), "float32", 3000),  # a small file
        ((3000, 4096), "float32", 375),  # 47 MiB: work for eight threads
        ((4 * 10**8, 16), "float32", 40_000),  # 10,000 blocks, where 32,768 rows would give more
        ((10**9, 768), "float32", 43_676),  # 3 TB: 128 MiB at most
    ],
)
def test_rows_of_a_block_by_default(backend, tmp_path, shape, dtype, rows):
    assert default_rows.default_rows(MappedArray(tmp_path, (0, 0), "x", shape, np.dtype(dtype), 0)) == rows


@pytest.mark.only("dask.array")
def test_blocks_of_copies_are_whole_chunks_of_up_to_32_mebibytes(backend, tmp_path):
    for chunk, rows in ((1000, 6000), (50_000, 50_000), (7000, 7000)):
        zarr.create_array(tmp_path / "x.zarr", shape=(2**17, 512), dtype="float32", chunks=(chunk, 512), overwrite=True)
        assert fc.open_array(tmp_path / "x.zarr").chunks[0][0] == rows


@pytest.mark.only("dask.array")
@pytest.mark.parametrize(
    ("rows", "zarr_chunk", "expected"),
    [
        (1000, 1, (250,) * 4),  # and not 300, 300, 300, 100
        (1000, 64, (256, 256, 256, 232)),  # whole chunks
        (500, 64, (256, 244)),
        (300, 64, (192, 108)),  # 256 and 44 before: the chunks can't be cut in halves
        (290, 290, (290,)),
        (300, 400, (300,)),  # one chunk
        (1, 1, (1,)),
        (0, 1, (0,)),
    ],
)
def test_blocks_are_of_equal_size_by_default(backend, tmp_path, monkeypatch, rows, zarr_chunk, expected):
    monkeypatch.setattr(default_rows, "BLOCK_BYTES", 300 * 8 * 8 + 5)
    zarr.create_array(tmp_path / "x.zarr", shape=(rows, 8), dtype="float64", chunks=(zarr_chunk, 8))
    assert fc.open_array(tmp_path / "x.zarr").chunks == (expected, (8,))


@pytest.mark.only("dask.array")
@pytest.mark.parametrize(("lengths", "rows"), [((600, 300, 70), 300), ((600, 250, 500), 270), ((100, 100), 200)])
def test_blocks_end_with_the_files_of_a_folder(backend, tmp_path, monkeypatch, lengths, rows):
    """Blocks that are views by default stay so, and only those that are not are of about equal size."""
    monkeypatch.setattr(default_rows, "BLOCK_BYTES", 300 * 8 * 8)
    for number, length in enumerate(lengths):
        np.save(tmp_path / f"{number}.npy", np.ones((length, 8)))
    assert fc.open_array(tmp_path).chunks[0][0] == rows


@pytest.mark.only("dask.array")
def test_two_gigabytes_open_and_take_no_memory(backend, tmp_path):
    array = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "float32", (2**20, 512))  # 2 GiB, sparse
    del array
    fc.open_array(tmp_path / "x.npy")  # the first call imports
    tracemalloc.start()
    try:
        opened = fc.open_array(tmp_path / "x.npy", rows=2**12)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert opened.size == 2**29
    assert peak < 2**20


@KINDS
def test_a_source_is_not_copied_or_hashed_by_dask(write, tmp_path, x):
    source = open_path(str(write(tmp_path, x)))
    assert not hasattr(source, "copy")  # dask #11850
    assert len(pickle.dumps(source)) < 2000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[40:60, 2:], x[40:60, 2:])
    np.testing.assert_array_equal(source[434, 2:], x[434, 2:])


@pytest.mark.only("dask.array")
@pytest.mark.parametrize(
    ("options", "rows", "expected"),
    [
        ({"chunks": (64, 4)}, 300, 256),
        ({"chunks": (64, 4)}, 128, 128),
        ({"chunks": (64, 4), "zarr_format": 2}, 300, 256),
        ({"chunks": (32, 4), "shards": (128, 8)}, 300, 256),
    ],
)
def test_blocks_are_whole_zarr_chunks_each_read_once(backend, tmp_path, x, monkeypatch, options, rows, expected):
    path = write_zarr(tmp_path, x, **options)
    opened = fc.open_array(path, rows=rows)
    assert opened.chunks == backend.xp.ones((1000, 8), chunks=(expected, 8)).chunks
    np.testing.assert_array_equal(opened.compute(), x)


@pytest.mark.only("dask.array")
@pytest.mark.parametrize(
    ("write", "options", "rows", "chunk"),
    [
        (write_zarr, {"chunks": (64, 4)}, 3, 64),
        (write_zarr, {"chunks": (32, 4), "shards": (128, 8)}, 100, 128),
        (write_hdf5, {"chunks": (1000, 1)}, 100, 1000),
    ],
)
def test_rows_that_chunks_do_not_allow_are_warned_of(backend, tmp_path, x, write, options, rows, chunk):
    path = write(tmp_path, x, **options)
    with pytest.warns(UserWarning, match=f"rows={rows} cannot be kept") as warned:
        opened = fc.open_array(path, rows=rows)
    assert lacks(str(warned[0].message), str(path), f"{chunk:,} rows", "anew") == []
    assert warned[0].filename == __file__
    assert max(opened.chunks[0]) == chunk
    fc.open_array(path)  # without a warning


@pytest.mark.only("dask.array")
def test_blocks_are_whole_hdf5_chunks(backend, tmp_path, x):
    path = write_hdf5(tmp_path, x, chunks=(64, 4), compression="gzip")
    opened = fc.open_array(path, rows=300)
    assert opened.chunks == ((256, 256, 256, 232), (8,))
    np.testing.assert_array_equal(opened.compute(), x)


@KINDS
@pytest.mark.only("dask.array")
def test_the_name_changes_with_the_file_and_not_with_the_call(backend, tmp_path, write, x):
    path = write(tmp_path, x)
    set_back(tmp_path)
    name = fc.open_array(path).name
    assert fc.open_array(str(path)).name == name
    write(tmp_path, x + 1)
    assert fc.open_array(path).name != name


@pytest.mark.only("dask.array")
def test_the_name_changes_with_one_chunk_and_with_the_dataset(backend, tmp_path, x):
    path = write_zarr(tmp_path, x)
    set_back(tmp_path)
    name = fc.open_array(path).name
    zarr.open_array(path)[200:300] = 0
    assert fc.open_array(path).name != name
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["X"], file["Y"] = x, x
    assert fc.open_array(f"{tmp_path / 'x.h5'}::X").name != fc.open_array(f"{tmp_path / 'x.h5'}::Y").name


@pytest.mark.only("dask.array")
def test_the_name_changes_with_a_chunk_that_is_older_than_the_others(backend, tmp_path, x):
    (tmp_path / "before").mkdir()
    other = write_zarr(tmp_path / "before", x + 1, compressors=None)
    path = write_zarr(tmp_path, x, compressors=None)
    newest = time.time_ns() + 10**10
    os.utime(path / "zarr.json", ns=(newest, newest))
    name = fc.open_array(path).name
    shutil.copy2(other / "c/2/0", path / "c/2/0")  # with its time and of the same size
    assert fc.open_array(path).name != name


@KINDS
@pytest.mark.only("dask.array")
def test_a_file_that_is_changed_after_it_was_opened_is_refused(backend, tmp_path, write, x):
    path = write(tmp_path, x)
    set_back(tmp_path)
    opened = fc.open_array(path, rows=300)
    write(tmp_path, x + 1 if write in (write_parts, write_shards, write_parquet_folder) else x[:600])
    with refused(ValueError, str(path).partition("::")[0].partition("*")[0], "changed", "open"):
        opened.compute()


@pytest.mark.only("dask.array")
def test_open_array_refuses_other_files(backend, tmp_path):
    with refused(FileNotFoundError, str(tmp_path / "missing.npy")):
        fc.open_array(tmp_path / "missing.npy")
    with refused(FileNotFoundError, str(tmp_path / "missing.zarr")):
        fc.open_array(tmp_path / "missing.zarr")
    with refused(FileNotFoundError, f"{tmp_path / 'missing.h5'}::X"):
        fc.open_array(f"{tmp_path / 'missing.h5'}::X")
    (tmp_path / "x.bin").touch()
    with refused(ValueError, str(tmp_path / "x.bin"), *READ):
        fc.open_array(tmp_path / "x.bin")
    (tmp_path / "x.csv").touch()
    with refused(ValueError, str(tmp_path / "x.csv"), "text", "numpy.save", "numpy.loadtxt"):
        fc.open_array(tmp_path / "x.csv")
    path = tmp_path / "x.npy"
    np.save(path, ROWS)
    with refused(ValueError, "rows is 0", "positive"):
        fc.open_array(path, rows=0)
    for rows in (-1, 2.5, "3", [3], True):
        with refused(ValueError, "rows", repr(rows), "positive"):
            fc.open_array(path, rows=rows)
    path.write_bytes(path.read_bytes()[:-1])
    with refused(ValueError, str(path), "175 bytes", "176"):
        fc.open_array(path)
    path.write_bytes(b"not an array")
    with refused(ValueError, str(path), "header"):
        fc.open_array(path)
    np.save(path, np.asarray([None]))
    with refused(ValueError, str(path), "Python objects"):
        fc.open_array(path)
    np.save(path, np.asarray(1.0))
    with refused(ValueError, str(path), "number", "rows"):
        fc.open_array(path)


@pytest.mark.only("dask.array")
def test_paths_of_bytes(backend, tmp_path):
    path = write_npy(tmp_path, ROWS)
    opened = fc.open_array(os.fsencode(path))
    np.testing.assert_array_equal(opened.compute(), ROWS)
    assert opened.name == fc.open_array(path).name
    with refused(FileNotFoundError, "missing.npy") as raised:
        fc.open_array(b"missing.npy")
    assert "b'" not in str(raised.value)


def test_two_colons_are_part_of_a_name_where_there_is_such_a_file(tmp_path):
    folder = tmp_path / "a::b"
    folder.mkdir()
    write_npy(folder, ROWS)
    with h5py.File(folder / "x.h5", "w") as file:
        file["X"], file["X::Y"] = ROWS, ROWS + 1
    for name, expected in {"x.npy": ROWS, "x.h5::X": ROWS, "x.h5::X::Y": ROWS + 1}.items():
        np.testing.assert_array_equal(open_path(f"{folder}/{name}")[:, :], expected)
    with refused(ValueError, f"{folder}/x.h5: ", "Z::Y", f"{folder}/x.h5::X", f"{folder}/x.h5::X::Y"):
        open_path(f"{folder}/x.h5::Z::Y")


@pytest.mark.parametrize("dtype", ["<U3", "S3", "M8[s]", "m8[s]"])
def test_strings_and_times_are_refused(tmp_path, dtype):
    array = np.zeros((4, 2), "i8").astype(dtype)
    written = [write_npy(tmp_path, array)]
    if dtype == "S3":
        written += [write_hdf5(tmp_path, array), write_zarr(tmp_path, array, chunks=(4, 2), zarr_format=2)]
    for path in written:
        with refused(ValueError, str(path), "strings", "times", str(array.dtype)):
            open_path(str(path))


def test_records_are_read(tmp_path):
    array = np.zeros((4, 2), [("a", "f8"), ("b", "i4")])
    np.testing.assert_array_equal(open_path(str(write_npy(tmp_path, array)))[1:3, :], array[1:3])


@pytest.mark.filterwarnings("ignore::FutureWarning")  # strings are not in the specification of Zarr yet
def test_zarr_groups_and_arrays_that_are_not_numeric_are_refused(tmp_path):
    for zarr_format in (2, 3):
        path = tmp_path / f"group-{zarr_format}.zarr"
        group = zarr.create_group(path, zarr_format=zarr_format)
        group.create_array("x", data=ROWS)
        group.create_array("y", data=ROWS)
        (path / "empty").mkdir()
        with refused(ValueError, f"{path}: ", "group", str(path / "x"), str(path / "y")) as raised:
            open_path(str(path))
        assert "empty" not in str(raised.value)
        np.testing.assert_array_equal(open_path(str(path / "x"))[:, :], ROWS)
        with refused(FileNotFoundError, str(path / "z")):
            open_path(str(path / "z"))
    (tmp_path / "no.zarr").mkdir()
    with refused(ValueError, str(tmp_path / "no.zarr"), "Zarr array"):
        open_path(str(tmp_path / "no.zarr"))
    zarr.create_array(tmp_path / "words.zarr", shape=(3,), dtype=str)
    with refused(ValueError, str(tmp_path / "words.zarr"), "strings", "dtype"):
        open_path(str(tmp_path / "words.zarr"))
    zarr.create_array(tmp_path / "one.zarr", shape=(), dtype="f4")
    with refused(ValueError, str(tmp_path / "one.zarr"), "number", "rows"):
        open_path(str(tmp_path / "one.zarr"))


def test_hdf5_groups_and_datasets_that_are_not_numeric_are_refused(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["X"], file["group/Y"], file["words"], file["one"] = ROWS, ROWS, ["a", "b"], 1.0
        file["empty"] = h5py.Empty("f4")
    listed = [f"{path}::{name}" for name in ("X", "empty", "group/Y", "one", "words")]
    for name, facts in (
        ("", (f"{path}: ", "dataset", *listed)),
        ("::", (f"{path}: ", "dataset", *listed)),
        ("::Z", (f"{path}: ", "dataset", "Z", *listed)),
        ("::group", (f"{path}::group: ", "group of datasets", *listed)),
        ("::words", (f"{path}::words", "strings", "object")),
        ("::one", (f"{path}::one", "number", "rows")),
        ("::empty", (f"{path}::empty", "empty dataset", "shape")),
    ):
        with refused(ValueError, *facts):
            open_path(f"{path}{name}")
    path.write_bytes(b"not HDF5")
    with refused(ValueError, str(path), "HDF5 file"):
        open_path(f"{path}::X")


def test_folders_of_parts_that_do_not_fit_together(tmp_path, x):
    path = write_parts(tmp_path, x)
    np.save(path / "part-2.npy", x[:5, :3])
    part = str(path / "part-2.npy")
    with refused(ValueError, part, "shape (3,)", "float32", "part-0.npy", "(8,)"):
        open_path(str(path))
    np.save(path / "part-2.npy", x[:5].astype("f8"))
    with refused(ValueError, part, "(8,)", "dtype float64", "part-0.npy", "float32"):
        open_path(str(path))
    np.save(path / "part-2.npy", np.asarray(1.0))
    with refused(ValueError, part, "number", "rows"):
        open_path(str(path))
    (path / "part-2.npy").rename(path / "part-2.npy.fc_arrayapi.part")
    with refused(ValueError, f"{part}.fc_arrayapi.part", "unfinished", "resume=True"):
        open_path(str(path))
    shutil.rmtree(path)
    path.mkdir()
    (path / "._part-0.npy").write_bytes(b"what macOS leaves behind")
    with refused(ValueError, str(path), "Zarr array", ".npy files"):
        open_path(str(path))


@pytest.mark.only("dask.array")
@pytest.mark.parametrize(
    ("names", "facts"),
    [
        (["p1", "p2", "p10"], ("p10.npy", "before p2.npy", "leading zeros", "list of paths")),
        (["1_2", "1_10"], ("1_10.npy", "1_2.npy", "leading zeros", "list of paths")),
        (["x", "x_test"], ("x.npy", "x_test.npy", "number", "list of paths")),
        (["a", "b"], ("a.npy", "b.npy", "list of paths")),
        (["train-0", "train-1", "test-0"], ("test-0.npy", "train-0.npy", "list of paths")),
    ],
)
def test_a_folder_whose_order_is_not_plain_is_refused(backend, tmp_path, x, names, facts):
    for name in names:
        np.save(tmp_path / f"{name}.npy", x)
    with refused(ValueError, str(tmp_path), *facts):
        fc.open_array(tmp_path)
    listed = fc.open_array([tmp_path / f"{name}.npy" for name in names])
    assert listed.shape == (len(names) * len(x), 8)


@pytest.mark.only("dask.array")
@pytest.mark.parametrize("names", [["p01", "p02", "p10"], ["0", "1", "2"], ["a-1-2", "a-1-3", "a-2-1"], ["only"]])
def test_a_folder_whose_order_is_plain_is_read_in_it(backend, tmp_path, names):
    for number, name in enumerate(names):
        np.save(tmp_path / f"{name}.npy", np.full((3, 2), number))
    opened = fc.open_array(tmp_path)
    np.testing.assert_array_equal(opened[:, 0].compute(), np.repeat(np.arange(len(names)), 3))


@pytest.mark.parametrize(
    ("dtype", "advice"),
    [
        ("V2", ["bfloat16", "dtype='float32'"]),
        ("V1", [".view(ml_dtypes.float8_e4m3fn)", ".astype('float32')"]),
        ("V7", []),
    ],
)
def test_bytes_without_a_dtype_are_refused(tmp_path, dtype, advice):
    """As NumPy saves bfloat16 and others of ml_dtypes."""
    np.save(tmp_path / "x.npy", np.zeros((4, 3), dtype))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["X"] = np.zeros((4, 3), dtype)
    for path in (tmp_path / "x.npy", f"{tmp_path / 'x.h5'}::X"):
        with refused(ValueError, str(path), f"|{dtype}", "bfloat16", *advice):
            fc.open_array(path)
        if dtype != "V2":
            with refused(ValueError, str(path), f"|{dtype}", "bfloat16", *advice):
                fc.open_array(path, dtype="float32")


@pytest.mark.only("dask.array")
def test_a_list_of_paths_is_read_in_its_order(backend, tmp_path, x):
    paths = [write_npy(tmp_path, x), str(write_zarr(tmp_path, x + 1)), write_hdf5(tmp_path, x + 2)]
    X = fc.open_array(paths, rows=100)
    np.testing.assert_array_equal(X.compute(), np.concatenate([x, x + 1, x + 2]))
    assert X.name == fc.open_array(paths, rows=100).name
    assert X.name != fc.open_array(paths[::-1], rows=100).name
    np.save(tmp_path / "x.npy", x + 3)
    assert X.name != fc.open_array(paths, rows=100).name
    with refused(ValueError, "path", "empty list"):
        fc.open_array([])
    for wrong in ([1], 5, None):
        with refused(TypeError, "path", "list of paths"):
            fc.open_array(wrong)
    with refused(FileNotFoundError, str(tmp_path / "missing.npy")):
        fc.open_array([paths[0], tmp_path / "missing.npy"])
    np.save(tmp_path / "narrow.npy", x[:, :3])
    with refused(ValueError, str(tmp_path / "narrow.npy"), "(3,)", "x.npy", "(8,)"):
        fc.open_array([paths[0], tmp_path / "narrow.npy"])


@pytest.mark.parametrize(("module", "write"), [("zarr", write_zarr), ("h5py", write_hdf5)])
def test_a_missing_library_is_named(tmp_path, monkeypatch, x, module, write):
    path = str(write(tmp_path, x))
    monkeypatch.setitem(sys.modules, module, None)
    with refused(ImportError, {"zarr": ".zarr", "h5py": "HDF5"}[module], f"pip install {module}"):
        open_path(path)


def test_headers_of_three_versions_are_read(tmp_path):
    def header(array, version):
        with open(tmp_path / "x.npy", "wb") as file:
            np.lib.format.write_array(file, array, version=version)
        with open(tmp_path / "x.npy", "rb") as file:
            return read_npy_header(file, "x", 10**6)

    for version in ((1, 0), (2, 0), (3, 0)):
        assert header(ROWS, version)[0] == ROWS.shape
        assert header(np.zeros(2, [("é", "f8")]), version).dtype.names == ("é",)
    assert header(np.zeros(2, [("€", "f8")]), (3, 0)).dtype.names == ("€",)


def test_a_path_that_leads_nowhere_is_answered_with_the_one_that_was_meant(backend, tmp_path):
    np.save(tmp_path / "embeddings.npy", np.zeros(3))
    with refused(FileNotFoundError, "no such file or folder", f"did you mean {tmp_path / 'embeddings.npy'}?"):
        fc.open_array(tmp_path / "embedings.npy")
    with refused(FileNotFoundError, "no such file or folder", os.path.expanduser("~/no.npy")):
        fc.open_array("~/no.npy")
    with pytest.raises(FileNotFoundError, match=r"no such file or folder$"):
        fc.open_array(tmp_path / "none" / "x.npy")
