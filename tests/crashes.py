"""Break passes to files at random points, and look at what is left: `nox -s crashes`, `-- --rounds 100` for less.

In each round a result is written in a process of its own, in half of them over an older one. The process is killed, or
meets a full disk, a removed folder or a second writer, at a random point; then the pass is run again to its end. Beside
this package the same is done to Zarr written by hand, to np.save, and to Dask's own to_zarr. The table says how often a
file was torn (it has its name and is neither the older result nor the new one), lost (the older result is gone and the
new one is not there), wrong (after the second run), and how many finished blocks were computed again.
Exits with 1 if this package tore, lost or computed anything wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import zarr

import fc_arrayapi as fc

ROWS, COLUMNS, BLOCK = 1600, 64, 100  # 16 blocks of 50 KB
OLDER = 1.0
PART = ".fc_arrayapi.part"


class Rows:
    """Rows of one number, that take a moment to read; each read is written down."""

    shape, dtype, ndim = (ROWS, COLUMNS), np.dtype(float), 2

    def __init__(self, value: float, log: Path) -> None:
        self.value, self.log = value, log

    def __dask_tokenize__(self) -> tuple[str, float]:
        return "Rows", self.value

    def __getitem__(self, index: Any) -> np.ndarray:
        first, stop, _ = index[0].indices(ROWS)
        if stop > first:
            with open(self.log, "a") as file:
                file.write(f"{first}\n")
            time.sleep(0.002)
        return np.full((stop - first, COLUMNS), self.value)

    def lazy(self) -> da.Array:
        return da.from_array(self, chunks=(BLOCK, COLUMNS))


# The writers: each writes a whole result, after a failure once more.


def store(path: Path, x: Rows, again: bool) -> None:
    try:
        fc.store({path: x.lazy()}, resume=again, overwrite=True)
    except ValueError:  # damaged: what it advises
        fc.store({path: x.lazy()}, overwrite=True)


def zarr_by_hand(path: Path, x: Rows, again: bool) -> None:
    array = zarr.create_array(path, shape=x.shape, dtype=x.dtype, chunks=(BLOCK, COLUMNS), overwrite=True)
    for start in range(0, ROWS, BLOCK):
        array[start : start + BLOCK] = x[(slice(start, start + BLOCK),)]


def np_save(path: Path, x: Rows, again: bool) -> None:
    np.save(path, np.concatenate([x[(slice(start, start + BLOCK),)] for start in range(0, ROWS, BLOCK)]))


def to_zarr(path: Path, x: Rows, again: bool) -> None:
    x.lazy().to_zarr(path, overwrite=True)


WRITERS: dict[str, tuple[Callable[[Path, Rows, bool], None], str]] = {
    "fc.store, .npy": (store, "y.npy"),
    "fc.store, .zarr": (store, "y.zarr"),
    "zarr by hand": (zarr_by_hand, "y.zarr"),
    "np.save": (np_save, "y.npy"),
    "Dask's to_zarr": (to_zarr, "y.zarr"),
}
SIGNALS = {signal.SIGTERM, signal.SIGINT}
FAULTS = ("SIGKILL", "SIGTERM", "Ctrl-C", "full disk", "removed folder", "two writers")


def value_of(path: Path) -> float | None:
    """Return the number of which a whole file consists, nan for a file that is torn, None if there is none."""
    if not os.path.lexists(path):
        return None
    try:
        array = np.load(path) if path.suffix == ".npy" else zarr.open_array(path, mode="r")[...]
    except Exception:
        return np.nan
    whole = array.shape == (ROWS, COLUMNS) and (array == array[0, 0]).all()
    return float(array[0, 0]) if whole and array[0, 0] != 0 else np.nan  # 0: what was never written


def fork(call: Callable[[], Any]) -> int:
    """Call a function in a process forked from this one, and return the process.

    This one has no threads, and begins none: zarr would, so files are read in forked processes too. Signals wait
    until the new process can receive them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    process = os.fork()
    if process:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return process
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1), os.dup2(silence, 2)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        call()
        code = 0
    finally:
        os._exit(code)


def value_at(path: Path) -> float | None:
    """Return `value_of` a path, read in another process."""
    reader, writer = os.pipe()
    process = fork(lambda: os.write(writer, repr(value_of(path)).encode()))
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read().decode()
    ended(process)
    return None if said == "None" else float(said)


def run(write: Callable[[Path, Rows, bool], None], path: Path, x: Rows, again: bool) -> int:
    """Start a writer in another process, with two threads, and return the process."""
    dask.config.set(num_workers=2)
    return fork(lambda: write(path, x, again))


def ended(process: int, seconds: float = 120) -> int:
    """Wait for a process, and return its exit status; kill one that does not end."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return status
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    raise TimeoutError("a pass did not end")


def finished_blocks(path: Path) -> set[int]:
    """Return the first rows of the blocks that an unfinished result of this package has."""
    found = set()
    for file in path.with_name(path.name + PART).glob("*/finished"):
        found |= {int(line[2:].split(",")[0]) for line in file.read_text().split("\n") if line.endswith("]]")}
    return found


def break_it(fault: str, process: int, path: Path, rival: Callable[[], int]) -> None:
    """Do to a process what the fault is."""
    if fault in ("SIGKILL", "SIGTERM", "Ctrl-C"):
        os.kill(process, {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}[fault])
    elif fault == "removed folder":
        part = path.with_name(path.name + PART)
        shutil.rmtree(part if part.exists() else path, ignore_errors=True)
        if path.suffix == ".npy" and not part.exists():
            path.unlink(missing_ok=True)
    elif fault == "two writers":
        ended(rival())


@contextlib.contextmanager
def small_disk(r: random.Random, folder: Path):
    """Mount a disk on which a result fits half, or once and a half; it takes root."""
    size = int(ROWS * COLUMNS * 8 * r.uniform(0.1, 1.5))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def one_round(r: random.Random, name: str, fault: str, seconds: float, folder: Path, found: Counter[str]) -> None:
    """Break a pass, look, run it again, look."""
    write, target = WRITERS[name]
    path, logs = folder / "disk" / target, folder / "logs"
    shutil.rmtree(folder, ignore_errors=True)
    path.parent.mkdir(parents=True)
    logs.mkdir()
    x, other = Rows(2.0, logs / "x"), Rows(3.0, logs / "other")
    older = r.random() < 0.5
    with small_disk(r, path.parent) if fault == "full disk" else contextlib.nullcontext():
        if older and fault != "full disk":
            ended(run(write, path, Rows(OLDER, logs / "older"), False))
        process = run(write, path, x, False)
        if fault != "full disk":
            time.sleep(r.uniform(0, seconds))
            break_it(fault, process, path, lambda: run(write, path, other, False))
        status = ended(process)
        value = value_at(path)
        whole = {2.0, 3.0, OLDER} if fault == "two writers" else {2.0, OLDER}
        found["torn"] += value is not None and value not in whole
        found["lost"] += value is None and older and fault not in ("full disk", "removed folder")
        found["wrong"] += status == 0 and value not in whole and fault != "removed folder"  # it said that all is well
        before = finished_blocks(path)
        if fault == "full disk":
            return  # there is no room for a second run either
    (logs / "x").unlink(missing_ok=True)
    found["wrong"] += value == 2.0 and fault == "removed folder" and status != 0
    if value != 2.0 or os.path.lexists(path.with_name(path.name + PART)):
        ended(run(write, path, x, True))
        found["wrong"] += value_at(path) != 2.0
    read = set(map(int, (logs / "x").read_text().split())) if (logs / "x").exists() else set()
    found["again"] += len(before & read)


def table(found: dict[tuple[str, str], Counter[str]]) -> str:
    """Write the table as Markdown."""
    lines = ["| writer | fault | rounds | torn | lost | wrong | finished blocks computed again |"]
    lines.append("|---|---|--:|--:|--:|--:|--:|")
    for (name, fault), counts in found.items():
        again = counts["again"] if name.startswith("fc.") else "all"
        numbers = " | ".join(str(counts[what]) for what in ("rounds", "torn", "lost", "wrong"))
        lines.append(f"| {name} | {fault} | {numbers} | {again} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000, help="rounds of this package (1000); others have a fifth")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faults = list(FAULTS)
    if os.geteuid() != 0 or not shutil.which("mount"):
        faults.remove("full disk")
        print("full disk: left out, since mounting a small one takes root")
    found: dict[tuple[str, str], Counter[str]] = {(name, fault): Counter() for name in WRITERS for fault in faults}
    with tempfile.TemporaryDirectory() as folder:
        for name, (write, target) in WRITERS.items():
            logs = Path(folder)
            ended(run(write, logs / target, Rows(2.0, logs / "warm"), False))
            shutil.rmtree(logs / target) if target.endswith("zarr") else (logs / target).unlink()
            start = time.monotonic()
            ended(run(write, logs / target, Rows(2.0, logs / "warm"), False))
            seconds = time.monotonic() - start  # of a whole pass
            rounds = given.rounds // (2 if write is store else 5)
            for number in range(rounds):
                fault = faults[number % len(faults)]
                counts = found[name, fault]
                counts["rounds"] += 1
                one_round(random.Random(f"{given.seed} {name} {number}"), name, fault, seconds, logs / "round", counts)
                if sys.stderr.isatty():
                    print(f"\r{name}: {number + 1} of {rounds}", end="", file=sys.stderr)
    print(table(found))
    ours = sum((counts for (name, _), counts in found.items() if name.startswith("fc.")), Counter())
    return int(any(ours[what] for what in ("torn", "lost", "wrong")))


if __name__ == "__main__":
    sys.exit(main())
