"""Checks of arguments that belong to samples: targets, weights, queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._arrays.namespace import Array, Namespace
from .._arrays.text import is_unknown, shape_text
from .checks import check_arrays


def check_same_rows(where: str, arrays: Mapping[str, Array]) -> None:
    """Check that arrays have an axis of features, and the same leading axes, but `sample_weight`."""
    first, X = next(iter(arrays.items()))
    for name, array in arrays.items():
        if name == "sample_weight":
            continue
        if len(array.shape) < 1:
            raise ValueError(f"{where}: {name} must have an axis of features, has shape (): reshape it to (1,)")
        if array.shape[-1] != array.shape[-1]:
            raise ValueError(
                f"{where}: axis {len(array.shape) - 1} of {_shape(array)}: {name} has an unknown number of features: "
                f"call {name}.compute_chunk_sizes() first"
            )
        if len(array.shape) != len(X.shape) or any(
            n != m and not (is_unknown(n) or is_unknown(m)) for n, m in zip(X.shape[:-1], array.shape[:-1], strict=True)
        ):
            raise ValueError(
                f"{where}: {first} has shape {_shape(X)} and {name} has {_shape(array)}: they must have the same "
                f"leading axes; pass {name} of shape {shape_text((*X.shape[:-1], 'S'))}"
            )


def check_per_sample(
    where: str, X: Array, dY: Array, sample_axes: Any, Xq: Array | None = None, dYq: Array | None = None
) -> Namespace:
    """Check the arrays of samples, and of query samples, and that each has axes of samples."""
    arrays = {"X": X, "dY": dY} if Xq is None and dYq is None else {"X": X, "dY": dY, "Xq": Xq, "dYq": dYq}
    xp = check_arrays(where, tuple(arrays), tuple(arrays.values()), lifted=("Xq", "dYq"))
    if isinstance(sample_axes, bool) or not isinstance(sample_axes, int) or sample_axes < 1:
        raise ValueError(
            f"{where}: sample_axes is {sample_axes!r}: pass the number of axes that count samples, from 1 on"
        )
    for name, other in (("X", "dY"), ("Xq", "dYq"))[: len(arrays) // 2]:
        if len(arrays[name].shape) <= sample_axes:
            raise ValueError(
                f"{where}: {name} has shape {_shape(arrays[name])}: pass an array with sample_axes={sample_axes} axes "
                f"of samples and one of features at least"
            )
        check_same_rows(where, {name: arrays[name], other: arrays[other]})
    for mine, its in (("X", "Xq"), ("dY", "dYq"))[: len(arrays) // 2 * 2 - 2]:
        if arrays[mine].shape[-1] != arrays[its].shape[-1]:
            raise ValueError(
                f"{where}: {mine} has {arrays[mine].shape[-1]} features, {its} has {arrays[its].shape[-1]}; {mine} has "
                f"shape {_shape(arrays[mine])}, {its} has {_shape(arrays[its])}: both belong to one layer"
            )
    return xp


def check_sample_weight(where: str, X: Array, sample_weight: Array, name: str = "X") -> None:
    """Check that there is a weight for each sample of X, or of dY, along its first leading axes."""
    weights, leading = sample_weight.shape, X.shape[:-1]
    fits = 0 < len(weights) <= len(leading) and all(
        n == m or is_unknown(n) or is_unknown(m) for n, m in zip(weights, leading, strict=False)
    )
    if not fits:
        shapes = f"{shape_text(leading[:1] or ('N',))}" + f" or up to {shape_text(leading)}" * (len(leading) > 1)
        raise ValueError(
            f"{where}: sample_weight has shape {_shape(sample_weight)} and {name} has {_shape(X)}: pass one weight for "
            f"each sample, of shape {shapes}"
        )


def _shape(array: Array) -> str:
    return shape_text(array.shape)
