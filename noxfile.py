"""Everything that is checked, in one place: `nox -l` lists it, plain `nox` runs it."""

import os
import runpy
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nox

# torch's CPU build may be known to pip alone, so all sessions use virtualenv and pip.
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = True

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
# The test runs, by name; each has its backends.
RUNS = runpy.run_path(str(ROOT / "fc_arrayapi" / "_arrays" / "backends.py"))["runs"]()
BACKENDS = list(dict.fromkeys(b.session for run in RUNS.values() for b in run if not b.gpu))
GPU_BACKENDS = list(dict.fromkeys(b.session for run in RUNS.values() for b in run if b.gpu))
# Files and the shell, which the lowest versions of array libraries have no part in.
WITHOUT_LIBRARIES = (
    "cli",
    "formats",
    "hostile_*",
    "house",
    "messages_files",
    "opened",
    "plan_memory",
    "store_*",
    "weights*",
)
# Checks of input, and what opens files.
FULLY_COVERED = [f"_files/{name}.py" for name in ("hdf5", "npy", "open", "source", "zarr")] + ["_math/checks.py"]


def by_name(names):
    return [nox.param(name, id=name) for name in names]


def install(session: nox.Session, *groups: str) -> None:
    """Install the package and the named dependency groups of pyproject.toml."""
    session.install(".", *[d for group in groups for d in nox.project.dependency_groups(PYPROJECT, group)])


def runs_of(backend: str) -> list[str]:
    """Return the test runs of a backend's session: Dask has two, since it takes query planning when it is imported."""
    return [name for name, run in RUNS.items() if run[0].session == backend]


def run_tests(session: nox.Session, *runs: str, without: Sequence[str] = ()) -> None:
    """Test with two processes, or as the arguments say. A group of tests that may not meet stays in one process."""
    arguments = session.posargs or ["-n", "2", "--dist", "loadgroup", *(f"--ignore-glob={file}" for file in without)]
    for run in runs:
        session.run("pytest", *arguments, env={"FC_ARRAYAPI_BACKEND": run})


@nox.session
@nox.parametrize("backend", by_name(BACKENDS))
def tests(session: nox.Session, backend: str) -> None:
    """Test the layer on one array library, installed alone; arguments go to pytest."""
    install(session, "test", backend)
    run_tests(session, *runs_of(backend))


@nox.session(name="tests(s3)")
def s3(session: nox.Session) -> None:
    """Test arrays in object stores against an S3 server that moto runs on this machine; arguments go to pytest."""
    install(session, "test", "s3")
    arguments = session.posargs or ["-n", "2", "tests/s3"]
    session.run("pytest", *arguments, env={"FC_ARRAYAPI_BACKEND": "dask"})


@nox.session(name="tests(others)", default=False)
def others(session: nox.Session) -> None:
    """Make the table of what works on sparse, ndonnx, cubed and mlx, where they install: docs/libraries.md."""
    install(session, "test")
    for library in nox.project.dependency_groups(PYPROJECT, "others"):
        session.install(library, success_codes=[0, 1])  # pip says why where it does not install
    session.run("python", "tests/others.py")


@nox.session(name="tests(peers)", default=False)
def peers(session: nox.Session) -> None:
    """Run the einsum tests that NumPy and opt_einsum install, on this package (two minutes); arguments go to pytest."""
    install(session, "peers")
    for peer, tests_of in {"numpy": "numpy._core.tests.test_einsum", "opt_einsum": "opt_einsum"}.items():
        session.run(
            "pytest", "-c", "tests/peers/pytest.ini", "-p", "peers", "-n", "2", "--pyargs", tests_of, *session.posargs,
            env={"PEER": peer, "PYTHONPATH": "tests/peers", "JAX_ENABLE_X64": "1"},
        )  # fmt: skip


@nox.session(default=False)
def benchmarks(session: nox.Session) -> None:
    """Measure against rivals, as ratios; `-- --quick` for a first look, `-- --record` for docs/benchmarks.md."""
    install(session, "benchmarks")
    for library in nox.project.dependency_groups(PYPROJECT, "benchmarks-tried"):
        session.install(library, success_codes=[0, 1])  # pip says why where it does not install
    session.run(
        "pytest", "-p", "ratios", "-o", "python_files=bench_*.py", "tests/benchmarks", *session.posargs,
        env={"PYTHONPATH": "tests/benchmarks"},
    )  # fmt: skip


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Call everything 20,000 times, break 200 passes to files: `nox -s soak -- --calls 2000 --stores 20` for less."""
    install(session, "soak")
    session.run("python", "tests/benchmarks/soak.py", *session.posargs)


@nox.session(default=False)
def crashes(session: nox.Session) -> None:
    """Break passes to files 1,000 times, ours and others', and kill the workers of 50 passes: what is lost or wrong."""
    install(session, "crashes")
    session.run("python", "tests/crashes.py", *session.posargs)
    session.run("python", "tests/killed_workers.py", *session.posargs)


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """Print which branches the tests reach; fails if one in FULLY_COVERED is not."""
    install(session, "test", "array-api-strict", "distributed", "torch", "s3", "coverage")
    session.run("coverage", "erase")
    for backend in ("numpy", "array-api-strict", "dask", "dask-query-planning", "distributed", "torch"):
        session.run("coverage", "run", "-m", "pytest", "-q", env={"FC_ARRAYAPI_BACKEND": backend})
    session.run("coverage", "run", "-m", "pytest", "-q", "tests/s3", env={"FC_ARRAYAPI_BACKEND": "dask"})
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")
    for file in FULLY_COVERED:  # one by one: a pattern that matches no file is an error then
        session.run("coverage", "report", f"--include=*/fc_arrayapi/{file}", "--fail-under=100")


@nox.session(python="3.14t", default=False)
def free_threading(session: nox.Session) -> None:
    """Test eight threads at once on a Python without the GIL, on NumPy and Dask (needs python3.14t)."""
    install(session, "test-free-threading")
    for backend in ("numpy", "dask"):
        command = ("python", "-X", "gil=0", "-m", "pytest", "tests/test_threads.py", "tests/test_linear.py")
        session.run(*command, *session.posargs, env={"FC_ARRAYAPI_BACKEND": backend})


@nox.session(default=False)
@nox.parametrize("backend", by_name(GPU_BACKENDS))
def gpu(session: nox.Session, backend: str) -> None:
    """Test the layer on a GPU, with CuPy and with PyTorch (needs CUDA)."""
    install(session, "test", backend)
    run_tests(session, *runs_of(backend))


@nox.session
def minimums(session: nox.Session) -> None:
    """Test the lowest versions that pyproject.toml declares, on NumPy and Dask."""
    project = PYPROJECT["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["dask"]
    session.install(".", *[d.replace(">=", "==") for d in declared], *nox.project.dependency_groups(PYPROJECT, "test"))
    run_tests(session, "numpy", "dask", without=[f"tests/test_{name}.py" for name in WITHOUT_LIBRARIES])


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format with ruff; `nox -s lint -- --fix` mends what it can."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check", *session.posargs, ".")
    session.run("ruff", "format", *([] if "--fix" in session.posargs else ["--check"]), ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Check the types: the package with mypy, strictly, and users' programs with mypy and pyright."""
    install(session, "typing")
    session.run("mypy")
    session.run("python", "tests/typing/check.py")


@nox.session
def doctests(session: nox.Session) -> None:
    """Run every example: README, docs, docstrings, and the demo on a small batch."""
    install(session, "doctests")
    session.run(
        "pytest", "-p", "run_examples", "--doctest-modules", "--pyargs", "fc_arrayapi", "README.md", "docs",
        *session.posargs, env={"PYTHONPATH": "docs"},
    )  # fmt: skip


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages into .nox/html, with warnings as errors, and follow every link between them."""
    install(session, "docs")
    out = ROOT / ".nox" / "html"
    session.run("sphinx-build", "-W", "--keep-going", "-E", "-q", "-b", "html", "docs", str(out), *session.posargs)
    session.run("python", "docs/check_links.py", str(out))


@nox.session
def demo(session: nox.Session) -> None:
    """Train a linear probe on a batch larger than memory may be: `nox -s demo -- --gb 8 --from parquet` for more."""
    kinds = ["formats"] if any(option.startswith("--from") for option in session.posargs) else []
    install(session, "demo", *kinds, *(["s3"] if "s3" in " ".join(session.posargs) else []))
    session.run("python", "docs/examples/linear_probe.py", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build sdist and wheel, check them, install the wheel bare and import it."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "build"))
    with tempfile.TemporaryDirectory() as folder:
        session.run("python", "-m", "build", "--outdir", folder)
        session.run("twine", "check", "--strict", *[str(p) for p in Path(folder).iterdir()])
        (wheel,) = Path(folder).glob("*.whl")
        bare = Path(folder) / "bare"
        session.run(sys.executable, "-m", "venv", str(bare), external=True)
        python = bare / ("Scripts" if os.name == "nt" else "bin") / "python"
        session.run(str(python), "-m", "pip", "install", "--quiet", str(wheel), external=True)
        with session.chdir(folder):  # away from the checkout, so that the wheel is imported
            session.run(str(python), "-c", "import fc_arrayapi; print(fc_arrayapi.__file__)", external=True)
