"""Namespaces, dtypes and devices of arrays, and conversion to and from NumPy: the only import of array-api-compat."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import array_api_compat
import numpy as np

from .libraries import NumPyArray, library
from .text import how_to_make_one, in_code, kind_of, with_article

Array = Any
Namespace = Any

# The namespace of each array type seen so far.
_OF_TYPE: dict[type, Namespace] = {}
# Each dtype with its equal in native byte order, in which NumPy computes.
_NATIVE: dict[tuple[str, Any], Any] = {}


# Entries of a dictionary that keeps answers.
KEPT = 4096


def keep(kept: dict[Any, Any], key: Any, value: Any) -> Any:
    """Keep a value in a dictionary of bounded size, and return it.

    A dictionary and not functools.lru_cache: torch.compile would trace that again, with a warning.
    """
    if len(kept) >= KEPT:
        kept.clear()
    kept[key] = value
    return value


def of(array: Array, name: str = "array") -> Namespace:
    """Return the standard's namespace for one array.

    Parameters
    ----------
    array : array
        An array of any library of the array API standard.
    name : str
        What the error calls the array.

    Raises
    ------
    TypeError
        If `array` is not an array of the standard, or is a NumPy subclass whose meaning a
        matrix product would silently drop (masked arrays, ``numpy.matrix``), or has a layout
        that its library multiplies at some sizes only (sparse and nested tensors).
    """
    kind = type(array)
    xp = _OF_TYPE.get(kind)
    if xp is None and isinstance(array, (np.ndarray, np.generic)):
        # Not with array-api-compat, which takes NumPy arrays of dtype float0 for JAX arrays.
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError(
                f"{name} is a numpy.ma.MaskedArray, whose mask a matrix product would ignore: "
                f"fill it first, {in_code(name)}.filled(0)"
            )
        if isinstance(array, np.matrix):
            raise TypeError(f"{name} is a numpy.matrix: pass numpy.asarray({in_code(name)})")
        xp = _OF_TYPE[kind] = array_api_compat.array_namespace(np.empty(0))
    elif xp is None:
        if isinstance(array, type) or not array_api_compat.is_array_api_obj(array):
            raise TypeError(
                f"{name} is {kind_of(array)}, which is not an array of a library of the array API standard: "
                f"{how_to_make_one(array, in_code(name))}"
            )
        xp = _OF_TYPE[kind] = array_api_compat.array_namespace(array)
    own = library(xp)
    if own.refusal is not None:
        refusal = own.refusal(array, name)
        if refusal:
            raise TypeError(refusal)
    return xp


def is_lazy(value: Any) -> bool:
    """Say whether a value of any type is a Dask array."""
    known = _OF_TYPE.get(type(value))
    return bool(array_api_compat.is_dask_array(value)) if known is None else library(known).chunked


def own_dtypes(array: Array) -> AbstractContextManager[Any] | None:
    """Return the context under which the library of an array computes in the dtypes that it is given; None without."""
    own = library(of(array))
    return None if own.own_dtypes is None else own.own_dtypes(array)


def common(names: Sequence[str], arrays: Sequence[Array], lifted: Sequence[str] = ()) -> Namespace:
    """Return the namespace that all arrays share; that of the first array decides, or of the first that is not lifted.

    Parameters
    ----------
    names : sequence of str
        The arguments' names, for the error.
    arrays : sequence of array
        The arguments.
    lifted : sequence of str
        Arguments that may be NumPy arrays where another one is a Dask array.

    Raises
    ------
    TypeError
        If the arguments come from different libraries, or the library of the blocks of
        one is unknown. The message names every argument with its library.
    """
    spaces = [of(array, name) for name, array in zip(names, arrays, strict=True)]
    first = spaces[0]
    if set(names) <= set(lifted) and library(first).own_arrays:
        first = next((xp for xp in spaces if is_chunked(xp)), first)
    for name, array, xp in zip(names, arrays, spaces, strict=True):
        if is_chunked(xp) and array._meta is None:  # under query planning, where Dask could not infer it
            raise TypeError(
                f"{name} is a Dask array, but Dask could not infer the type of its blocks: pass meta= to the blockwise "
                f"or map_blocks that made it, for example meta=numpy.empty((0, 0), 'float32')"
            )
        if xp is first or (is_chunked(first) and name in lifted and library(xp).own_arrays):
            continue
        what = ", ".join(f"{n} is {with_article(library(x).name)} array" for n, x in zip(names, spaces, strict=True))
        if is_chunked(first) and lifted and name not in lifted:
            hint = (
                f"with a Dask {names[0]} only {' and '.join(lifted)} may be NumPy: "
                f"pass dask.array.asarray({in_code(name)})"
            )
        elif is_chunked(xp):
            hint = f"make {names[0]} a Dask array too, dask.array.from_array({in_code(names[0])})"
        else:
            hint = _to_one_library(names, spaces)
        raise TypeError(f"{what}: all arrays must come from one library; {hint}")
    return first


def _to_one_library(names: Sequence[str], spaces: Sequence[Namespace]) -> str:
    """Write which arguments to convert: NumPy's, since a tracer of JAX cannot be, and a tensor may be on a GPU."""
    target = next((k for k, xp in enumerate(spaces) if not library(xp).own_arrays), 0)
    own = [name for name, xp in zip(names, spaces, strict=True) if library(xp).own_arrays]
    others = [name for name, xp in zip(names, spaces, strict=True) if xp is not spaces[target]]
    return f"convert {' and '.join(own or others)} to the library of {names[target]}"


def is_chunked(xp: Namespace) -> bool:
    """Say whether arrays of a namespace are lazy and made of blocks."""
    return library(xp).chunked


def device(array: Array) -> Any:
    """Return the device of an array."""
    try:
        return array.device
    except AttributeError:  # Dask, and NumPy before 2.0
        return array_api_compat.device(array)


def to_device(array: Array, device: Any) -> Array:
    """Return an array on another device of its library."""
    return array_api_compat.to_device(array, device)


def is_array(value: Any) -> bool:
    """Say whether a value is an array of a library of the standard."""
    return type(value) in _OF_TYPE or (not isinstance(value, type) and bool(array_api_compat.is_array_api_obj(value)))


def wrapped(xp: Any) -> Namespace:
    """Return the standard's namespace of a library's module, such as ``torch`` or ``jax.numpy``."""
    try:
        return of(xp.zeros(0))
    except AttributeError:
        raise TypeError(
            f"xp is {xp!r}: pass the module of an array library, for example numpy, torch or jax.numpy"
        ) from None


def to_numpy(array: Array) -> NumPyArray:
    """Convert an array of any library to NumPy, from its device; bfloat16 becomes float32, which is exact."""
    xp = of(array)
    if dtype_name(array.dtype) == "bfloat16":
        array = xp.astype(array, xp.float32)
    return library(xp).to_numpy(array)


def from_numpy(array: NumPyArray, xp: Namespace, *, dtype: Any = None, device: Any = None) -> Array:
    """Convert a NumPy array to another library, in the same dtype or in `dtype`.

    Raises
    ------
    TypeError
        If the library silently changed the dtype, as JAX does with float64
        unless ``jax_enable_x64`` is set.
    """
    result = xp.asarray(array, dtype=dtype, device=device)
    if dtype_name(result.dtype) != dtype_name(array.dtype if dtype is None else dtype):
        raise TypeError(
            f"{library(xp).name} holds {dtype_name(array.dtype if dtype is None else dtype)} as "
            f"{dtype_name(result.dtype)}: switch the wider dtype on (in JAX, jax_enable_x64) or ask for a narrower one"
        )
    return result


def to_bits(array: Array) -> NumPyArray:
    """Convert an array to NumPy as `to_numpy` does, but bfloat16, which NumPy lacks, to its bits in uint16."""
    xp = of(array)
    if dtype_name(array.dtype) == "bfloat16":
        array = array.view(xp.uint16)
    return library(xp).to_numpy(array)


def from_bits(array: NumPyArray, xp: Namespace, *, device: Any = None) -> Array:
    """Convert a NumPy array to another library as `from_numpy` does, but uint16 as the bits of bfloat16.

    They become bfloat16 where the library has it, else float32, which is exact.
    """
    if array.dtype == np.uint16:
        if hasattr(xp, "bfloat16"):
            return from_numpy(array, xp, device=device).view(xp.bfloat16)
        array = widened(array)
    return from_numpy(array, xp, device=device)


def widened(bits: NumPyArray) -> NumPyArray:
    """Return bfloat16 numbers as float32, of which they are the upper half."""
    wide = bits.astype(np.uint32)
    wide <<= np.uint32(16)
    return wide.view(np.float32)


def is_real_floating(xp: Namespace, dtype: Any) -> bool:
    """Say whether a dtype is real floating with 16 bits or more."""
    try:
        return bool(xp.isdtype(dtype, "real floating")) and not _is_coarse(dtype)
    except (TypeError, ValueError, AttributeError):  # not a dtype of this library
        return False


def is_numeric(xp: Namespace, dtype: Any) -> bool:
    """Say whether a dtype is numeric: not bool, objects or strings, and not float8."""
    try:
        return bool(xp.isdtype(dtype, "numeric")) and not _is_coarse(dtype)
    except (TypeError, ValueError, AttributeError):
        return False


def _is_coarse(dtype: Any) -> bool:
    """Say whether a float has fewer than 16 bits: sums in it are useless, and torch has none."""
    return dtype_name(dtype).startswith(("float8_", "float6_", "float4_"))


def float_dtype(xp: Namespace, dtype: Any, name: str = "dtype") -> Any:
    """Return a library's real floating dtype, given that dtype, its name in the standard, or None for the default.

    Raises
    ------
    TypeError
        For anything else, and for a dtype that the library does not support, as float64 in JAX
        unless ``jax_enable_x64`` is set.
    """
    if dtype is None:
        return xp.asarray(0.0).dtype  # float64 in NumPy, float32 in torch and JAX
    if dtype is float:  # Python's float has 64 bits; JAX would take its default float dtype
        dtype = "float64"
    own = library(xp)
    wanted = getattr(np if own.numpy_dtypes else xp, dtype, None) if isinstance(dtype, str) else dtype
    if own.numpy_dtypes and isinstance(wanted, (type, np.dtype)):
        wanted = np.result_type(wanted)  # also Python's float, and big-endian dtypes
    if wanted is None or not is_real_floating(xp, wanted):
        raise TypeError(f"{name} is {dtype!r}: give a real floating dtype of {library(xp).name}, for example 'float32'")
    if own.wide_switch and wanted == xp.float64 and xp.asarray(0.0).dtype != xp.float64:
        raise TypeError(f"{name} is float64, which JAX has switched off: set {own.wide_switch}, or take float32")
    return wanted


def sum_in_own_dtype(xp: Namespace, array: Array, axis: int | tuple[int, ...]) -> Array:
    """Sum along axes in the array's own dtype, where the standard's sum would widen integers."""
    dtype = _NATIVE.get((xp.__name__, array.dtype))
    if dtype is None:
        dtype = xp.result_type(array.dtype)
        if library(xp).promotes_alike:
            _NATIVE[xp.__name__, array.dtype] = dtype
    if not library(xp).sum_takes_dtype:
        return xp.sum(array, axis=axis).astype(dtype)
    return xp.sum(array, axis=axis, dtype=dtype)


def dtype_name(dtype: Any) -> str:
    """Return a dtype's name in the standard: ``float32`` for ``torch.float32`` and ``numpy.dtype('>f4')`` alike."""
    if isinstance(dtype, type):  # numpy.float32 itself, which NumPy takes for its dtype
        return dtype.__name__
    return str(getattr(dtype, "name", None) or dtype).rpartition(".")[2]


def cast(xp: Namespace, array: Array, dtype: Any) -> Array:
    """Return `array` in `dtype`, without a copy if it has that dtype."""
    return array if array.dtype == dtype else xp.astype(array, dtype, copy=False)


def describe(array: Array) -> str:
    """Write dtype, library and device for a repr."""
    xp = of(array)
    where = "" if is_chunked(xp) else f", device={device(array)}"
    return f"dtype={dtype_name(array.dtype)}, xp={library(xp).name}{where}"
