"""Train one fully connected layer on a batch that does not fit into the memory it may use.

A linear probe on real handwritten digits: softmax regression over features on disk, full
batch, one pass over the data for each step of SciPy's L-BFGS. Change what you like:

    python docs/examples/linear_probe.py --gb 8 --features 2048 --out probe

The memory of the process is capped, and another process under the same cap tries to load the file. The files
beside this one set the cap (memory_cap.py), make the data (digits.py), write it (formats.py), have the loss
(losses.py), and show what happens (report.py).
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from digits import Lift, draw, split, write_batch
from formats import FORMATS
from local_s3 import local_s3
from losses import cross_entropy
from memory_cap import CAP, cap_memory, loading_dies
from report import Memory, Passes, box, picture, show
from scipy.optimize import minimize

import fc_arrayapi as fc

# What --choose finds, as the settings of Lift are.
PENALTY = 1e-3


def train(X, labels, penalty, steps, after_pass=None):
    """Fit W and B by L-BFGS, with one pass over X for each evaluation of loss and gradients."""
    start = fc.FullyConnected.init(X.shape[1], 10, initializer="zeros", dtype="float32")
    size = start.W.size

    def layer_of(parameters):
        parameters = parameters.astype(np.float32)
        return fc.FullyConnected(parameters[:size].reshape(start.W.shape), parameters[size:])

    def objective(parameters):
        layer = layer_of(parameters)
        Y = layer(X)
        loss, dY = cross_entropy(Y, labels)
        grads = layer.backward(X, dY, needs=("dW", "dB"))  # nothing is computed so far if X is lazy
        loss, grads = fc.compute(loss, grads)
        loss = float(loss) + penalty / 2 * float((layer.W.astype(float) ** 2).sum())
        if after_pass is not None:
            after_pass(loss)
        return loss, np.concatenate([(grads.dW + penalty * layer.W).ravel(), grads.dB]).astype(float)

    found = minimize(
        objective, np.zeros(size + 10), jac=True, method="L-BFGS-B", options={"maxiter": steps, "maxfun": 2 * steps}
    )
    return layer_of(found.x)


def choose(train_set, validation_set, features, rows=3000):
    """Choose scale, shift and penalty by the loss on the validation images; the test images are not looked at."""
    results = {}
    for scale, shift in itertools.product((0.3, 0.5, 0.7), (0.15, 0.3, 0.6)):
        lift = Lift(features=features, scale=scale, shift=shift)
        X, labels = draw(*train_set, lift, rows, np.random.default_rng(3))
        X_validation = lift(validation_set[0])
        for penalty in (1e-4, 1e-3, 1e-2):
            layer = train(X, labels, penalty, steps=40)
            results[lift, penalty] = float(cross_entropy(layer(X_validation), validation_set[1])[0])
            show(f"choosing: {len(results)} of 27 settings tried", passing=True)
    (lift, penalty), loss = min(results.items(), key=lambda item: item[1])
    show(
        f"chosen on {len(validation_set[0])} validation images: scale {lift.scale}, shifts within {lift.shift} pixel, "
        f"rotations within {lift.angle} degrees, penalty {penalty} (loss {loss:.4f})"
    )
    return lift, penalty


def by_hand(array, path):
    """Return what a loop by hand would slice: the memmap of a .npy file, blocks of the lazy array of any other."""
    return np.load(path, mmap_mode="r") if path.endswith(".npy") else array


def numpy_pass(X, labels, W, B, block_rows):
    """Do one pass as one would by hand: a NumPy loop over the same files, with all BLAS threads."""
    dW, dB, loss = np.zeros_like(W), np.zeros_like(B), 0.0
    for start in range(0, len(X), block_rows):
        rows = slice(start, start + block_rows)
        x = np.asarray(X[rows])
        share = len(x) / len(X)
        block_loss, dY = cross_entropy(x @ W + B, np.asarray(labels[rows]))
        loss += float(block_loss) * share
        dW += x.T @ dY * share
        dB += dY.sum(axis=0) * share
    return loss, dW, dB


def seconds_of(function, times=3):
    """Return the median of several timings."""
    timings = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        timings.append(time.perf_counter() - started)
    return float(np.median(timings))


def run(arguments, memory):
    """Make the data, try to load it, train, and report."""
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    train_set, validation_set, test_set = split()
    lift, penalty = Lift(features=arguments.features), PENALTY
    if arguments.choose:
        lift, penalty = choose(train_set, validation_set, arguments.features)
    images, labels = (np.concatenate(pair) for pair in zip(train_set, validation_set, strict=True))
    rows = max(1, int(arguments.gb * 1e9) // (4 * lift.features))
    show(f"batch: {rows:,} rows, augmented: {len(images):,} real images of digits, shifted and rotated at random")
    paths = write_batch(out, images, labels, lift, rows, arguments.format, show)

    X = fc.open_array(paths[0])
    y = fc.open_array(paths[1], rows=X.chunksize[0])
    show(f"{paths[0]}: {X.shape[0]:,} x {X.shape[1]} float32, {X.nbytes / 1e9:.2f} GB in {X.numblocks[0]} blocks")
    capped = cap_memory()  # the libraries that read the file are imported
    if capped:
        show(f"memory: capped at {CAP / 1e6:,.0f} MB beside Python and its libraries")
    death = loading_dies(paths[0]) if capped else None
    show("loading the file: it fits" if death is None else f"loading the file: died: {death}")
    passes = Passes(rows, row_bytes=4 * lift.features)
    layer = train(X, y, penalty, arguments.steps, after_pass=passes.done)

    layer.save(out / "layer.npz")
    X_test, test_labels = lift(test_set[0]), test_set[1]
    predicted = np.argmax(fc.FullyConnected.load(out / "layer.npz")(X_test), axis=1)
    if not np.array_equal(predicted, np.argmax(layer(X_test), axis=1)):
        raise RuntimeError("the saved layer predicts something else")

    def one_pass():
        loss, dY = cross_entropy(layer(X), y)
        return fc.compute(loss, layer.backward(X, dY, needs=("dW", "dB")))

    data = [by_hand(array, path) for array, path in zip((X, y), paths, strict=True)]
    ours, loop = seconds_of(one_pass), seconds_of(lambda: numpy_pass(*data, layer.W, layer.B, X.chunksize[0]))
    peak, points = memory.peak, list(memory.points)  # before scikit-learn and matplotlib take their own
    few = min(rows, 10_000)
    theirs = sklearn_accuracy(data, penalty, X_test, test_labels)
    picture(out / "linear_probe.png", points, X.nbytes, CAP if capped else None, test_set[0], test_labels, predicted)
    box({
        "loading": "not tried under a cap" if not capped else "fits" if death is None else "died under the cap",
        "memory": f"{peak / 1e6:,.0f} MB at most, Python included, for a batch of {X.nbytes / 1e6:,.0f} MB",
        "accuracy": f"{np.mean(predicted == test_labels):.1%} of {len(test_labels)} images never seen "
                    f"(scikit-learn on {few:,} rows in memory: {theirs:.1%})",
        "speed": f"{ours:.2f} s a pass; a NumPy loop over the file takes {loop:.2f} s",
        "files": f"layer.npz, linear_probe.png in {out}",
    })  # fmt: skip


def sklearn_accuracy(data, penalty, X_test, test_labels):
    """Return the test accuracy of scikit-learn's softmax regression on as many rows as it may hold."""
    from sklearn.linear_model import LogisticRegression

    X, labels = (np.array(array[:10_000]) for array in data)
    model = LogisticRegression(C=1 / (penalty * len(X)), max_iter=200).fit(X, labels)
    return model.score(X_test, test_labels)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gb", type=float, default=2.0, help="size of the batch on disk, in 10^9 bytes (default 2)")
    parser.add_argument("--features", type=int, default=1024, help="random Fourier features (default 1024)")
    parser.add_argument("--steps", type=int, default=60, help="steps of L-BFGS at most (default 60)")
    parser.add_argument(
        "--from", dest="format", choices=FORMATS, default="npy", help="format of the batch on disk (default npy)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "linear_probe_out", help="folder for results"
    )
    parser.add_argument(
        "--choose", action="store_true", help="search scale, shift and penalty on validation images first (40 s)"
    )
    arguments = parser.parse_args()
    try:
        with Memory() as memory, local_s3() if arguments.format == "s3" else nullcontext():
            run(arguments, memory)
    except KeyboardInterrupt:
        show("stopped; a batch that was whole is kept and used again")
        sys.exit(130)


if __name__ == "__main__":
    main()
