"""W and B from and to torch.nn.Linear, whose weight is (S, C)."""

from __future__ import annotations

from typing import Any

from ._arrays import advice, namespace
from ._arrays.libraries import library


def parameters_of(module: Any) -> tuple[Any, Any]:
    """Return copies of the parameters of a torch.nn.Linear, as W, (C, S), and B, (S,) or None."""
    torch = _torch()
    if not isinstance(module, torch.nn.Linear):
        raise TypeError(f"from_torch takes a torch.nn.Linear, not a {type(module).__qualname__}")
    xp = namespace.of(module.weight.detach(), "linear.weight")
    if module.bias is not None:
        namespace.of(module.bias.detach(), "linear.bias")
    return (
        xp.asarray(module.weight.detach().T, copy=True),
        None if module.bias is None else xp.asarray(module.bias.detach(), copy=True),
    )


def linear_of(W: Any, B: Any) -> Any:
    """Return a torch.nn.Linear with copies of W and B."""
    torch = _torch()
    if B is not None:
        w, b = namespace.dtype_name(W.dtype), namespace.dtype_name(B.dtype)
        if w != b:
            raise TypeError(
                f"to_torch: W has dtype {w} and B has {b}; a torch.nn.Linear has one dtype: convert one of them "
                f"first, for example FullyConnected(W, {advice.call('astype', B, 'B', w)})"
            )
    weight = _tensor(W).T
    module = torch.nn.utils.skip_init(
        torch.nn.Linear, *W.shape, bias=B is not None, device=weight.device, dtype=weight.dtype
    )
    with torch.no_grad():
        module.weight.copy_(weight)
        if B is not None:
            module.bias.copy_(_tensor(B))
    return module


def _torch() -> Any:
    """Import torch, only when it is used."""
    try:
        import torch
    except ImportError:
        raise ImportError("a torch.nn.Linear needs PyTorch: pip install torch") from None
    return torch


def _tensor(array: Any) -> Any:
    """Convert an array to torch without changing its dtype."""
    torch = _torch()
    if isinstance(array, torch.Tensor):
        return array.detach()
    if library(namespace.of(array)).dlpack_to_torch:  # keeps bfloat16, and the device
        return torch.from_dlpack(array)
    host = namespace.to_numpy(array)
    return torch.from_numpy(host.astype(host.dtype.newbyteorder("=")))
