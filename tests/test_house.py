"""The rules of the house: imports run one way, and the standard is enough."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import numpy as np
import pytest
from helpers.assertions import refused
from helpers.backends import BACKENDS, FAILS, NOT_TESTED, chosen, gpu_found

import fc_arrayapi as fc
from fc_arrayapi._arrays import backends

ROOT = Path(__file__).parent.parent
PACKAGE = Path(fc.__file__).parent
# A file imports from its own wing and from those above it, and no wing from one below.
WINGS = ["_arrays", "_math", "_dask", "_files", "", "testing", "_shell"]  # "" are the public files
FACE = ["__init__", "cli", "__main__"]  # they import what they like
FILES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))
MATHEMATICS = [name for name in FILES if name.startswith("_math/")]
OPTIONAL = [
    "dask", "distributed", "torch", "jax", "cupy", "safetensors", "zarr", "threadpoolctl", "scipy", "h5py", "obstore",
    "fsspec",
]  # fmt: skip
# What the standard's 2022.12 version has, of what a namespace is asked for here.
STANDARD = {
    "any", "astype", "asarray", "broadcast_to", "concat", "empty", "eye", "float32", "isdtype", "matmul",
    "matrix_transpose", "multiply", "ones", "permute_dims", "reshape", "result_type", "sqrt", "sum", "where", "zeros",
}  # fmt: skip


def wing(name):
    return name.rpartition("/")[0]


def tree(name):
    return ast.parse((PACKAGE / f"{name}.py").read_text())


def modules_imported(name):
    """Return the files of the package that a file imports, wherever in it the import stands."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom) and (node.level or node.module.partition(".")[0] == "fc_arrayapi"):
            place = [part for part in wing(name).split("/") if part]
            base = place[: len(place) - node.level + 1] if node.level else []
            path = [*base, *(node.module or "").removeprefix("fc_arrayapi").strip(".").split(".")]
            whole = "/".join(part for part in path if part)
            for alias in node.names:
                inner = f"{whole}/{alias.name}".strip("/")
                found = (name for name in (inner, f"{inner}/__init__", whole) if name in FILES)
                yield next(found, f"{whole}/__init__".strip("/"))


def test_every_file_is_in_a_wing():
    assert {wing(name) for name in FILES} == set(WINGS)


@pytest.mark.parametrize("name", [name for name in FILES if name not in FACE])
def test_imports_run_one_way(name):
    below = WINGS[WINGS.index(wing(name)) + 1 :]
    assert [imported for imported in modules_imported(name) if wing(imported) in below or imported in FACE] == []


def test_no_file_imports_one_that_imports_it():
    # Each file is put after those it imports; what is left lies in a circle.
    imports = {name: set(modules_imported(name)) - {name} for name in FILES if name not in FACE}
    while done := {name for name, imported in imports.items() if not imported & imports.keys()}:
        imports = {name: imported for name, imported in imports.items() if name not in done}
    assert imports == {}


@pytest.mark.parametrize("name", FILES)
def test_one_door_to_each_library(name):
    imported = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported.add(node.module.partition(".")[0])
    assert ("array_api_compat" in imported) == (name == "_arrays/namespace")
    assert not imported & {"dask", "distributed", "threadpoolctl"} or wing(name) == "_dask"
    assert not imported & {"zarr", "h5py", "safetensors", "obstore"} or wing(name) == "_files"
    if name in MATHEMATICS:
        assert not imported & {"numpy", *OPTIONAL}


@pytest.mark.parametrize("name", MATHEMATICS)
def test_only_functions_of_the_standard(name):
    used = {
        node.attr
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "xp"
    }
    assert used - STANDARD == set()


def test_only_one_file_names_libraries():
    names = {"numpy", "dask.array", "torch", "jax.numpy", "cupy", "array_api_strict", "mlx.core", "cubed"}
    for name in FILES:
        if name == "_arrays/libraries":
            continue
        compared = [
            constant.value
            for node in ast.walk(tree(name))
            if isinstance(node, ast.Compare)
            for constant in ast.walk(node)
            if isinstance(constant, ast.Constant)
        ]
        assert names & {value for value in compared if isinstance(value, str)} == set(), name


def test_importing_the_package_imports_no_optional_library():
    code = "import sys, fc_arrayapi; print([m for m in sys.modules if m.partition('.')[0] in sys.argv[1:]])"
    run = subprocess.run([sys.executable, "-c", code, *OPTIONAL], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_missing_dask_is_named(monkeypatch, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((4, 3)))
    monkeypatch.setitem(sys.modules, "dask", None)
    monkeypatch.setitem(sys.modules, "dask.array", None)
    with refused(ImportError, "chunked arrays", "Dask", "pip install 'dask[array]'"):
        fc.open_array(tmp_path / "x.npy")


def test_public_names_are_there_and_documented():
    for name in fc.__all__:
        assert getattr(fc, name).__doc__


def test_each_session_of_a_backend_has_its_dependency_group():
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    assert {backend.session for backend in backends.BACKENDS} <= groups.keys()


def test_each_run_of_the_tests_belongs_to_one_session():
    runs = backends.runs()
    assert [backend.name for group in runs.values() for backend in group] == [b.name for b in backends.BACKENDS]
    assert {"numpy", "dask", "dask-query-planning"} <= runs.keys()
    assert NOT_TESTED.keys() | FAILS.keys() <= BACKENDS.keys()


def test_the_files_that_hold_the_promises_are_there():
    named = re.findall(r"\]\(\.\./tests/([\w/]+\.py)\)", (ROOT / "docs" / "promises.md").read_text())
    assert named
    assert [name for name in named if not (ROOT / "tests" / name).exists()] == []


def test_cupy_without_a_gpu_is_not_found(monkeypatch):
    class CUDARuntimeError(RuntimeError):
        pass

    def count():
        raise CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    runtime = types.SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CUDARuntimeError)
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime)))
    assert not gpu_found("cupy")
    runtime.getDeviceCount = lambda: 1
    assert gpu_found("cupy")


@pytest.mark.parametrize("asked", ["cupy", "torch-cuda", "nonsense"])
def test_a_backend_that_is_asked_for_and_missing_is_a_failure(asked, monkeypatch):
    if asked in BACKENDS and BACKENDS[asked].installed:
        asked = "nonsense"
    monkeypatch.setenv("FC_ARRAYAPI_BACKEND", asked)
    with pytest.raises(pytest.UsageError, match=f"^FC_ARRAYAPI_BACKEND={asked}: "):
        chosen()
