"""The fully connected layer Y = XW + B and its gradients, for every array library of the standard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# First and from here: where imports lie deeper, thousands of calls in NumPy's own cross the end of a piece of Python's
# stack, which is mapped and unmapped each time (cpython #142183); that makes the import take a fifth longer.
import numpy as _numpy  # noqa: F401

from ._dask.compute import compute
from ._einsum import einsum, tensordot, transpose
from ._einsum_backward import einsum_backward
from ._files.open import open_array
from ._files.store import store
from ._gradients import Gradients
from ._layer import FullyConnected
from ._linear import backward, forward, grad_bias, grad_input, grad_weight
from ._math.subscripts import SubscriptsError
from ._moments import Moments, moments
from ._per_sample import per_sample_dots, per_sample_norms
from ._plan import Plan, plan

if TYPE_CHECKING:
    from . import testing

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


# Pickles, error messages and pages show the public path, not the file.
for _name in __all__:
    if _name != "testing":
        globals()[_name].__module__ = __name__
del _name


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]


if not TYPE_CHECKING:  # to type checkers every name would be one that this function may know

    def __getattr__(name: str) -> Any:
        """Import `testing` when it is asked for: its tables would be a tenth of the package's import time."""
        if name == "testing":
            import importlib

            return importlib.import_module(".testing", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
