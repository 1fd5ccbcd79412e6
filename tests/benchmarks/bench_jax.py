"""The layer on JAX against x @ w + b and jax.grad, each under jit and not."""

from __future__ import annotations

import numpy as np
import pytest

import fc_arrayapi as fc

LIBRARY = "jax.numpy"
SHAPES = pytest.mark.parametrize("shape", [(64, 256, 256), (1024, 1024, 1024)], ids=str)
JITTED = pytest.mark.parametrize("jitted", [True, False], ids=["jit", "eager"])


def arrays(jnp, n, c, s):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.random(shape, "float32")) for shape in ((n, c), (c, s), (s,), (n, s))]


def runner(function, given, jitted):
    """Return a call that waits for the result, which JAX alone would not."""
    import jax

    function = jax.jit(function) if jitted else function
    return lambda: jax.block_until_ready(function(*given))


def name(what, shape, jitted):
    n, c, s = shape
    return f"jax, {what} ({n}, {c}) x ({c}, {s}){', jit' if jitted else ''}"


@SHAPES
@JITTED
def test_forward(against, shape, jitted):
    case = name("forward", shape, jitted)
    given = arrays(against.needs(case, "x @ w + b", LIBRARY), *shape)[:3]
    ours, rival = (runner(f, given, jitted) for f in (fc.forward, lambda X, W, B: X @ W + B))
    np.testing.assert_allclose(ours(), rival(), rtol=1e-5)
    against(case, ours, "x @ w + b", rival, peaks="none")


@SHAPES
@JITTED
def test_forward_and_backward(against, shape, jitted):
    case = name("forward and backward", shape, jitted)
    jnp = against.needs(case, "jax.value_and_grad", LIBRARY)
    import jax

    def loss(X, W, B, T):
        return ((X @ W + B - T) ** 2).sum() / 2

    def by_hand(X, W, B, T):
        dY = fc.forward(X, W, B) - T
        return (dY**2).sum() / 2, tuple(fc.backward(X, W, dY))

    given = arrays(jnp, *shape)
    ours, rival = (runner(f, given, jitted) for f in (by_hand, jax.value_and_grad(loss, argnums=(0, 1, 2))))
    for own, other in zip(ours()[1], rival()[1], strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4)
    against(case, ours, "jax.value_and_grad", rival, peaks="none")
