"""The command fc-arrayapi: versions, checks of backends, plans, and passes from files to files."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import importlib
import importlib.metadata
import importlib.util
import json
import math
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import Any, NoReturn

import fc_arrayapi as fc

from ._arrays import backends
from ._arrays.libraries import NumPyArray
from ._arrays.namespace import Array
from ._arrays.text import size_text
from ._dask import compute
from ._files import store, weights
from ._files.result import Options
from ._math import checks, equations
from .testing.backends import RESULTS

# A backend's module, and what pip calls it.
BACKENDS = {backend.name: (backend.module, backend.install) for backend in backends.BACKENDS if backend.shell}
OPTIONS = Options("--resume", "--overwrite")
OK, FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 130

# Errors of input or environment. Other exceptions are printed with their type.
MENDABLE = (ImportError, OSError, TypeError, ValueError)
# Advice for errors of the system.
ADVICE = {
    errno.ENOSPC: "free space on the disk",
    errno.EDQUOT: "free space: your quota is exhausted",
    errno.EACCES: "change its permissions, or choose another path",
    errno.EPERM: "change its permissions, or choose another path",
    errno.EROFS: "choose a writable path",
    errno.EPIPE: "the program that reads the output has ended",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Returns
    -------
    int
        0 on success, 1 if a check failed, 2 for a wrong command line or input, 130 after Ctrl-C.

    Examples
    --------
    >>> from fc_arrayapi.cli import main
    >>> main(["check", "numpy"])  # doctest: +ELLIPSIS
    backend           version       Y     dX    dW    dB
    numpy             ...  pass  pass  pass  pass
    0
    """
    given = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = given.run
    try:
        return run(given)
    except KeyboardInterrupt:
        goes_on = "; finished blocks are kept: run the same command with --resume to continue"
        _complain(given.command, "stopped" + (goes_on if hasattr(given, "resume") else ""))
        return STOPPED
    except Exception as error:
        if given.debug:
            traceback.print_exc()
        _complain(given.command, _in_one_line(error))
        return BAD_INPUT


def _in_one_line(error: Exception) -> str:
    """Write an exception and its notes in one line."""
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        where = "" if error.filename is None else f"{error.filename}: "
        text = f"{where}{str(error.strerror).lower()}: {ADVICE.get(error.errno, 'check the path')}"
    elif isinstance(error, MemoryError):
        text = "out of memory: reduce --rows or --threads"
    elif not isinstance(error, MENDABLE):
        text = f"{type(error).__name__}: {text}; --debug shows where"
    return " ".join(". ".join([text, *getattr(error, "__notes__", ())]).split())


def _complain(command: str, message: str) -> None:
    print(f"fc-arrayapi {command}: {message}", file=sys.stderr)


# The commands.


def _info(given: argparse.Namespace) -> int:
    print(f"{'fc_arrayapi':<17} {fc.__version__}\n{'Python':<17} {platform.python_version()}")
    for name in BACKENDS:
        print(f"{name:<17} {_version(name) if _is_found(name) else 'not installed'}")
    return OK


def _check(given: argparse.Namespace) -> int:
    if given.backend is not None and not _is_found(given.backend):
        raise ImportError(f"{given.backend} is not installed: pip install '{BACKENDS[given.backend][1]}'")
    names = [name for name in BACKENDS if _is_found(name)] if given.backend is None else [given.backend]
    print(f"{'backend':<17} {'version':<13} {'  '.join(f'{name:<4}' for name in RESULTS).rstrip()}")
    failures = []
    for name in names:
        wrong = _what_fails(name)
        verdicts = [f"{'fail' if result in wrong else 'pass':<4}" for result in RESULTS]
        print(f"{name:<17} {_version(name):<13} {'  '.join(verdicts)}")
        failures += [f"{name}: {what}: {why}" for what, why in wrong.items()]
    print("".join(f"{failure}\n" for failure in failures), end="")
    return FAILED if failures else OK


def _plan(given: argparse.Namespace) -> int:
    with _running_on(given):
        X, dY = _open(given)
        layer = _layer(given)
        results = {"Y": fc.forward(X, layer.W)} if dY is None else fc.backward(X, layer.W, dY)._asdict()
        plan = fc.plan(results, measure=given.measure)
        print(json.dumps(dataclasses.asdict(plan)) if given.json else plan)
    return OK


def _forward(given: argparse.Namespace) -> int:
    with _running_on(given):
        X, _ = _open(given)
        return _write(given, {given.out: _layer(given)(X)})


def _backward(given: argparse.Namespace) -> int:
    layer = _layer(given)
    needs: Any = equations.GRADIENTS if given.needs is None else checks.check_needs(given.needs.split(","))
    if given.needs is not None and "dB" in needs and layer.B is None:
        raise ValueError(f"{given.weights} has no B, so there is no dB: leave it out of --needs")
    with _running_on(given):
        grads = layer.backward(*_open(given), needs=needs)._asdict()
        files = {"dX": "dX.zarr", "dW": "dW.npy", "dB": "dB.npy"}
        with _folder(given.out):
            return _write(given, {given.out / files[name]: array for name, array in grads.items() if array is not None})


def _layer(given: argparse.Namespace) -> fc.FullyConnected[NumPyArray, NumPyArray | None]:
    return fc.FullyConnected.load(given.weights, prefix=given.prefix, layout=given.layout)


def _open(given: argparse.Namespace) -> tuple[Array, Array]:
    """Open X, and dY in blocks of the same number of rows."""
    X = fc.open_array(given.X, rows=given.rows, dtype=given.dtype)
    if getattr(given, "dY", None) is None:
        return X, None
    return X, fc.open_array(given.dY, rows=given.rows or max(1, X.chunks[0][0]))


def _write(given: argparse.Namespace, targets: dict[Path, Array]) -> int:
    """Compute all results in one pass, and print what was written."""
    inputs = {Path(path).resolve() for path in (given.X, getattr(given, "dY", None), given.weights) if path}
    for path in targets:
        if path.resolve() in inputs:
            raise ValueError(f"{path}: is an input of this pass: write the result to another path")
    started = time.perf_counter()
    with redirect_stdout(sys.stderr):  # for the progress: the bar of distributed knows no stream but stdout
        store.write(targets, resume=given.resume, overwrite=given.overwrite, progress=True, options=OPTIONS)
    for path, array in targets.items():
        shape = " x ".join(f"{n:,}" for n in array.shape)
        size = size_text(math.prod(array.shape) * array.dtype.itemsize)  # under query planning there is no nbytes
        print(f"{path}: {shape} {array.dtype}, {size}")
    print(f"{time.perf_counter() - started:.1f} s")
    return OK


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Create a folder and its parents; after an error remove those that are new and empty."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in new:
            with suppress(OSError):  # not empty: unfinished results, with which --resume goes on
                folder.rmdir()
        raise


def _running_on(given: argparse.Namespace) -> AbstractContextManager[Any]:
    """Compute on the cluster of --scheduler or with --threads."""
    if given.scheduler is not None and given.threads is not None:
        raise ValueError(
            "--threads applies to this machine, and workers have their own threads: omit --threads or --scheduler"
        )
    if given.scheduler is None and given.threads is None:
        return nullcontext()
    return compute.using(given.scheduler, given.threads)


# Checking a backend.


def _is_found(name: str) -> bool:
    return importlib.util.find_spec(BACKENDS[name][0].partition(".")[0]) is not None


def _version(name: str) -> str:
    module = BACKENDS[name][0].partition(".")[0]
    try:
        return importlib.metadata.version(importlib.metadata.packages_distributions().get(module, [module])[0])
    except importlib.metadata.PackageNotFoundError:  # on the path, but not installed
        return "unknown"


def _what_fails(name: str) -> dict[str, str]:
    """Return the checks that fail on a backend, each with the reason."""
    try:
        xp = importlib.import_module(BACKENDS[name][0])
    except Exception as error:  # a broken installation
        return dict.fromkeys(RESULTS, " ".join(f"{type(error).__name__}: {error}".split()))
    checks = fc.testing.check_backend(xp).checks
    # float64 is off by default in JAX and missing on Apple GPUs: not a failure.
    return {check.what: check.why for check in checks if not check.ok and check.what != "float64"}


# The command line.


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage before them."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fc-arrayapi",
        description="The fully connected layer Y = XW + B and its gradients.",
        epilog="examples:\n  fc-arrayapi plan X.npy --weights layer.npz\n"
        "  fc-arrayapi forward X.npy --weights layer.npz --out Y.zarr\n"
        "fc-arrayapi COMMAND --help has more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=fc.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, help: str, *examples: str) -> argparse.ArgumentParser:
        own = commands.add_parser(
            name,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            epilog="examples:\n" + "\n".join(f"  fc-arrayapi {name}{example}" for example in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        own.add_argument("--debug", action="store_true", help="show the traceback of an error")
        own.set_defaults(run=run)
        return own

    command("info", _info, "versions, and the array libraries that are installed", "")
    own = command("check", _check, "try the layer and einsum on array libraries", "", " torch")
    own.add_argument("backend", nargs="?", choices=BACKENDS, metavar="BACKEND", help=f"one of {', '.join(BACKENDS)}")
    own = command(
        "plan", _plan, "estimate the cost of a pass, without running it",
        " X.npy --weights layer.npz", " X.npy --weights layer.npz --dY dY.npy --rows 10000",
    )  # fmt: skip
    own.add_argument("--dY", metavar="dY", help="plan the pass for dX, dW and dB")
    own.add_argument("--measure", action="store_true", help="estimate the time too, from a block read and a product")
    own.add_argument("--json", action="store_true", help="print one line of JSON")
    _add_batch(own)
    own = command(
        "forward", _forward, "write Y = XW + B, block by block",
        " X.zarr --weights layer.npz --out Y.zarr", " X.npy --weights layer.npz --out Y.zarr --rows 10000 --resume",
    )  # fmt: skip
    _add_batch(own)
    own.add_argument("--out", type=Path, required=True, help="the file for Y, for example Y.zarr")
    _add_writing(own)
    own = command(
        "backward", _backward, "write dX, dW and dB, in one pass over X and dY",
        " X.zarr dY.zarr --weights layer.npz --out grads",
        " X.zarr dY.zarr --weights layer.npz --out grads --needs dW,dB --scheduler tcp://10.0.0.1:8786",
    )  # fmt: skip
    _add_batch(own)
    own.add_argument("dY", help="the gradient of the loss with respect to Y, as X")
    own.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for dX.zarr, dW.npy and dB.npy")
    own.add_argument("--needs", help="the gradients to compute, separated by commas (default: dX,dW,dB)")
    _add_writing(own)
    return parser


def _add_batch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("X", help="the batch, as fc.open_array takes it, for example X.npy or X.parquet::column")
    parser.add_argument("--weights", type=Path, required=True, help="W and B: a .npz or .safetensors file")
    parser.add_argument("--prefix", default="", help="the name of the layer in a file of a whole model")
    parser.add_argument("--layout", choices=weights.LAYOUTS, help="whose names W and B have (default: W and B)")
    parser.add_argument("--dtype", help="convert each block of X, for example to float32")
    parser.add_argument("--rows", type=int, help="rows in a block (default: up to 128 MiB)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="compute on a dask.distributed cluster")
    parser.add_argument("--threads", type=int, help="threads on this machine (default: one per core)")


def _add_writing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace existing results, at the end")
