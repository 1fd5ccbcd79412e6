"""What contractions of NumPy blocks say that they hold, against what they allocate: `plan` adds these up."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from fc_arrayapi._dask import einsum, moments
from fc_arrayapi._math import linear, per_sample
from fc_arrayapi._math.costs import cost_of

Pair = tuple[Any, Any]
NEEDS = {"needs": ("dW", "dB"), "sample_axes": 1}
# The dtypes of X, and of the other matrix.
DTYPES = [
    ("float32", "float32"),
    ("float64", "float64"),
    ("float16", "float16"),
    ("float16", "float32"),
    ("float32", "float64"),
]
# N, C and S.
SHAPES = [(8192, 512, 64), (1500, 1024, 1024), (100_000, 10, 10), (40_000, 64, 1), (20_000, 1, 100), (300, 5000, 20)]
OF_THE_LAYER: dict[str, Callable[..., Pair]] = {
    "dW": lambda X, W, dY, w: (partial(linear.grad_weight, rounded=False), (X, dY)),
    "weighted dW": lambda X, W, dY, w: (partial(linear.grad_weight, rounded=False), (X, dY, w)),
    "dB": lambda X, W, dY, w: (partial(linear.grad_bias, rounded=False), (dY,)),
    "weighted dB": lambda X, W, dY, w: (partial(linear.grad_bias, rounded=False), (dY, w)),
    "dW and dB": lambda X, W, dY, w: (
        partial(linear.grad_weight_and_bias, acc_dtype=np.result_type(X, dY, "float32")),
        (X, dY),
    ),
    "Y": lambda X, W, dY, w: (linear.forward, (X, W)),
    "dX": lambda X, W, dY, w: (linear.grad_input, (dY, W)),
    "norms": lambda X, W, dY, w: (partial(per_sample.norms, **NEEDS), (X, dY)),
    "dots": lambda X, W, dY, w: (partial(per_sample.dots, **NEEDS), (X, dY, X[:10], dY[:10])),
    "moments": lambda X, W, dY, w: (partial(moments._of_block, True, "float64"), (X, dY)),
    "moments of X": lambda X, W, dY, w: (partial(moments._of_block, False, "float64"), (X,)),
    "weighted moments": lambda X, W, dY, w: (partial(moments._of_block, True, "float32"), (X, dY, w)),
} | {
    f"{equation}, {rounded}": lambda X, W, dY, w, equation=equation, rounded=rounded: (
        partial(einsum._contract_blocks, equation, rounded),
        tuple({"nc": X, "cs": W, "ns": dY, "n": w}[labels] for labels in equation.split("->")[0].split(",")),
    )
    for equation in ("nc,cs->ns", "nc,ns->cs", "ns,cs->nc", "nc,nc->n", "nc->c", "nc->n", "nc,n->nc")
    for rounded in (True, False)
}
# Samples, positions, C and S.
SEQUENCES = [(256, 64, 128, 128), (256, 8, 256, 256), (32, 200, 512, 512), (2000, 3, 100, 10), (4, 2000, 64, 64)]
OF_SEQUENCES: dict[str, Callable[..., Pair]] = {
    "norms": lambda X, W, dY: (partial(per_sample.norms, **NEEDS), (X, dY)),
    "dots": lambda X, W, dY: (partial(per_sample.dots, **NEEDS), (X, dY, X[:5], dY[:5])),
} | {
    equation: lambda X, W, dY, equation=equation: (
        partial(einsum._contract_blocks, equation, True),
        tuple({"ntc": X, "nts": dY, "cs": W}[labels] for labels in equation.split("->")[0].split(",")),
    )
    for equation in ("ntc,nts->ncs", "ntc,nts->cs", "ntc->c", "ntc,ntc->n", "ntc,cs->nts", "ntc,nts->tcs")
}


def held(function: Callable[..., Any], arrays: tuple[Any, ...]) -> int:
    """Return the most bytes that NumPy has beside the arrays and the results."""
    tracemalloc.start()
    try:
        results = function(*arrays)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak - sum(x.nbytes for x in (results if isinstance(results, tuple) else (results,)))


def check(function: Callable[..., Any], arrays: tuple[Any, ...]) -> None:
    stated, most = cost_of(function, *arrays), held(function, arrays)
    assert stated is not None
    assert most <= stated.held + 2**19  # the plan adds this for each thread
    assert stated.held <= 2 * most + 2**24


def blocks(shape: tuple[int, ...], C: int, S: int, dtypes: tuple[str, str]) -> tuple[Any, Any, Any]:
    """Return X, W and dY. They differ, since equal positions would cancel in no norm."""
    rng = np.random.default_rng(0)
    X, dY = rng.random((*shape, C), "float32"), rng.random((*shape, S), "float32")
    return X.astype(dtypes[0]), np.ones((C, S), dtypes[1]), dY.astype(dtypes[1])


@pytest.mark.only("dask.array")
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("dtypes", DTYPES, ids="-".join)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_blocks_hold_what_is_stated(backend, shape, dtypes):
    n, C, S = shape
    first = *blocks((3,), 2, 2, dtypes), np.ones(3, "float32")
    given = *blocks((n,), C, S, dtypes), np.ones(n, "float32")
    for make in OF_THE_LAYER.values():
        held(*make(*first))  # what is imported, and kept for each equation
        check(*make(*given))


@pytest.mark.only("dask.array")
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("dtypes", DTYPES, ids="-".join)
@pytest.mark.parametrize("shape", SEQUENCES, ids=lambda shape: "x".join(map(str, shape)))
def test_blocks_of_sequences_hold_what_is_stated(backend, shape, dtypes):
    *leading, C, S = shape
    first, given = blocks((3, 2), 2, 2, dtypes), blocks(tuple(leading), C, S, dtypes)
    for make in OF_SEQUENCES.values():
        held(*make(*first))
        check(*make(*given))
