"""The demo's batch in one of several formats: written block by block, with its labels beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from local_s3 import BUCKET

# Takes a block of X and its labels.
Write = Callable[[np.ndarray, np.ndarray], None]


@contextmanager
def npy(folder: Path, rows: int, features: int, step: int) -> Iterator[Write]:
    with open(folder / "X.npy", "wb") as X_file, open(folder / "labels.npy", "wb") as labels_file:
        for file, shape, dtype in ((X_file, (rows, features), "<f4"), (labels_file, (rows,), "<i8")):
            np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})

        def write(X: np.ndarray, labels: np.ndarray) -> None:
            X_file.write(X.astype("<f4", copy=False))
            labels_file.write(labels.astype("<i8", copy=False))

        yield write


@contextmanager
def parquet(folder: Path, rows: int, features: int, step: int) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet

    schema = pa.schema({"X": pa.list_(pa.float32(), features), "label": pa.int64()})
    with pyarrow.parquet.ParquetWriter(folder / "batch.parquet", schema) as writer:

        def write(X: np.ndarray, labels: np.ndarray) -> None:
            column = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), features)
            writer.write_table(pa.table({"X": column, "label": labels}, schema))  # one row group

        yield write


@contextmanager
def safetensors(folder: Path, rows: int, features: int, step: int) -> Iterator[Write]:
    from safetensors.numpy import save_file

    parts = folder / "parts"
    parts.mkdir()
    numbers = iter(range(rows))
    yield lambda X, labels: save_file({"X": X, "label": labels}, parts / f"{next(numbers):05d}.safetensors")


@contextmanager
def zarr(folder: Path | str, rows: int, features: int, step: int) -> Iterator[Write]:
    import zarr

    group = zarr.create_group(f"{folder}/batch.zarr")
    X_array = group.create_array("X", shape=(0, features), chunks=(step, features), dtype="float32")
    labels_array = group.create_array("label", shape=(0,), chunks=(step,), dtype="int64")

    def write(X: np.ndarray, labels: np.ndarray) -> None:
        X_array.append(X)
        labels_array.append(labels)

    yield write


def s3(folder: Path, rows: int, features: int, step: int) -> AbstractContextManager[Write]:
    return zarr(f"s3://{BUCKET}", rows, features, step)


@dataclass(frozen=True)
class Format:
    """What a batch is called: its files in the folder, and what `open_array` takes for X and for the labels."""

    files: tuple[str, ...]
    names: tuple[str, str]
    writer: Callable[[Path, int, int, int], AbstractContextManager[Write]]


FORMATS = {
    "npy": Format(("X.npy", "labels.npy"), ("X.npy", "labels.npy"), npy),
    "parquet": Format(("batch.parquet",), ("batch.parquet::X", "batch.parquet::label"), parquet),
    "safetensors": Format(("parts",), ("parts::X", "parts::label"), safetensors),
    "zarr": Format(("batch.zarr",), ("batch.zarr/X", "batch.zarr/label"), zarr),
    "s3": Format((), (f"s3://{BUCKET}/batch.zarr/X", f"s3://{BUCKET}/batch.zarr/label"), s3),
}
