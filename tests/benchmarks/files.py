"""Files that the passes read, made once for a run and removed after it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import fc_arrayapi as fc

ROWS = 8192  # in a block


@dataclass(frozen=True)
class Files:
    """X of shape (N, C) and T of shape (N, S) in x.npy and t.npy, W and B in memory."""

    folder: Path
    W: np.ndarray
    B: np.ndarray

    def open(self, name: str):
        return fc.open_array(self.folder / name, rows=ROWS)

    def mapped(self, name: str, mode: str = "r") -> np.ndarray:
        return np.load(self.folder / name, mmap_mode=mode)

    @property
    def size(self) -> str:
        """Return the size of X, for the names of cases."""
        return f"{self.mapped('x.npy').nbytes / 1e9:.2f} GB"


@pytest.fixture(scope="session")
def files(quick: bool) -> Iterator[Files]:
    """1 GB of X; an eighth of it in a quick run."""
    N, C, S = 32_768 if quick else 262_144, 1024, 256
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        for what, columns in (("x", C), ("t", S)):
            write(Path(name) / f"{what}.npy", N, columns, rng)
        yield Files(Path(name), rng.random((C, S), "float32") / C, rng.random(S, "float32"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that is gone after the test: pytest would keep three of them, some GB each."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def write(path: Path, rows: int, columns: int, rng: np.random.Generator) -> None:
    """Write a .npy file of random float32 numbers, the same 4096 rows again and again."""
    piece = rng.random((4096, columns), "float32")
    array = np.lib.format.open_memmap(path, "w+", "float32", (rows, columns))
    for start in range(0, rows, len(piece)):
        part = array[start : start + len(piece)]
        part[:] = piece[: len(part)]
    array.flush()
