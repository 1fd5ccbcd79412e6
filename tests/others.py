"""What works on libraries of the standard that have no session of their own: `nox -s "tests(others)"`.

Every documented equation, by `fc.einsum` and by `opt_einsum.contract`, and the layer, against
NumPy. The table goes to docs/libraries.md. An error is a row of the table; a wrong
number fails the run.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import opt_einsum
from helpers.equations import DOCUMENTED, operands_of, reference

import fc_arrayapi as fc
from fc_arrayapi import testing

PAGE = Path(__file__).parent.parent / "docs" / "libraries.md"
REGION = re.compile(r"(<!-- other libraries: begin -->\n).*?(<!-- other libraries: end -->)", re.DOTALL)


def sparse() -> tuple[Callable[..., Any], Callable[..., Any]]:
    library = importlib.import_module("sparse")
    return library.COO.from_numpy, lambda array: array.todense() if hasattr(array, "todense") else array


def ndonnx() -> tuple[Callable[..., Any], Callable[..., Any]]:
    return importlib.import_module("ndonnx").asarray, lambda array: array.unwrap_numpy()


def cubed() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Two blocks along each axis."""
    xp = importlib.import_module("cubed.array_api")
    return lambda a: xp.asarray(a, chunks=tuple(max(1, -(-n // 2)) for n in a.shape)), lambda array: array.compute()


def mlx() -> tuple[Callable[..., Any], Callable[..., Any]]:
    return importlib.import_module("mlx.core").array, np.asarray


LIBRARIES = (sparse, ndonnx, cubed, mlx)


def cases() -> dict[str, list[tuple[Callable[..., Any], list[np.ndarray], Any]]]:
    """Return, for each column of the table, calls with their operands and what NumPy makes of them."""
    rng = np.random.default_rng(0)
    X, W, B, dY = (rng.random(shape, "float32") for shape in ((200, 4), (4, 3), (3,), (200, 3)))
    columns: dict[str, list[Any]] = {"fc.einsum": [], "opt_einsum.contract": []}
    for equation in DOCUMENTED:
        hosts = [host.astype("float32") for host in operands_of(equation, rng)]
        expected = reference(equation, *hosts)
        columns["fc.einsum"].append((partial(fc.einsum, equation), hosts, expected))
        contract = partial(opt_einsum.contract, equation, backend="fc_arrayapi")
        columns["opt_einsum.contract"].append((contract, hosts, expected))
    columns["forward"] = [(fc.forward, [X, W, B], testing.reference_forward(X, W, B))]
    gradients = testing.reference_backward(X, W, dY)
    columns["backward"] = [
        (lambda *a, part=part: fc.backward(*a)[part], [X, W, dY], gradients[part]) for part in range(3)
    ]
    return columns


def row(library: Callable[..., Any]) -> tuple[str, list[str]]:
    """Return a library's row of the table, and what was wrong."""
    name = library.__name__
    try:
        to, back = library()
    except ImportError as error:
        return f"| {name} | not here: {error} | | | | |", []
    counts, errors, wrong = [], Counter(), []
    for column, calls in cases().items():
        passed = 0
        for call, hosts, expected in calls:
            try:
                result = back(call(*map(to, hosts)))
            except Exception as error:
                reason = " ".join(str(error).split()).partition(", but ")[0]  # not what it found this time
                errors[f"{type(error).__name__}: {reason[:60]}"] += 1
                continue
            if np.allclose(result, expected, rtol=1e-3, atol=1e-4):
                passed += 1
            else:
                wrong.append(f"{name}: {column} of shapes {[host.shape for host in hosts]} is wrong")
        counts.append(f"{passed} of {len(calls)}")
    why = "; ".join(f"{count} x {error}" for error, count in errors.most_common(3)).replace("|", "/")
    return f"| {name} | {version(name)} | {' | '.join(counts)} | {why} |", wrong


def main() -> int:
    """Make the table."""
    warnings.simplefilter("ignore")
    rows, wrong = [], []
    for library in LIBRARIES:
        line, failures = row(library)
        rows.append(line)
        wrong += failures
    columns = list(cases())
    table = [f"| library | version | {' | '.join(columns)} | errors |", "|---" * (len(columns) + 3) + "|", *rows]
    shown = "\n".join(table) + "\n"
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(REGION.sub(lambda found: f"{found[1]}{shown}{found[2]}", page), encoding="utf-8")
    print(*table, *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
