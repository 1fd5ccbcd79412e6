"""check_samples passes what is right and names what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.assertions import refused
from helpers.batches import numbers

import fc_arrayapi as fc


@pytest.mark.parametrize(("lead", "sample_axes"), [((20,), 1), ((20, 5), 1), ((4, 5, 3), 2), ((0,), 1)], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_right_numbers_pass(backend, lead, sample_axes, dtype):
    X, dY = (backend.asarray(numbers(*lead, k, seed=k).astype(dtype)) for k in (6, 4))
    report = fc.testing.check_samples(X, dY, sample_axes=sample_axes)
    assert [check.name for check in report.checks] == ["norms", "dots", "weighted"]
    assert report.ok


def one_row_less(X, dY):
    return fc.per_sample_norms(X[:, 1:, :], dY[:, 1:, :])


FAULTS = {
    "norms of W alone": ("norms", {"norms": lambda X, dY: fc.per_sample_norms(X, dY, needs=("dW",))}),
    "squared norms": ("norms", {"norms": lambda X, dY: fc.per_sample_norms(X, dY) ** 2}),
    "a position left out": ("norms", {"norms": one_row_less}),
    "norms of rows": ("norms", {"norms": lambda X, dY: fc.per_sample_norms(X, dY, sample_axes=2)}),
    "dots of W alone": ("dots", {"dots": lambda *a: fc.per_sample_dots(*a, needs=("dW",))}),
    "dots that are rounded": ("dots", {"dots": lambda *a: fc.per_sample_dots(*a) * (1 + 1e-9)}),
    "queries that are changed": ("dots", {"dots": lambda X, dY, Xq, dYq: fc.per_sample_dots(X, dY, 2 * Xq, dYq)}),
    "no weights": ("weighted", {"weighted": lambda X, dY, w: fc.grad_weight(X, dY)}),
    "positive weights": ("weighted", {"weighted": lambda X, dY, w: fc.grad_weight(X, dY, sample_weight=abs(w))}),
    "a weighted mean": ("weighted", {"weighted": lambda X, dY, w: fc.grad_weight(X, dY, sample_weight=w) / 20}),
}


@pytest.mark.only("numpy", "torch", "dask.array")
@pytest.mark.parametrize(("name", "given"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found(backend, name, given):
    X, dY = (backend.asarray(numbers(20, 5, k, seed=k)) for k in (6, 4))
    with pytest.raises(AssertionError, match=f"^{name}: "):
        fc.testing.check_samples(X, dY, **given)


@pytest.mark.parametrize("queries", [0, -1, 1.5, None])
def test_a_number_of_queries_that_is_none(backend, queries):
    X = backend.asarray(np.ones((4, 2)))
    with refused(ValueError if isinstance(queries, int) else TypeError, f"queries is {queries}", "positive integer"):
        fc.testing.check_samples(X, X, queries=queries)
