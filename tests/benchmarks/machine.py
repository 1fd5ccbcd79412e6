"""What a run was measured on: the machine, and the versions of every library that takes part."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

from threadpoolctl import threadpool_info

import fc_arrayapi as fc

LIBRARIES = (
    "numpy", "opt_einsum", "array-api-compat", "dask", "zarr", "torch", "jax", "scikit-learn", "dask-ml", "cubed",
    "cupy-cuda12x", "pytest-benchmark",
)  # fmt: skip


def describe(cpu: dict[str, Any]) -> dict[str, Any]:
    """Return the description that goes into the JSON file; `cpu` is pytest-benchmark's."""
    return {
        "cpu": cpu.get("brand_raw", platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "os": _os(),
        "python": platform.python_version(),
        "blas": _blas(),
        "libraries": {"fc_arrayapi": fc.__version__, **{name: _version(name) for name in LIBRARIES}},
    }


def _memory_gb() -> float | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)


def _os() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return f"{platform.system()} {platform.release()}"


def _blas() -> list[str]:
    """Return the libraries that compute NumPy's products, and with how many threads."""
    return sorted(
        {
            f"{pool['internal_api']} {pool['version']}, {pool['num_threads']} threads"
            for pool in threadpool_info()
            if pool["user_api"] == "blas" and pool["version"]
        }
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
