"""Passes of which the memory is planned and measured: each returns what `compute` or `store` take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fc_arrayapi as fc

PASSES: dict[str, tuple[Callable[..., Any], int]] = {}


def planned(threads: int = 2, name: str | None = None, **options: Any) -> Callable[..., Any]:
    """Add a pass with these threads, and with these options, under a name of its own."""

    def added(make: Callable[..., Any]) -> Callable[..., Any]:
        own = name or make.__name__ + "".join(f"-{value}" for value in options.values()) + f"-{threads}"
        PASSES[own] = (lambda folder: make(folder, **options)), threads
        return make

    return added


def npy(folder: Path, name: str, shape: tuple[int, ...], dtype: str = "float32", rows: int = 8192) -> Any:
    """Open a new file of zeros, which takes no space."""
    np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape).flush()
    return fc.open_array(folder / f"{name}.npy", rows=rows)


def zarr_array(folder: Path, name: str, shape: tuple[int, int], chunk: int, rows: int, **options: Any) -> Any:
    """Open a new Zarr array of numbers that hardly shrink."""
    import zarr

    array = zarr.create_array(
        folder / f"{name}.zarr", shape=shape, chunks=(chunk, shape[1]), dtype="float32", **options
    )
    block = np.random.default_rng(0).random((rows, shape[1]), dtype="float32")
    for start in range(0, shape[0], rows):
        array[start : start + rows] = block
    return fc.open_array(folder / f"{name}.zarr", rows=rows)


def ones(*shape: int) -> Any:
    return np.ones(shape, "float32")


@planned(threads=1, C=512, S=64)
@planned(threads=2, C=512, S=64)
@planned(threads=4, C=512, S=64)
@planned(threads=8, C=512, S=16)
@planned(C=1024, S=1)
@planned(C=256, S=1000)
@planned(C=128, S=10, rows=32768)
@planned(C=2048, S=2048, N=2**15, rows=4096)
@planned(C=512, S=64, dtype="float16")
@planned(C=1024, S=1024, dtype="float16")
@planned(threads=1, C=1024, S=1024, dtype="float16")
@planned(threads=4, C=1024, S=1024, dtype="float16")
@planned(C=512, S=64, dtype="float64")
@planned(C=512, S=64, N=2**15, rows=2**15)
@planned(C=512, S=64, N=2**15, rows=2**14)
@planned(C=64, S=16, rows=32)  # 4,096 blocks: what Dask holds of the graph
def training(folder: Path, C: int, S: int, N: int = 2**17, dtype: str = "float32", rows: int = 8192) -> Any:
    """X -> Y - T -> dW, dB."""
    X, T, W = npy(folder, "x", (N, C), dtype, rows), npy(folder, "t", (N, S), rows=rows), ones(C, S)
    return fc.backward(X, W, fc.forward(X, W, ones(S)) - T, needs=("dW", "dB"))


@planned(C=512, S=64)
@planned(threads=4, C=256, S=256)
@planned(C=512, S=64, dtype="float16")
@planned(C=16, S=1024)
def forward_in_memory(folder: Path, C: int, S: int, dtype: str = "float32") -> Any:
    return fc.forward(npy(folder, "x", (2**16, C), dtype), ones(C, S), ones(S))


@planned(C=512, S=64)
@planned(threads=1, C=256, S=1000)
@planned(C=256, S=256, suffix=".zarr")
@planned(C=64, S=16, rows=64)
def forward_to_file(folder: Path, C: int, S: int, suffix: str = ".npy", rows: int = 8192) -> Any:
    return {folder / f"y{suffix}": fc.forward(npy(folder, "x", (2**17, C), rows=rows), ones(C, S))}


@planned()
@planned(threads=4)
def all_gradients_to_files(folder: Path) -> Any:
    X, dY = npy(folder, "x", (2**17, 256)), npy(folder, "dy", (2**17, 256))
    grads = fc.backward(X, ones(256, 256), dY)
    return {folder / f"{name}.npy": array for name, array in grads._asdict().items()}


@planned(classes=1000)
@planned(threads=1, classes=1000)
@planned(threads=4, classes=100, N=2**17)
@planned(classes=10, C=64, N=2**22, dtype="float16", rows=32609)  # cast blocks just below 8 MiB
@planned(classes=1000, N=2**18, rows=4096)  # blocks just below 16 MiB
@planned(classes=1000, N=160_000, rows=16384)  # blocks that are mapped by themselves
@planned(classes=10, C=16, N=2**17, rows=64)
def softmax(folder: Path, classes: int, C: int = 256, N: int = 2**16, dtype: str = "float32", rows: int = 8192) -> Any:
    import dask.array as da

    X, y = npy(folder, "x", (N, C), dtype, rows), npy(folder, "y", (N,), "int64", rows)
    layer = fc.FullyConnected.init(C, classes, dtype="float32")
    Y = layer(X)
    Z = Y - Y.max(axis=1, keepdims=True)
    log_p = Z - da.log(da.exp(Z).sum(axis=1, keepdims=True))
    targets = (y[:, None] == da.arange(classes)[None, :]).astype(Y.dtype)
    loss = -(targets * log_p).sum() / Y.shape[0]
    return loss, layer.backward(X, (da.exp(log_p) - targets) / Y.shape[0], needs=("dW", "dB"))


@planned()
@planned(threads=8)
def norms(folder: Path) -> Any:
    X, dY = npy(folder, "x", (2**17, 512)), npy(folder, "dy", (2**17, 64))
    return fc.per_sample_norms(X, dY)


@planned(T=64, C=128, S=128)
@planned(T=8, C=256, S=256)
def norms_of_sequences(folder: Path, T: int, C: int, S: int) -> Any:
    X, dY = (npy(folder, name, (4096, T, k), rows=512) for name, k in (("x", C), ("dy", S)))
    return fc.per_sample_norms(X, dY)


@planned()
def dots(folder: Path) -> Any:
    X, dY = npy(folder, "x", (2**17, 512)), npy(folder, "dy", (2**17, 16))
    return fc.per_sample_dots(X, dY, ones(10, 512), ones(10, 16))


@planned(C=256)
@planned(C=1024)
@planned(threads=4, C=256)
def moments(folder: Path, C: int) -> Any:
    return tuple(fc.moments(npy(folder, "x", (2**16, C)), npy(folder, "t", (2**16, 16))))


@planned(C=512, S=64)
@planned(C=1024, S=1024, rows=16384)  # cut into runs of rows
@planned(C=1024, S=1024, rows=16384, dtype="float16")
def weighted(folder: Path, C: int, S: int, rows: int = 8192, dtype: str = "float32") -> Any:
    X, dY = (npy(folder, name, (2**17, k), dtype, rows) for name, k in (("x", C), ("dy", S)))
    w = npy(folder, "w", (2**17,), rows=rows)
    return fc.grad_weight(X, dY, sample_weight=w)


@planned()
def other_borders(folder: Path) -> Any:
    X, dY = npy(folder, "x", (2**17, 256)), npy(folder, "dy", (2**17, 256), rows=20000)
    return fc.backward(X, ones(256, 256), dY, needs=("dW", "dB"))


@planned(kind="raw")
@planned(kind="compressed")
@planned(kind="sharded")
@planned(threads=1, kind="raw")
@planned(threads=1, kind="compressed")
def from_zarr(folder: Path, kind: str) -> Any:
    options = {
        "raw": {"compressors": None},
        "compressed": {},
        "sharded": {"shards": (8192, 512)},
    }[kind]
    N = 2**18 if kind == "sharded" else 2**19  # zarr's threads keep more in a long pass
    X = zarr_array(folder, "x", (N, 512), 1024, 8192, **options)
    return fc.grad_weight(X, fc.forward(X, ones(512, 64)))


@planned(C=1024)
def from_random_blocks(folder: Path, C: int) -> Any:
    import dask.array as da

    X = da.random.default_rng(0).random((2**16, C), dtype="float32", chunks=(8192, C))
    return fc.grad_weight(X, fc.forward(X, ones(C, 16)))


@planned()
def einsum_of_three(folder: Path) -> Any:
    X, Y = npy(folder, "x", (2**16, 256)), npy(folder, "y", (2**16, 256))
    return fc.einsum("nc,cd,nd->n", X, ones(256, 256), Y)


@planned()
def einsum_gradients(folder: Path) -> Any:
    X, W, dY = npy(folder, "x", (2**16, 256)), ones(256, 128), npy(folder, "dy", (2**16, 128))
    return fc.einsum_backward("nc,cs->ns", X, W, dY=dY, needs=(1,))


@planned()
@planned(threads=4, rows=8192)
def from_parquet(folder: Path, rows: int | None = None) -> Any:
    """Row groups of several sizes; with `rows` they are cut and joined."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    block = np.random.default_rng(0).random((2**14, 256), dtype="float32")
    column = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), 256)
    with pq.ParquetWriter(folder / "x.parquet", pa.schema({"v": column.type})) as file:
        for group in (5000, 16000, 7000, 12000) * 12:
            file.write_table(pa.table({"v": column[:group]}), row_group_size=group)
    X = fc.open_array(f"{folder}/x.parquet::v", rows=16000)
    T = npy(folder, "t", (X.shape[0], 16))
    X, T = (x.rechunk({0: rows or X.chunks[0]}) for x in (X, T))
    return fc.grad_weight(X, fc.forward(X, ones(256, 16)) - T)
