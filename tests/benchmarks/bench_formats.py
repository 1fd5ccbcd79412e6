"""A pass over each format of open_array against a loop that reads the same file by hand, in the same blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import safetensors.numpy
import zarr
from files import ROWS

import fc_arrayapi as fc

C, S = 1024, 10


@pytest.fixture(scope="module")
def array(quick: bool) -> np.ndarray:
    """1 GiB of random float32 numbers, which do not compress; an eighth of it in a quick run."""
    return np.random.default_rng(0).random((32_768 if quick else 262_144, C), "float32")


def column(array: np.ndarray) -> pa.Table:
    return pa.table({"X": pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), C)})


def save_npy(path: Path, array: np.ndarray) -> None:
    np.save(path, array)


def save_npz(path: Path, array: np.ndarray) -> None:
    np.savez(path, X=array)


def save_safetensors(path: Path, array: np.ndarray) -> None:
    safetensors.numpy.save_file({"X": array}, path)


def save_parquet(path: Path, array: np.ndarray) -> None:
    pyarrow.parquet.write_table(column(array), path, row_group_size=ROWS)


def save_arrow(path: Path, array: np.ndarray) -> None:
    table = column(array)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=ROWS)


def save_zarr(path: Path, array: np.ndarray) -> None:
    zarr.create_array(path, data=array, chunks=(ROWS, C))


def save_hdf5(path: Path, array: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["X"] = array


Blocks = Iterator[np.ndarray]


def rows_of(array: Any, bounds: list[int]) -> Blocks:
    for start, stop in pairwise(bounds):
        yield array[start:stop]


def read_npy(path: Path, bounds: list[int]) -> Blocks:
    return rows_of(np.load(path, mmap_mode="r"), bounds)


def read_npz(path: Path, bounds: list[int]) -> Blocks:
    with np.load(path) as archive:
        return rows_of(archive["X"], bounds)


def read_safetensors(path: Path, bounds: list[int], dtype: Any = "float32") -> Blocks:
    with open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    return rows_of(np.memmap(path, dtype, "r", start, (bounds[-1], C)), bounds)


def read_bfloat16(path: Path, bounds: list[int]) -> Blocks:
    for block in read_safetensors(path, bounds, ml_dtypes.bfloat16):
        yield block.astype("float32")


def read_float16(path: Path, bounds: list[int]) -> Blocks:
    for block in read_npy(path, bounds):
        yield block.astype("float32")


def numbers(column: Any) -> np.ndarray:
    return column.flatten().to_numpy().reshape(-1, C)


def read_parquet(path: Path, bounds: list[int]) -> Blocks:
    with pyarrow.parquet.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield numbers(file.read_row_group(number, ["X"]).column(0).combine_chunks())


def read_arrow(path: Path, bounds: list[int]) -> Blocks:
    with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
        for number in range(reader.num_record_batches):
            yield numbers(reader.get_batch(number).column(0))


def read_zarr(path: Path, bounds: list[int]) -> Blocks:
    return rows_of(zarr.open_array(path, mode="r"), bounds)


def read_hdf5(path: Path, bounds: list[int]) -> Blocks:
    with h5py.File(path, "r") as file:
        yield from rows_of(file["X"], bounds)


@dataclass(frozen=True)
class Format:
    """How an array is written, opened and read by hand."""

    file: str
    save: Callable[[Path, np.ndarray], None]
    rivals_name: str
    read: Callable[[Path, list[int]], Blocks]
    stored: Any = "float32"
    name: str = ""

    def __str__(self) -> str:
        kind = f" {np.dtype(self.stored)}" if self.stored != "float32" else ""
        return Path(self.file).suffix + kind


FORMATS = [
    Format("x.npy", save_npy, "numpy.memmap", read_npy),
    Format("x.npy", save_npy, "numpy.memmap, astype", read_float16, "float16"),
    Format("x.npz", save_npz, "numpy.load", read_npz, name="::X"),
    Format("x.safetensors", save_safetensors, "numpy.memmap", read_safetensors, name="::X"),
    Format("x.safetensors", save_safetensors, "numpy.memmap, astype", read_bfloat16, ml_dtypes.bfloat16, "::X"),
    Format("x.parquet", save_parquet, "pyarrow, read_row_group", read_parquet, name="::X"),
    Format("x.arrow", save_arrow, "pyarrow, get_batch", read_arrow, name="::X"),
    Format("x.zarr", save_zarr, "zarr, its slices", read_zarr),
    Format("x.h5", save_hdf5, "h5py, its slices", read_hdf5, name="::X"),
]


def one_pass(path: str, W: np.ndarray, B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    X = fc.open_array(path, dtype="float32")
    (grads,) = fc.compute(fc.backward(X, W, fc.forward(X, W, B), needs=("dW", "dB")))
    return grads.dW, grads.dB


def by_hand(blocks: Blocks, W: np.ndarray, B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    dW, dB = np.zeros_like(W), np.zeros_like(B)
    for x in blocks:
        dY = x @ W + B
        dW += x.T @ dY
        dB += dY.sum(0)
    return dW, dB


@pytest.mark.parametrize("how", FORMATS, ids=str)
def test_a_pass(against, folder, array, how):
    path = folder / how.file
    how.save(path, array.astype(how.stored, copy=False))
    rng = np.random.default_rng(1)
    W, B = rng.random((C, S), "float32") / C, rng.random(S, "float32")
    bounds = [*range(0, len(array), ROWS), len(array)]

    def ours():
        return one_pass(f"{path}{how.name}", W, B)

    def rival():
        return by_hand(how.read(path, bounds), W, B)

    for one, other in zip(ours(), rival(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)
    against(
        f"Y, dY = Y, dW, dB of {array.nbytes / 1e9:.2f} GB of float32, from {how}",
        ours,
        how.rivals_name,
        rival,
        at_most=1 / 0.9,
        seconds=15.0,
    )
