"""The rules of the house: imports run one way, and the standard is enough."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest
from conftest import BACKENDS

import fc_arrayapi as fc

ROOT = Path(__file__).parent.parent
PACKAGE = Path(fc.__file__).parent
FILES = sorted(path.stem for path in PACKAGE.glob("*.py"))

# Each file may import the ones above it.
ORDER = [
    "libraries",
    "text",
    "namespace",
    "equations",
    "subscripts",
    "lowering",
    "accumulation",
    "validation",
    "npy",
    "disk",
    "weights",
    "alignment",
    "chunked",
    "blas",
    "progress",
    "cluster",
    "running",
    "einsum_memory",
    "einsum_blocks",
    "contraction",
    "formulas",
    "blocks",
    "gradients",
    "linear",
    "source",
    "npy_source",
    "zarr_source",
    "hdf5_source",
    "storage",
    "targets",
    "store",
    "plan",
    "layer",
    "literal",
    "adjoint",
    "gradient_check",
    "backend_check",
    "testing",
    "cli",
    "__main__",
    "__init__",
]
MATHEMATICS = [
    "accumulation", "blocks", "contraction", "einsum_blocks", "einsum_memory", "equations", "formulas", "linear",
    "lowering", "subscripts", "validation",
]  # fmt: skip
OPTIONAL = ["dask", "distributed", "torch", "jax", "cupy", "safetensors", "zarr", "threadpoolctl", "scipy", "h5py"]
# What the standard's 2022.12 version has, of what a namespace is asked for here.
STANDARD = {
    "astype", "asarray", "concat", "float32", "isdtype", "matmul", "matrix_transpose", "multiply", "ones",
    "permute_dims", "reshape", "result_type", "sum", "zeros",
}  # fmt: skip


def tree(name):
    return ast.parse((PACKAGE / f"{name}.py").read_text())


def own_imports(name):
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from [node.module] if node.module else [alias.name for alias in node.names]


def test_every_file_has_its_place():
    assert sorted(ORDER) == FILES


@pytest.mark.parametrize("name", FILES)
def test_imports_run_one_way(name):
    above = ORDER[: ORDER.index(name)]
    assert [imported for imported in own_imports(name) if imported not in above] == []


@pytest.mark.parametrize("name", FILES)
def test_one_door_to_each_library(name):
    imported = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported.add(node.module.partition(".")[0])
    assert ("array_api_compat" in imported) == (name == "namespace")
    assert "dask" not in imported or name in ("alignment", "chunked", "progress", "cluster", "running")
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


def test_importing_the_package_imports_no_optional_library():
    code = "import sys, fc_arrayapi; print([m for m in sys.modules if m.partition('.')[0] in sys.argv[1:]])"
    run = subprocess.run([sys.executable, "-c", code, *OPTIONAL], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_missing_dask_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask", None)
    monkeypatch.setitem(sys.modules, "dask.array", None)
    with pytest.raises(ImportError, match=r"^chunked arrays need Dask: pip install 'dask\[array\]'$"):
        fc.compute(1.0)


def test_public_names_are_there_and_documented():
    for name in fc.__all__:
        assert getattr(fc, name).__doc__


def lists_of(path):
    """Return the lists that a script assigns to names, without running it."""
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)
    }


def test_sessions_groups_and_the_table_of_backends_agree():
    lists = lists_of(ROOT / "noxfile.py")
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    sessions = [*lists["BACKENDS"], *lists["GPU_BACKENDS"]]
    assert set(sessions) <= groups.keys()
    tested = {name for backend in BACKENDS.values() for name in backend.session_names}
    assert tested == {*sessions, "dask-query-planning"}
    assert tested == set(lists_of(ROOT / "docs" / "make_backends.py")["ORDER"])
    assert {backend.name for backend in BACKENDS.values() if backend.needs_gpu} == set(lists["GPU_BACKENDS"])


def test_the_files_that_hold_the_promises_are_there():
    named = re.findall(r"\]\(\.\./tests/(\w+\.py)\)", (ROOT / "docs" / "promises.md").read_text())
    assert named
    assert [name for name in named if not (ROOT / "tests" / name).exists()] == []


def test_cupy_without_a_gpu_is_not_found(monkeypatch):
    import conftest

    class CUDARuntimeError(RuntimeError):
        pass

    def count():
        raise CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    runtime = types.SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CUDARuntimeError)
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime)))
    assert not conftest._gpu_found("cupy")
    runtime.getDeviceCount = lambda: 1
    assert conftest._gpu_found("cupy")


@pytest.mark.parametrize("asked", ["cupy", "torch-cuda", "nonsense"])
def test_a_backend_that_is_asked_for_and_missing_is_a_failure(asked, monkeypatch):
    import conftest

    if asked in BACKENDS and BACKENDS[asked].installed:
        asked = "nonsense"
    monkeypatch.setenv("FC_ARRAYAPI_BACKEND", asked)
    with pytest.raises(pytest.UsageError, match=f"^FC_ARRAYAPI_BACKEND={asked}: "):
        conftest._chosen()
