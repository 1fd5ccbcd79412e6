"""An array of numbers in each format that open_array reads: functions that write it and return what to open."""

from __future__ import annotations

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import safetensors.numpy
import zarr


def write_npy(folder, array):
    np.save(folder / "x.npy", array)
    return folder / "x.npy"


def write_parts(folder, array):
    (folder / "parts").mkdir(exist_ok=True)
    for number, part in enumerate(np.split(array, [100, 430, 430, 777])):
        np.save(folder / "parts" / f"part-{number}.npy", part)
    return folder / "parts"


def write_zarr(folder, array, **options):
    zarr.create_array(folder / "x.zarr", data=array, overwrite=True, **{"chunks": (100, 8), **options})
    return folder / "x.zarr"


def write_hdf5(folder, array, **options):
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("group/X", data=array, **options)
    return f"{folder / 'x.h5'}::group/X"


def write_npz(folder, array):
    np.savez(folder / "x.npz", other=np.ones(3), X=array)
    return f"{folder / 'x.npz'}::X"


def write_safetensors(folder, array):
    tensors = {"X": np.ascontiguousarray(array), "other": np.ones(3, "float32")}
    safetensors.numpy.save_file(tensors, folder / "x.safetensors")
    return f"{folder / 'x.safetensors'}::X"


def write_shards(folder, array):
    (folder / "shards").mkdir(exist_ok=True)
    for number, part in enumerate(np.split(array, [100, 430, 430, 777])):
        shard = folder / "shards" / f"model-{number:05}-of-00005.safetensors"
        safetensors.numpy.save_file({"X": np.ascontiguousarray(part)}, shard)
    return f"{folder / 'shards'}/*.safetensors::X"


def column(array):
    """Return rows as an Arrow array of lists of one length, which is not zero in Arrow."""
    if not array.shape[1]:
        return lists(array)
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(array).ravel()), array.shape[1])


def lists(array):
    """Return rows as an Arrow array of lists of any lengths."""
    offsets = pa.array(np.arange(len(array) + 1) * array.shape[1], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(array).ravel()))


def write_parquet(folder, array, row_group_size=100, rows=column, **options):
    table = pa.table({"id": pa.array(np.arange(len(array))), "X": rows(array)})
    pyarrow.parquet.write_table(table, folder / "x.parquet", row_group_size=row_group_size, **options)
    return f"{folder / 'x.parquet'}::X"


def write_parquet_folder(folder, array):
    (folder / "table").mkdir(exist_ok=True)
    for number, part in enumerate(np.split(array, [300, 300, 600])):
        table = pa.table({"X": column(part)})
        pyarrow.parquet.write_table(table, folder / "table" / f"{number:03}.parquet", row_group_size=100)
    return f"{folder / 'table'}::X"


def write_arrow(folder, array, new=pa.ipc.new_file, batch=100, rows=column, **options):
    labels = pa.array(["ab"[k % 2] for k in range(len(array))], pa.string()).dictionary_encode()
    table = pa.table({"label": labels, "X": rows(array)})
    options = pa.ipc.IpcWriteOptions(**options)
    with pa.OSFile(str(folder / "x.arrow"), "wb") as file, new(file, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=batch)
    return f"{folder / 'x.arrow'}::X"


def write_stream(folder, array, **options):
    return write_arrow(folder, array, pa.ipc.new_stream, **options)
