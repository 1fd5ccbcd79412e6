"""One row for each array library: everything the package treats specially about it.

Every other file asks a row and compares no names. The defaults of a row suit a library that was never tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from numbers import Integral
from sys import modules
from typing import Any, TypeVar

import numpy as np
from numpy import einsum as numpy_einsum  # as it is now: a caller may put ours in its place

from .text import in_code

NumPyArray = np.ndarray[Any, Any]
Function = TypeVar("Function", bound=Callable[..., Any])

# How a message writes a call; `module` is the library's name.
_OF_THE_STANDARD = {
    "astype": "xp.astype({name}, xp.{argument})",
    "reshape": "xp.reshape({name}, {argument})",
    "broadcast_to": "xp.broadcast_to({name}, {argument})",
    "real": "xp.real({name})",
    "imag": "xp.imag({name})",
}
_LIKE_NUMPY = {
    "astype": '{name}.astype("{argument}")',
    "reshape": "{name}.reshape({argument})",
    "broadcast_to": "{module}.broadcast_to({name}, {argument})",
    "real": "{name}.real",
    "imag": "{name}.imag",
}


def _through_the_standard(array: Any) -> NumPyArray:
    return np.asarray(array) if hasattr(array, "__array__") else np.from_dlpack(array)


def _diagonal_in_numpy(array: NumPyArray, count: int) -> Any:
    # Not numpy.diagonal, whose view cannot be written to.
    return numpy_einsum(f"{'i' * count}...->i...", array)


def _diagonal_last(array: Any, count: int) -> Any:
    """Take the diagonal of the first axes of a torch or CuPy array two at a time; it becomes the last axis."""
    array = array.diagonal(0, 0, 1)
    for _ in range(count - 2):
        array = array.diagonal(0, 0, array.ndim - 1)
    return array


def _known_to_torch(size: Any) -> bool:
    if not modules["torch"].compiler.is_compiling():
        return True
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return bool(has_static_value(size))


def _values_known_to_torch(tensor: Any) -> bool:
    torch = modules["torch"]
    return not (torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def _values_known_to_jax(array: Any) -> bool:
    return not isinstance(array, modules["jax"].core.Tracer)


def _torch_layout(tensor: Any, name: str = "") -> str:
    """Write what a tensor is that is not strided; torch multiplies some of these at some sizes, and fails at others."""
    import torch

    if tensor.is_nested:
        return (
            f"{name} is a nested tensor, of layout {tensor.layout}: pass its tensors one by one, those of "
            f"{in_code(name)}.unbind(), or torch.nested.to_padded_tensor({in_code(name)}, 0.0)"
        )
    if tensor.layout is not torch.strided:
        return f"{name} has layout {tensor.layout}: pass {in_code(name)}.to_dense()"
    return ""


def _plain_in_torch(*tensors: Any) -> bool:
    """Say whether tensors are on one device, strided, and not under autocast. The quickest way to ask."""
    torch = modules["torch"]  # an import would take as long as the question
    strided = torch.strided
    on_cpu = tensors[0].is_cpu
    for tensor in tensors:
        if tensor.is_cpu is not on_cpu or tensor.layout is not strided or tensor.is_nested:
            return False
    if on_cpu:
        return not torch.is_autocast_enabled("cpu")
    return _on_one_device(*tensors) and _without_autocast(tensors[0]) is None


def _without_autocast(tensor: Any) -> AbstractContextManager[Any] | None:
    """Return what switches torch.autocast off, if it is on for the device of a tensor."""
    import torch

    kind = tensor.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return None
    off: AbstractContextManager[Any] = torch.autocast(kind, enabled=False)
    return off


def _on_one_device(*arrays: Any) -> bool:
    """Say whether arrays are on one device."""
    device = arrays[0].device
    return all(array.device == device for array in arrays[1:])


@dataclass(frozen=True, kw_only=True)
class Library:
    """What is special about one array library.

    Parameters
    ----------
    name : str
        The module's name, for messages: ``"numpy"``, ``"jax.numpy"``.
    chunked : bool
        Arrays are lazy and made of blocks (Dask).
    numpy_dtypes : bool
        Its dtypes are NumPy's. Dask has no other dtypes.
    own_arrays : bool
        It is NumPy, whose arrays may stand beside a Dask batch as weights.
    promotes_alike : bool
        It promotes the same dtypes to the same dtype every time, so the answer can be kept. JAX's depends on
        ``jax_enable_x64``.
    wide_switch : str
        The setting that enables float64, where it is off by default.
    accurate_sum : bool
        Its ``sum`` stays accurate along a long axis. NumPy's does not along the first axis. cubed sums block by
        block and cannot split an axis whose blocks differ in size.
    sum_takes_dtype : bool
        Its ``sum`` has the parameter ``dtype``.
    openblas : bool
        Its matrix products are NumPy's: OpenBLAS, and a slow loop for layouts that BLAS does not take.
    slices_copy : bool
        A slice is a copy, as for JAX's immutable arrays, so cutting a batch into runs takes memory.
    dlpack_to_torch : bool
        Its arrays reach PyTorch by DLPack with their dtype and device.
    diagonal : callable, optional
        Returns a view of the diagonal of the first `count` axes of an array, which becomes the first axis.
    is_known : callable, optional
        Says whether what stands in a shape is a number; None where it always is. torch.compile keeps sizes open under
        which it was called before; a use of one as a number makes it compile anew for each size.
    values_known : callable, optional
        Says whether an array has values that Python can look at, and none that a compiler or vmap traces; None where
        it always has.
    refusal : callable, optional
        Takes an array and its name, and writes why arrays like it are refused though their type and dtype are
        accepted; ``""`` for one that is accepted.
    plain : callable, optional
        Takes arrays of one type and dtype, and says whether they are on one device, none is refused, and the library
        computes in the dtypes that it is given. Asked in every call, so it must be quick; where it says no, each array
        is looked at. None where devices can't be compared before anything is computed. NumPy, Dask and mlx have one
        device. JAX arrays have a sharding, which may differ between arrays that work together, and none while they are
        traced: JAX itself raises an error where devices differ.
    own_dtypes : callable, optional
        Takes an array, and returns the context manager under which the library computes in the dtypes that it is
        given; None where it does so already.
    calls : mapping of str to str
        How messages write calls of functions of the standard: NumPy before 2.0 and PyTorch have no ``astype``.
    to_numpy : callable
        Converts an array to NumPy, from its device to the host.
    """

    name: str
    chunked: bool = False
    numpy_dtypes: bool = False
    own_arrays: bool = False
    promotes_alike: bool = False
    wide_switch: str = ""
    accurate_sum: bool = False
    sum_takes_dtype: bool = True
    openblas: bool = False
    slices_copy: bool = False
    dlpack_to_torch: bool = False
    diagonal: Callable[[Any, int], Any] | None = None
    is_known: Callable[[Any], bool] | None = lambda size: isinstance(size, Integral)
    values_known: Callable[[Any], bool] | None = None
    refusal: Callable[..., str] | None = None
    plain: Callable[..., bool] | None = _on_one_device
    own_dtypes: Callable[[Any], AbstractContextManager[Any] | None] | None = None
    calls: Mapping[str, str] = field(default_factory=lambda: _OF_THE_STANDARD)
    to_numpy: Callable[[Any], NumPyArray] = _through_the_standard


ROWS = (
    Library(
        name="numpy",
        numpy_dtypes=True,
        own_arrays=True,
        plain=None,
        promotes_alike=True,
        openblas=True,
        diagonal=_diagonal_in_numpy,
        is_known=None,
        calls=_LIKE_NUMPY,
    ),
    Library(
        name="dask.array",
        chunked=True,
        numpy_dtypes=True,
        plain=None,
        calls=_LIKE_NUMPY,
        to_numpy=lambda array: np.asarray(array.compute()),  # numpy.asarray fails under query planning
    ),
    Library(
        name="torch",
        promotes_alike=True,
        accurate_sum=True,
        diagonal=lambda array, count: _diagonal_last(array, count).movedim(-1, 0),
        is_known=_known_to_torch,
        values_known=_values_known_to_torch,
        refusal=_torch_layout,
        plain=_plain_in_torch,
        own_dtypes=_without_autocast,
        calls={**_LIKE_NUMPY, "astype": "{name}.to(torch.{argument})"},
        to_numpy=lambda array: np.asarray(array.detach().cpu().resolve_neg()),
    ),
    Library(
        name="jax.numpy",
        plain=None,
        values_known=_values_known_to_jax,
        wide_switch="jax_enable_x64",
        accurate_sum=True,
        slices_copy=True,
        dlpack_to_torch=True,
        calls=_LIKE_NUMPY,
    ),
    Library(
        name="cupy",
        promotes_alike=True,
        accurate_sum=True,
        dlpack_to_torch=True,
        diagonal=lambda array, count: _diagonal_last(array, count).transpose(-1, *range(array.ndim - count)),
        is_known=None,
        calls=_LIKE_NUMPY,
        to_numpy=lambda array: np.asarray(array.get()),
    ),
    Library(name="array_api_strict", promotes_alike=True, is_known=None),
    Library(
        name="mlx.core",
        plain=None,
        sum_takes_dtype=False,
        calls={**_OF_THE_STANDARD, "astype": "{name}.astype({module}.{argument})"},
    ),
    Library(name="cubed", accurate_sum=True, to_numpy=lambda array: np.asarray(array.compute())),
    Library(name="sparse", to_numpy=lambda array: np.asarray(array.todense())),
    Library(name="ndonnx", to_numpy=lambda array: np.asarray(array.unwrap_numpy())),
)

_COMPAT = "array_api_compat."
# By the name of the namespace, which array-api-compat begins with its own.
_ROW_OF: dict[str, Library] = {prefix + row.name: row for row in ROWS for prefix in ("", _COMPAT)}


def library(xp: Any) -> Library:
    """Return the row of a namespace; one with the defaults for a library that has none.

    Parameters
    ----------
    xp : namespace
        A namespace of the array API standard.

    Returns
    -------
    Library

    Examples
    --------
    >>> library(np).name, library(np).openblas
    ('numpy', True)
    """
    name: str = xp.__name__
    row = _ROW_OF.get(name)
    if row is None:
        row = _ROW_OF[name] = Library(name=name.removeprefix(_COMPAT))
    return row


def not_traced(function: Function) -> Function:
    """Let torch.compile call a function of constants where it would trace it: it cannot trace opt_einsum.

    This is torch.compiler.assume_constant_result, without an import of torch. The function takes and returns strings,
    numbers and tuples of them; another object as a result fails.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
