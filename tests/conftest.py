"""The one table of backends, and the fixtures that it drives.

``FC_ARRAYAPI_BACKEND=torch pytest`` tests one session's backends and fails if they are
missing; without it every backend that is installed is tested.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@dataclass(frozen=True)
class Backend:
    """One row of the table: a library, how it is set up, and what is not tested on it, with the reason."""

    name: str
    module: str
    sessions: tuple[str, ...] = ()  # the sessions that test it; its own name if empty
    environment: dict[str, str] = field(default_factory=dict)  # set before the library is imported
    needs_gpu: bool = False
    device: str | None = None
    not_tested: dict[str, str] = field(default_factory=dict)  # a fixture's or mark's name -> the reason
    only_by_name: bool = False  # tested by no test but those that name its module

    @property
    def session_names(self) -> tuple[str, ...]:
        return self.sessions or (self.name,)

    @property
    def installed(self) -> bool:
        if importlib.util.find_spec(self.module.partition(".")[0]) is None:
            return False
        return not self.needs_gpu or _gpu_found(self.module)

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

    def dtype(self, name: str) -> Any:
        return getattr(self.xp, name)

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


NO_AUTOGRAD = "has no automatic differentiation"
NO_BFLOAT16 = "has no bfloat16"
# Dask's expressions under query planning have many cached properties, each with one lock for all of them.
CAN_DEADLOCK = {"threads": "before Python 3.12 cached properties may wait for each other for ever (cpython #87634)"}
NOT_IN_STRICT = {"autograd": NO_AUTOGRAD, "bfloat16": NO_BFLOAT16, "float16": "the standard has no float16"}

BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("numpy", "numpy", not_tested={"autograd": NO_AUTOGRAD, "bfloat16": NO_BFLOAT16}),
        Backend(
            "array-api-strict",
            "array_api_strict",
            not_tested=NOT_IN_STRICT,
        ),
        Backend(
            "array-api-strict-strictest",
            "array_api_strict",
            sessions=("array-api-strict",),
            not_tested=NOT_IN_STRICT,
        ),
        Backend(
            "dask",
            "dask.array",
            not_tested={
                "autograd": NO_AUTOGRAD,
                "bfloat16": NO_BFLOAT16,
                "unknown_types": "without query planning Dask takes blocks of an unknown type for NumPy's",
            },
        ),
        Backend(
            "dask-query-planning",
            "dask.array",
            environment={"DASK_ARRAY__QUERY_PLANNING": "True"},
            not_tested={
                "autograd": NO_AUTOGRAD,
                "bfloat16": NO_BFLOAT16,
                "matmul": "Dask has no matmul under query planning; the layer contracts its blocks",
                "delayed": "Dask warns of a Delayed that is computed together with arrays under query planning",
                "unknown_chunks": "under query planning Dask has no boolean indexing, and can't compute such arrays",
                **(CAN_DEADLOCK if sys.version_info < (3, 12) else {}),
            },
        ),
        # Where Dask's arrays are computed, no library of its own: the layer's tests run once, on "dask".
        Backend("distributed", "distributed", only_by_name=True),
        Backend("torch", "torch"),
        Backend("jax", "jax.numpy", environment={"JAX_ENABLE_X64": "True"}),
        Backend("torch-cuda", "torch", needs_gpu=True, device="cuda"),
        Backend("cupy", "cupy", needs_gpu=True, not_tested={"autograd": NO_AUTOGRAD, "bfloat16": NO_BFLOAT16}),
    )
}


def _gpu_found(module: str) -> bool:
    if module == "torch":
        return bool(importlib.import_module("torch").cuda.is_available())
    if module == "cupy":
        runtime = importlib.import_module("cupy").cuda.runtime
        try:
            return runtime.getDeviceCount() > 0
        except runtime.CUDARuntimeError:  # CuPy is here, and no driver or no GPU
            return False
    return True


def _chosen() -> list[Backend]:
    """Return the backends of this run, and refuse one that is asked for and missing."""
    asked = os.environ.get("FC_ARRAYAPI_BACKEND")
    if asked is None:
        # Dask takes query planning on or off when it is imported: one run has one of the two.
        return [b for b in BACKENDS.values() if b.installed and b.name != "dask-query-planning"]
    chosen = [backend for backend in BACKENDS.values() if asked in backend.session_names]
    if not chosen:
        raise pytest.UsageError(f"FC_ARRAYAPI_BACKEND={asked}: the backends are {', '.join(BACKENDS)}")
    for backend in chosen:
        if not backend.installed:
            needed = f"{backend.module} and a GPU are" if backend.needs_gpu else f"{backend.module} is"
            raise pytest.UsageError(f"FC_ARRAYAPI_BACKEND={asked}: {needed} not here, so nothing was tested")
    return chosen


CHOSEN = _chosen()
for _backend in CHOSEN:
    os.environ.update(_backend.environment)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*names): what a backend must have; the table says why one has not")
    config.addinivalue_line("markers", "only(*modules): the libraries that the test is about")


def pytest_report_header(config: pytest.Config) -> list[str]:
    lines = []
    for backend in CHOSEN:
        version = importlib.import_module(backend.module.partition(".")[0]).__version__
        lines.append(f"backend {backend.name}: {backend.module} {version}")
        lines += [f"  not tested: {what}: {why}" for what, why in backend.not_tested.items()]
    return lines


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" not in metafunc.fixturenames:
        return
    needed = {name for mark in metafunc.definition.iter_markers("needs") for name in mark.args}
    only = {name for mark in metafunc.definition.iter_markers("only") for name in mark.args}
    rows = [
        backend
        for backend in CHOSEN
        if not needed & backend.not_tested.keys() and (backend.module in only if only or backend.only_by_name else True)
    ]
    metafunc.parametrize("backend", rows, ids=[b.name for b in rows], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop tests for which this run has no backend; pytest would list them as skipped."""
    empty = [item for item in items if any("NOTSET" in part for part in item.nodeid.split("["))]
    if empty:
        config.hook.pytest_deselected(items=empty)
        items[:] = [item for item in items if item not in empty]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what this run found into the folder FC_ARRAYAPI_RECORD, if it is named: docs/make_backends.py reads it."""
    folder, asked = os.environ.get("FC_ARRAYAPI_RECORD"), os.environ.get("FC_ARRAYAPI_BACKEND")
    if folder is None or asked is None:
        return
    stats = session.config.pluginmanager.get_plugin("terminalreporter").stats
    record = {
        "backend": asked,
        "module": CHOSEN[0].module,
        "version": importlib.import_module(CHOSEN[0].module.partition(".")[0]).__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "passed": len(stats.get("passed", ())),
        "failed": len(stats.get("failed", ())) + len(stats.get("error", ())),
        "skipped": len(stats.get("skipped", ())),
        "not_tested": {what: why for row in CHOSEN for what, why in row.not_tested.items()},
    }
    (Path(folder) / f"{asked}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Any:
    """One row of the table, set up."""
    row: Backend = request.param
    with row.strictness():
        yield row


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260101)


@pytest.fixture
def batch(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """X, W, B and dY in float64: N = 7, C = 4, S = 3."""
    return {
        "X": rng.normal(size=(7, 4)),
        "W": rng.normal(size=(4, 3)),
        "B": rng.normal(size=3),
        "dY": rng.normal(size=(7, 3)),
    }
