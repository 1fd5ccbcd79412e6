"""The backends as the tests see them: how each makes arrays, and what is not tested or fails on it, and why."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest

from fc_arrayapi._arrays import backends


class Failure(NamedTuple):
    """A known failure of a library: a test that meets it is run, and reported if it fails otherwise or passes."""

    reason: str
    raises: type[BaseException]


@dataclass(frozen=True)
class Backend:
    """A row of the package's list, and what is not tested on it."""

    row: backends.Backend
    not_tested: dict[str, str] = field(default_factory=dict)  # a mark's name -> the reason
    fails: dict[str, Failure] = field(default_factory=dict)  # a mark's name -> the failure that is expected
    only_by_name: bool = False  # tested by no test but those that name its module

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def module(self) -> str:
        return self.row.module

    @property
    def device(self) -> str | None:
        return self.row.device

    @property
    def environment(self) -> dict[str, str]:
        return self.row.environment

    @property
    def installed(self) -> bool:
        if importlib.util.find_spec(self.module.partition(".")[0]) is None:
            return False
        return not self.row.gpu or gpu_found(self.module)

    @property
    def xp(self) -> Any:
        return importlib.import_module(self.module)

    @property
    def chunked(self) -> bool:
        return self.module == "dask.array"

    def asarray(self, array: Any, chunks: Any = None) -> Any:
        """Give a NumPy array to the library; to Dask in blocks of `chunks`, by default about three along each axis."""
        array = np.asarray(array)
        if self.chunked:
            if chunks is None:
                chunks = tuple(max(1, -(-n // 3)) for n in array.shape)
            return self.xp.from_array(array, chunks=chunks)
        if self.device is not None:
            return self.xp.asarray(array, device=self.device)
        return self.xp.asarray(array)

    def compiled(self, function: Any) -> Any:
        """Compile a function as a whole with JAX, which would compile each operation for each new shape otherwise."""
        if self.module != "jax.numpy":
            return function
        import jax

        return jax.jit(function)

    def dtype(self, name: str) -> Any:
        return getattr(self.xp, name)

    def spelled(self, fact: str) -> str:
        """Return a fact of a message, its calls of the standard written as this library's users write them."""
        if self.module == "array_api_strict":
            return fact
        astype = r"\1.to(torch.\2)" if self.module == "torch" else r'\1.astype("\2")'
        for pattern, spelling in (
            (r"xp\.(real|imag)\((\w+)\)", r"\2.\1"),
            (r"xp\.reshape\((\w+), (\([^)]*\))\)", r"\1.reshape(\2)"),
            (r"xp\.broadcast_to\(", f"{self.module}.broadcast_to("),
            (r"xp\.astype\((\w+), xp\.(\w+)\)", astype),
        ):
            fact = re.sub(pattern, spelling, fact)
        return fact

    def strictness(self) -> AbstractContextManager[Any]:
        """Set array-api-strict's flags for one test."""
        if self.module != "array_api_strict":
            return nullcontext()
        strict = self.xp
        if self.name == "array-api-strict":
            return strict.ArrayAPIStrictFlags()
        return strict.ArrayAPIStrictFlags(
            api_version="2022.12", boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=()
        )


NO_AUTOGRAD = {"autograd": "has no automatic differentiation"}
NO_BFLOAT16 = {"bfloat16": "has no bfloat16"}
NO_FLOAT16 = {"float16": "the standard has no float16"}
# Dask's expressions under query planning have many cached properties, each with one lock for all of them.
CAN_DEADLOCK = {"threads": "before Python 3.12 cached properties may wait for each other for ever (cpython #87634)"}

NOT_TESTED = {
    "numpy": {**NO_AUTOGRAD, **NO_BFLOAT16},
    "array-api-strict": {**NO_AUTOGRAD, **NO_BFLOAT16, **NO_FLOAT16},
    "array-api-strict-strictest": {**NO_AUTOGRAD, **NO_BFLOAT16, **NO_FLOAT16},
    "dask": {**NO_AUTOGRAD, **NO_BFLOAT16},
    "dask-query-planning": {
        **NO_AUTOGRAD,
        **NO_BFLOAT16,
        "the_disk": "what lies on the disk, and the memory that a block takes, are the same under query planning",
        "joined_tasks": "Dask joins the tasks of expressions in its own way",
        "other_sources": "Dask makes no arrays of zarr, h5py, Delayed and chosen names under query planning",
        **(CAN_DEADLOCK if sys.version_info < (3, 12) else {}),
    },
    "cupy": {**NO_AUTOGRAD, **NO_BFLOAT16},
}
FAILS = {
    "dask": {
        "unknown_types": Failure(
            "without query planning Dask takes blocks of an unknown type for NumPy's",
            raises=pytest.fail.Exception,  # no error is raised
        )
    },
    "dask-query-planning": {
        "matmul": Failure(
            "Dask has no matmul under query planning; the layer contracts its blocks", raises=NotImplementedError
        ),
        "delayed": Failure(
            "Dask warns of a Delayed that is computed together with arrays under query planning", raises=UserWarning
        ),
        "unknown_chunks": Failure(
            "under query planning Dask has no boolean indexing, and can't compute such arrays",
            raises=NotImplementedError,
        ),
    },
}

BACKENDS = {
    row.name: Backend(
        row, NOT_TESTED.get(row.name, {}), FAILS.get(row.name, {}), only_by_name=row.module == "distributed"
    )
    for row in backends.BACKENDS
}


def gpu_found(module: str) -> bool:
    if module == "torch":
        return bool(importlib.import_module("torch").cuda.is_available())
    if module == "cupy":
        runtime = importlib.import_module("cupy").cuda.runtime
        try:
            return runtime.getDeviceCount() > 0
        except runtime.CUDARuntimeError:  # CuPy is here, and no driver or no GPU
            return False
    return True


def chosen() -> list[Backend]:
    """Return the backends of this run, and refuse one that is asked for and missing."""
    asked = os.environ.get("FC_ARRAYAPI_BACKEND")
    if asked is None:
        # Dask takes query planning on or off when it is imported: one run has one of the two.
        return [b for b in BACKENDS.values() if b.installed and b.name != "dask-query-planning"]
    runs = backends.runs()
    if asked not in runs:
        raise pytest.UsageError(f"FC_ARRAYAPI_BACKEND={asked}: the backends are {', '.join(runs)}")
    found = [BACKENDS[row.name] for row in runs[asked]]
    for backend in found:
        if not backend.installed:
            needed = f"{backend.module} and a GPU are" if backend.row.gpu else f"{backend.module} is"
            raise pytest.UsageError(f"FC_ARRAYAPI_BACKEND={asked}: {needed} not here, so nothing was tested")
    return found
