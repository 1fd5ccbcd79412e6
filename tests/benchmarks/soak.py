"""A long run of random work: layer calls against float64, and passes to files that are broken at a random point.

``nox -s soak``, or ``python tests/benchmarks/soak.py --calls 2000 --stores 20`` for a shorter one.
It prints a table, and ends with exit code 1 if a number was wrong, a finished block was lost, an
unfinished result could be read as a whole one, or memory or open files grew.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

os.environ.setdefault("JAX_ENABLE_X64", "True")

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace

MODULES = ["numpy", "array_api_strict", "dask.array", "torch", "jax.numpy"]
LAYOUTS = ["contiguous", "transposed", "strided", "broadcast"]
# Of N, C and S. A few: JAX compiles for each shape, and keeps what it has compiled, 12 MB a shape.
SIZES = [(0, 1, 7, 60), (0, 1, 16), (0, 1, 5)]
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}


def installed(module: str) -> bool:
    return importlib.util.find_spec(module.partition(".")[0]) is not None


# Calls.


def laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    """Return the same numbers, lying otherwise in memory."""
    if layout == "transposed":
        return np.ascontiguousarray(array.T).T
    if layout == "strided":
        return np.repeat(array, 2, axis=0)[::2]
    if layout == "broadcast":
        return np.broadcast_to(array[:1], array.shape)
    return array


@dataclass
class Calls:
    """Random calls of every public function that computes, and what was wrong."""

    rng: np.random.Generator
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    refused: int = 0

    def run(self, count: int, modules: list[str]) -> None:
        for number in range(count):
            module = modules[number % len(modules)]
            if self.rng.random() < 0.1:
                self.refuse(module)
            else:
                self.compare(module)
            self.done[module] += 1

    def arrays(self) -> tuple[str, list[np.ndarray]]:
        """Draw X, W, B and dY."""
        N, C, S = (int(self.rng.choice(sizes)) for sizes in SIZES)
        dtype = str(self.rng.choice(["float32", "float64"]))
        shapes = ((N, C), (C, S), (S,), (N, S))
        draws = [self.rng.normal(size=shape).astype(dtype) for shape in shapes]
        return dtype, [laid_out(draw, str(self.rng.choice(LAYOUTS))) for draw in draws]

    def give(self, module: str, array: np.ndarray) -> namespace.Array:
        xp = importlib.import_module(module)
        if module == "torch":  # it warns of arrays that may not be written to, as broadcast ones are
            array = array if array.flags.writeable else array.copy()
        if module == "dask.array":
            return xp.from_array(array, chunks=tuple(int(self.rng.integers(1, n + 2)) for n in array.shape))
        return xp.asarray(array)

    def results(self, X, W, B, dY) -> dict[str, namespace.Array]:
        """Call the layer, its gradients one by one, or einsum and what opt_einsum asks of a backend."""
        match int(self.rng.integers(3)):
            case 0:
                return {"Y": fc.forward(X, W, B), **fc.backward(X, W, dY)._asdict()}
            case 1:
                return {"dX": fc.grad_input(dY, W), "dW": fc.grad_weight(X, dY), "dB": fc.grad_bias(dY)}
        return {
            "einsum": fc.einsum("nc,cs->ns", X, W),
            "tensordot": fc.tensordot(X, W, axes=1),
            "transpose": fc.transpose(X, axes=(1, 0)),
        }

    def compare(self, module: str) -> None:
        dtype, host = self.arrays()
        given = X, W, B, dY = [self.give(module, array) for array in host]
        before = [array.tobytes() for array in host]
        results = self.results(X, W, B, dY)
        if module == "dask.array":
            results = dict(zip(results, fc.compute(*results.values()), strict=True))
        x, w, b, dy = (array.astype("float64") for array in host)
        expected = {"Y": x @ w + b, "dX": dy @ w.T, "dW": x.T @ dy, "dB": dy.sum(axis=0)}
        expected |= {"einsum": x @ w, "tensordot": x @ w, "transpose": x.T}
        for name, result in results.items():
            found, reference = namespace.to_numpy(result), expected[name]
            scale = np.max(np.abs(reference), initial=1.0)
            right = found.shape == reference.shape and found.dtype == dtype
            if not (right and np.allclose(found, reference, rtol=0, atol=TOLERANCE[dtype] * scale)):
                self.wrong.append(f"{name} on {module}: {[array.shape for array in given]}, {dtype}")
        if [array.tobytes() for array in host] != before:
            self.wrong.append(f"an input was written to on {module}")

    def refuse(self, module: str) -> None:
        """Give one argument another size: an error, and no number."""
        _, host = self.arrays()
        changed = int(self.rng.integers(4))
        host[changed] = np.concatenate(
            [host[changed], host[changed][-1:], np.zeros_like(host[changed], shape=(1, *host[changed].shape[1:]))]
        )
        X, W, B, dY = [self.give(module, array) for array in host]
        try:
            fc.forward(X, W, B)
            fc.backward(X, W, dY)
        except ValueError:
            self.refused += 1
        else:
            self.wrong.append(f"no error on {module} for {[array.shape for array in host]}")


# Passes to files.


class FaultError(Exception):
    """What a broken source raises."""


class Source:
    """An array-like that raises at one block, until it is mended, and counts what is read."""

    def __init__(self, array: np.ndarray, fail_at: int, name: str) -> None:
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim
        self.fail_at, self.name, self.reads = fail_at, name, 0

    def __dask_tokenize__(self) -> tuple[str, str]:
        return ("Source", self.name)

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        rows = range(len(self.array))[index[0]]
        if self.fail_at in rows:
            raise FaultError(self.name)
        self.reads += len(rows)
        return self.array[index]


@dataclass
class Stores:
    """Passes to files, each broken at a random block and taken up again."""

    rng: np.random.Generator
    done: int = 0
    broken: int = 0
    kept_rows: int = 0
    lost: list[str] = field(default_factory=list)

    def run(self, count: int) -> None:
        for number in range(count):
            with tempfile.TemporaryDirectory() as folder:
                self.one(Path(folder), number)
            self.done += 1

    def one(self, folder: Path, number: int) -> None:
        import dask.array as da

        N, C, S, rows = (int(n) for n in self.rng.integers([20, 1, 1, 1], [200, 9, 9, 20]))
        X, W = self.rng.normal(size=(N, C)), self.rng.normal(size=(C, S))
        source = Source(X, int(self.rng.integers(N)), f"soak-{number}")
        path = folder / str(self.rng.choice(["y.npy", "y.zarr"]))
        Y = fc.forward(da.from_array(source, chunks=(rows, C)), W)
        try:
            fc.store({path: Y})
        except FaultError:
            self.broken += 1
        else:
            self.lost.append(f"run {number}: the fault went unseen")
        if path.exists():
            self.lost.append(f"run {number}: an unfinished result has the name of a whole one")
        # Blocks that were under way in other threads when one failed still end, and count as finished.
        time.sleep(0.02)
        finished = self.finished_rows(path)
        source.fail_at, source.reads = -1, 0
        fc.store({path: Y}, resume=True)
        self.kept_rows += N - source.reads
        if source.reads > N - finished:
            self.lost.append(f"run {number}: {finished} of {N} rows were finished, {source.reads} were read again")
        result = np.load(path) if path.suffix == ".npy" else fc.open_array(path).compute()
        if not np.allclose(result, X @ W, rtol=1e-12, atol=1e-12):
            self.lost.append(f"run {number}: wrong numbers after resume")
        if sorted(folder.iterdir()) != [path]:
            self.lost.append(f"run {number}: left {sorted(folder.iterdir())}")

    @staticmethod
    def finished_rows(path: Path) -> int:
        import json

        records = list(path.with_name(path.name + ".fc_arrayapi.part").glob("*/finished"))
        lines = {line for record in records for line in record.read_text().split("\n") if line}
        return sum(place[0][1] - place[0][0] for place in map(json.loads, lines))


# What may not grow.


def resources() -> tuple[float, int]:
    """Return anonymous memory in MB and the number of open files."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1e3, len(os.listdir("/proc/self/fd"))


def row(what: str, value: object) -> None:
    print(f"| {what:<44} | {value!s:>16} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--stores", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    modules = [module for module in MODULES if installed(module)]
    calls, stores = (kind(np.random.default_rng(given.seed)) for kind in (Calls, Stores))
    # A first part fills caches and pools of threads; what grows is looked for after it.
    calls.run(given.calls // 2, modules)
    stores.run(given.stores // 2)
    memory, files = resources()
    calls.run(given.calls - given.calls // 2, modules)
    stores.run(given.stores - given.stores // 2)
    grown, more_files = (after - before for after, before in zip(resources(), (memory, files), strict=True))
    print(f"| {'what':<44} | {'count':>16} |\n|{'-' * 46}|{'-' * 18}|")
    for module, done in calls.done.items():
        row(f"calls on {module}", f"{done:,}")
    row("of these, wrong sizes that were refused", f"{calls.refused:,}")
    row("wrong numbers or missing errors", len(calls.wrong))
    row("passes to files", stores.done)
    row("of these, broken at a random block", stores.broken)
    row("rows kept from broken passes", f"{stores.kept_rows:,}")
    row("finished rows lost, or results wrong", len(stores.lost))
    row("memory grown in the second half, MB", f"{grown:.1f}")
    row("open files grown in the second half", more_files)
    for line in [*calls.wrong[:20], *stores.lost[:20]]:
        print(line)
    return int(bool(calls.wrong or stores.lost or grown > 50 or more_files > 0))


if __name__ == "__main__":
    sys.exit(main())
