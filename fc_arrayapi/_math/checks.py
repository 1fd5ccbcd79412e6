"""Checks of arguments before anything is computed: libraries, dtypes, ranks, sizes of axes.

Nothing broadcasts, not even an axis of size 1. An unknown size (``nan`` in a Dask array, ``None``
elsewhere) is accepted along the batch; every block is checked again when it is computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from .._arrays import advice, namespace
from .._arrays.libraries import library
from .._arrays.namespace import Array, Namespace
from .._arrays.text import axis_size, counted, in_code, is_unknown, shape_text
from . import fits
from .equations import AXES, FORWARD, GRAD_BIAS, GRAD_INPUT, GRAD_WEIGHT, GRADIENTS, axis_label

# How messages begin.
_FORWARD, _GRAD_INPUT = f"forward {FORWARD}", f"grad_input {GRAD_INPUT}"
_GRAD_WEIGHT, _GRAD_BIAS = f"grad_weight {GRAD_WEIGHT}", f"grad_bias {GRAD_BIAS}"


def check_forward(X: Array, W: Array, B: Array | None) -> Namespace:
    """Check the arguments of ``forward`` and return their namespace."""
    names, arrays = (("X", "W"), (X, W)) if B is None else (("X", "W", "B"), (X, W, B))
    xp = check_arrays("forward", names, arrays, lifted=("W", "B"))
    _check_batched(_FORWARD, "X", X)
    check_weight(_FORWARD, W)
    _check_features(_FORWARD, "X", X, W)
    if B is not None:
        check_bias(_FORWARD, W, B)
    return xp


def check_grad_input(dY: Array, W: Array) -> Namespace:
    """Check the arguments of ``grad_input`` and return their namespace."""
    xp = check_arrays("grad_input", ("dY", "W"), (dY, W), lifted=("W",))
    _check_batched(_GRAD_INPUT, "dY", dY)
    check_weight(_GRAD_INPUT, W)
    _check_features(_GRAD_INPUT, "dY", dY, W)
    return xp


def check_grad_weight(X: Array, dY: Array) -> Namespace:
    """Check the arguments of ``grad_weight`` and return their namespace."""
    xp = check_arrays("grad_weight", ("X", "dY"), (X, dY))
    _check_batched(_GRAD_WEIGHT, "X", X)
    _check_batched(_GRAD_WEIGHT, "dY", dY)
    check_batch(_GRAD_WEIGHT, X, dY)
    return xp


def check_grad_bias(dY: Array) -> Namespace:
    """Check the argument of ``grad_bias`` and return its namespace."""
    xp = check_arrays("grad_bias", ("dY",), (dY,))
    _check_batched(_GRAD_BIAS, "dY", dY)
    return xp


def check_backward(X: Array, W: Array, dY: Array) -> Namespace:
    """Check the arguments of ``backward`` and return their namespace."""
    xp = check_arrays("backward", ("X", "W", "dY"), (X, W, dY), lifted=("W",))
    where = "backward"
    _check_batched(where, "X", X)
    check_weight(where, W)
    _check_batched(where, "dY", dY, ", that of Y")
    _check_features(where, "X", X, W, other=dY)
    _check_features(where, "dY", dY, W, other=X)
    check_batch(where, X, dY)
    return xp


def check_parameters(W: Array, B: Array | None) -> None:
    """Check W and B of a layer."""
    names, arrays = (("W",), (W,)) if B is None else (("W", "B"), (W, B))
    check_arrays("FullyConnected", names, arrays)
    check_weight("FullyConnected", W)
    if B is not None:
        check_bias("FullyConnected", W, B)


def check_needs(needs: Iterable[str]) -> tuple[str, ...]:
    """Return `needs` as a tuple after checking every name in it."""
    if needs is GRADIENTS:
        return GRADIENTS
    if isinstance(needs, (str, bytes)) or not isinstance(needs, Iterable):
        raise TypeError(f"needs is {needs!r}: pass a tuple of names, for example needs=('dW', 'dB')")
    wanted = tuple(needs)
    for name in wanted:
        if name not in GRADIENTS:
            raise ValueError(f"needs has {name!r}: the gradients are {', '.join(map(repr, GRADIENTS))}")
    return wanted


def check_acc_dtype(xp: Namespace, acc_dtype: Any) -> Any:
    """Return `acc_dtype` as a dtype of the library, or None."""
    return None if acc_dtype is None else namespace.float_dtype(xp, acc_dtype, "acc_dtype")


def check_arrays(
    where: str, names: Sequence[str], arrays: Sequence[Array], lifted: Sequence[str] = (), taker: str = "the layer"
) -> Namespace:
    """Check libraries, dtypes and devices, and return the common namespace.

    Raises
    ------
    TypeError
        For a mixture of libraries, and for a dtype that is not real floating.
    ValueError
        For arrays on different devices.
    """
    xp = namespace.common(names, arrays, lifted)
    for name, array in zip(names, arrays, strict=True):
        if not namespace.is_real_floating(xp, array.dtype):
            raise TypeError(
                f"{where}: {name} has dtype {namespace.dtype_name(array.dtype)}; {taker} takes real floating "
                f"dtypes: {_conversion(name, array)}"
            )
    check_devices(where, xp, names, arrays)
    fits.remember(xp, arrays)
    return xp


def check_devices(where: str, xp: Namespace, names: Sequence[str], arrays: Sequence[Array]) -> None:
    """Check that all arrays are on one device, where that can be known before anything is computed."""
    if library(xp).plain is None:
        return
    devices = [namespace.device(array) for array in arrays]
    if any(d != devices[0] for d in devices):
        on = ", ".join(f"{n} is on {d}" for n, d in zip(names, devices, strict=True))
        raise ValueError(f"{where}: {on}: move all arrays to the device of {names[0]}")


def _conversion(name: str, array: Array) -> str:
    """Write how to convert an array of another dtype."""
    fields = getattr(array.dtype, "names", None)  # a NumPy structured array
    if fields:
        return f"pass one field, for example {in_code(name)}[{fields[0]!r}]"
    if namespace.dtype_name(array.dtype).startswith("complex"):
        parts = " and ".join(advice.call(part, array, name) for part in ("real", "imag"))
        return f"pass real and imaginary parts separately, {parts}"
    return advice.to_numbers(array, name, integers="float32")


def check_joinable(names: Sequence[str], first: Sequence[Any], second: Sequence[Any]) -> None:
    """Check that the gradients of two micro-batches belong to the same layer."""
    for name, mine, theirs in zip(names, first, second, strict=True):
        if (mine is None) != (theirs is None):
            raise ValueError(f"{name} is None in one of the two: call backward with the same needs both times")
        if mine is None:
            continue
        check_arrays("Gradients + Gradients", (name, f"the other {name}"), (mine, theirs))
        if name == "dX" and len(mine.shape) < 2:
            raise ValueError(
                f"dX has shape {_shape(mine)}, without a batch axis to join along: give X the shape (1, C)"
            )
        first_axis = AXES[name].startswith("n")  # dX is joined along it
        if len(mine.shape) == len(theirs.shape):
            for axis in range(first_axis, len(mine.shape)):
                size, other_size = mine.shape[axis], theirs.shape[axis]
                if size != other_size:
                    advice = _of_one_layer(name, mine, theirs)
                    if is_unknown(size) or is_unknown(other_size):
                        advice = f"call compute_chunk_sizes() first, on each {name} with unknown sizes"
                    raise ValueError(
                        f"axis {axis} of {name}: one has {axis_size(size)}, the other has {axis_size(other_size)}; "
                        f"{advice}"
                    )
        else:
            raise ValueError(_of_one_layer(name, mine, theirs))


def _of_one_layer(name: str, mine: Array, theirs: Array) -> str:
    return (
        f"{name} has shape {_shape(mine)} in one and {_shape(theirs)} in the other: add gradients of one layer and of "
        f"batches with the same axes"
    )


def check_weight(where: str, W: Array) -> None:
    """Check the rank of a weight."""
    shape = W.shape
    if len(shape) == 2:
        return
    as_matrix = advice.call("reshape", W, "W", "(C, S)")
    hint = f"give it one axis of input features and one of output features, {as_matrix}"
    if len(shape) == 1 and not is_unknown(shape[0]):
        row, column = (advice.call("reshape", W, "W", sizes) for sizes in ((1, shape[0]), (shape[0], 1)))
        hint = f"pass {row} if C is 1, or {column} if S is 1"
    raise ValueError(f"{where}: W must have shape (C, S), has {_shape(W)}: {hint}")


def check_bias(where: str, W: Array, B: Array) -> None:
    """Check that B has shape (S,) and nothing else."""
    s = W.shape[1]
    if len(B.shape) != 1:
        raise ValueError(f"{where}: B must have shape (S,) = ({axis_size(s)},), has {_shape(B)}: {_bias_hint(W, B)}")
    if B.shape[0] != s:
        raise ValueError(
            f"{where}: axis {axis_label('s')}: B has {axis_size(B.shape[0])}, W has {axis_size(s)}; B has shape "
            f"{_shape(B)}, W must be (C, S), has {_shape(W)}: {_bias_hint(W, B)}"
        )


def _bias_hint(W: Array, B: Array) -> str:
    """Write what to pass instead of this B."""
    s = W.shape[1]
    for name, sizes in (("W", (s,)), ("B", B.shape)):
        if any(is_unknown(size) for size in sizes):
            return f"call {name}.compute_chunk_sizes() first"
    if math.prod(B.shape) == s:
        return f"pass {advice.call('reshape', B, 'B', (s,))}"
    if tuple(B.shape) in ((), (1,)):
        return f"nothing broadcasts: pass {advice.call('broadcast_to', B, 'B', (s,))}"
    return "pass one number for each column of W"


def _check_batched(where: str, name: str, array: Array, remark: str = "") -> None:
    """Check that there is an axis of features, of known size."""
    if len(array.shape) < 1:
        raise ValueError(
            f"{where}: {name} must have shape (..., {AXES[name][-1].upper()}){remark}, has (): give it at least "
            f"its axis of features, for example {advice.call('reshape', array, name, (1,))}"
        )
    if array.shape[-1] != array.shape[-1]:
        raise ValueError(
            f"{where}: axis {len(array.shape) - 1} of {_shape(array)}: {name} has an unknown number of features: "
            f"call {name}.compute_chunk_sizes() first"
        )


def _check_features(where: str, name: str, array: Array, W: Array, other: Array | None = None) -> None:
    """Compare the features of X or dY with their axis of W. With X comes `other`, its dY, and with dY its X."""
    label = AXES[name][-1]
    axis = AXES["W"].index(label)
    size, expected = array.shape[-1], W.shape[axis]
    if size == expected:
        return
    sizes = f"{where}: axis {axis_label(label)}: {name} has {axis_size(size)}, W has {axis_size(expected)}"
    if is_unknown(size) or is_unknown(expected):
        raise ValueError(
            f"{sizes}; {name} has shape {_shape(array)}, W has {_shape(W)}; the features must be known: "
            f"call {name if is_unknown(size) else 'W'}.compute_chunk_sizes() first"
        )
    hint = _features_hint(name, array, W, axis, other)
    raise ValueError(f"{sizes}; {name} has shape {_shape(array)}, W must be (C, S), has {_shape(W)}: {hint}")


def _features_hint(name: str, array: Array, W: Array, axis: int, other: Array | None) -> str:
    """Write what to pass instead of these features. Those of an X that came with dY are right already."""
    size, expected = array.shape[-1], W.shape[axis]
    lost_its_features = tuple(array.shape) == tuple(array.shape[:1] if other is None else other.shape[:-1])
    if axis == 1 and expected == 1 and lost_its_features:
        return f"pass {advice.call('reshape', array, name, shape_text((*array.shape, 1)))}"
    if size == W.shape[1 - axis] and (other is None or (axis == 0 and other.shape[-1] == expected)):
        turned = (
            "W seems to be in (S, C) order, like the weight of torch.nn.Linear: pass W.T, "
            "or use FullyConnected.from_torch(linear)"
        )
        return turned if other is None else f"{turned}; or X and dY are exchanged"
    if name == "dY" and expected == 1 and tuple(array.shape) == (size, size):
        return "Y minus targets of shape (N,) is (N, N): give the targets a second axis, such as T[:, None]"
    nothing = "nothing broadcasts: " if 1 in (size, expected) else ""
    return f"{nothing}give {name} {counted(expected, 'feature')}, or W {counted(size, ('row', 'column')[axis])}"


def check_batch(where: str, X: Array, dY: Array) -> None:
    """Check that X and dY have the same leading axes."""
    x, dy = X.shape[:-1], dY.shape[:-1]
    if x == dy:
        return
    if len(x) != len(dy):
        one = ""
        if tuple(dY.shape) == tuple(x):
            one = f", or {advice.call('reshape', dY, 'dY', shape_text((*x, 1)))} if S is 1"
        raise ValueError(
            f"{where}: X has shape {_shape(X)} and dY has {_shape(dY)}: they must have the same leading axes; "
            f"pass a dY of the shape of Y, {shape_text((*x, 'S'))}{one}"
        )
    for axis, (n, m) in enumerate(zip(x, dy, strict=True)):
        if n != m and not (is_unknown(n) or is_unknown(m)):
            raise ValueError(
                f"{where}: axis n (batch, axis {axis}): X has {n}, dY has {m}; X has shape {_shape(X)}, dY has "
                f"{_shape(dY)}: pass a dY of the shape of Y, {shape_text((*x, 'S'))}"
            )


def _shape(array: Array) -> str:
    return shape_text(array.shape)
