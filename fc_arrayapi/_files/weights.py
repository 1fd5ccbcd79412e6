"""W and B on disk: written completely or not at all, checked before memory is allocated, never unpickled.

Every bit is kept, also of NaN and infinities: a file is refused for its structure, never for its numbers.
"""

from __future__ import annotations

import collections
import errno
import functools
import io
import json
import math
import operator
import os
import reprlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .._arrays import namespace
from .._arrays.libraries import NumPyArray
from .._arrays.namespace import Array
from .disk import FILE, AnyPath, atomic_write, kind_at, open_file, target_path
from .npy import parsed, read_npy_header
from .source import brief, too_large

WEIGHT_DTYPES = ("float16", "float32", "float64")

# The default limit for W and B together.
MAX_BYTES = 16 * 2**30

# Trained weights compress little. An array of more than MOST_INFLATED bytes and more than INFLATION times its
# compressed size counts as a zip bomb; deflate reaches a factor of about 1030.
MOST_INFLATED, INFLATION = 16 * 2**20, 100

# The directory of an archive of two members and the header of a file of two tensors take a few hundred bytes.
# Longer ones are refused unread: a list of a million entries would take more memory than a layer.
DIRECTORY_BYTES = 2**17

_SAFETENSORS_DTYPES = {"F16": "float16", "F32": "float32", "F64": "float64"}


def save_weights(path: AnyPath, W: Array, B: Array | None) -> None:
    """Write W and B to a ``.npz`` or ``.safetensors`` file that appears under its name only when complete.

    The arrays are written contiguous and in native byte order, without a change of any bit. bfloat16 is refused:
    NumPy does not support it.
    """
    path = target_path(path)
    arrays = {"W": W} if B is None else {"W": W, "B": B}
    for name, array in arrays.items():
        if namespace.dtype_name(array.dtype) not in WEIGHT_DTYPES:
            raise TypeError(
                f"{name} has dtype {namespace.dtype_name(array.dtype)}; files hold {', '.join(WEIGHT_DTYPES)}: "
                f'convert the layer first, for example layer.astype("float32")'
            )
    write = _by_suffix(path, {".npz": _write_npz, ".safetensors": _write_safetensors})
    host = {name: _native(namespace.to_numpy(array)) for name, array in arrays.items()}
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist: create it first")
    if kind_at(path) not in (None, FILE):
        raise FileExistsError(f"{path}: is {kind_at(path)}, and weights are written to {FILE}: move it away")
    with atomic_write(path) as file:
        write(file, host)


def load_weights(path: AnyPath, max_bytes: int = MAX_BYTES) -> tuple[NumPyArray, NumPyArray | None]:
    """Read W and B from a file that `save_weights`, numpy.savez, numpy.savez_compressed or safetensors wrote.

    Names, dtypes and shapes are read first and compared with each other, with the size of the file and with
    `max_bytes`; no more than that is read. Nothing is unpickled.
    """
    try:
        limit = operator.index(max_bytes)
    except TypeError:
        limit = -1
    if limit < 0 or isinstance(max_bytes, bool):
        raise ValueError(f"max_bytes is {max_bytes!r}: pass the limit in bytes, an integer")
    path = Path(os.fsdecode(path))
    read = _by_suffix(path, {".npz": _read_npz, ".safetensors": _read_safetensors})
    with open_file(path):  # refuses a FIFO, which might never end
        pass
    arrays = {name: _native(array) for name, array in read(path, limit).items()}
    return arrays["W"], arrays.get("B")


def _by_suffix(path: Path, choices: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    try:
        return choices[path.suffix]
    except KeyError:
        raise ValueError(f"{path}: weights are stored in {' or '.join(choices)} files") from None


def _check_keys(path: Path, keys: list[str]) -> None:
    for key, count in collections.Counter(keys).items():
        if count > 1:
            raise ValueError(
                f"{path}: has the entry {reprlib.repr(key)} {count} times, and readers differ in which one they use: "
                f"write each once"
            )
    if sorted(keys) not in (["W"], ["B", "W"]):
        raise ValueError(f"{path}: has the entries {reprlib.repr(sorted(keys))}; a layer has W and optionally B")


def _check_arrays(path: Path, arrays: dict[str, tuple[str, tuple[int, ...]]], limit: int) -> None:
    """Check that the dtypes and shapes in the file are those of a layer, and within the limit."""
    needed = 0
    for name, (dtype, shape) in arrays.items():
        if dtype not in WEIGHT_DTYPES:
            raise TypeError(f"{path}: {name} has dtype {dtype}; weights are {', '.join(WEIGHT_DTYPES)}")
        rank, axes = {"W": (2, "(C, S)"), "B": (1, "(S,)")}[name]
        if len(shape) != rank:
            raise ValueError(f"{path}: {name} has shape {reprlib.repr(shape)}; the {name} of a layer is {axes}")
        if too_large(shape, dtype):
            raise ValueError(f"{path}: {name} has shape {shape}, which exceeds the limits of NumPy")
        needed += math.prod(shape) * np.dtype(dtype).itemsize
    W, B = arrays["W"][1], arrays.get("B", arrays["W"])[1]
    if W[-1] != B[-1]:
        raise ValueError(
            f"{path}: axis s (output features): W has {W[-1]}, B has {B[-1]}; W has shape {W}, B must be (S,), has {B}"
        )
    if needed > limit:
        raise ValueError(
            f"{path}: requires {needed} bytes, the limit is {limit}: pass max_bytes={needed} if you trust the file"
        )


def _write_npz(file: BinaryIO, arrays: dict[str, NumPyArray]) -> None:
    import zipfile  # here, since it takes a tenth of the package's import time

    # Not np.savez: in NumPy 2.0 it leaves the archive open after a failed write, which raises a second error later.
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


class _Guarded(io.FileIO):
    """A file that refuses long reads while the directory of an archive is read, which may claim any length."""

    most = DIRECTORY_BYTES

    def read(self, size: int | None = -1, /) -> bytes | Any:
        if size is not None and size > self.most:
            raise ValueError(f"{self.name}: its list of entries takes {size} bytes; W and B need a few hundred")
        return super().read(size)


def _read_npz(path: Path, limit: int) -> dict[str, NumPyArray]:
    import zipfile  # here for the reason in _write_npz
    import zlib

    broken = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError, OverflowError)
    try:
        with _Guarded(os.fspath(path)) as file, zipfile.ZipFile(file) as archive:
            file.most = sys.maxsize
            members = _named_members(path, archive.infolist())
            headers = {}
            for name, member in members.items():
                where = f"{path}: {member.filename}"
                _check_member(where, member, os.fstat(file.fileno()).st_size)
                with archive.open(member) as stream:
                    header = read_npy_header(stream, where, member.file_size, exactly=True)
                headers[name] = (header.dtype.name, header.shape)
            _check_arrays(path, headers, limit)
            return {name: parsed(functools.partial(_read_member, archive, member)) for name, member in members.items()}
    except (*broken, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: an impossible offset in the file
            raise
        raise ValueError(f"{path}: is not a valid .npz file ({brief(error)})") from None


def _read_member(archive: Any, member: Any) -> NumPyArray:
    with archive.open(member) as stream:
        array: NumPyArray = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def _named_members(path: Path, members: list[Any]) -> dict[str, Any]:
    """Return the members of an archive by the names of their arrays."""
    names = [member.orig_filename for member in members]
    for name in names:
        if any(sign in name for sign in "/\\:\0"):
            raise ValueError(f"{path}: has the entry {reprlib.repr(name)}: entries of a layer are not in a folder")
        if not name.endswith(".npy"):
            raise ValueError(f"{path}: has the entry {reprlib.repr(name)}: entries of a layer are .npy files")
    keys = [name.removesuffix(".npy") for name in names]
    _check_keys(path, keys)
    return dict(zip(keys, members, strict=True))


def _check_member(where: str, member: Any, archive_size: int) -> None:
    """Compare the sizes of a member with each other and with the size of the archive."""
    import zipfile

    packed, size = member.compress_size, member.file_size
    if member.flag_bits & 1:
        raise ValueError(f"{where}: is encrypted: write it with numpy.savez")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(
            f"{where}: is compressed by method {member.compress_type}; numpy.savez and numpy.savez_compressed write "
            f"{zipfile.ZIP_STORED} and {zipfile.ZIP_DEFLATED}"
        )
    if member.header_offset + packed > archive_size:
        raise ValueError(f"{where}: takes {packed} bytes of an archive of {archive_size}: the file is truncated")
    if member.compress_type == zipfile.ZIP_STORED and packed != size:
        raise ValueError(f"{where}: is not compressed but has two sizes, {packed} and {size} bytes")
    if size > max(MOST_INFLATED, INFLATION * packed):
        raise ValueError(
            f"{where}: {packed} bytes expand to {size}, more than {INFLATION} times as many, like a zip bomb: "
            f"if the file is "
            f"yours, write it with numpy.savez"
        )


def _write_safetensors(file: BinaryIO, arrays: dict[str, NumPyArray]) -> None:
    file.write(_safetensors().numpy.save(arrays))


def _read_safetensors(path: Path, limit: int) -> dict[str, NumPyArray]:
    safetensors = _safetensors()
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if DIRECTORY_BYTES < length <= os.fstat(file.fileno()).st_size:
            raise ValueError(f"{path}: its header takes {length} bytes; W and B need a few hundred")
        header = file.read(min(length, DIRECTORY_BYTES))
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            # safetensors itself keeps the last of two entries with one name.
            _check_keys(path, [key for key, _ in json.loads(header, object_pairs_hook=list) if key != "__metadata__"])
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
            headers = {
                name: (_SAFETENSORS_DTYPES.get(found.get_dtype(), found.get_dtype()), tuple(found.get_shape()))
                for name, found in slices.items()
            }
            _check_arrays(path, headers, limit)
            return {name: file.get_tensor(name) for name in slices}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: is not a valid .safetensors file ({brief(error)})") from None


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError("a .safetensors file needs the safetensors package: pip install safetensors") from None
    return safetensors


def _native(array: NumPyArray) -> NumPyArray:
    """Return the array contiguous and in native byte order, which every library accepts."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
