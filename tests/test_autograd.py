"""The caller's own automatic differentiation passes through forward, and backward equals it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from helpers.assertions import assert_array

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace
from fc_arrayapi._math import einsum as in_memory
from fc_arrayapi._math import lowering, subscripts

torch_only = pytest.mark.only("torch")
jax_only = pytest.mark.only("jax.numpy")
SHAPES = [(4,), (7, 4), (2, 3, 4), (0, 4), (5000, 4)]


@pytest.fixture
def arrays(backend, rng, request):
    shape = request.param
    draws = rng.normal(size=shape), rng.normal(size=(4, 3)), rng.normal(size=3), rng.normal(size=(*shape[:-1], 3))
    return tuple(backend.asarray(draw) for draw in draws)


@torch_only
@pytest.mark.parametrize("arrays", SHAPES, indirect=True, ids=str)
def test_torch_autograd_equals_backward(backend, arrays):
    import torch

    X, W, B, dY = arrays
    leaves = [leaf.clone().requires_grad_() for leaf in (X, W, B)]
    expected = torch.autograd.grad(fc.forward(*leaves), leaves, dY)
    for ours, theirs in zip(fc.backward(X, W, dY), expected, strict=True):
        assert_array(ours, namespace.to_numpy(theirs), like=X, rtol=1e-12)


@torch_only
@pytest.mark.parametrize("arrays", SHAPES[:3], indirect=True, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_torch_gradcheck(backend, arrays, bias):
    import torch

    X, W, B, dY = (leaf.requires_grad_() for leaf in arrays)
    parameters = (X, W, B) if bias else (X, W)
    assert torch.autograd.gradcheck(fc.forward, parameters)
    assert torch.autograd.gradgradcheck(fc.forward, parameters)
    # The gradients are formulas of the same kind, so they can be differentiated too.
    assert torch.autograd.gradcheck(lambda *arguments: tuple(fc.backward(*arguments)), (X, W, dY))


@torch_only
@pytest.mark.parametrize("arrays", [(7, 4)], indirect=True, ids=str)
def test_torch_func(backend, arrays):
    from torch import func

    X, W, B, dY = arrays

    def loss(X, W, B):
        return (fc.forward(X, W, B) * dY).sum()

    for ours, theirs in zip(fc.backward(X, W, dY), func.grad(loss, argnums=(0, 1, 2))(X, W, B), strict=True):
        assert_array(ours, namespace.to_numpy(theirs), like=X, rtol=1e-12)
    by_row = func.vmap(fc.forward, in_dims=(0, None, None))(X, W, B)
    assert_array(by_row, namespace.to_numpy(fc.forward(X, W, B)), like=X, rtol=1e-12)
    biases = backend.asarray(np.ones((5, 3)))
    by_bias = func.vmap(fc.forward, in_dims=(None, None, 0))(X, W, biases)
    assert by_bias.shape == (5, 7, 3)
    assert_array(by_bias[2], namespace.to_numpy(fc.forward(X, W, biases[2])), like=X, rtol=1e-12)
    rows = func.vmap(lambda x, dy: fc.einsum("c,cs,s->s", x, W, dy))(X, dY)
    assert_array(rows.sum(dim=0), namespace.to_numpy(fc.einsum("nc,cs,ns->s", X, W, dY)), like=X, rtol=1e-12)
    per_sample = func.vmap(lambda x, dy: fc.grad_weight(x, dy))(X, dY)
    assert_array(per_sample.sum(dim=0), namespace.to_numpy(fc.grad_weight(X, dY)), like=X, rtol=1e-12)


@jax_only
@pytest.mark.parametrize("arrays", SHAPES, indirect=True, ids=str)
@pytest.mark.parametrize("jit", [True, False])
def test_jax_grad_equals_backward(backend, arrays, jit):
    import jax

    X, W, B, dY = arrays

    def loss(X, W, B):
        return (fc.forward(X, W, B) * dY).sum()

    grad, backward = jax.grad(loss, argnums=(0, 1, 2)), fc.backward
    if jit:
        grad, backward = jax.jit(grad), jax.jit(backward)
    for ours, theirs in zip(backward(X, W, dY), grad(X, W, B), strict=True):
        assert_array(ours, namespace.to_numpy(theirs), like=X, rtol=1e-12)


@jax_only
@pytest.mark.parametrize("arrays", [(7, 4)], indirect=True, ids=str)
def test_jax_jit_vmap_and_check_grads(backend, arrays):
    import jax
    from jax.test_util import check_grads

    X, W, B, dY = arrays
    expected = namespace.to_numpy(fc.forward(X, W, B))
    assert_array(jax.jit(fc.forward)(X, W, B), expected, like=X, rtol=1e-12)
    assert_array(jax.vmap(fc.forward, (0, None, None))(X, W, B), expected, like=X, rtol=1e-12)
    per_sample = jax.vmap(fc.grad_weight)(X, dY)
    assert_array(per_sample.sum(axis=0), namespace.to_numpy(fc.grad_weight(X, dY)), like=X, rtol=1e-12)
    by_bias = jax.vmap(fc.forward, (None, None, 0))(X, W, backend.asarray(np.ones((5, 3))))
    assert by_bias.shape == (5, 7, 3)
    check_grads(fc.forward, (X, W, B), order=2)
    check_grads(lambda *arguments: tuple(fc.backward(*arguments)), (X, W, dY), order=1)


@jax_only
def test_jax_exports_with_an_open_batch(backend):
    import jax
    from jax import export

    xp = backend.xp
    (n,) = export.symbolic_shape("n")
    shapes = [jax.ShapeDtypeStruct(shape, xp.float32) for shape in ((n, 4), (4, 3), (n, 3))]
    exported = export.export(jax.jit(lambda X, W, dY: tuple(fc.backward(X, W, dY))))(*shapes)
    X, W, dY = (xp.ones(shape, xp.float32) for shape in ((5000, 4), (4, 3), (5000, 3)))
    for ours, theirs in zip(exported.call(X, W, dY), fc.backward(X, W, dY), strict=True):
        assert_array(ours, namespace.to_numpy(theirs), like=X, rtol=1e-5)


@torch_only
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`-wrapped function")
@pytest.mark.parametrize("arrays", [(7, 4)], indirect=True, ids=str)
@pytest.mark.parametrize("dynamic", [True, False])
def test_torch_compile(backend, arrays, dynamic):
    import torch

    X, W, B, dY = arrays
    for function, arguments in (
        (fc.forward, (X, W, B)),
        (lambda *a: tuple(fc.backward(*a)), (X, W, dY)),
        (lambda X, W: fc.einsum("nc,cs,ns->s", X, W, dY), (X, W)),
    ):
        expected = function(*arguments)
        torch.compiler.reset()
        result = torch.compile(function, backend="eager", fullgraph=True, dynamic=dynamic)(*arguments)
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


COMPILED = [
    # (equation, optimize)
    ("nc,cs->ns", "auto"),
    ("bnc,chd->bnhd", "auto"),
    ("nn,nc->cn", "auto"),
    ("...nn->...", "auto"),
    ("nc,cs,ns->c", "auto"),
    ("nc,cs,ns->c", [(0, 1), (0, 1)]),
    ("nc,cs,ns->c", ((1, 2), (0, 1))),
    ("nc,cs,ns->c", "greedy"),
    ("nc,cs,ns->c", False),
    ("n,na,ab,bc,cd,de,ef,fg,gh,hi->i", "auto"),
    ("...nc,cs,...ns->...c", True),
]


def forget_plans():
    for kept in (in_memory._READY, subscripts._EQUATIONS, subscripts._PATHS, lowering._STEPS):
        kept.clear()


@torch_only
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`-wrapped function")
@pytest.mark.parametrize(("equation", "optimize"), COMPILED, ids=str)
def test_einsum_compiles_in_one_graph_without_a_call_before_and_for_new_sizes(backend, rng, equation, optimize):
    import torch
    from torch._dynamo.testing import CompileCounter

    forget_plans()
    torch.compiler.reset()
    graphs = CompileCounter()
    compiled = torch.compile(lambda *a: fc.einsum(equation, *a, optimize=optimize), fullgraph=True, backend=graphs)
    terms = equation.partition("->")[0].replace("...", "y").split(",")
    for n in range(3, 15):
        sizes = [[n if label == "n" else 2 + ord(label) % 3 for label in term] for term in terms]
        operands = [backend.asarray(rng.normal(size=size)) for size in sizes]
        expected = torch.einsum(equation, *operands)
        torch.testing.assert_close(compiled(*operands), expected, rtol=1e-12, atol=1e-12)
    assert graphs.frame_count <= 3  # of numbers, then of open sizes


@torch_only
@pytest.mark.filterwarnings("ignore")  # of Inductor itself
@pytest.mark.parametrize("compiler", ["eager", *["inductor"] * (shutil.which("g++") is not None)])
def test_einsum_of_three_compiles_where_an_operand_is_made_in_the_graph(backend, rng, compiler):
    import torch

    def three(x, w):
        return fc.einsum("nc,cs,ns->c", x, w, x @ w)

    forget_plans()
    torch.compiler.reset()
    compiled = torch.compile(three, fullgraph=True, backend=compiler)
    w = backend.asarray(rng.normal(size=(4, 3)))
    for n in (8, 7, 9):
        x = backend.asarray(rng.normal(size=(n, 4)))
        expected = torch.einsum("nc,cs,ns->c", x, w, x @ w)
        torch.testing.assert_close(compiled(x, w), expected, rtol=1e-12, atol=1e-12)


@torch_only
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`-wrapped function")
@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects happened")  # plans are kept
@pytest.mark.parametrize("strict", [True, False])
def test_einsum_of_three_is_exported_by_torch_with_an_open_batch(backend, strict):
    import torch

    class Three(torch.nn.Module):
        def forward(self, x, w, y):
            return fc.einsum("nc,cs,ns->c", x, w, y)

    forget_plans()
    n = torch.export.Dim("n", min=2, max=1000)
    five = torch.ones(5, 4), torch.ones(4, 3), torch.ones(5, 3)
    exported = torch.export.export(Three(), five, dynamic_shapes=({0: n}, {}, {0: n}), strict=strict).module()
    assert exported(torch.ones(9, 4), torch.ones(4, 3), torch.ones(9, 3)).tolist() == [27.0] * 4


@jax_only
def test_einsum_of_three_is_exported_by_jax_with_an_open_batch(backend):
    import jax
    from jax import export

    xp = backend.xp
    (n,) = export.symbolic_shape("n")
    shapes = [jax.ShapeDtypeStruct(shape, xp.float32) for shape in ((n, 4), (4, 3), (n, 3))]
    exported = export.export(jax.jit(lambda x, w, y: fc.einsum("nc,cs,ns->c", x, w, y)))(*shapes)
    assert exported.call(*(xp.ones(s, xp.float32) for s in ((9, 4), (4, 3), (9, 3)))).tolist() == [27.0] * 4


@jax_only
@pytest.mark.parametrize("arrays", [(7, 4)], indirect=True, ids=str)
def test_einsum_under_jax_transformations(backend, arrays):
    import jax

    X, W, _, dY = arrays
    expected = namespace.to_numpy(fc.einsum("nc,cs,ns->s", X, W, dY))
    assert_array(jax.jit(lambda *a: fc.einsum("nc,cs,ns->s", *a))(X, W, dY), expected, like=X, rtol=1e-12)
    by_row = jax.vmap(lambda x, dy: fc.einsum("c,cs,s->s", x, W, dy))(X, dY)
    assert_array(by_row.sum(axis=0), expected, like=X, rtol=1e-12)


@jax_only
@pytest.mark.parametrize("arrays", [(7, 4)], indirect=True, ids=str)
def test_jax_sharded_batches_work(backend, arrays):
    import jax

    X, W, B, _ = arrays
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("n",))
    sharded = jax.device_put(X, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("n", None)))
    assert_array(fc.forward(sharded, W, B), namespace.to_numpy(fc.forward(X, W, B)), like=X, rtol=1e-12)
