"""The demo's data: real handwritten digits, augmented and lifted to a batch on disk.

The 1797 images of scikit-learn's ``load_digits`` are split before anything else. The images
to train on are shifted and rotated at random, and lifted by random Fourier features
(Rahimi and Recht 2007): cosines of random projections, of which a linear layer can tell
what it can't tell from the pixels.
"""

from __future__ import annotations

import json
import shutil
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from formats import FORMATS
from scipy.ndimage import map_coordinates
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

WRITE_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Lift:
    """How images become rows of X: what is chosen on the validation images."""

    features: int = 1024
    scale: float = 0.5  # standard deviation of the frequencies, for pixels in [0, 1]
    shift: float = 0.3  # largest shift, in pixels
    angle: float = 5.0  # largest rotation, in degrees

    def __call__(self, images):
        """Return the features of images, (n, features) in float32."""
        rng = np.random.default_rng(1)
        frequencies = rng.normal(0.0, self.scale, (64, self.features)).astype(np.float32)
        phases = rng.uniform(0.0, 2 * np.pi, self.features).astype(np.float32)
        angles = images.reshape(len(images), 64).astype(np.float32) @ frequencies
        angles += phases
        return np.cos(angles, out=angles)

    def augment(self, images, rng):
        """Return the images, each shifted and rotated at random."""
        n = len(images)
        turn = np.deg2rad(rng.uniform(-self.angle, self.angle, n))[:, None, None]
        down, right = rng.uniform(-self.shift, self.shift, (2, n, 1, 1))
        y, x = np.mgrid[:8, :8] - 3.5
        rows = np.cos(turn) * y - np.sin(turn) * x + down + 3.5
        columns = np.sin(turn) * y + np.cos(turn) * x + right + 3.5
        which = np.broadcast_to(np.arange(n)[:, None, None], rows.shape)
        return map_coordinates(images, [which, rows, columns], order=1, mode="constant")


def split():
    """Return the images and labels to train on, to choose with, and to test with, in this order."""
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)
    rest, test, rest_labels, test_labels = train_test_split(
        images, digits.target, test_size=0.2, random_state=0, stratify=digits.target
    )
    train, validation, train_labels, validation_labels = train_test_split(
        rest, rest_labels, test_size=0.2, random_state=0, stratify=rest_labels
    )
    return (train, train_labels), (validation, validation_labels), (test, test_labels)


def draw(images, labels, lift, rows, rng):
    """Return `rows` rows of features and their labels, from images drawn at random and augmented."""
    which = rng.integers(0, len(images), rows)
    return lift(lift.augment(images[which], rng)), labels[which]


def _bytes_of(paths: list[Path]) -> int:
    """Return the size of files and folders."""
    return sum(path.stat().st_size for top in paths for path in (top, *top.rglob("*")) if path.is_file())


def _whole(receipt: Path, made_of: dict, paths: list[Path]) -> bool:
    """Say whether an earlier run wrote this very batch, all of it."""
    try:
        return json.loads(receipt.read_text()) == made_of | {"bytes": _bytes_of(paths)}
    except (FileNotFoundError, ValueError):
        return False


def _remove(paths: list[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_batch(folder: Path, images, labels, lift: Lift, rows: int, kind: str, show) -> tuple[str, str]:
    """Write X and its labels block by block, or find them there from an earlier run; return what opens them."""
    format = FORMATS[kind]
    paths = [folder / name for name in format.files]  # none in an object store, whose server ends with the demo
    names = tuple(name if "://" in name else str(folder / name) for name in format.names)
    receipt = folder / f"batch.{kind}.json"  # written last: without it the files are not whole
    made_of = {"rows": rows, **asdict(lift), "images": zlib.crc32(images.tobytes())}
    if paths and _whole(receipt, made_of, paths):
        show(f"batch: reusing {paths[0]}")
        return names
    receipt.unlink(missing_ok=True)
    _remove(paths)
    rng, started = np.random.default_rng(2), time.perf_counter()
    step = max(1, WRITE_BYTES // (4 * lift.features))
    try:
        with format.writer(folder, rows, lift.features, step) as write:
            for start in range(0, rows, step):
                write(*draw(images, labels, lift, min(step, rows - start), rng))
                done = min(start + step, rows)
                show(f"batch: {done:,} of {rows:,} rows written", passing=done < rows)
    except BaseException:  # a full disk, Ctrl-C: nothing half-written stays
        _remove(paths)
        raise
    seconds = time.perf_counter() - started
    if not paths:
        show(f"batch: {names[0]} written in {seconds:.0f} s")
        return names
    size = _bytes_of(paths)
    unnamed = receipt.with_suffix(".part")
    unnamed.write_text(json.dumps(made_of | {"bytes": size}))
    unnamed.replace(receipt)
    show(f"batch: {size / 1e9:.2f} GB written to {paths[0]} in {seconds:.0f} s")
    return names
