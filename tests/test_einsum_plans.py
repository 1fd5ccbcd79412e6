"""How contractions are lowered and kept: matmul, order in memory, bounds, threads."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import opt_einsum
import pytest
from helpers.assertions import assert_array
from helpers.equations import USES, operands_of, reference

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace
from fc_arrayapi._math import lowering, subscripts


@pytest.mark.only("numpy")
@pytest.mark.parametrize("equation", ["nc,cs->ns", "nc,ns->cs", "ns,cs->nc", "bnc,bcs->bns", "bnc,chd->bnhd"])
def test_products_are_c_ordered(backend, rng, equation):
    assert fc.einsum(equation, *operands_of(equation, rng)).flags.c_contiguous


@pytest.mark.only("numpy")
@pytest.mark.parametrize("equation", [e for e in USES if e.count(",") == 1 and "->" in e and "." not in e])
def test_products_are_never_broadcast_and_summed(backend, rng, equation, monkeypatch):
    """Where an index is summed that both operands have, there is a matmul, and nothing that fits no output."""
    lowering._STEPS.clear()
    subscripts._EQUATIONS.clear()
    inputs, output = equation.split("->")
    left, right = inputs.split(",")
    if set(left) & set(right) - set(output):
        monkeypatch.delattr(namespace.of(np.ones(1)), "multiply")
    fc.einsum(equation, *operands_of(equation, rng))


DIAGONALS = [
    # (equation, whether the result is a view)
    ("ii->i", True), ("ii", False), ("iij->ij", True), ("iji->ij", True), ("iji->ji", True), ("jii->ij", True),
    ("iji->j", False), ("ijkj->kij", True), ("ijij->ji", True), ("ijji->", False), ("iii->i", True), ("iiji->ji", True),
    ("jiii->", False),
]  # fmt: skip


def laid_out(backend, host, layout):
    """Return an array of these numbers in a layout; broadcast, all rows are the first one."""
    xp, step = (
        namespace.of(backend.asarray(host)),
        -2 if backend.module == "numpy" else 2,
    )  # torch has no negative steps
    if layout == "turned":
        return xp.permute_dims(backend.asarray(np.ascontiguousarray(host.T)), tuple(range(host.ndim))[::-1])
    if layout == "strided":
        return backend.asarray(host.repeat(2, 0).repeat(2, -1))[::step, ..., ::step]
    if layout == "broadcast":
        return xp.broadcast_to(backend.asarray(host[:1]), host.shape)
    return backend.asarray(host)


@pytest.mark.only("numpy", "torch")
@pytest.mark.parametrize("layout", ["contiguous", "turned", "strided", "broadcast"])
@pytest.mark.parametrize(("equation", "is_view"), DIAGONALS)
def test_diagonals_are_views_of_any_layout(backend, rng, equation, is_view, layout):
    x = laid_out(backend, rng.normal(size=[4 if k == "k" else 3 for k in equation.partition("->")[0]]), layout)
    result = fc.einsum(equation, x)
    assert_array(result, np.einsum(equation, namespace.to_numpy(x)), like=x, rtol=1e-12)
    assert np.shares_memory(namespace.to_numpy(result), namespace.to_numpy(x)) == is_view


@pytest.mark.only("numpy")
def test_a_diagonal_can_be_written_to_where_its_operand_can(backend):
    for equation in ("ii->i", "iji->ji", "jiii->ij"):
        x = np.zeros((3,) * len(equation.partition("->")[0]))
        fc.einsum(equation, x)[...] = 1
        assert x.sum() == 3 ** (len(equation.partition("->")[2]))
        x.flags.writeable = False
        assert not fc.einsum(equation, x).flags.writeable


@pytest.mark.only("numpy")
def test_einsum_may_take_the_place_of_numpy_einsum(backend, monkeypatch):
    monkeypatch.setattr(np, "einsum", fc.einsum)
    assert np.einsum("iij->j", np.ones((3, 3, 2))).tolist() == [3, 3]


@pytest.mark.only("numpy")
@pytest.mark.parametrize("equation", ["ii", "ii->i", "iji->j", "iji->ij", "ijkj->kij", "iij,ij->j", "iji,jk->ik"])
def test_no_diagonal_copies_its_operand(backend, equation):
    shapes = [[60 if label == "i" else 40 for label in term] for term in equation.partition("->")[0].split(",")]
    operands = [np.ones(shape).transpose() if len({*shape}) == 1 else np.ones(shape) for shape in shapes]
    fc.einsum(equation, *operands)
    tracemalloc.start()
    fc.einsum(equation, *operands)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < max(operand.nbytes for operand in operands) / 2


@pytest.mark.only("numpy")
def test_caches_are_bounded_and_hold_no_arrays(backend, monkeypatch):
    import gc
    import weakref

    class Watched(np.ndarray):
        pass

    X = np.ones((3, 3)).view(Watched)
    gone = weakref.ref(X)
    fc.einsum("ab,bc,cd->ad", X, X, X)
    del X
    gc.collect()
    assert gone() is None
    monkeypatch.setattr(namespace, "KEPT", 10)
    for i in range(50):
        a, b = opt_einsum.get_symbol(i), opt_einsum.get_symbol(i + 1)
        fc.einsum(f"{a}{b},{b}{a}->{a}", np.ones((2, 2)), np.ones((2, 2)))
    assert len(lowering._STEPS) <= 11
    assert len(subscripts._EQUATIONS) <= 11


@pytest.mark.needs("threads")
def test_eight_threads_at_once(backend, rng):
    hosts = {equation: operands_of(equation, rng) for equation in USES}
    operands = {equation: [backend.asarray(host) for host in hosts[equation]] for equation in USES}
    lowering._STEPS.clear()
    subscripts._EQUATIONS.clear()
    subscripts._PATHS.clear()
    failures = []

    def work():
        try:
            with backend.strictness():
                for equation in USES:
                    result = fc.einsum(equation, *operands[equation])
                    expected = reference(equation, *hosts[equation])
                    np.testing.assert_allclose(namespace.to_numpy(result), expected, rtol=1e-12, atol=1e-12)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
