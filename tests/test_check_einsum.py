"""check_einsum passes on every documented equation, and finds planted faults."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.assertions import refused
from helpers.equations import DOCUMENTED, operands_of

import fc_arrayapi as fc
from fc_arrayapi import _einsum, _einsum_backward
from fc_arrayapi._math import einsum_backward, gradient_steps, lowering


@pytest.mark.parametrize(
    ("equation", "dtype"),
    [(e, "float64") for e in DOCUMENTED[::6]] + [(e, "float32") for e in DOCUMENTED[3::6]],
)
def test_right_gradients_pass(backend, rng, equation, dtype):
    operands = [backend.asarray(host.astype(dtype)) for host in operands_of(equation, rng)]
    report = fc.testing.check_einsum(equation, *operands)
    assert report.ok
    assert [check.name for check in report.checks] == ["Y", *(f"operand {k}" for k in range(len(operands)))]


def failing(report):
    return {check.name for check in report.checks if not check.ok}


def scaled(position, factor):
    """Return a backward pass with one gradient that is too large."""

    def backward(*arguments, dY):
        gradients = list(fc.einsum_backward(*arguments, dY=dY))
        gradients[position] = gradients[position] * factor
        return gradients

    return backward


@pytest.mark.parametrize("equation", ["nc,cs->ns", "nc,cr,rs->ns", "aab,bc->c", "ab,c->a", "a,b->ab", "...c,cs->...s"])
def test_a_gradient_of_the_wrong_scale_is_found(backend, rng, equation):
    operands = [backend.asarray(host) for host in operands_of(equation, rng)]
    for position in range(len(operands)):
        with pytest.raises(AssertionError, match=rf"^operand {position}: <dY, einsum\(U\)> = <gradient, U> is off by"):
            fc.testing.check_einsum(equation, *operands, backward=scaled(position, 1 + 1e-6))


@pytest.mark.only("numpy")
def test_one_wrong_entry_of_a_small_feature_is_found(backend, rng):
    X, W = rng.normal(size=(500, 40)), rng.normal(size=(40, 30))
    X[:, 7] *= 1e-9

    def backward(*arguments, dY):
        dX, dW = fc.einsum_backward(*arguments, dY=dY)
        dW[7, 3] *= 1.001
        return dX, dW

    with pytest.raises(AssertionError, match=r"^operand 1: "):
        fc.testing.check_einsum("nc,cs->ns", X, W, backward=backward)


def no_ones(xp, kept, labels, gradient, shape):
    spread = xp.zeros(shape, dtype=gradient.dtype)
    spread[(slice(0, 1),) * len(shape)] = 1
    return spread


FAULTS = {
    # what is planted: (module, name, fault, equation, the identities that fail)
    "no diagonal": (
        einsum_backward,
        "spread",
        lambda xp, kept, labels, gradient, shape: np.broadcast_to(gradient, shape),
        "aab->b",
        {"operand 0"},
    ),
    "ones in one place": (einsum_backward, "spread", no_ones, "ab->", {"operand 0"}),
    "labels turned": (
        gradient_steps,
        "unique_labels",
        lambda inputs, output, k: "".join(dict.fromkeys(inputs[k][::-1])),
        "ab,bc->ac",
        {"operand 0", "operand 1"},
    ),
    "a wrong result": (
        _einsum,
        "einsum",
        lambda subscripts, *operands: -fc.einsum(subscripts, *operands),
        "ab,bc->ac",
        {"Y"},
    ),
    "gradients exchanged": (
        _einsum_backward,
        "einsum_backward",
        lambda *arguments, dY: fc.einsum_backward(*arguments, dY=dY)[::-1],
        "ab,bc->ac",
        {"operand 0", "operand 1"},
    ),
    "a step twice": (
        einsum_backward,
        "lower",
        lambda text: lambda xp, *arguments: 2 * lowering.lower(text)(xp, *arguments),
        "ab,bc,cd->ad",
        {"operand 0", "operand 1", "operand 2"},
    ),
}


@pytest.mark.only("numpy")
@pytest.mark.parametrize("what", list(FAULTS))
def test_planted_faults_are_found(backend, rng, what, monkeypatch):
    module, name, fault, equation, expected = FAULTS[what]
    operands = [rng.normal(size=(3,) * len(term)) for term in equation.split("->")[0].split(",")]
    assert fc.testing.check_einsum(equation, *operands).ok
    for kept in (einsum_backward._READY, gradient_steps._PROGRAMS):
        kept.clear()
    monkeypatch.setattr(module, name, fault)
    with pytest.raises(AssertionError) as raised:
        fc.testing.check_einsum(equation, *operands)
    for kept in (einsum_backward._READY, gradient_steps._PROGRAMS):
        kept.clear()
    found = str(raised.value).partition("\n")[0]
    assert {part.partition(":")[0] for part in found.split("; ")} == expected


def test_wrong_shapes_and_dtypes_are_named(backend, rng):
    x, w = backend.asarray(rng.normal(size=(5, 4))), backend.asarray(rng.normal(size=(4, 3)))

    def backward(*arguments, dY):
        dX, dW = fc.einsum_backward(*arguments, dY=dY)
        return fc.transpose(dX), dW

    with pytest.raises(AssertionError, match=r"operand 0: is float64 \(4, 5\), must be float64 \(5, 4\)"):
        fc.testing.check_einsum("nc,cs->ns", x, w, backward=backward)
    with refused(TypeError, "backward returns", "2"):
        fc.testing.check_einsum("nc,cs->ns", x, w, backward=lambda *arguments, dY: (dY,))
    with refused(TypeError, "backward returns a str for operand 1"):
        fc.testing.check_einsum("nc,cs->ns", x, w, backward=lambda *arguments, dY: (None, "dW"))
    with refused(ValueError, "directions is 0"):
        fc.testing.check_einsum("nc,cs->ns", x, w, directions=0)
    with refused(fc.SubscriptsError, "no operands"):
        fc.testing.check_einsum("nc,cs->ns")


def test_a_dY_of_the_caller_and_interleaved_operands(backend, rng):
    x, w, dY = (backend.asarray(rng.normal(size=size)) for size in ((5, 4), (4, 3), (5, 3)))
    assert fc.testing.check_einsum(x, [0, 1], w, [1, 2], [0, 2], dY=dY).ok
    with refused(ValueError, "einsum_backward", "dY has 4"):
        fc.testing.check_einsum("nc,cs->ns", x, w, dY=x)


@pytest.mark.parametrize("scale", [1e-150, 1e100])
def test_scales_whose_squares_leave_float64_pass(backend, rng, scale):
    x, w = backend.asarray(scale * rng.normal(size=(5, 4))), backend.asarray(scale * rng.normal(size=(4, 3)))
    assert fc.testing.check_einsum("nc,cs->ns", x, w).ok


@pytest.mark.only("numpy")
def test_nan_is_wrong(backend, rng):
    x, w = rng.normal(size=(5, 4)), rng.normal(size=(4, 3))
    x[0, 0] = np.nan
    with pytest.raises(AssertionError, match="off by nan"):
        fc.testing.check_einsum("nc,cs->ns", x, w)


@pytest.mark.needs("unknown_chunks")
@pytest.mark.only("dask.array")
def test_unknown_sizes_need_a_dY(backend, rng):
    keep = backend.asarray(np.ones(6, bool), chunks=2)
    x, dY = (backend.asarray(rng.normal(size=(6, n)), chunks=(2, n))[keep] for n in (4, 3))
    w = rng.normal(size=(4, 3))
    with refused(ValueError, "unknown size", "pass dY="):
        fc.testing.check_einsum("nc,cs->ns", x, w)
    assert fc.testing.check_einsum("nc,cs->ns", x, w, dY=dY).ok
