"""einsum, parsed in every call, against the others' einsum.

opt_einsum's expression is parsed beforehand, `opt_einsum.contract` and `np.einsum` in every call.
"""

from __future__ import annotations

import numpy as np
import opt_einsum
import pytest

import fc_arrayapi as fc

EQUATIONS = """
nc,cs->ns  nc,ns->cs  ns,cs->nc  ns->s  nc,cr,rs->ns  bnc,bcs->bns  bnc,bsc->bsn  bnc,chd->bnhd  abc,cd->abd
abc,bcd->ad  abc,abd->cd  abc,bad->cd  ab,b->a  ab,ab->ab  ab,ab->  a,b->ab  ab->ba  ab->a  aa->  aab->b  bi,bi->b
abc,abc->ab  ab,bc,cd->ad  abc,cd,de->abe  ab,cd->abcd
""".split()  # noqa: SIM905
OF_THE_LAYER = EQUATIONS[:4]
OF_THREE_INDICES = [equation for equation in EQUATIONS if len({*equation} - {*",->"}) <= 3]


def operands_of(equation, size):
    rng = np.random.default_rng(0)
    return [rng.random((size,) * len(labels), "float32") for labels in equation.split("->")[0].split(",")]


@pytest.mark.parametrize(("equation", "size"), [(e, 64) for e in EQUATIONS] + [(e, 256) for e in OF_THREE_INDICES])
def test_einsum(against, equation, size):
    operands = operands_of(equation, size)
    expression = opt_einsum.contract_expression(equation, *[operand.shape for operand in operands])
    against(
        f"einsum {equation}, size {size}",
        lambda: fc.einsum(equation, *operands),
        "contract_expression",
        lambda: expression(*operands),
        at_most=1.0,
        seconds=1.0,
    )


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum_of_torch(against, equation):
    torch = against.needs(f"torch, einsum {equation}, size 64", "torch.einsum", "torch")
    operands = [torch.from_numpy(operand) for operand in operands_of(equation, 64)]
    against(
        f"torch, einsum {equation}, size 64",
        lambda: fc.einsum(equation, *operands),
        "torch.einsum",
        lambda: torch.einsum(equation, *operands),
        at_most=1.0,
        seconds=0.5,
        peaks="none",
    )


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("equation", OF_THE_LAYER)
@pytest.mark.parametrize(
    ("rivals_name", "rival", "options"),
    [
        ("opt_einsum.contract", opt_einsum.contract, {}),
        ("np.einsum", np.einsum, {}),
        ("np.einsum, optimize=True", np.einsum, {"optimize": True}),
    ],
    ids=["opt_einsum", "numpy", "numpy-optimize"],
)
def test_equations_of_the_layer(against, equation, size, rivals_name, rival, options):
    operands = operands_of(equation, size)
    against(
        f"einsum {equation}, size {size}",
        lambda: fc.einsum(equation, *operands),
        rivals_name,
        lambda: rival(equation, *operands, **options),
        seconds=0.5,
    )
