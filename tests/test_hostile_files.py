"""Arrays on disk that lie, are broken or lead elsewhere: each is refused with a message that has its facts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from helpers.assertions import lacks, refused
from helpers.hostile import LONGEST, MEGABYTE, X, memory_below, npy

import fc_arrayapi as fc
from fc_arrayapi._files import default_rows
from fc_arrayapi._files import zarr as zarr_files
from fc_arrayapi._files.formats import open_path

OBJECTS = ("Python objects",)


def data(header):
    return npy(header=header, data=bytes(80))


def shaped(length):
    return b"{'descr': '<f8', 'fortran_order': False, 'shape': (" + length + b",)}"


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (npy([None]), OBJECTS),
        (npy(np.zeros(2, [("a", "O")])), OBJECTS),
        (data({"shape": (10**6, 10**6)}), ("208 bytes", "8000000000128")),
        (data({"shape": (2, 10)})[:-1], ("207 bytes", "288")),
        (data({"shape": (-1, 2)}), ("header", "(-1, 2)")),
        (data({"shape": (2**70, 0)}), ("header", f"({2**70}, 0)")),
        (data({"shape": (True, 3)}), ("header", "(True, 3)")),
        (data({"shape": (10, False)}), ("header", "(10, False)")),
        (data({"shape": (1,) * 65}), ("header", "(1, 1, 1, 1, 1, 1, ...)")),
        (data(shaped(b"1" + b"0" * 4000)), ("header", f"(1{'0' * 17}...{'0' * 19},)")),
        (data({"shape": ()}), ("number", "rows")),
        (npy(header={"descr": "(4,)<f8", "shape": (10,)}, data=bytes(320)), ("elements", "('<f8', (4,))")),
        (npy(header={"descr": ("<f8", (4,)), "shape": (10,)}, data=bytes(320)), ("elements", "('<f8', (4,))")),
        (npy(header={"descr": ("<f8", (1,)), "shape": (10,)}, data=bytes(80)), ("elements", "('<f8', (1,))")),
        (npy(header={"descr": ([("a" * 9000, "<f8")], (4,)), "shape": (10,)}, data=bytes(320)),
         ("elements", "([('")),
        (npy(header={"descr": "|V0", "shape": (10**12,)}), ("elements", "|V0")),
        (npy(header={"descr": [], "shape": (10**12,)}), ("elements", "[]")),
        (npy(header=b"(" * 5000), ("header",)),
        (npy(header=shaped(b"-" * 9000 + b"1")), ("header",)),
        (data({"descr": "f" * 9000, "shape": (1,)}), ("header", "descr is not a valid dtype descriptor:")),
        (npy(header=b"{[]: 1}"), ("header",)),
        (npy(header=b"{'descr': {1: 2}, 'fortran_order': False, 'shape': (1,)}"), ("header",)),
        (npy(header=b" " * 10**6), ("header", "EOF")),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", ("header", "EOF")),
        (b"\x93NUMPY\x09\x09" + npy(header=b"")[8:] + bytes(200),
         ("header", "9.9", "1.0", "2.0")),
        (b"", ("header", "EOF")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_each_hostile_npy_file_has_its_message(tmp_path, content, facts):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with memory_below(5 * MEGABYTE), refused(ValueError, str(path), *facts) as raised:
        open_path(str(path))
    assert len(str(raised.value)) < LONGEST


@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required additional header parsing")
def test_any_byte_of_a_header_may_be_wrong(tmp_path):
    path = tmp_path / "x.npy"
    content = npy(X)
    for place in range(128):
        for change in (0xFF, 0x01):
            path.write_bytes(content[:place] + bytes([content[place] ^ change]) + content[place + 1 :])
            try:
                source = open_path(str(path))
            except ValueError as error:
                assert lacks(str(error), str(path)) == []  # noqa: PT017 - most of them, and not all, are refused
            else:
                source[(slice(0, 1), *[slice(None)] * (source.ndim - 1))]


ARRAY = {
    "zarr_format": 3, "node_type": "array", "shape": [10, 4], "data_type": "float64", "fill_value": 0, "attributes": {},
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 4]}},
    "chunk_key_encoding": {"name": "default"}, "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
}  # fmt: skip
GRID = "chunk_grid"


@pytest.mark.parametrize(
    "metadata",
    [
        "", "{", "[]", "null", '"x"', '{"zarr_format": 9, "node_type": "array"}',
        *(json.dumps({**ARRAY, key: value}) for key, value in (
            ("shape", [-10, 4]), ("shape", "x"), ("shape", [1.5, 4]), ("data_type", "nonsense"), ("codecs", []),
            ("codecs", 5), ("codecs", [{"name": "numcodecs.pickle"}]), ("codecs", [{"name": "x" * 50_000}]),
            ("fill_value", "x"), ("node_type", "group"), ("attributes", 5), ("attributes", []),
            (GRID, {"name": "regular", "configuration": {"chunk_shape": [0, 4]}}),
            (GRID, {"name": "regular", "configuration": {"chunk_shape": [2]}}),
        )),
        json.dumps({key: value for key, value in ARRAY.items() if key != "fill_value"}),
    ],
)  # fmt: skip
def test_metadata_that_are_not_zarrs(tmp_path, metadata):
    path = tmp_path / "x.zarr"
    path.mkdir()
    (path / "zarr.json").write_text(metadata)
    with refused(ValueError, str(path), "Zarr array") as raised:
        open_path(str(path))
    assert len(str(raised.value)) < LONGEST


@pytest.mark.parametrize("where", ["filters", "compressor"])
def test_no_zarr_codec_unpickles(tmp_path, where):
    path = tmp_path / "x.zarr"
    zarr.create_array(path, data=X, zarr_format=2, filters=None, compressors=None)
    metadata = json.loads((path / ".zarray").read_text())
    codec = {"id": "pickle", "protocol": 5}
    metadata[where] = [codec] if where == "filters" else codec
    (path / ".zarray").write_text(json.dumps(metadata))
    with refused(ValueError, str(path), "Zarr array"):
        open_path(str(path))


def test_a_zarr_shape_that_no_machine_holds(tmp_path):
    path = tmp_path / "x.zarr"
    path.mkdir()
    (path / "zarr.json").write_text(json.dumps({**ARRAY, "shape": [2**70, 4]}))
    with refused(ValueError, str(path), f"({2**70}, 4)"):
        open_path(str(path))


def test_both_formats_of_zarr_in_one_folder(tmp_path):
    path = tmp_path / "x.zarr"
    zarr.create_array(path, data=X)
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    np.testing.assert_array_equal(open_path(str(path))[:, :], X)


@pytest.mark.only("dask.array")
@pytest.mark.needs("the_disk")
def test_a_number_of_blocks_that_dask_does_not_hold(backend, tmp_path):
    path = tmp_path / "x.zarr"
    zarr.create_array(path, shape=(10**9, 4), dtype="f8", chunks=(2, 4))
    facts = "1000000000 rows", "2", f"{default_rows.MOST_BLOCKS} blocks"
    with memory_below(50 * MEGABYTE), refused(ValueError, str(path), *facts):
        fc.open_array(path, rows=3)
    npy_path = tmp_path / "x.npy"
    npy_path.write_bytes(npy(header={"shape": (10**15, 0)}))
    with memory_below(50 * MEGABYTE):
        assert fc.open_array(npy_path).chunks == ((10**15,), (0,))


# Chunks that are missing.


@pytest.fixture
def stored(backend, tmp_path):
    """Return the path of a Zarr array of five chunks that store wrote."""
    fc.store({tmp_path / "x.zarr": backend.asarray(X, chunks=(2, 4))})
    return tmp_path / "x.zarr"


def remove(file):
    file.unlink()


def shorten(file):
    os.truncate(file, 8)


@pytest.mark.only("dask.array")
@pytest.mark.needs("the_disk")
@pytest.mark.parametrize(("lose", "left"), [(remove, 0), (shorten, 8)])
def test_a_result_with_a_lost_chunk_is_refused(backend, stored, lose, left):
    opened = fc.open_array(stored, rows=4)
    lose(stored / "c.3.0")
    facts = str(stored), "c.3.0", f"{left} bytes", "64", "overwrite=True"
    with refused(ValueError, *facts):
        opened.compute()
    with refused(ValueError, *facts):
        fc.open_array(stored)
    np.testing.assert_array_equal(opened[:4].compute(), X[:4])
    np.testing.assert_array_equal(opened[2].compute(), X[2])
    fc.store({stored: backend.asarray(X, chunks=(2, 4))}, overwrite=True)
    np.testing.assert_array_equal(fc.open_array(stored).compute(), X)


@pytest.mark.only("dask.array")
@pytest.mark.needs("the_disk")
@pytest.mark.parametrize(("dtype", "fill"), [("f2", np.nan), (">f8", np.nan), ("c16", np.nan), ("i4", 0), ("?", 0)])
def test_a_lost_chunk_is_nan_in_other_readers(backend, tmp_path, dtype, fill):
    path = tmp_path / "x.zarr"
    fc.store({path: backend.asarray(X.astype(dtype), chunks=(2, 4))})
    (path / "c.3.0").unlink()
    read = zarr.open_array(path, mode="r")[...]
    np.testing.assert_array_equal(read[6:8], np.full((2, 4), fill))
    np.testing.assert_array_equal(read[:6], X[:6].astype(dtype))


@pytest.mark.only("dask.array")
@pytest.mark.needs("the_disk")
def test_a_copy_in_another_form_may_leave_chunks_out(backend, stored):
    for name, form in {
        "compressed": {"compressors": "auto", "chunk_key_encoding": {"name": "default", "separator": "."}},
        "other names": {"compressors": None, "chunk_key_encoding": {"name": "default", "separator": "/"}},
        "names of format 2": {"compressors": None, "chunk_key_encoding": {"name": "v2", "separator": "."}},
        "sharded": {
            "compressors": None, "shards": (4, 4), "chunk_key_encoding": {"name": "default", "separator": "."},
        },
        "format 2": {"compressors": None, "zarr_format": 2},
    }.items():  # fmt: skip
        path = stored.with_name(f"{name}.zarr")
        zarr.create_array(path, shape=X.shape, dtype=X.dtype, chunks=(2, 4), attributes=zarr_files.WHOLE, **form)
        np.testing.assert_array_equal(fc.open_array(path).compute(), np.zeros_like(X))


@pytest.mark.only("dask.array")
@pytest.mark.needs("the_disk")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_missing_chunk_of_another_writer_is_the_fill_value(backend, tmp_path, zarr_format):
    array = zarr.create_array(
        tmp_path / "x.zarr", shape=X.shape, dtype=X.dtype, chunks=(2, 4), fill_value=7, zarr_format=zarr_format
    )
    array[:4] = X[:4]
    expected = np.concatenate([X[:4], np.full((6, 4), 7.0)])
    np.testing.assert_array_equal(fc.open_array(tmp_path / "x.zarr", rows=2).compute(), expected)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("X", shape=X.shape, dtype=X.dtype, chunks=(2, 4), fillvalue=7.0)[:4] = X[:4]
    np.testing.assert_array_equal(fc.open_array(f"{tmp_path / 'x.h5'}::X", rows=2).compute(), expected)


# Chunks that are damaged.


def write_damaged(path, *, damage=lambda content: content[: len(content) // 2], **options):
    """Write a Zarr array or HDF5 dataset of five chunks, of which the fourth is damaged, and return what opens it."""
    if path.suffix == ".zarr":
        zarr.create_array(path, data=X, chunks=(2, 4), **options)
        (path / "c/3/0").write_bytes(damage((path / "c/3/0").read_bytes()))
        return open_path(str(path))
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("X", data=X, chunks=(2, 4), **options)
        chunk = dataset.id.get_chunk_info(3)
    with open(path, "r+b") as file:
        file.seek(chunk.byte_offset)
        content = damage(file.read(chunk.size))
        file.seek(chunk.byte_offset)
        file.write(content.ljust(chunk.size, b"\0"))
    return open_path(f"{path}::X")


DAMAGED = {"x.zarr": ("chunk",), "x.h5": ("chunk", "filter", "installed")}


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("x.zarr", {"compressors": zarr.codecs.GzipCodec()}, "Compressed file ended"),
        ("x.zarr", {"compressors": zarr.codecs.ZstdCodec()}, ""),
        ("x.zarr", {"compressors": None}, "cannot reshape array of size 4 into shape (2,4)"),
        (
            "x.zarr",
            {"compressors": None, "damage": lambda content: content[:3]},
            "When changing to a larger dtype,",
        ),
        ("x.h5", {"compression": "gzip"}, "(filter returned failure during read)"),
    ],
)
def test_a_damaged_chunk_is_named(tmp_path, name, options, error):
    source = write_damaged(tmp_path / name, **options)
    where = str(tmp_path / name) + ("::X" if name == "x.h5" else "")
    for index, rows in (((slice(4, 8), slice(None)), "4 to 8"), ((slice(6, None), 1), "6 to 10"), ((7, 1), "7 to 8")):
        with refused(ValueError, where, rows, *DAMAGED[name], error):
            source[index]
    np.testing.assert_array_equal(source[:6, :], X[:6])
    np.testing.assert_array_equal(source[8, :], X[8])


@pytest.mark.parametrize("error", [MemoryError(), PermissionError(13, "no"), OSError(24, "Too many open files")])
@pytest.mark.parametrize("name", ["x.zarr", "x.h5"])
def test_errors_of_the_system_are_not_reported_as_damage(tmp_path, monkeypatch, name, error):
    source = write_damaged(tmp_path / name, damage=lambda content: content)

    def refuse(array, index):
        raise error

    for kind in (zarr.Array, h5py.Dataset):
        monkeypatch.setattr(kind, "__getitem__", refuse)
    with pytest.raises(type(error)) as raised:
        source[:, :]
    assert raised.value is error


@pytest.mark.parametrize("name", ["x.zarr", "x.h5"])
def test_a_deleted_file_is_not_reported_as_damage(tmp_path, name):
    source = write_damaged(tmp_path / name, damage=lambda content: content)
    (tmp_path / name).rename(tmp_path / "elsewhere")
    with refused(FileNotFoundError, str(tmp_path / name)):
        source[:, :]


def test_the_text_of_a_library_about_damage_is_truncated(tmp_path, monkeypatch):
    source = write_damaged(tmp_path / "x.zarr", damage=lambda content: content)
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda array, index: {}["x" * 50_000])
    with refused(ValueError, str(tmp_path / "x.zarr"), "0 to 10", "chunk", f"'{'x' * 199}..."):
        source[:, :]


def test_a_damaged_list_of_hdf5_datasets(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["X"] = X
    path.write_bytes(path.read_bytes().replace(b"TREE", b"tree"))
    with refused(ValueError, str(path), "datasets"):
        open_path(f"{path}::X")


def test_hdf5_elements_that_are_arrays(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("X", (10,), np.dtype(("<f8", (4,))))
    with refused(ValueError, f"{path}::X", "elements", "('<f8', (4,))"):
        open_path(f"{path}::X")


def test_hdf5_strings_of_a_long_name(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("X", (10,), [("a" * 9000, h5py.string_dtype())])
    with refused(ValueError, f"{path}::X", "strings", f"[('{'a' * 197}...") as raised:
        open_path(f"{path}::X")
    assert len(str(raised.value)) < LONGEST


def test_parts_of_long_names(tmp_path):
    for number in range(2):
        np.save(tmp_path / f"part-{number}.npy", np.zeros(4, [(f"{number}" * 9000, "f8")]))
    dtypes = [f"[('{number * 197}..." for number in "01"]
    with refused(ValueError, str(tmp_path / "part-1.npy"), "part-0.npy", "()", *dtypes) as raised:
        open_path(str(tmp_path))
    assert len(str(raised.value)) < 2 * LONGEST


def test_a_zarr_shape_of_too_many_axes(tmp_path):
    path = tmp_path / "x.zarr"
    path.mkdir()
    grid = {"name": "regular", "configuration": {"chunk_shape": [1] * 1000}}
    (path / "zarr.json").write_text(json.dumps({**ARRAY, "shape": [1] * 1000, GRID: grid}))
    with refused(ValueError, str(path), "shape", "(1, 1, 1, 1, 1, 1, ...)") as raised:
        open_path(str(path))
    assert len(str(raised.value)) < LONGEST


@pytest.mark.only("dask.array")
@pytest.mark.needs("the_disk")
def test_opening_costs_what_is_there_and_not_what_is_claimed(backend, tmp_path):
    """A process opens 300 files whose metadata claim anything, within 200 MB and a second for each."""
    script = Path(__file__).parent / "helpers" / "fuzz_metadata.py"
    arguments = [sys.executable, str(script), str(tmp_path), "0", "300"]
    found = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert found.stdout == "", found.stdout
    assert found.returncode == 0, found.stderr


@pytest.mark.only("dask.array")
@pytest.mark.needs("the_disk")
@pytest.mark.parametrize("compressor", ["zstd", "blosc", "lz4", "shards", "two", "no size"])
def test_a_chunk_that_expands_to_more_than_its_size_is_refused(backend, tmp_path, compressor):
    """32 KB would become 1 GB, 200 MB for lz4, which compresses less."""
    from numcodecs import LZ4, Blosc, Zstd

    path, shape = tmp_path / "x.zarr", (4, 4)
    form = {"zarr_format": 2, "compressors": {"blosc": Blosc(), "lz4": LZ4()}.get(compressor, Zstd())}
    if compressor == "shards":
        form = {"shards": (4, 4), "compressors": zarr.codecs.ZstdCodec()}
    elif compressor == "two":
        form = {"compressors": [zarr.codecs.ZstdCodec(), zarr.codecs.ZstdCodec()]}
    zarr.create_array(path, shape=shape, dtype="float64", chunks=(2, 4), **form)
    bomb = form["compressors"].encode(bytes(10**8 if compressor == "lz4" else 10**9)) if "zarr_format" in form else b""
    if compressor == "no size":
        bomb = b"\x28\xb5\x2f\xfd\x00\x58" + 8000 * b"\x02\x00\x10\x00" + b"\x03\x00\x10\x00"  # blocks of 128 KiB
        assert len(Zstd().decode(bomb)) > 10**9
    chunk = path / ("0.0" if "zarr_format" in form else "c/0/0")
    chunk.parent.mkdir(parents=True, exist_ok=True)
    if compressor == "shards":
        bomb = Zstd().encode(bytes(10**9))
        index = np.asarray([0, len(bomb), 2**64 - 1, 2**64 - 1], "<u8").tobytes()
        import google_crc32c

        bomb += index + google_crc32c.value(index).to_bytes(4, "little")
    chunk.write_bytes(bomb)
    with memory_below(60 * MEGABYTE), refused(ValueError, str(path), "damaged" if compressor != "two" else "twice"):
        fc.open_array(path).compute(scheduler="sync")


def zstd_shard(bomb, *, entries=None, checksum=True):
    """Return a shard of two chunks, of which the first is a bomb."""
    import google_crc32c

    index = np.asarray(entries or [0, len(bomb), 2**64 - 1, 2**64 - 1], "<u8").tobytes()
    return bomb + index + (google_crc32c.value(index).to_bytes(4, "little") if checksum else b"")


BYTES_CODEC, CRC = {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}
ZSTD_CODEC = {"name": "zstd", "configuration": {"level": 0, "checksum": False}}
WITHOUT_SIZE = b"\x28\xb5\x2f\xfd\x00\x58" + 15 * b"\x02\x00\x10\x00" + b"\x03\x00\x10\x00"  # of a zstd frame, 2 MiB


def sharded(*codecs, shape=(2, 4), index=(BYTES_CODEC, CRC)):
    return {
        "name": "sharding_indexed",
        "configuration": {"chunk_shape": shape, "codecs": codecs, "index_codecs": index, "index_location": "end"},
    }


def packer(name, **configuration):
    return [BYTES_CODEC, {"name": name, "configuration": configuration}]


def codec_2(**codecs):
    return {"filters": None, "compressor": None, **codecs}


RAW = {"format": 3, "filters": [{"id": 33}]}
IN_SHARD = sharded(BYTES_CODEC, ZSTD_CODEC)
LARGE = 2 * 10**8
# For an array of 4 x 4 numbers the codecs, and how a chunk of 200 MB is made of them, of what numcodecs has.
BOMBS = {
    "a shard in a shard": (
        [sharded(sharded(BYTES_CODEC, ZSTD_CODEC), shape=(4, 4))],
        lambda n: zstd_shard(n.zstd, entries=[0, len(n.zstd) + 36, 0, 0]),
    ),
    "a shard, encoded": ([IN_SHARD, CRC], lambda n: zstd_shard(n.zstd) + bytes(4)),
    "a shard without a checksum": (
        [sharded(BYTES_CODEC, ZSTD_CODEC, index=[BYTES_CODEC])],
        lambda n: zstd_shard(n.zstd, checksum=False),
    ),
    "after a transposition": (
        [{"name": "transpose", "configuration": {"order": [1, 0]}}, IN_SHARD],
        lambda n: zstd_shard(n.zstd),
    ),
    "entries that overlap": ([IN_SHARD], lambda n: zstd_shard(n.zstd, entries=[0, 2**62, 0, len(n.zstd)])),
    "not the first frame": ([BYTES_CODEC, ZSTD_CODEC], lambda n: n.Zstd().encode(bytes(128)) + n.zstd),
    "behind a frame that is skipped": (
        [BYTES_CODEC, ZSTD_CODEC],
        lambda n: b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + n.zstd,
    ),
    "many frames without a size": ([BYTES_CODEC, ZSTD_CODEC], lambda n: 100 * WITHOUT_SIZE),
    "with a checksum": ([BYTES_CODEC, ZSTD_CODEC, CRC], lambda n: n.zstd + bytes(4)),
    "before a shuffle": (
        [BYTES_CODEC, ZSTD_CODEC, *packer("numcodecs.shuffle", elementsize=1)[1:]],
        lambda n: n.zstd,
    ),
    "gzip": (packer("gzip", level=1), lambda n: n.GZip(1).encode(bytes(LARGE))),
    "zlib": (packer("numcodecs.zlib"), lambda n: n.Zlib(1).encode(bytes(LARGE))),
    "bz2": (packer("numcodecs.bz2"), lambda n: n.BZ2().encode(bytes(LARGE))),
    "lzma": (packer("numcodecs.lzma"), lambda n: n.LZMA(preset=0).encode(bytes(LARGE))),
    "several streams": (packer("numcodecs.bz2"), lambda n: 100 * n.BZ2().encode(bytes(LARGE // 100))),
    "a filter of format 2": (codec_2(filters=[{"id": "zstd"}]), lambda n: n.zstd),
    "raw lzma": (codec_2(compressor={"id": "lzma", **RAW}), lambda n: n.LZMA(**RAW).encode(bytes(LARGE))),
}


@pytest.mark.only("dask.array")
@pytest.mark.needs("the_disk")
@pytest.mark.filterwarnings("ignore::UserWarning")  # of codecs that are in no specification
@pytest.mark.parametrize("how", BOMBS)
def test_no_form_of_a_chunk_hides_its_size(backend, tmp_path, monkeypatch, how):
    import numcodecs

    monkeypatch.setattr(numcodecs, "zstd", numcodecs.Zstd().encode(bytes(LARGE)))
    codecs, make = BOMBS[how]
    chunk = make(numcodecs)
    path = tmp_path / "x.zarr"
    path.mkdir()
    if isinstance(codecs, dict):
        (path / ".zarray").write_text(
            json.dumps(
                {"zarr_format": 2, "shape": [4, 4], "chunks": [4, 4], "order": "C", "dtype": "<f8", "fill_value": 0}
                | codecs
            )
        )
        (path / "0.0").write_bytes(chunk)
    else:
        grid = {"name": "regular", "configuration": {"chunk_shape": [4, 4]}}
        (path / "zarr.json").write_text(json.dumps({**ARRAY, "shape": [4, 4], GRID: grid, "codecs": codecs}))
        (path / "c" / "0").mkdir(parents=True)
        (path / "c" / "0" / "0").write_bytes(chunk)
    with memory_below(20 * MEGABYTE), refused(ValueError, str(path)) as raised:
        fc.open_array(path).compute(scheduler="sync")
    assert any(words in str(raised.value) for words in ("may expand to", "write it with"))


@pytest.mark.only("dask.array")
@pytest.mark.needs("the_disk")
@pytest.mark.filterwarnings("ignore::UserWarning")  # of codecs that are in no specification
def test_every_usual_form_of_compression_is_read(backend, tmp_path):
    import numcodecs
    from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec
    from zarr.codecs import numcodecs as in_3

    three = [
        [ZstdCodec(checksum=True)], [GzipCodec()], [BloscCodec(cname="zstd")], [ZstdCodec(), Crc32cCodec()],
        [in_3.LZ4()],
        [in_3.Shuffle(elementsize=8), in_3.Zlib()], [in_3.BZ2()], [in_3.LZMA()], [in_3.GZip(), in_3.Fletcher32()],
    ]  # fmt: skip
    two = [
        numcodecs.Blosc(), numcodecs.Zstd(), numcodecs.Zlib(), numcodecs.GZip(), numcodecs.LZ4(), numcodecs.BZ2(),
        numcodecs.LZMA(), numcodecs.LZMA(**RAW),
    ]  # fmt: skip
    forms = [{"compressors": codecs} for codecs in three]
    forms += [{"compressors": codecs, "shards": (40_000, 4)} for codecs in three]
    forms += [{"compressors": codec, "zarr_format": 2} for codec in two]
    filters = [numcodecs.Delta("f8"), numcodecs.Shuffle(8)]
    forms.append({"compressors": numcodecs.Zlib(), "filters": filters, "zarr_format": 2})
    noise = np.random.default_rng(0).random((40_000, 4)).astype("f2").astype("f8")
    for number, form in enumerate(forms):
        for name, data in (("noise", noise), ("constant", np.full_like(noise, 7))):
            path = tmp_path / f"{number}-{name}.zarr"
            zarr.create_array(path, data=data, chunks=(10_000, 4), **form)
            for rows in (10_000, 40_000):
                np.testing.assert_allclose(fc.open_array(path, rows=rows).compute(), data, rtol=1e-12, atol=1e-12)


@pytest.mark.only("dask.array")
@pytest.mark.needs("the_disk")
def test_a_well_compressed_array_is_read(backend, tmp_path):
    for number, form in enumerate(({}, {"shards": (10**6, 4)}, {"zarr_format": 2})):
        zarr.create_array(tmp_path / f"{number}.zarr", shape=(10**6, 4), chunks=(5 * 10**5, 4), dtype="f8", **form)[
            :
        ] = 7
        np.testing.assert_array_equal(fc.open_array(tmp_path / f"{number}.zarr")[-2:].compute(), 7)


@pytest.mark.only("dask.array")
@pytest.mark.needs("the_disk")
def test_a_header_of_version_3_is_read(backend, tmp_path):
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x03\x00" + npy(header=shaped(b"10"), data=bytes(80))[8:])
    assert fc.open_array(tmp_path / "x.npy").shape == (10,)
    with open(tmp_path / "y.npy", "wb") as file:
        np.lib.format.write_array(file, X, version=(3, 0))
    np.testing.assert_array_equal(fc.open_array(tmp_path / "y.npy").compute(), X)


@pytest.mark.only("dask.array")
@pytest.mark.needs("the_disk")
def test_as_many_blocks_as_dask_can_hold(backend, tmp_path):
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "int8", (default_rows.MOST_BLOCKS + 1, 1))
    assert fc.open_array(tmp_path / "x.npy", rows=2).numblocks == (default_rows.MOST_BLOCKS // 2 + 1, 1)
    with refused(ValueError, str(tmp_path / "x.npy"), str(default_rows.MOST_BLOCKS), "increase rows"):
        fc.open_array(tmp_path / "x.npy", rows=1)


# Links.


def test_parts_that_are_links(tmp_path):
    folder, outside = tmp_path / "parts", tmp_path / "secret.npy"
    folder.mkdir()
    np.save(outside, X)
    np.save(folder / "part-0.npy", X)
    (folder / "part-1.npy").symlink_to("part-0.npy")
    np.testing.assert_array_equal(open_path(str(folder))[0:20, :], np.concatenate([X, X]))
    for target in (outside, Path("../secret.npy"), tmp_path / "missing.npy"):
        link = folder / "part-2.npy"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        with refused(ValueError, str(link), "link", str(tmp_path / target.name)):
            open_path(str(folder))
    link.unlink()
    link.symlink_to("nowhere.npy")
    with refused(FileNotFoundError, str(link)):
        open_path(str(folder))
    (tmp_path / "other").symlink_to(folder)  # the path that is given may be a link
    link.unlink()
    assert open_path(str(tmp_path / "other")).shape == (20, 4)


def test_folders_in_a_zarr_array_that_lie_deep(tmp_path, monkeypatch):
    path = tmp_path / "x.zarr"
    zarr.create_array(path, data=X, chunks=(2, 4))
    monkeypatch.chdir(path)
    for _ in range(100):
        os.mkdir("n")
        os.chdir("n")
    with refused(ValueError, str(path), "deep") as raised:
        open_path(str(path))
    assert len(str(raised.value)) < LONGEST


@pytest.mark.parametrize("what", ["zarr.json", "c/3/0", "c"])
def test_links_in_a_zarr_array(tmp_path, what):
    path, outside = tmp_path / "x.zarr", tmp_path / "outside"
    zarr.create_array(path, data=X, chunks=(2, 4))
    shutil.move(path / what, outside)
    (path / what).symlink_to(outside)
    with refused(ValueError, str(path / what), "link", str(outside)):
        open_path(str(path))


def test_hdf5_datasets_that_lie_in_other_files(tmp_path):
    path, other = tmp_path / "x.h5", tmp_path / "other.h5"
    (tmp_path / "secret").write_bytes(X.tobytes())
    with h5py.File(other, "w") as file:
        file["X"] = X
    with h5py.File(path, "w") as file:
        file["linked"] = h5py.ExternalLink(str(other), "X")
        file.create_dataset("raw", X.shape, X.dtype, external=[(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)])
        for name, source in (("virtual", str(other)), ("own", ".")):
            layout = h5py.VirtualLayout(X.shape, X.dtype)
            layout[...] = h5py.VirtualSource(source, "X", X.shape)
            file.create_virtual_dataset(name, layout)
        file["X"], file["soft"] = X, h5py.SoftLink("/X")
        file["lost"] = h5py.ExternalLink(str(tmp_path / "missing.h5"), "X")
    for name, where in (("linked", other), ("virtual", other), ("raw", tmp_path / "secret")):
        with refused(ValueError, f"{path}::{name}", str(where)):
            open_path(f"{path}::{name}")
    with refused(ValueError, f"{path}: ", "lost", f"{path}::X", f"{path}::own"):
        open_path(f"{path}::lost")
    for name in ("own", "soft"):
        np.testing.assert_array_equal(open_path(f"{path}::{name}")[0:10, :], X)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_and_devices_do_not_block(tmp_path):
    os.mkfifo(tmp_path / "x.npy")
    os.mkfifo(tmp_path / "x.npz")
    (tmp_path / "parts" / "part-0.npy").mkdir(parents=True)
    for path, opened in (("x.npy", "x.npy"), ("parts/part-0.npy", "parts")):
        with refused(ValueError, str(tmp_path / path), "file"):
            open_path(str(tmp_path / opened))
    with refused(ValueError, str(tmp_path / "x.npz"), "file"):
        fc.FullyConnected.load(tmp_path / "x.npz")
