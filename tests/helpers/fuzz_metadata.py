"""Open files whose metadata claim anything, with little memory and time: `python fuzz_metadata.py FOLDER SEED COUNT`.

Prints what took more than it may, or raised anything but ValueError; nothing if all is well.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import sys
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
import zarr

import fc_arrayapi as fc

MEMORY, SECONDS = 200 * 10**6, 1.0

LENGTHS = [0, 1, 2, 3, 10, 1000, 2**20, 10**9, 2**31, 2**40, 2**62, 2**63, 10**20]
WRONG = [-1, True, 1.5, None, "x", [], {}, "1" * 5000]
V3_DTYPES = [
    "float64",
    "float16",
    "int8",
    "bool",
    "complex64",
    "string",
    "r8",
    "bytes",
    "x" * 1000,
    5,
    None,
    {"name": "f"},
]
V2_DTYPES = [
    "<f8",
    "|b1",
    "|S5",
    "|O",
    "<U1000000",
    "|V0",
    "<M8[ns]",
    [["a", "<f8"]],
    [["a", "<f8", [2] * 40]],
    "x",
    7,
    None,
]
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
PACKERS = [
    {"name": "zstd", "configuration": {"level": 0, "checksum": False}},
    {"name": "gzip", "configuration": {"level": 5}},
    {"name": "blosc", "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "blocksize": 2**30}},
    {"name": "crc32c"},
    {"name": "numcodecs.bz2", "configuration": {"level": 1}},
    {"name": "nonsense"},
]  # fmt: skip
WHOLE = {"fc_arrayapi": "every chunk is written"}


def deep(r, depth):
    """Return lists or dictionaries in each other, as JSON text: json.dumps itself has a limit."""
    return "[" * depth + "]" * depth if r.random() < 0.5 else '{"a":' * depth + "1" + "}" * depth


def lengths(r, rank):
    found = [r.choice(LENGTHS) for _ in range(rank)]
    if found and r.random() < 0.1:
        found[r.randrange(rank)] = r.choice(WRONG)
    return found


def some_rank(r):
    return r.choice([0, 1, 1, 2, 2, 2, 3, 7, 33, 70])


def codecs(r, rank):
    found = [BYTES]
    if r.random() < 0.2:
        found.insert(0, {"name": "transpose", "configuration": {"order": list(range(rank))}})
    for _ in range(r.choice([0, 0, 1, 1, 2, 10, 3000])):
        found.append(r.choice(PACKERS))
    for _ in range(r.choice([0, 0, 0, 1, 2, 30, 200])):
        shard = {"chunk_shape": lengths(r, rank), "codecs": found, "index_codecs": [BYTES, {"name": "crc32c"}]}
        found = [{"name": "sharding_indexed", "configuration": {**shard, "index_location": r.choice(["start", "end"])}}]
    return found


def zarr_3(r, path):
    rank = some_rank(r)
    shape = lengths(r, rank)
    metadata = {
        "zarr_format": 3, "node_type": "array", "shape": shape, "data_type": "float64", "fill_value": 0,
        "attributes": r.choice([{}, WHOLE, WHOLE]), "codecs": [BYTES], "dimension_names": None,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [r.choice([1, 2, 3]) for _ in shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": r.choice([".", ".", "/"])}},
    }  # fmt: skip
    others = {
        "node_type": ["group", 5], "data_type": V3_DTYPES, "fill_value": ["NaN", None, []], "codecs": [codecs(r, rank)],
        "attributes": [{str(number): [] for number in range(20_000)}, []],
        "chunk_grid": [{"name": "regular", "configuration": {"chunk_shape": lengths(r, rank)}}, {"name": "x"}],
        "chunk_key_encoding": [{"name": "v2", "configuration": {"separator": "x"}}, {"name": "y"}],
        "dimension_names": [["x"] * rank, ["x" * 10_000] * rank],
    }  # fmt: skip
    for key in r.sample(sorted(others), r.choice([0, 0, 1, 1, 2, 4])):
        metadata[key] = r.choice(others[key])
    path.mkdir()
    (path / "zarr.json").write_text(finish(r, metadata))


def zarr_2(r, path):
    rank = some_rank(r)
    packer = r.choice([None, {"id": "zlib", "level": 1}, {"id": "blosc", "blocksize": 2**31}, {"id": "pickle"}])
    filters = r.choice([None, None, [{"id": "delta", "dtype": "<f8"}] * r.choice([1, 5000]), [{"id": "vlen-utf8"}]])
    metadata = {
        "zarr_format": 2, "shape": lengths(r, rank), "chunks": lengths(r, rank), "order": r.choice(["C", "F", "x"]),
        "dtype": r.choice(["<f8"] * 9 + V2_DTYPES), "fill_value": r.choice([0, None, "NaN", "x" * 10_000]),
        "compressor": packer, "filters": filters,
    }  # fmt: skip
    path.mkdir()
    (path / ".zarray").write_text(finish(r, metadata))
    if r.random() < 0.3:
        (path / ".zattrs").write_text(r.choice([json.dumps(WHOLE), deep(r, 50_000), "x"]))


def finish(r, metadata):
    """Write metadata, sometimes with a value that is nested deep or with a byte that is wrong."""
    if r.random() < 0.1:
        metadata[r.choice(sorted(metadata))] = "DEEP"
    text = json.dumps(metadata).replace('"DEEP"', deep(r, r.choice([10, 900, 100_000])))
    if r.random() < 0.1:
        place = r.randrange(len(text))
        text = text[:place] + r.choice("{}[],:0x") + text[place + 1 :]
    return text


def npy(r, path):
    header = {
        "descr": r.choice(["<f8", "<f8", "|O", "|V0", "<U9999", [("a", "<f8")]]),
        "fortran_order": r.random() < 0.5,
    }
    text = repr({**header, "shape": tuple(lengths(r, some_rank(r)))}).encode()
    if r.random() < 0.2:
        text = r.choice([b"(" * 9000, b"1" * 9000, b"[" * 60_000, b"{'a':" * 3000])
    length = r.choice([len(text), len(text), 2**31, 2**32 - 1])
    path.write_bytes(
        b"\x93NUMPY" + bytes([r.choice([1, 2, 3, 9]), 0]) + length.to_bytes(4, "little") + text + bytes(800)
    )


def hdf5(r, path):
    with h5py.File(path, "w") as file:
        rank = r.choice([1, 2, 3, 32])
        shape = [r.choice([1, 10, 10**6, 2**40, 2**50]) for _ in range(rank)]
        chunks = tuple(min(length, r.choice([1, 2, 100])) for length in shape)
        try:
            file.create_dataset("x", tuple(shape), "f4", chunks=chunks, compression=r.choice([None, "gzip"]))
        except (ValueError, OSError):  # HDF5 itself refuses it
            file.create_dataset("x", (10, 10), "f4")
        for number in range(r.choice([0, 0, 300])):
            file.create_dataset(f"other{number}", (1,), "f4")
    if r.random() < 0.5:
        content = bytearray(path.read_bytes())
        for _ in range(r.choice([1, 3, 30])):
            content[r.randrange(len(content))] = r.choice([0, 1, 0xFF, r.randrange(256)])
        path.write_bytes(content)


KINDS = {"x.zarr": [zarr_3, zarr_3, zarr_2], "x.npy": [npy], "x.h5": [hdf5]}


def data_in_use():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))


def main(folder: Path, seed: int, count: int) -> None:
    """Open `count` files, one for each seed from `seed` on."""
    warnings.simplefilter("ignore")
    np.save(folder / "warm.npy", np.ones((4, 3)))
    zarr.create_array(folder / "warm.zarr", data=np.ones((4, 3)))
    h5py.File(folder / "warm.h5", "w").create_dataset("x", data=np.ones((4, 3)))
    for name in ("warm.npy", "warm.zarr", "warm.h5::x"):
        fc.open_array(folder / name)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    for case in range(seed, seed + count):
        r = random.Random(case)
        path = folder / r.choice(sorted(KINDS))
        make = r.choice(KINDS[path.name])
        make(r, path)
        resource.setrlimit(resource.RLIMIT_DATA, (data_in_use() + MEMORY, hard))
        start = time.process_time()
        try:
            fc.open_array(f"{path}::x" if path.suffix == ".h5" else path)
        except ValueError as error:
            if len(str(error)) > 1000:
                print(f"{case} {make.__name__}: a message of {len(str(error))} characters")
        except BaseException as error:
            print(f"{case} {make.__name__}: {type(error).__name__} {str(error)[:200]}")
        seconds = time.process_time() - start
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        if seconds > SECONDS:
            print(f"{case} {make.__name__}: {seconds:.1f} s")
        shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
