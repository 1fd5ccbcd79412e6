"""A layer as a pytree in JAX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def make_pytree(layer_type: Any, jax: Any) -> None:
    """Register the type of layers as a pytree with the leaves W and B.

    Nothing is checked while JAX unflattens, since it puts shapes and other objects in the place of arrays.

    Parameters
    ----------
    layer_type : type
        FullyConnected.
    jax : module
        JAX, which is not imported here.
    """

    def unflatten(_: None, leaves: Sequence[Any]) -> Any:
        layer = object.__new__(layer_type)
        for name, leaf in zip(("W", "B"), leaves, strict=True):
            object.__setattr__(layer, name, leaf)
        return layer

    key = jax.tree_util.GetAttrKey
    jax.tree_util.register_pytree_with_keys(
        layer_type,
        lambda layer: (((key("W"), layer.W), (key("B"), layer.B)), None),
        unflatten,
        lambda layer: ((layer.W, layer.B), None),
    )
