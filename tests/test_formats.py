"""What each format of open_array has of its own: names in a file, groups of rows, dtypes that NumPy lacks."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref

import h5py
import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import safetensors.numpy
from helpers.assertions import refused
from helpers.formats import (
    column,
    lists,
    write_arrow,
    write_hdf5,
    write_npy,
    write_npz,
    write_parquet,
    write_parquet_folder,
    write_safetensors,
    write_shards,
    write_stream,
)

import fc_arrayapi as fc
from fc_arrayapi._files import default_rows, mapped
from fc_arrayapi._files.formats import open_path

pytestmark = [pytest.mark.only("dask.array"), pytest.mark.needs("the_disk")]

NAMED = pytest.mark.parametrize(
    "write", [write_npz, write_safetensors, write_shards, write_parquet, write_parquet_folder, write_arrow, write_hdf5]
)


@pytest.fixture
def x(rng):
    return rng.normal(size=(1000, 8)).astype("float32")


def opens_as(path, expected, **options):
    """Compare what open_array makes of a path with an array, in the same dtype."""
    opened = fc.open_array(path, **options)
    assert opened.dtype == expected.dtype
    np.testing.assert_array_equal(opened.compute(), expected)
    return opened


# Names


@NAMED
@pytest.mark.parametrize("wrong", ["::nothing", ""])
def test_a_missing_name_lists_those_that_are_there(backend, tmp_path, x, write, wrong):
    path = str(write(tmp_path, x))
    place, _, name = path.partition("::")
    what = {write_safetensors: "(1000, 8), F32", write_shards: "(100, 8), F32"}
    what |= dict.fromkeys((write_parquet, write_parquet_folder, write_arrow), "fixed_size_list<")
    with refused(ValueError, f"::{name} (", what.get(write, "(1000, 8), float32")):
        fc.open_array(place + wrong)


def test_names_that_are_too_many_for_a_message(backend, tmp_path):
    safetensors.numpy.save_file({f"layer.{k}": np.ones((2, 2), "f4") for k in range(1000)}, tmp_path / "x.safetensors")
    with refused(ValueError, "layer.0 (", "980 more") as raised:
        fc.open_array(f"{tmp_path}/x.safetensors::weight")
    assert len(str(raised.value)) < 5000


def test_a_npy_file_has_no_names(backend, tmp_path, x):
    with refused(ValueError, "x.npy::X", "one array without a name"):
        fc.open_array(f"{write_npy(tmp_path, x)}::X")


def test_an_array_in_a_zarr_group_has_a_path_and_no_name(backend, tmp_path):
    (tmp_path / "x.zarr").mkdir()
    with refused(ValueError, "x.zarr::X", "x.zarr/X"):
        fc.open_array(f"{tmp_path}/x.zarr::X")


# Folders, patterns and lists


def test_a_folder_and_a_pattern_of_named_arrays(backend, tmp_path, x):
    pattern = write_shards(tmp_path, x)
    opens_as(pattern, x)
    opens_as(f"{tmp_path}/shards::X", x)
    opens_as(f"{tmp_path}/sh?rds/model-*::X", x)
    assert fc.open_array(f"{tmp_path}/shards::X").name == fc.open_array(pattern).name


@pytest.mark.parametrize("path", ["{}", "{}/*.npy"])
def test_files_whose_numbers_sort_otherwise_are_refused(backend, tmp_path, path):
    for name in ("p1", "p2", "p10"):
        np.save(tmp_path / f"{name}.npy", np.ones((2, 3)))
    with refused(ValueError, "p10.npy", "p2.npy", "leading zeros", "list of paths"):
        fc.open_array(path.format(tmp_path))
    assert fc.open_array([tmp_path / f"p{k}.npy" for k in (1, 2, 10)]).shape == (6, 3)


def test_a_pattern_that_matches_other_files_too_is_refused(backend, tmp_path):
    for name in ("x", "x_test"):
        np.save(tmp_path / f"{name}.npy", np.ones((2, 3)))
    with refused(ValueError, "x.npy", "x_test.npy", "more than a number"):
        fc.open_array(f"{tmp_path}/*.npy")


def test_a_pattern_that_matches_nothing(backend, tmp_path):
    with refused(FileNotFoundError, f"{tmp_path}/*.npy"):
        fc.open_array(f"{tmp_path}/*.npy")


def test_a_file_with_the_signs_of_a_pattern_in_its_name(backend, tmp_path, x):
    np.save(tmp_path / "x[1].npy", x)
    opens_as(tmp_path / "x[1].npy", x)


def test_a_folder_of_several_formats_needs_a_pattern(backend, tmp_path, x):
    write_parquet(tmp_path, x)
    write_safetensors(tmp_path, x)
    with refused(ValueError, ".parquet and .safetensors", f"{tmp_path}/*.parquet::X"):
        fc.open_array(f"{tmp_path}::X")
    opens_as(f"{tmp_path}/*.parquet::X", x)
    (tmp_path / "nothing").mkdir()
    with refused(ValueError, f"{tmp_path}/nothing", ".safetensors"):
        fc.open_array(f"{tmp_path}/nothing::X")


def test_parts_of_several_formats_and_dtypes_in_one_dtype(backend, tmp_path, x):
    paths = [write_npy(tmp_path, x.astype("float16")), write_parquet(tmp_path, x), write_safetensors(tmp_path, x)]
    with refused(ValueError, "x.parquet", "float32", "float16"):
        fc.open_array(paths)
    expected = np.concatenate([x.astype("float16").astype("float64"), x.astype("float64"), x.astype("float64")])
    opens_as(paths, expected, dtype="float64")


# Dtypes


def test_bfloat16_is_exact(backend, tmp_path, x):
    bits = np.arange(2**16, dtype="uint16").reshape(-1, 8)  # every number there is, NaN and inf too
    numbers = bits.view(ml_dtypes.bfloat16)
    safetensors.numpy.save_file({"X": numbers}, tmp_path / "x.safetensors")
    np.save(tmp_path / "x.npy", numbers)
    np.savez(tmp_path / "x.npz", X=numbers)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["X"] = numbers.view("V2")
    np.memmap(tmp_path / "x.bin", ml_dtypes.bfloat16, "w+", shape=numbers.shape)[:] = numbers
    memmap = np.memmap(tmp_path / "x.bin", ml_dtypes.bfloat16, "r", shape=numbers.shape)
    wide = numbers.astype("float32")
    opens_as(f"{tmp_path}/x.safetensors::X", wide)
    for path in (
        f"{tmp_path}/x.safetensors::X",
        tmp_path / "x.npy",
        f"{tmp_path}/x.npz::X",
        f"{tmp_path}/x.h5::X",
        memmap,
    ):
        for dtype in ("float32", "float64"):
            with np.errstate(invalid="ignore"):  # of NaN that signals
                expected = wide.astype(dtype)
            opens_as(path, expected, dtype=dtype, rows=100)
    for path in (tmp_path / "x.npy", f"{tmp_path}/x.npz::X", memmap):
        with refused(ValueError, "|V2" if path is not memmap else "bfloat16", "dtype='float32'"):
            fc.open_array(path)


@pytest.mark.parametrize("stored", ["int8", "uint8", "int64", "float16", "float64", "bool", ">f4"])
def test_blocks_are_converted_as_they_are_read(backend, tmp_path, x, stored):
    array = (10 * x).astype(stored)
    opened = opens_as(write_npy(tmp_path, array), array.astype("float32"), dtype="float32", rows=300)
    assert fc.open_array(tmp_path / "x.npy", rows=300).name != opened.name
    opens_as(tmp_path / "x.npy", array)


def test_a_block_is_converted_once_in_a_pass(backend, tmp_path, x, monkeypatch):
    from fc_arrayapi._files.converted import Converted

    read = []
    getitem = Converted.__getitem__
    monkeypatch.setattr(Converted, "__getitem__", lambda self, index: [read.append(index), getitem(self, index)][1])
    X = fc.open_array(write_npy(tmp_path, x.astype("float16")), rows=250, dtype="float32")
    W = np.ones((8, 3), "float32")
    fc.compute(fc.backward(X, W, fc.forward(X, W)))
    assert len(read) == 4


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float8", "object", "U3", "V2", "M8[s]", ml_dtypes.bfloat16, 3, [("a", "f4")]], ids=str
)
def test_a_dtype_that_is_none_of_numbers(backend, tmp_path, x, dtype):
    with refused(TypeError, "dtype is", "'float32'"):
        fc.open_array(write_npy(tmp_path, x), dtype=dtype)


def test_complex_numbers_do_not_lose_a_part(backend, tmp_path, x):
    with refused(TypeError, "x.npy", "complex", "float32"):
        fc.open_array(write_npy(tmp_path, x + 1j), dtype="float32")
    opens_as(tmp_path / "x.npy", (x + 1j).astype("complex64"), dtype="complex64")


def test_default_blocks_count_float16_as_it_is_computed(backend, tmp_path, monkeypatch, x):
    monkeypatch.setattr(default_rows, "BLOCK_BYTES", 250 * 8 * 4)
    for dtype, rows in (("float32", 250), ("float16", 250), ("float64", 125), ("int8", 1000)):
        assert fc.open_array(write_npy(tmp_path, x.astype(dtype))).chunks[0][0] == rows
    assert fc.open_array(tmp_path / "x.npy", dtype="float32").chunks[0][0] == 250


def test_a_dtype_of_safetensors_that_numpy_lacks(backend, tmp_path):
    safetensors.numpy.save_file({"X": np.ones((4, 2), ml_dtypes.float8_e4m3fn)}, tmp_path / "x.safetensors")
    with refused(ValueError, "x.safetensors::X", "F8_E4M3", "F16"):
        fc.open_array(f"{tmp_path}/x.safetensors::X")


# Columns


@pytest.mark.parametrize("rows", [column, lists])
@pytest.mark.parametrize("write", [write_parquet, write_arrow, write_stream])
def test_lists_of_one_length(backend, tmp_path, x, write, rows):
    opens_as(write(tmp_path, x, rows=rows), x, rows=250)


def columns():
    """Yield columns of other shapes, with the arrays that they are."""
    numbers = np.arange(240.0).reshape(10, 2, 4, 3)
    nested = pa.array(numbers.tolist(), pa.list_(pa.list_(pa.list_(pa.float64(), 3))))
    yield "nested lists", nested, numbers
    yield "numbers", pa.array(numbers[:, 0, 0, 0]), numbers[:, 0, 0, 0]
    tensors = np.ascontiguousarray(numbers[:, 0])
    yield "tensors", pa.FixedShapeTensorArray.from_numpy_ndarray(tensors), tensors
    yield "float16", column(numbers[:, 0, 0].astype("float16")), numbers[:, 0, 0].astype("float16")
    yield (
        "int8",
        pa.array((numbers[:, 0, 0] % 100).tolist(), pa.large_list(pa.int8())),
        (numbers[:, 0, 0] % 100).astype("i1"),
    )
    yield "bool", pa.array(numbers[:, 0, 0, 0] > 100), numbers[:, 0, 0, 0] > 100
    yield "a slice", column(np.repeat(numbers[:, 0, 0], 2, axis=0))[10:], np.repeat(numbers[:, 0, 0], 2, axis=0)[10:]


@pytest.mark.parametrize(("array", "expected"), [pytest.param(a, e, id=name) for name, a, e in columns()])
def test_columns_of_all_shapes(backend, tmp_path, array, expected):
    table = pa.table({"X": array})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet", row_group_size=3)
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    for name in ("x.parquet", "x.arrow"):
        opens_as(f"{tmp_path / name}::X", expected)
        opens_as(f"{tmp_path / name}::X", expected, rows=4)


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (lambda rows: rows.__setitem__(734, None), ["row 734", "null"]),
        (lambda rows: rows[734].__setitem__(3, None), ["row 734", "null"]),
        (lambda rows: rows[734].append(0.0), ["row 734", "9 numbers", "8"]),
        (lambda rows: rows.__setitem__(700, []), ["row 700", "0 numbers", "8"]),
    ],
    ids=["a null row", "a null number", "a longer row", "an empty row"],
)
@pytest.mark.parametrize("write", [write_parquet, write_arrow])
def test_a_row_that_is_none_is_refused_in_its_block(backend, tmp_path, x, write, change, facts):
    rows = x.tolist()
    change(rows)
    path = write(tmp_path, x, rows=lambda _: pa.array(rows, pa.list_(pa.float32())))
    opened = fc.open_array(path, rows=100)
    np.testing.assert_array_equal(opened[:700].compute(), x[:700])
    with refused(ValueError, str(path), *facts):
        opened.compute()


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["a", "b"]),
        pa.array([{"a": 1.0}, {"a": 2.0}]),
        pa.array([["a"], ["b"]]),
        pa.array([0, 1], pa.date32()),
    ],
    ids=lambda array: str(array.type)[:6],
)
def test_a_column_of_no_numbers_is_refused(backend, tmp_path, array):
    pyarrow.parquet.write_table(pa.table({"X": array}), tmp_path / "x.parquet")
    with refused(ValueError, "x.parquet::X", "numbers and lists of them"):
        fc.open_array(f"{tmp_path}/x.parquet::X")


def test_blocks_are_whole_row_groups_each_read_once(backend, tmp_path, x, monkeypatch):
    groups = []
    read = pyarrow.parquet.ParquetFile.read_row_groups
    monkeypatch.setattr(
        pyarrow.parquet.ParquetFile,
        "read_row_groups",
        lambda self, numbers, **options: [groups.extend(numbers), read(self, numbers, **options)][1],
    )
    opened = opens_as(write_parquet(tmp_path, x, row_group_size=90), x, rows=200)
    assert opened.chunks[0] == (180,) * 5 + (100,)
    assert sorted(groups) == list(range(12))
    opened = opens_as(write_parquet_folder(tmp_path, x), x, rows=350)  # 300, 0, 300 and 400 rows in groups of 100
    assert opened.chunks[0] == (300, 300, 300, 100)


def test_row_groups_of_any_size(backend, tmp_path, x):
    with pyarrow.parquet.ParquetWriter(tmp_path / "x.parquet", pa.schema({"X": pa.list_(pa.float32(), 8)})) as writer:
        for part in np.split(x, [10, 10, 30, 230, 330, 331, 900]):
            writer.write_table(pa.table({"X": column(part)}))
    with pytest.warns(UserWarning, match="rows=250 cannot be kept"):
        opened = opens_as(f"{tmp_path}/x.parquet::X", x, rows=250)
    assert opened.chunks[0] == (230, 101, 569, 100)


@pytest.mark.parametrize(
    ("write", "options", "advice"),
    [
        (write_parquet, {"row_group_size": 600}, "row_group_size="),
        (write_arrow, {"batch": 600, "compression": "zstd"}, "max_chunksize="),
        (write_stream, {"batch": 100, "compression": "lz4"}, "max_chunksize="),
    ],
)
def test_groups_that_are_larger_than_a_block_are_warned_of(backend, tmp_path, x, monkeypatch, write, options, advice):
    path = write(tmp_path, x, **options)
    rows = 1000 if write is write_stream else 600  # a compressed stream is read as a whole
    fc.open_array(path)  # without a warning
    with pytest.warns(UserWarning, match=f"rows=300 cannot be kept.*{rows:,} rows.*{advice}"):
        fc.open_array(path, rows=300)
    monkeypatch.setattr(default_rows, "BLOCK_BYTES", 300 * 8 * 4)
    with pytest.warns(UserWarning, match=f"{rows:,} rows.*{advice}"):
        opened = opens_as(path, x)
    assert max(opened.chunks[0]) == rows


@pytest.mark.parametrize("write", [write_arrow, write_stream])
def test_record_batches_that_are_larger_than_a_block_are_cut(backend, tmp_path, x, write):
    assert opens_as(write(tmp_path, x, batch=600), x, rows=250).chunks[0] == (200, 200, 200, 200, 200)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("write", [write_arrow, write_stream])
def test_compressed_record_batches(backend, tmp_path, x, write, compression):
    opened = opens_as(write(tmp_path, x, compression=compression), x)
    assert opened.chunks[0] == (1000,)


def test_a_parquet_column_by_a_name_with_dots(backend, tmp_path, x):
    table = pa.table({"a.b": column(x), "a": pa.array([{"b": 1.0}] * 1000)})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    opens_as(f"{tmp_path}/x.parquet::a.b", x)


# Views


def write_npz_aligned(folder, x):
    np.savez(folder / "x.npz", ab=x)  # 30 + 6 bytes of zipfile for each name of two letters, and 20 + 128
    return f"{folder / 'x.npz'}::ab"


@pytest.mark.parametrize("write", [write_npy, write_npz_aligned, write_safetensors, write_arrow, write_stream])
def test_blocks_are_views_of_the_file(backend, tmp_path, x, write):
    source = open_path(str(write(tmp_path, x)))
    assert source.copies((100,) * 10) == 0
    before = pa.total_allocated_bytes()
    block = source[300:400, :]
    np.testing.assert_array_equal(block, x[300:400])
    assert not block.flags.writeable
    assert not block.flags.owndata
    assert pa.total_allocated_bytes() == before


@pytest.mark.parametrize(
    ("write", "copies"),
    [
        (lambda folder, x: write_arrow(folder, x, batch=60), 1),
        (lambda folder, x: write_arrow(folder, x, compression="zstd"), 2),
        (write_parquet, 3),
        (write_npz, 1),
    ],
    ids=["joined", "compressed", "parquet", "npz, not aligned"],
)
def test_blocks_that_are_no_views_count_in_the_plan(backend, tmp_path, x, write, copies):
    assert open_path(str(write(tmp_path, x))).copies((100,) * 10) == copies


@pytest.mark.parametrize("write", [write_npy, write_safetensors])
def test_a_file_is_mapped_once_and_let_go_when_it_is_replaced(backend, tmp_path, x, write):
    def mapping_of(array):
        return array.base.base

    path = str(write(tmp_path, x))
    source = open_path(path)
    first = mapping_of(source[0:100, :])
    assert isinstance(first, np.memmap)
    assert mapping_of(open_path(path)[300:400, :]) is first
    mapping = weakref.ref(first)
    del first
    assert mapping() is not None  # for the next pass
    other = tmp_path / "other"
    other.mkdir()
    os.replace(str(write(other, x + 1)).partition("::")[0], path.partition("::")[0])
    np.testing.assert_array_equal(open_path(path)[0:100, :], x[:100] + 1)
    assert mapping() is None


def test_the_mapping_of_a_file_that_was_removed_goes_with_the_next_one(backend, tmp_path, x):
    mapping = weakref.ref(open_path(str(write_npy(tmp_path, x)))[0:9, :].base.base)
    (tmp_path / "x.npy").unlink()
    assert mapping() is not None
    open_path(str(write_safetensors(tmp_path, x)))[0:9, :]
    assert mapping() is None


def test_the_files_that_are_mapped_are_not_too_many(backend, tmp_path, x, monkeypatch):
    monkeypatch.setattr(mapped, "MOST_MAPPED", 3)
    for number in range(5):
        np.save(tmp_path / f"{number}.npy", x)
        open_path(str(tmp_path / f"{number}.npy"))[0:9, :]
        open_path(str(tmp_path / "0.npy"))[0:9, :]
    assert [path.name for path in mapped._MAPPED] == ["3.npy", "4.npy", "0.npy"]


def test_numbers_that_are_not_aligned_are_copied_once(backend, tmp_path, x):
    """BLAS takes none, and NumPy would copy the block slowly for each product."""
    for dtype in ("float32", "float16", "int8"):
        np.savez(tmp_path / "x.npz", abc=x.astype(dtype))  # an odd offset
        source = open_path(f"{tmp_path}/x.npz::abc")
        block = source[300:400, :]
        assert block.flags.aligned
        assert source.copies((100,) * 10) == (dtype != "int8")
        np.testing.assert_array_equal(block, x[300:400].astype(dtype))


def test_an_archive_that_is_compressed_is_one_block(backend, tmp_path, x):
    np.savez_compressed(tmp_path / "x.npz", X=x)
    assert opens_as(f"{tmp_path}/x.npz::X", x).chunks[0] == (1000,)
    with pytest.warns(UserWarning, match="rows=100 cannot be kept.*numpy.savez"):
        opens_as(f"{tmp_path}/x.npz::X", x, rows=100)


# Resume


WAYS = [write_npy, write_npz, write_safetensors, write_shards, write_parquet, write_parquet_folder, write_arrow]


@pytest.mark.parametrize("write", WAYS)
def test_a_pass_over_any_format_can_be_resumed(backend, tmp_path, x, write):
    """Its name is the same in each run, and no source of it may change without a change of the name."""
    path, W = write(tmp_path, x), np.ones((8, 2), "float32")
    run = f"import fc_arrayapi as fc; print(fc.open_array({str(path)!r}, rows=100, dtype='float64').name)"
    names = {subprocess.check_output([sys.executable, "-c", run], text=True) for _ in range(2)}
    X = fc.open_array(path, rows=100, dtype="float64")
    assert names == {f"{X.name}\n"}
    fc.store({tmp_path / "y.npy": fc.forward(X, W)}, resume=True)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), x.astype("float64") @ W)
