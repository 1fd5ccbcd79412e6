"""The hooks that give each test its backends, and the fixtures that many tests take.

``FC_ARRAYAPI_BACKEND=torch pytest`` tests one session's backends and fails if they are
missing; without it every backend that is installed is tested.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.backends import Backend, chosen

CHOSEN = pytest.StashKey[list[Backend]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[CHOSEN] = chosen()
    for backend in config.stash[CHOSEN]:
        os.environ.update(backend.environment)
    config.addinivalue_line(
        "markers", "needs(*names): what the test takes; helpers/backends.py says where it lacks or fails"
    )
    config.addinivalue_line("markers", "xdist_group(name): run by one worker of pytest-xdist, where it is installed")
    config.addinivalue_line("markers", "only(*modules): the libraries that the test is about")


def pytest_report_header(config: pytest.Config) -> list[str]:
    lines = []
    for backend in config.stash[CHOSEN]:
        version = importlib.import_module(backend.module.partition(".")[0]).__version__
        lines.append(f"backend {backend.name}: {backend.module} {version}")
        lines += [f"  not tested: {what}: {why}" for what, why in backend.not_tested.items()]
        lines += [f"  known to fail: {what}: {failure.reason}" for what, failure in backend.fails.items()]
    return lines


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" not in metafunc.fixturenames:
        return
    needed = {name for mark in metafunc.definition.iter_markers("needs") for name in mark.args}
    only = {name for mark in metafunc.definition.iter_markers("only") for name in mark.args}
    rows = [
        pytest.param(
            backend,
            id=backend.name,
            marks=[
                pytest.mark.xfail(strict=True, reason=failure.reason, raises=failure.raises)
                for name, failure in backend.fails.items()
                if name in needed
            ],
        )
        for backend in metafunc.config.stash[CHOSEN]
        if not needed & backend.not_tested.keys() and (backend.module in only if only or backend.only_by_name else True)
    ]
    metafunc.parametrize("backend", rows, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop tests for which this run has no backend; pytest would list them as skipped."""
    empty = [item for item in items if any("NOTSET" in part for part in item.nodeid.split("["))]
    if empty:
        config.hook.pytest_deselected(items=empty)
        items[:] = [item for item in items if item not in empty]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what this run found into the folder FC_ARRAYAPI_RECORD, if it is named: docs/make_backends.py reads it."""
    folder, asked = os.environ.get("FC_ARRAYAPI_RECORD"), os.environ.get("FC_ARRAYAPI_BACKEND")
    if folder is None or asked is None or hasattr(session.config, "workerinput"):  # a worker of pytest-xdist
        return
    backends = session.config.stash[CHOSEN]
    stats = session.config.pluginmanager.get_plugin("terminalreporter").stats
    record = {
        "backend": asked,
        "module": backends[0].module,
        "version": importlib.import_module(backends[0].module.partition(".")[0]).__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "passed": len(stats.get("passed", ())),
        "failed": len(stats.get("failed", ())) + len(stats.get("error", ())),
        "skipped": len(stats.get("skipped", ())),
        "xfailed": len(stats.get("xfailed", ())),
        "not_tested": {what: why for row in backends for what, why in row.not_tested.items()},
        "fails": {what: failure.reason for row in backends for what, failure in row.fails.items()},
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
