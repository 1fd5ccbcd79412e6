"""The words and numbers of messages: sizes, shapes, and what a value is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def is_unknown(size: Any) -> bool:
    """Say whether the size of an axis is unknown: nan for Dask arrays, None for other lazy libraries."""
    return size is None or size != size


def axis_size(size: Any) -> str:
    """Write the size of an axis."""
    return "an unknown number" if is_unknown(size) else str(size)


def counted(size: Any, noun: str) -> str:
    """Write a number with its noun: ``1 row``, ``2 rows``."""
    return f"{size} {noun}{'' if size == 1 else 's'}"


def shape_text(shape: Sequence[Any]) -> str:
    """Write a shape as Python does, with ? for an unknown size."""
    sizes = ["?" if is_unknown(n) else str(n) for n in shape]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def size_text(size: float | None) -> str:
    """Write a number of bytes with 3 digits and a binary unit."""
    if is_unknown(size):
        return "unknown size"
    number: float = size  # type: ignore[assignment]  # is_unknown has seen None
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if number < 1000 or unit == "TiB":
            break
        number /= 1024
    return f"{number:.3g} {unit}"


def in_code(name: str) -> str:
    """Return an argument's name in a message as a name in code: ``operand_0``, ``other_dX``."""
    return name.removeprefix("the ").replace(" ", "_")


def kind_of(value: Any) -> str:
    """Name the type of a value: ``None``, ``a list``, ``the class numpy.ndarray``."""
    if value is None:
        return "None"
    return f"the class {_qualified(value)}" if isinstance(value, type) else with_article(_qualified(type(value)))


def how_to_make_one(value: Any, name: str) -> str:
    """Write how to make an array of a value; `numpy.asarray` makes one object of None, a class or a sparse matrix."""
    if value is None or isinstance(value, type):
        return "pass one"
    kind = type(value)  # attributes of a closed HDF5 file raise errors of all kinds
    for method, arguments in (("toarray", ""), ("todense", ""), ("to_dask_array", "lengths=True")):
        if hasattr(kind, method):  # sparse matrices of SciPy, and of JAX; tables of Dask
            return f"make one first, {name}.{method}({arguments})"
    if hasattr(kind, "chunks") and hasattr(kind, "shape"):
        if hasattr(kind, "data"):  # of xarray
            return f"pass the array in it, {name}.data"
        return (  # of h5py or zarr
            f"open it in blocks, fc_arrayapi.open_array of its path ('file.h5::name' in HDF5), or read all of it, "
            f"{name}[...]"
        )
    return f"make one first, for example numpy.asarray({name})"


def with_article(word: str) -> str:
    """Put the article in front of a word."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _qualified(kind: type) -> str:
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def flops_text(flops: int) -> str:
    """Write a number of flops with 3 digits and a unit: ``20.5 GFLOP``."""
    number = float(flops)
    for unit in ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"):
        if number < 1000 or unit == "PFLOP":
            break
        number /= 1000
    return f"{number:.3g} {unit}"


def seconds_text(seconds: float) -> str:
    """Write a time with two digits, in the unit that people would use."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    return (
        f"{seconds:.2g} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


def count_text(number: int, noun: str) -> str:
    """Write a number, with commas, and its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
