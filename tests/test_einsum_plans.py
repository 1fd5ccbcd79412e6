"""How contractions are lowered and kept: matmul, order in memory, bounds, threads."""

from __future__ import annotations

import threading

import numpy as np
import opt_einsum
import pytest
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
