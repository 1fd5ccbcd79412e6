"""Files of named arrays that lie, are broken or never end: a ValueError that names the file, and no memory for it."""

from __future__ import annotations

import json
import os
import random
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import safetensors.numpy
from helpers.assertions import lacks, refused
from helpers.formats import write_arrow, write_npz, write_parquet, write_safetensors, write_shards, write_stream
from helpers.hostile import MEGABYTE, memory_below

import fc_arrayapi as fc
from fc_arrayapi._files import safetensors as safetensors_files
from fc_arrayapi._files.formats import open_path

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.only("dask.array"),
    pytest.mark.needs("the_disk"),
]

X = np.arange(240, dtype="float32").reshape(30, 8)


def write_compressed_npz(folder, array):
    np.savez_compressed(folder / "x.npz", X=array)
    return f"{folder / 'x.npz'}::X"


def compressed(write):
    return lambda folder, array: write(folder, array, compression="zstd")


WRITERS = {
    "npz": write_npz,
    "npz, compressed": write_compressed_npz,
    "safetensors": write_safetensors,
    "parquet": lambda folder, array: write_parquet(folder, array, row_group_size=10),
    "parquet, zstd": lambda folder, array: write_parquet(folder, array, row_group_size=10, compression="zstd"),
    "arrow": lambda folder, array: write_arrow(folder, array, batch=10),
    "arrow, zstd": lambda folder, array: write_arrow(folder, array, batch=10, compression="zstd"),
    "stream": lambda folder, array: write_stream(folder, array, batch=10),
    "stream, zstd": lambda folder, array: write_stream(folder, array, batch=10, compression="zstd"),
}
FORMATS = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def read(path):
    source = open_path(path)
    return source[(slice(0, source.shape[0]), *[slice(None)] * (source.ndim - 1))]


def changed(content, seed):
    """Return a file with some bytes changed, most of them where its metadata are, or cut short."""
    rng = random.Random(seed)
    broken = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 4])):
        ends = rng.randrange(min(400, len(content))), -1 - rng.randrange(min(1500, len(content)))
        place = rng.choice([rng.randrange(len(content)), *ends])
        broken[place] = rng.choice([rng.randrange(256), 0, 255, 127, broken[place] ^ 1])
    return bytes(broken[: rng.randrange(len(broken))] if seed % 10 == 0 else broken)


@FORMATS
@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required additional header parsing")
def test_any_byte_may_be_wrong(tmp_path, write):
    path = str(write(tmp_path, X))
    file = path.partition("::")[0]
    with open(file, "rb") as opened:
        content = opened.read()
    refusals = 0
    for seed in range(150):
        with open(file, "wb") as opened:
            opened.write(changed(content, seed))
        try:
            read(path)
        except ValueError as error:
            refusals += 1
            assert lacks(str(error), file) == []  # noqa: PT017 - most of them, and not all, are refused
            assert len(str(error)) < 2000  # noqa: PT017
    assert refusals > 20


@FORMATS
def test_files_that_are_cut_short(tmp_path, write):
    path = str(write(tmp_path, X))
    file = path.partition("::")[0]
    size = os.path.getsize(file)
    for length in (size - 1, size // 2, 9, 1, 0):
        os.truncate(file, length)
        if length > 9 and write in (WRITERS["stream"], WRITERS["stream, zstd"]):
            continue  # a stream that lacks its last record batch is one
        with refused(ValueError, file):
            read(path)


@pytest.mark.parametrize("write", [write_npz, write_safetensors, write_parquet, write_arrow])
def test_a_pipe_does_not_block(tmp_path, write):
    path = str(write(tmp_path, X))
    file = path.partition("::")[0]
    os.remove(file)
    os.mkfifo(file)
    with refused(ValueError, file, "FIFO"):
        fc.open_array(path)


def test_a_link_out_of_a_folder_of_shards_is_refused(tmp_path):
    folder = write_shards(tmp_path, X).partition("/*")[0]
    first = sorted(os.listdir(folder))[0]
    os.rename(f"{folder}/{first}", tmp_path / "elsewhere.safetensors")
    os.symlink(tmp_path / "elsewhere.safetensors", f"{folder}/{first}")
    with refused(ValueError, f"{folder}/{first}", "link", "elsewhere.safetensors"):
        fc.open_array(f"{folder}::X")


# safetensors


def test_a_header_of_safetensors_that_is_too_long(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"X": X}, path, metadata={"a": "b" * safetensors_files.HEADER_BYTES})
    with memory_below(MEGABYTE), refused(ValueError, str(path), "header", f"{safetensors_files.HEADER_BYTES}"):
        fc.open_array(f"{path}::X")


def test_two_tensors_of_one_name(tmp_path):
    tensor = '{"dtype":"F32","shape":[2],"data_offsets":[%d,%d]}'
    text = f'{{"X":{tensor % (0, 8)},"X":{tensor % (0, 8)}}}'.encode()
    text += b" " * (-len(text) % 8)
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with refused(ValueError, str(path), "'X' 2 times"):
        fc.open_array(f"{path}::X")


@pytest.mark.parametrize(
    "change",
    [
        {"data_offsets": [0, 10**15]}, {"data_offsets": [-8, 952]}, {"shape": [10**9, 10**9]}, {"shape": [-30, 8]},
        {"shape": "x"}, {"dtype": "F99"}, {"dtype": 5}, {"data_offsets": [960, 0]}, {"shape": [31, 8]},
    ],
    ids=str,
)  # fmt: skip
def test_a_header_of_safetensors_that_lies(tmp_path, change):
    header = {"X": {"dtype": "F32", "shape": [30, 8], "data_offsets": [0, 960], **change}}
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + X.tobytes())
    with memory_below(MEGABYTE), refused(ValueError, str(path)):
        fc.open_array(f"{path}::X")


# Arrow


@pytest.mark.parametrize("write", [write_arrow, write_stream])
@pytest.mark.parametrize("rows", [-1, -(2**63), 2**62, 2**40])
def test_a_record_batch_that_claims_other_rows(tmp_path, write, rows):
    """A negative number ended the process inside pyarrow."""
    path = write(tmp_path, np.repeat(X, 47, axis=0), batch=1410)
    file = path.partition("::")[0]
    with open(file, "rb") as opened:
        content = opened.read()
    count = struct.pack("<q", 1410)
    assert content.count(count) > 1
    with open(file, "wb") as opened:
        opened.write(content.replace(count, struct.pack("<q", rows)))
    before = pa.total_allocated_bytes()
    with refused(ValueError, file):
        read(path)
    assert pa.total_allocated_bytes() - before < MEGABYTE


@pytest.mark.parametrize("write", [write_arrow, write_stream])
@pytest.mark.parametrize("size", [2**34, 2**45, -5])
def test_a_compressed_buffer_that_claims_another_size(tmp_path, write, size):
    path = write(tmp_path, X, batch=30, compression="zstd")
    file = path.partition("::")[0]
    with open(file, "rb") as opened:
        content = opened.read()
    assert content.count(struct.pack("<q", X.nbytes)) == 1
    with open(file, "wb") as opened:
        opened.write(content.replace(struct.pack("<q", X.nbytes), struct.pack("<q", size)))
    with refused(ValueError, file):
        read(path)


def test_a_file_of_arrow_in_which_columns_have_one_name(tmp_path):
    table = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["X", "X"])
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    with refused(ValueError, "x.parquet", "two columns X"):
        fc.open_array(f"{tmp_path}/x.parquet::X")


# Archives


def test_a_member_that_is_compressed_by_another_method(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_LZMA) as archive, archive.open("X.npy", "w") as member:
        np.lib.format.write_array(member, X)
    with refused(ValueError, "x.npz::X", "method 14", "numpy.savez_compressed"):
        fc.open_array(f"{tmp_path}/x.npz::X")


def test_a_member_that_is_a_bomb(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", X=np.zeros((2**19, 32), "float32"))
    with memory_below(MEGABYTE), refused(ValueError, "x.npz::X", "67108992", "zip bomb", "numpy.savez"):
        fc.open_array(f"{tmp_path}/x.npz::X")


def test_objects_in_an_archive_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "x.npz", X=np.array([{}, 1], dtype=object), Y=X)
    with refused(ValueError, "x.npz::X", "Python objects"):
        fc.open_array(f"{tmp_path}/x.npz::X")
    with refused(ValueError, "x.npz::Y ((30, 8), float32)"):
        fc.open_array(f"{tmp_path}/x.npz::Z")
