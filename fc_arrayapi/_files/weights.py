"""W and B on disk: written completely or not at all, checked before memory is allocated, never unpickled.

Every bit is kept, also of NaN and infinities: a file is refused for its structure, never for its numbers. bfloat16,
which NumPy lacks, stays what it is in the file on its way: its bits in uint16, the only integers here.
"""

from __future__ import annotations

import math
import operator
import os
import reprlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from .._arrays import namespace
from .._arrays.libraries import NumPyArray
from .._arrays.namespace import Array
from .._arrays.types import MAX_BYTES, AnyPath, LayoutName
from . import weights_npz, weights_safetensors
from .disk import FILE, atomic_write, kind_at, meant, no_folder, open_file, target_path, url_of
from .source import check_names, too_large
from .weights_safetensors import stored_dtype


class Layout(NamedTuple):
    """The names that a library gives W and B in a file, and the axes of its W."""

    W: str
    B: str
    axes: str


OWN = Layout("W", "B", "cs")
LAYOUTS: dict[LayoutName, Layout] = {
    "torch": Layout("weight", "bias", "sc"),
    "keras": Layout("kernel", "bias", "cs"),
    "flax": Layout("kernel", "bias", "cs"),
}
# What joins a prefix and a name: state dicts of torch and transformers' Flax models have ".", the flattened
# parameters of Flax and the paths of Keras have "/".
JOINTS = (".", "/")


class Entries(Protocol):
    """The arrays in an open file: their names, a header of each as (dtype, shape), and their numbers."""

    names: list[str]

    def header(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Return dtype and shape."""

    def read(self, name: str) -> NumPyArray:
        """Read an array that was checked."""


class Format(NamedTuple):
    """A format of files, by its ending."""

    dtypes: tuple[str, ...]
    write: Callable[[BinaryIO, dict[str, NumPyArray]], None]
    opened: Callable[[Path], AbstractContextManager[Entries]]


FORMATS = {
    ".npz": Format(weights_npz.DTYPES, weights_npz.write, weights_npz.opened),
    ".safetensors": Format(weights_safetensors.DTYPES, weights_safetensors.write, weights_safetensors.opened),
}


def save_weights(path: AnyPath, W: Array, B: Array | None, storage_options: Mapping[str, Any] | None = None) -> None:
    """Write W and B to a ``.npz`` or ``.safetensors`` file that appears under its name only when complete.

    The arrays are written contiguous and in native byte order, without a change of any bit. bfloat16 goes to
    ``.safetensors`` alone: NumPy does not support it.
    """
    url = url_of(path)
    target = None if url else target_path(path)
    form, ending = _by_suffix(url or str(target)), os.path.splitext(url or str(target))[1]
    arrays = {"W": W} if B is None else {"W": W, "B": B}
    for name, array in arrays.items():
        dtype = namespace.dtype_name(array.dtype)
        if dtype not in form.dtypes:
            other = "save it as .safetensors, or " if dtype in weights_safetensors.DTYPES else ""
            raise TypeError(
                f"{name} has dtype {dtype}; {ending} files hold {', '.join(form.dtypes)}: {other}"
                f'convert the layer first, for example layer.astype("float32")'
            )
    if target is not None and not target.parent.is_dir():
        raise no_folder(path, target.parent)
    if target is not None and kind_at(target) not in (None, FILE):
        raise FileExistsError(f"{target}: is {kind_at(target)}, and weights are written to {FILE}: move it away")
    if any(map(namespace.is_lazy, arrays.values())):
        from .._dask.compute import compute

        arrays = dict(zip(arrays, compute(*arrays.values()), strict=True))  # in one pass
    host = {name: _native(namespace.to_bits(array)) for name, array in arrays.items()}
    if target is None:
        from .object_files import write_file  # here, since it takes a tenth of the package's import time

        write_file(url, storage_options, lambda file: form.write(file, host))
        return
    with atomic_write(target) as file:
        form.write(file, host)


def load_weights(
    path: AnyPath,
    max_bytes: int = MAX_BYTES,
    prefix: str = "",
    layout: LayoutName | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[NumPyArray, NumPyArray | None]:
    """Read W, (C, S), and B from a file of one layer, or those that `prefix` and `layout` name from a larger one.

    Names, dtypes and shapes are read first and compared with each other, with the size of the file and with
    `max_bytes`; no more than that is read. Nothing is unpickled. bfloat16 comes as its bits, uint16.
    """
    try:
        limit = operator.index(max_bytes)
    except TypeError:
        limit = -1
    if limit < 0 or isinstance(max_bytes, bool):
        raise ValueError(f"max_bytes is {max_bytes!r}: pass the limit in bytes, an integer")
    if not isinstance(prefix, str):
        raise TypeError(f'prefix is {prefix!r}: pass text, for example "head" for head.weight and head.bias')
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"layout is {layout!r}: choose one of {', '.join(map(repr, LAYOUTS))}, or None for W and B")
    if url := url_of(path):
        from .object_files import local_copy  # here for the reason in save_weights

        with local_copy(url, storage_options, limit) as copy:
            return load_weights(copy, limit, prefix, layout)
    path = Path(os.fsdecode(path))
    form = _by_suffix(str(path))
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file{meant(path)}")
    with open_file(path):  # refuses a FIFO, which might never end
        pass
    own = OWN if layout is None else LAYOUTS[layout]
    with form.opened(path) as entries:
        chosen = _chosen(path, entries.names, prefix, own)
        headers = {role: (name, *entries.header(name)) for role, name in chosen.items()}
        _check_arrays(path, headers, own, form.dtypes, limit)
        arrays = {role: _native(entries.read(name)) for role, name in chosen.items()}
    W = arrays["W"]
    return W if own.axes == OWN.axes else W.T, arrays.get("B")


def _by_suffix(path: str) -> Format:
    try:
        return FORMATS[os.path.splitext(path)[1]]
    except KeyError:
        raise ValueError(f"{path}: weights are stored in {' or '.join(FORMATS)} files") from None


def _chosen(path: Path, names: list[str], prefix: str, own: Layout) -> dict[str, str]:
    """Return the names of W and B in the file."""
    check_names(path, names)
    weight, bias, _ = own
    if own is OWN and not prefix and set(names) not in ({weight}, {weight, bias}):
        raise ValueError(
            f"{path}: has the entries {_listed(names, prefix)}; a layer has W and optionally B: "
            f"{_call(names, prefix) or 'pass prefix= and layout= for other names, or save W and B alone'}"
        )
    starts = [prefix + joint for joint in JOINTS] if prefix else [""]
    found = [start for start in starts if start + weight in names]
    if not found:
        raise ValueError(
            f"{path}: has no entry {' or '.join(reprlib.repr(start + weight) for start in starts)}; it has "
            f"{_listed(names, prefix)}: {_call(names, prefix) or 'pass prefix= and layout= as they are named there'}"
        )
    if len(found) > 1:
        raise ValueError(
            f"{path}: has the entries {' and '.join(reprlib.repr(start + weight) for start in found)}, which prefix= "
            f"does not tell apart: rename one"
        )
    chosen = {"W": found[0] + weight, "B": found[0] + bias}
    return {role: name for role, name in chosen.items() if name in names}


def _listed(names: list[str], prefix: str) -> str:
    """Write the names that may have been meant, those with the prefix and those of weights first, cut to six."""
    shorten = reprlib.Repr()
    shorten.maxstring = 40
    ends = tuple(layout.W for layout in LAYOUTS.values())
    ordered = sorted(names, key=lambda name: (not name.startswith(prefix), not name.endswith(ends), name))
    more = f" and {len(names) - shorten.maxlist} more" if len(names) > shorten.maxlist else ""
    return f"{shorten.repr(ordered[: shorten.maxlist])}{more}"


def _call(names: list[str], prefix: str) -> str:
    """Write the arguments that read a weight of the file; ``""`` where none has the name of one."""
    for name in sorted(names, key=lambda name: (not name.startswith(prefix), name)):
        for layout, its in (*LAYOUTS.items(), (None, OWN)):
            start = name.removesuffix(its.W)
            if start != name and (start or layout) and start[-1:] in ("", *JOINTS) and len(name) <= 80:
                arguments = {"prefix": start[:-1], "layout": layout}
                given = ", ".join(f"{argument}={value!r}" for argument, value in arguments.items() if value)
                return f"pass for example {given}"
    return ""


def _check_arrays(
    path: Path,
    headers: dict[str, tuple[str, str, tuple[int, ...]]],
    own: Layout,
    dtypes: tuple[str, ...],
    limit: int,
) -> None:
    """Check that the dtypes and shapes in the file are those of a layer, and within the limit."""
    needed = 0
    weight_axes = f"({', '.join(own.axes.upper())})"
    for role, (name, dtype, shape) in headers.items():
        if dtype not in dtypes:
            hint = ", as NumPy saves bfloat16: save it as .safetensors" if dtype == "void16" else ""
            raise TypeError(f"{path}: {name} has dtype {dtype}{hint}; weights are {', '.join(dtypes)}")
        rank, axes = {"W": (2, weight_axes), "B": (1, "(S,)")}[role]
        if len(shape) != rank:
            raise ValueError(
                f"{path}: {name} has shape {reprlib.repr(shape)}; the {getattr(own, role)} of a layer is {axes}"
            )
        if too_large(shape, stored_dtype(dtype)):
            raise ValueError(f"{path}: {name} has shape {shape}, which exceeds the limits of NumPy")
        needed += math.prod(shape) * stored_dtype(dtype).itemsize
    weight, _, W = headers["W"]
    bias, _, B = headers.get("B", headers["W"])
    S = W[own.axes.index("s")]
    if "B" in headers and B[0] != S:
        turned = f": {weight} seems to be transposed: save {weight}.T" if B[0] in W else ""
        raise ValueError(
            f"{path}: axis s (output features): {weight} has {S}, {bias} has {B[0]}; {weight} has shape {W}, which is "
            f"{weight_axes}, {bias} must be (S,), has {B}{turned}"
        )
    if needed > limit:
        raise ValueError(
            f"{path}: requires {needed} bytes, the limit is {limit}: pass max_bytes={needed} if you trust the file"
        )


def _native(array: NumPyArray) -> NumPyArray:
    """Return the array contiguous and in native byte order, which every library accepts."""
    native: np.dtype[Any] = array.dtype.newbyteorder("=")
    return np.ascontiguousarray(array, dtype=native)
