"""einsum and all its gradients, without autograd, against torch.einsum with autograd."""

from __future__ import annotations

import numpy as np
import pytest

import fc_arrayapi as fc

CASES = {
    "nc,cr,rs->ns": ((2048, 512), (512, 64), (64, 512)),
    "bnc,chd->bnhd": ((8, 256, 256), (256, 8, 32)),
    "ab,bc,cd,de->ae": ((2048, 512), (512, 64), (64, 512), (512, 256)),
}


@pytest.mark.parametrize("equation", CASES)
def test_forward_and_all_gradients_of_torch(against, equation):
    import torch

    operands = [torch.randn(*shape) for shape in CASES[equation]]
    leaves = [operand.clone().requires_grad_() for operand in operands]
    dY = torch.randn_like(torch.einsum(equation, *operands))
    against(
        f"torch, {equation} and all gradients",
        lambda: (fc.einsum(equation, *operands), fc.einsum_backward(equation, *operands, dY=dY)),
        "torch.einsum, autograd.grad",
        lambda: torch.autograd.grad(torch.einsum(equation, *leaves), leaves, dY),
        at_most=1.05,
        peaks="none",
    )


@pytest.mark.parametrize("equation", CASES)
def test_gradients_together_against_one_by_one(against, equation):
    rng = np.random.default_rng(0)
    operands = [rng.standard_normal(shape, "float32") for shape in CASES[equation]]
    dY = fc.einsum(equation, *operands)
    against(
        f"all gradients of {equation}",
        lambda: fc.einsum_backward(equation, *operands, dY=dY),
        "one by one",
        lambda: [fc.einsum_backward(equation, *operands, dY=dY, needs=(k,)) for k in range(len(operands))],
        at_most=1.0,
        peaks="none",
    )
