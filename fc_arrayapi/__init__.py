"""The fully connected layer Y = XW + B and its gradients, for every array library of the standard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# First and from here: where imports lie deeper, thousands of calls in NumPy's own cross the end of a piece of Python's
# stack, which is mapped and unmapped each time (cpython #142183); that makes the import take a fifth longer.
import numpy as _numpy  # noqa: F401

from ._einsum import einsum, tensordot, transpose
from ._gradients import Gradients
from ._layer import FullyConnected
from ._linear import backward, forward, grad_bias, grad_input, grad_weight
from ._math.subscripts import SubscriptsError

if TYPE_CHECKING:
    from . import testing
    from ._dask.compute import compute
    from ._einsum_backward import einsum_backward
    from ._files.open import open_array
    from ._files.store import store
    from ._moments import Moments, moments
    from ._per_sample import per_sample_dots, per_sample_norms
    from ._plan import Plan, plan

__version__ = "0.1.0.dev0"

__all__ = [
    "FullyConnected",
    "Gradients",
    "Moments",
    "Plan",
    "SubscriptsError",
    "backward",
    "compute",
    "einsum",
    "einsum_backward",
    "forward",
    "grad_bias",
    "grad_input",
    "grad_weight",
    "moments",
    "open_array",
    "per_sample_dots",
    "per_sample_norms",
    "plan",
    "store",
    "tensordot",
    "testing",
    "transpose",
]


# What is imported when it is asked for: files, and what is more than the layer, would be half of the import time.
_LATER = {
    "compute": "_dask.compute",
    "einsum_backward": "_einsum_backward",
    "open_array": "_files.open",
    "store": "_files.store",
    "Moments": "_moments",
    "moments": "_moments",
    "per_sample_dots": "_per_sample",
    "per_sample_norms": "_per_sample",
    "Plan": "_plan",
    "plan": "_plan",
    "testing": "testing",
}


def _made_public(value: Any) -> Any:
    """Let pickles, error messages and pages show the public path, not the file."""
    value.__module__ = __name__
    return value


for _name in set(__all__) - _LATER.keys():
    _made_public(globals()[_name])
del _name


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]


if not TYPE_CHECKING:  # to type checkers every name would be one that this function may know

    def __getattr__(name: str) -> Any:
        """Import what was not imported with the package."""
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        module = importlib.import_module(f".{_LATER[name]}", __name__)
        for other in [other for other, file in _LATER.items() if file == _LATER[name]]:
            globals()[other] = module if other == "testing" else _made_public(getattr(module, other))
        return globals()[name]
