"""What is installed here: versions of libraries, the BLAS of NumPy, cores."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Mapping

import fc_arrayapi as fc

from .arguments import BACKENDS

# What reads files and computes on clusters: module, and the name of the package that has it.
COMPANIONS = ("distributed", "zarr", "h5py", "pyarrow", "safetensors", "obstore", "threadpoolctl")


def is_found(name: str) -> bool:
    """Say whether a library is installed."""
    return importlib.util.find_spec(_module(name)) is not None


def version(name: str) -> str:
    """Return the version of a library that is installed."""
    module = _module(name)
    try:
        return importlib.metadata.version(importlib.metadata.packages_distributions().get(module, [module])[0])
    except importlib.metadata.PackageNotFoundError:  # on the path, but not installed
        return "unknown"


def _module(name: str) -> str:
    return (BACKENDS[name][0] if name in BACKENDS else name).partition(".")[0]


def info() -> Mapping[str, str | int | None]:
    """Return versions by name, None for what is not installed."""
    found: dict[str, str | int | None] = {"fc_arrayapi": fc.__version__, "Python": platform.python_version()}
    for name in (*BACKENDS, *COMPANIONS):
        found[name] = version(name) if is_found(name) else None
    return found | {"BLAS of numpy": _blas(), "cores": os.cpu_count()}


def _blas() -> str:
    import numpy as np

    try:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{blas['name']} {blas['version']}"
    except (KeyError, TypeError):
        return "unknown"
