"""Checks for users: the formulas in their literal form, your gradients, your array library."""

from __future__ import annotations

from .backends import BackendCheck, BackendReport, check_backend
from .einsum import check_einsum
from .gradients import GradientCheck, GradientReport, check_gradients
from .reference import reference_backward, reference_forward
from .samples import check_samples

__all__ = [
    "BackendCheck",
    "BackendReport",
    "GradientCheck",
    "GradientReport",
    "check_backend",
    "check_einsum",
    "check_gradients",
    "check_samples",
    "reference_backward",
    "reference_forward",
]

for _name in __all__:
    globals()[_name].__module__ = __name__
del _name


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
