"""einsum, parsed in every call, against opt_einsum's expression, parsed beforehand."""

from __future__ import annotations

import numpy as np
import opt_einsum
import pytest

import fc_arrayapi as fc

SIZE = 64
EQUATIONS = """
nc,cs->ns  nc,ns->cs  ns,cs->nc  ns->s  nc,cr,rs->ns  bnc,bcs->bns  bnc,bsc->bsn  bnc,chd->bnhd  abc,cd->abd
abc,bcd->ad  abc,abd->cd  abc,bad->cd  ab,b->a  ab,ab->ab  ab,ab->  a,b->ab  ab->ba  ab->a  aa->  aab->b  bi,bi->b
abc,abc->ab  ab,bc,cd->ad  abc,cd,de->abe  ab,cd->abcd
""".split()  # noqa: SIM905


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum(against, equation):
    rng = np.random.default_rng(0)
    operands = [rng.random((SIZE,) * len(labels), "float32") for labels in equation.split("->")[0].split(",")]
    expression = opt_einsum.contract_expression(equation, *[operand.shape for operand in operands])
    against(
        f"einsum {equation}, size {SIZE}",
        lambda: fc.einsum(equation, *operands),
        "contract_expression",
        lambda: expression(*operands),
        at_most=1.0,
        seconds=1.0,
    )
