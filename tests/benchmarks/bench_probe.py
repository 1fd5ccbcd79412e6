"""A pass of a linear probe over a file: the full gradient against scikit-learn's steps of one row each.

What they give is not the same, what they read is: a pass of ours is one gradient of the whole
batch, one of SGDClassifier's is one step for each row and class.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from files import write
from sklearn.linear_model import SGDClassifier

import fc_arrayapi as fc

ROWS, FEATURES, CLASSES = 50_000, 64, 10


@dataclass(frozen=True)
class Probe:
    path: Path
    labels: np.ndarray

    @property
    def case(self):
        return f"probe, one pass over {len(self.labels):,} rows of {FEATURES} features"

    def open(self):
        return fc.open_array(self.path, rows=ROWS), da.from_array(self.labels, chunks=ROWS)


@pytest.fixture
def probe(folder, quick):
    rows = 200_000 if quick else 1_000_000
    rng = np.random.default_rng(0)
    write(folder / "x.npy", rows, FEATURES, rng)
    return Probe(folder / "x.npy", rng.integers(CLASSES, size=rows))


def one_pass(probe):
    """Loss and gradients of softmax regression."""
    X, labels = probe.open()
    layer = fc.FullyConnected.init(FEATURES, CLASSES, initializer="zeros", dtype="float32")
    Y = layer(X)
    Z = Y - Y.max(axis=1, keepdims=True)
    target = (labels[:, None] == np.arange(CLASSES)).astype("float32")
    log_sum = da.log(da.exp(Z).sum(axis=1, keepdims=True))
    loss = (log_sum - (Z * target).sum(axis=1, keepdims=True)).sum()
    return fc.compute(loss, layer.backward(X, da.exp(Z - log_sum) - target, needs=("dW", "dB")))


def test_sklearn(against, probe):
    def rival():
        model, X = SGDClassifier(loss="log_loss"), np.load(probe.path, mmap_mode="r")
        for start in range(0, len(X), ROWS):
            rows = slice(start, start + ROWS)
            model.partial_fit(X[rows], probe.labels[rows], classes=np.arange(CLASSES))

    against(
        probe.case, lambda: one_pass(probe), "scikit-learn, partial_fit of each block", rival, seconds=10.0,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # not made for the versions of its neighbours
def test_dask_ml(against, probe):
    rivals_name = "dask-ml, Incremental"
    wrappers = against.needs(probe.case, rivals_name, "dask_ml.wrappers")

    def rival():
        wrappers.Incremental(SGDClassifier(loss="log_loss")).fit(*probe.open(), classes=np.arange(CLASSES))

    try:
        rival()
    except Exception as error:
        against.cannot(probe.case, rivals_name, f"dask-ml fails: {type(error).__name__}: {str(error)[:80]}")
    against(probe.case, lambda: one_pass(probe), rivals_name, rival, seconds=10.0)
