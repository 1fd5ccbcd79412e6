"""The bytes of files that lie: .npy, .npz and .safetensors with any header, and what the tests of them share."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np

W, B = np.arange(6.0).reshape(2, 3), np.arange(3.0)
X = np.arange(40.0).reshape(10, 4)
MEGABYTE = 10**6
LONGEST = 500  # characters of a message, whatever stands in the file
DTYPES = ("float16", "float32", "float64")  # those of weights, which a message about another lists


def npy(array=None, header=None, data=b"", version=(1, 0)):
    """Return the bytes of a .npy file, or of a header that may lie, followed by other data."""
    file = io.BytesIO()
    if array is not None:
        np.lib.format.write_array(file, np.asarray(array))
    elif isinstance(header, bytes):
        file.write(b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header)
    else:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, **header})
    return file.getvalue() + data


def npz(*members, compression=zipfile.ZIP_STORED, replace=(), **claims):
    """Return a function that writes an archive; `claims` are what its directory says of the first member."""

    def write(path):
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
            warnings.simplefilter("ignore")  # of a name that is there twice
            for name, content in members:
                archive.writestr(name, content)
            for key, value in claims.items():
                setattr(archive.infolist()[0], key, value)
        for old, new in replace:
            path.write_bytes(path.read_bytes().replace(old, new))

    return write


def tensor(shape, start=0, dtype="F64", size=8):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, start + int(np.prod(shape, dtype=object)) * size]}


def safetensors(header, data=b"", length=None):
    """Return a function that writes a header and data."""
    header = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    content = struct.pack("<Q", len(header) if length is None else length) + header + data
    return lambda path: path.write_bytes(content)


def cut(write, by):
    def write_less(path):
        write(path)
        path.write_bytes(path.read_bytes()[:by])

    return write_less


WHOLE_NPZ = npz(("W.npy", npy(W)), ("B.npy", npy(B)))
WHOLE_TENSORS = safetensors({"W": tensor([2, 3]), "B": tensor([3], 48)}, bytes(72))


@contextlib.contextmanager
def memory_below(most):
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most
