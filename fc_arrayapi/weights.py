"""W and B on disk: written whole or not at all, checked before memory is taken, never unpickled."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from . import namespace
from .namespace import Array
from .npy import read_npy_header

_NumPy = np.ndarray[Any, Any]

WEIGHT_DTYPES = ("float16", "float32", "float64")


def save_weights(path: str | os.PathLike[str], W: Array, B: Array | None) -> None:
    """Write W and B to a ``.npz`` or ``.safetensors`` file, under a temporary name that is renamed when whole."""
    path = Path(os.path.realpath(path))  # a link stays one
    arrays = {"W": W} if B is None else {"W": W, "B": B}
    for name, array in arrays.items():
        if namespace.dtype_name(array.dtype) not in WEIGHT_DTYPES:
            raise TypeError(
                f"{name} has dtype {namespace.dtype_name(array.dtype)}; files hold {', '.join(WEIGHT_DTYPES)}: "
                f"convert it first, for example xp.astype({name}, xp.float32)"
            )
    write = _by_suffix(path, {".npz": _write_npz, ".safetensors": _write_safetensors})
    host = {name: _native(namespace.to_numpy(array)) for name, array in arrays.items()}
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}")
    temporary = path.with_name(f".fc_arrayapi-{secrets.token_hex(8)}.part")
    try:
        with open(temporary, "xb") as file:
            write(file, host)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(temporary, path.stat().st_mode & 0o777)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_weights(path: str | os.PathLike[str]) -> tuple[_NumPy, _NumPy | None]:
    """Read W and B from a file that `save_weights` wrote."""
    path = Path(path)
    read = _by_suffix(path, {".npz": _read_npz, ".safetensors": _read_safetensors})
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: is no file")
    arrays = {name: _native(array) for name, array in read(path).items()}
    for name, array in arrays.items():
        if array.dtype.name not in WEIGHT_DTYPES:
            raise TypeError(f"{path}: {name} has dtype {array.dtype}; weights are {', '.join(WEIGHT_DTYPES)}")
    return arrays["W"], arrays.get("B")


def _by_suffix(path: Path, choices: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    try:
        return choices[path.suffix]
    except KeyError:
        raise ValueError(f"{path}: weights are kept in {' or '.join(choices)} files") from None


def _check_keys(path: Path, keys: list[str]) -> None:
    if sorted(keys) not in (["W"], ["B", "W"]):
        raise ValueError(f"{path}: has the entries {sorted(keys)}; a layer's file has W and, for a bias, B")


def _write_npz(file: BinaryIO, arrays: dict[str, _NumPy]) -> None:
    np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for an array


def _read_npz(path: Path) -> dict[str, _NumPy]:
    import zipfile  # here and not above: it is a tenth of the package's import time

    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_keys(path, [member.filename.removesuffix(".npy") for member in members])
            for member in members:
                if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                    raise ValueError(
                        f"{path}: {member.filename} is compressed or encrypted, so its size can't be checked before "
                        f"memory is taken: write it with numpy.savez"
                    )
                with archive.open(member) as file:
                    read_npy_header(file, f"{path}: {member.filename}", member.file_size)
                with archive.open(member) as file:
                    arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: is no whole .npz file ({error})") from None
    return arrays


def _write_safetensors(file: BinaryIO, arrays: dict[str, _NumPy]) -> None:
    file.write(_safetensors().numpy.save(arrays))


def _read_safetensors(path: Path) -> dict[str, _NumPy]:
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            _check_keys(path, names)
            for name in names:
                stored = file.get_slice(name).get_dtype()
                if stored not in ("F16", "F32", "F64"):
                    raise TypeError(f"{path}: {name} has dtype {stored}; weights are {', '.join(WEIGHT_DTYPES)}")
            return {name: file.get_tensor(name) for name in names}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: is no whole .safetensors file ({error})") from None


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError(
            "a .safetensors file needs the safetensors package: pip install 'fc_arrayapi[safetensors]'"
        ) from None
    return safetensors


def _native(array: _NumPy) -> _NumPy:
    """Return the array contiguous and in this machine's byte order, which every library takes."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
