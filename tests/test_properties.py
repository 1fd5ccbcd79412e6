"""What holds for every input: linearity, the adjoint identity, and that how a batch is cut or ordered doesn't matter.

Entries are whole numbers, and small, so that every sum is exact and results are compared bit
for bit. Rounding has tests of its own, in test_summation.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace

SIZES = st.integers(0, 5)
LAYOUTS = ("contiguous", "transposed", "strided", "reversed")

a_property = partial(
    settings, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@dataclass
class Case:
    """A layer and a batch, as float64 NumPy arrays and how each is given to the library."""

    N: int
    C: int
    S: int
    dtype: str
    seed: int
    layouts: tuple[str, ...]
    cuts: tuple[int, ...]  # the longest block along N, C and S

    def numbers(self, *shape: int, of: int) -> np.ndarray:
        return np.random.default_rng((self.seed, of)).integers(-4, 5, shape).astype(self.dtype)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """X, W, B and dY."""
        N, C, S = self.N, self.C, self.S
        return tuple(self.numbers(*shape, of=k) for k, shape in enumerate(((N, C), (C, S), (S,), (N, S))))

    def give(self, backend, *arrays, cuts=None):
        """Give NumPy arrays of the roles X, W, B and dY to the library, in their layouts and chunks."""
        n, c, s = cuts or self.cuts
        chunks = ((n, c), (c, s), (s,), (n, s))
        return tuple(
            laid_out(backend, array, layout, tuple(map(min, chunk, np.maximum(array.shape, 1))))
            for array, layout, chunk in zip(arrays, self.layouts, chunks, strict=True)
        )


def laid_out(backend, array, layout, chunks):
    """Give an array to the library so that its memory lies otherwise, where the library can say so."""
    if layout == "transposed" and array.ndim == 2:
        return backend.asarray(np.ascontiguousarray(array.T), chunks=chunks[::-1]).T
    if layout == "strided":
        wide = np.repeat(array, 2, axis=0)
        return backend.asarray(wide, chunks=(2 * chunks[0], *chunks[1:]))[::2, ...]
    if layout == "reversed" and backend.module not in ("torch",):  # torch has no negative steps
        return backend.asarray(np.ascontiguousarray(array[::-1]), chunks=chunks)[::-1, ...]
    return backend.asarray(array, chunks=chunks)


CASES = st.builds(
    Case,
    N=SIZES,
    C=SIZES,
    S=SIZES,
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 2**32 - 1),
    layouts=st.tuples(*[st.sampled_from(LAYOUTS)] * 4),
    cuts=st.tuples(*[st.integers(1, 5)] * 3),
)


def host(*arrays):
    """Compute what is lazy, in one pass, and return NumPy arrays."""
    if namespace.is_chunked(namespace.of(arrays[0])):
        arrays = fc.compute(*arrays)
    return [namespace.to_numpy(array) for array in arrays]


def assert_same(results, expected):
    for result, reference in zip(results, expected, strict=True):
        assert result.dtype == reference.dtype
        np.testing.assert_array_equal(result, reference)


@pytest.fixture(autouse=True)
def _one_warning_less():
    """Features in several blocks are joined or contracted block by block; the warning has a test of its own."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=UserWarning)
        yield


@a_property(max_examples=60)
@given(case=CASES)
def test_every_input_gives_the_literal_forms(backend, case):
    X, W, B, dY = case.give(backend, *case.arrays)
    results = host(fc.forward(X, W, B), *fc.backward(X, W, dY))
    x, w, b, dy = case.arrays
    assert_same(results, [fc.testing.reference_forward(x, w, b), *fc.testing.reference_backward(x, w, dy)])


@a_property(max_examples=30)
@given(case=CASES, factor=st.integers(-3, 3))
def test_the_layer_is_linear(backend, case, factor):
    x, w, b, dy = case.arrays
    others = [case.numbers(*array.shape, of=10 + k) for k, array in enumerate(case.arrays)]
    X, W, B, dY = case.give(backend, x, w, b, dy)
    X2, W2, B2, dY2 = case.give(backend, *others)
    sums = case.give(backend, *(mine + factor * other for mine, other in zip(case.arrays, others, strict=True)))
    Z = case.give(backend, np.zeros_like(x), w, b, dy)[0]
    for results in (
        host(fc.forward(sums[0], W), fc.forward(X, W), fc.forward(X2, W)),
        host(fc.forward(X, sums[1]), fc.forward(X, W), fc.forward(X, W2)),
        host(fc.forward(Z, W, sums[2]), fc.forward(Z, W, B), fc.forward(Z, W, B2)),
    ):
        whole, first, second = results
        np.testing.assert_array_equal(whole, first + factor * second)
    parts = [host(*fc.backward(X, W, d)) for d in (sums[3], dY, dY2)]
    for whole, first, second in zip(*parts, strict=True):
        np.testing.assert_array_equal(whole, first + factor * second)


@a_property(max_examples=30)
@given(case=CASES)
def test_the_gradients_are_the_adjoints(backend, case):
    """<dY, UW> = <dX, U>, <dY, XU> = <dW, U> and <dY, 1U> = <dB, U> for every U: what makes a gradient one."""
    x, w, b, dy = case.arrays
    X, W, _, dY = case.give(backend, x, w, b, dy)
    dX, dW, dB = host(*fc.backward(X, W, dY))
    directions = [case.numbers(*a.shape, of=20 + k) for k, a in enumerate((x, w, b))]
    U_X, U_W, U_B = case.give(backend, *directions, dy)[:3]
    zero = case.give(backend, np.zeros_like(x), w, b, dy)[0]
    along_X, along_W, along_B = host(fc.forward(U_X, W), fc.forward(X, U_W), fc.forward(zero, W, U_B))
    for gradient, direction, along in zip((dX, dW, dB), directions, (along_X, along_W, along_B), strict=True):
        assert np.vdot(gradient, direction) == np.vdot(dy, along)


@pytest.mark.only("dask.array")
@a_property(max_examples=30)
@given(case=CASES, cuts=st.tuples(*[st.integers(1, 5)] * 3))
def test_chunks_change_nothing(backend, case, cuts):
    first, second = (case.give(backend, *case.arrays, cuts=own) for own in (case.cuts, cuts))
    assert_same(*(host(fc.forward(X, W, B), *fc.backward(X, W, dY)) for X, W, B, dY in (first, second)))


@a_property(max_examples=30)
@given(case=CASES, at=st.integers(0, 5))
def test_micro_batches_add_up(backend, case, at):
    # Under query planning Dask 2026.8.0 gives what is computed beside a concatenate of (0, 0) arrays its shape.
    assume(case.N > 0 or case.C > 0 or not backend.chunked)
    x, w, b, dy = case.arrays
    at = min(at, case.N)
    X, W, B, dY = case.give(backend, x, w, b, dy)
    whole = host(fc.forward(X, W, B), *fc.backward(X, W, dY))
    first = fc.backward(X[:at, ...], W, dY[:at, ...])
    second = fc.backward(X[at:, ...], W, dY[at:, ...])
    assert_same(host(*(first + second)), whole[1:])


@a_property(max_examples=30)
@given(case=CASES)
def test_the_order_of_rows_does_not_matter(backend, case):
    x, w, b, dy = case.arrays
    order = np.random.default_rng(case.seed).permutation(case.N)
    X, W, B, dY = case.give(backend, x, w, b, dy)
    Y, dX, dW, dB = host(fc.forward(X, W, B), *fc.backward(X, W, dY))
    X, W, B, dY = case.give(backend, x[order], w, b, dy[order])
    assert_same(host(fc.forward(X, W, B), *fc.backward(X, W, dY)), [Y[order], dX[order], dW, dB])


@a_property(max_examples=15)
@given(case=CASES, T=st.integers(1, 3), Q=st.integers(1, 3))
def test_gradients_of_single_samples(backend, case, T, Q):
    """Norms and inner products of any sizes are those of the literal form, and weights scale each sample's gradient."""
    N, C, S = case.N, case.C, case.S
    x, dy, xq, dyq = (case.numbers(n, T, k, of=20 + 2 * n + k) for n, k in ((N, C), (N, S), (Q, C), (Q, S)))
    w = case.numbers(N, of=30)
    X, dY = (backend.asarray(array, chunks=(case.cuts[0], T, max(1, array.shape[2]))) for array in (x, dy))
    weights = backend.asarray(w, chunks=(case.cuts[0],))
    of_W, of_B = np.einsum("ntc,nts->ncs", x, dy), dy.sum(axis=1)
    queries_W, queries_B = np.einsum("ntc,nts->ncs", xq, dyq), dyq.sum(axis=1)
    norms, dots, dW, dB = host(
        fc.per_sample_norms(X, dY),
        fc.per_sample_dots(X, dY, backend.asarray(xq), backend.asarray(dyq)),
        fc.grad_weight(X, dY, sample_weight=weights),
        fc.grad_bias(dY, sample_weight=weights),
    )
    np.testing.assert_allclose(norms, np.sqrt((of_W**2).sum((1, 2)) + (of_B**2).sum(1)), rtol=1e-6)
    np.testing.assert_array_equal(dots, np.einsum("ncs,qcs->nq", of_W, queries_W) + of_B @ queries_B.T)
    np.testing.assert_array_equal(dW, np.einsum("n,ncs->cs", w, of_W))
    np.testing.assert_array_equal(dB, w @ of_B)


@a_property(max_examples=15)
@given(case=CASES, cut=st.integers(0, 5))
def test_moments_of_two_parts_are_those_of_the_whole(backend, case, cut):
    x, _, _, t = case.arrays
    X, _, _, T = case.give(backend, *case.arrays)
    cut = min(cut, case.N)
    whole, first, second = (fc.moments(X[part, :], T[part, :]) for part in (slice(None), slice(cut), slice(cut, None)))
    literal = [np.asarray(float(case.N)), x.sum(0), t.sum(0), x.T @ x, x.T @ t, (t * t).sum(0)]
    for moments in (whole, first + second):
        for found, expected in zip(host(*moments), literal, strict=True):
            np.testing.assert_array_equal(found, expected)
    for found, expected in zip(host(*(whole - second)), host(*first), strict=True):
        np.testing.assert_array_equal(found, expected)
