"""The command fc-arrayapi: versions, checks of backends, plans, and passes from files to files."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import fc_arrayapi as fc

from ._arrays.libraries import NumPyArray
from ._arrays.namespace import Array
from ._arrays.text import size_text
from ._dask import compute
from ._files import store
from ._files.result import Options
from ._math import checks, equations
from ._shell.arguments import BACKENDS, BAD_INPUT, completion, make_parser, parse
from ._shell.installed import info, is_found, version
from ._shell.messages import in_one_line, in_shell_terms
from .testing.backends import RESULTS

OPTIONS = Options("--resume", "--overwrite")
OK, FAILED, STOPPED = 0, 1, 130


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
    given = parse(arguments)
    if given.command is None:
        given.parser.print_help()
        return OK
    try:
        return COMMANDS[given.command](given)
    except KeyboardInterrupt:
        goes_on = "; finished blocks are kept: run the same command with --resume to continue"
        _complain(given.command, "stopped" + (goes_on if hasattr(given, "resume") else ""))
        return STOPPED
    except Exception as error:
        if given.debug:
            traceback.print_exc()
        _complain(given.command, in_one_line(error, given.command))
        return BAD_INPUT


def _complain(command: str, message: str) -> None:
    print(f"fc-arrayapi {command}: {message}", file=sys.stderr)


# The commands.


def _info(given: argparse.Namespace) -> int:
    found = info()
    if given.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{name:<17} {'not installed' if value is None else value}" for name, value in found.items()))
    return OK


def _check(given: argparse.Namespace) -> int:
    if given.backend is not None and not is_found(given.backend):
        raise ImportError(f"{given.backend} is not installed: pip install '{BACKENDS[given.backend][1]}'")
    names = [name for name in BACKENDS if is_found(name)] if given.backend is None else [given.backend]
    failures: dict[str, Mapping[str, str]] = {}
    if not given.json:
        print(f"{'backend':<17} {'version':<13} {'  '.join(f'{name:<4}' for name in RESULTS).rstrip()}")
    for name in names:
        wrong = failures[name] = _failures_of(name)
        if not given.json:
            verdicts = [f"{'fail' if result in wrong else 'pass':<4}" for result in RESULTS]
            print(f"{name:<17} {version(name):<13} {'  '.join(verdicts)}")
    if given.json:
        print(json.dumps({name: {"version": version(name), "failures": wrong} for name, wrong in failures.items()}))
    else:
        lines = [f"{name}: {what}: {why}\n" for name, wrong in failures.items() for what, why in wrong.items()]
        print("".join(lines), end="")
    return FAILED if any(failures.values()) else OK


def _failures_of(name: str) -> dict[str, str]:
    """Return the checks that fail on a backend, each with the reason."""
    try:
        xp = importlib.import_module(BACKENDS[name][0])
    except Exception as error:  # a broken installation
        return dict.fromkeys(RESULTS, " ".join(f"{type(error).__name__}: {error}".split()))
    checks = fc.testing.check_backend(xp).checks
    # float64 is off by default in JAX and missing on Apple GPUs: not a failure.
    return {check.what: check.why for check in checks if not check.ok and check.what != "float64"}


def _plan(given: argparse.Namespace) -> int:
    with _running_on(given):
        X, dY = _open(given)
        layer = _layer(given)
        results = {"Y": fc.forward(X, layer.W)} if dY is None else fc.backward(X, layer.W, dY)._asdict()
        plan = fc.plan(results, measure=given.measure)
        print(json.dumps(dataclasses.asdict(plan)) if given.json else in_shell_terms(str(plan)))
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
        arrays = {name: array for name, array in grads.items() if array is not None}
        if isinstance(given.out, str):  # objects have no folders, and store writes no other format there
            return _write(given, {f"{given.out.rstrip('/')}/{name}.zarr": array for name, array in arrays.items()})
        files = {"dX": "dX.zarr", "dW": "dW.npy", "dB": "dB.npy"}
        with _folder(given.out):
            return _write(given, {given.out / files[name]: array for name, array in arrays.items()})


def _completion(given: argparse.Namespace) -> int:
    print(completion(make_parser(), given.shell))
    return OK


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "info": _info,
    "check": _check,
    "plan": _plan,
    "forward": _forward,
    "backward": _backward,
    "completion": _completion,
}


# What a pass needs.


def _layer(given: argparse.Namespace) -> fc.FullyConnected[NumPyArray, NumPyArray | None]:
    try:
        return fc.FullyConnected.load(given.weights, prefix=given.prefix, layout=given.layout)
    except FileNotFoundError as error:
        made = "make one with layer.save(path), or numpy.savez(path, W=W, B=B)"
        raise FileNotFoundError(f"{given.weights}: no such file of weights: {made}") from error


def _open(given: argparse.Namespace) -> tuple[Array, Array]:
    """Open X, and dY in blocks of the same number of rows."""
    X = fc.open_array(given.X, rows=given.rows, dtype=given.dtype)
    if getattr(given, "dY", None) is None:
        return X, None
    return X, fc.open_array(given.dY, rows=given.rows or max(1, X.chunks[0][0]), dtype=given.dtype)


def _write(given: argparse.Namespace, targets: Mapping[str | Path, Array]) -> int:
    """Compute all results in one pass, and print what was written."""
    started = time.perf_counter()
    with redirect_stdout(sys.stderr):  # for the progress: the bar of distributed knows no stream but stdout
        store.write(
            targets,
            resume=given.resume,
            overwrite=given.overwrite,
            progress=not given.quiet,
            memory_limit=given.memory_limit,
            options=OPTIONS,
        )
    if given.quiet:
        return OK
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
