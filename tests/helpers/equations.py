# ruff: noqa: E501, RUF001, SIM905
"""Equations that einsum is tested with: the documented cases of NumPy and opt_einsum, and the layer's uses."""

from __future__ import annotations

import numpy as np
import opt_einsum
from hypothesis import strategies as st

# NumPy's reference page of einsum, and its test suite's kinds of equations.
NUMPY = """
ii  ii->i  ij->ji  ji  ij->i  ij->j  ij->  i->  i,i  i,i->i  i,j->ij  i,j->ji  i,j  ij,j  ij,j->i  ij,i->j  ij,jk  ij,jk->ik
ij,jk->ki  ij,kj->ik  ij,ik->jk  ij,ij->  ij,ij->ij  ij,ji->  ij,ij->i  ijk,jil->kl  ijk,ikl->ijl  ijk,ilk->ijl
ii...->...i  ...ii->...i  i...->...  ...i->...  ...j->...  ...ij->...ji  ij...->ji...  ki,...k->i...  k...,jk
...,...  ...  ...->...  ...->  i...,i...->...  ...i,...i->...  ...ij,...jk->...ik  ...ij,...j->...i  ...ij,jk  ij,...jk->...ik
a,ab,abc->abc  a,b,ab->ab  ea,fb,gc,hd,abcd->efgh  ab,cd,ef->abcdef  abc,cd,de->abe
iii->i  iii  iijj->ij  iijj  ijij->ij  ijji->  iij->j  iij->ij  ijj->i  iijk->jk  iiijj->ij
i,ij,j->  i,ij,j  ij,jk,kl->il  ij,jk,kl->  ij,jk,ki->  ij,jk,kl,lm->im  ,ij->ij  ,  ,->  ij,  ij,->ij  i,,j->ij
""".split()

# opt_einsum's documentation and the equations of its tests: Hadamard products, GEMM, inner and outer
# products, views, traces, and chains that only a good path makes cheap.
OPT_EINSUM = """
a,ab,abc->abc  a,b,ab->ab  ea,fb,gc,hd,abcd->efgh  ea,fb,abcd,gc,hd->efgh  abcd,ea,fb,gc,hd->efgh
acdf,jbje,gihb,hfac,gfac,gifabc,hfac  cd,bdhe,aidb,hgca,gc,hgibcd,hgac  abhe,hidj,jgba,hiab,gab  bde,cdh,agdb,hica,ibd,hgicd,hiac
chd,bde,agbc,hiad,hgc,hgi,hiad  chd,bde,agbc,hiad,bdi,cgh,agdb  bdhe,acad,hiab,agac,hibd
ab,ab,c->  ab,ab,c->c  ab,ab,cd,cd->  ab,ab,cd,cd->ac  ab,ab,cd,cd->cd  ab,ab,cd,cd,ef,ef->
ab,cd,ef->abcdef  ab,cd,ef->acdf  ab,cd,de->abcde  ab,cd,de->be  ab,bcd,cd->abcd  ab,bcd,cd->abd
eb,cb,fb->cef  dd,fb,be,cdb->cef  bca,cdb,dbf,afc->  dcc,fce,ea,dbf->ab  fdf,cdd,ccd,afe->ae  abcd,ad
ed,fcd,ff,bcf->be  baa,dcf,af,cde->be  bd,db,eac->ace  fff,fae,bef,def->abd  efc,dbc,acf,fd->abe
ab,ab  ab,ba  abc,abc  abc,bac  abc,cba  ab,bc  ab,cb  ba,bc  ba,cb  abcd,cd  abcd,ab  abcd,cdef  abcd,cdef->feba
abcd,efdc  aab,bc->ac  ab,bcc->ac  aab,bcc->ac  aab,bcc  aab,bcc->  ab,aab->b  aab,aab->b
bcef,dcef,bcde->bf  efab,ijkd,cija,kbcd->ijef  ab,ij,jk->abik  baf,baf->  bc,cd,de,ef->bf
""".split()

# Batched products, attention, low-rank weights, the layer itself, and letters beyond the alphabet.
USES = """
nc,cs->ns  nc,ns->cs  ns,cs->nc  ns->s  nc,cr,rs->ns  bnc,chd->bnhd  bnhd,bmhd->bhnm  bhnm,bmhd->bnhd  bnc,bcs->bns
bcn,bcs->bns  bnc,bsc->bsn  nbc,bcs->bns  nbc,bcs->nbs  bi,bi->b  bi,bj->bij  bij,bj->bi  bij,bij->b  abc,dbc->ad  abc,dbc->da
abc,acd->bd  abc,bcd->da  abcd,bd->ac  abcd,bd->ca  acb,bc->a  bac,cb->a  cab,db,ec->ade  abc->cab  abc->b  abc->ca  abc->
abij,abjk->abik  abij,bajk->abik  baij,abjk->abki  bija,akbj->bik  αβ,βγ->αγ  αβ,αβ->β  çé,éü->çü  Ab,bC->AC  Ba,aC
...nc,cs->...ns  ...c,cs->...s  n...,...s->ns  ...nc,...ns->...cs  ...nc,...ns->cs  b...,b...->b  ...ab->ba  ...a,...a->a
""".split()

DOCUMENTED = list(dict.fromkeys([*NUMPY, *OPT_EINSUM, *USES]))

ELLIPSIS = {"Y": 2, "Z": 3}  # the axes that an ellipsis stands for in these tests


def size_of(label):
    return ELLIPSIS.get(label, 2 + ord(label) % 3)


def operands_of(equation, rng):
    inputs = equation.partition("->")[0].replace("...", "YZ").split(",")
    return [rng.normal(size=[size_of(label) for label in labels]) for labels in inputs]


def reference(equation, *operands):
    """Compute by numpy.einsum, with letters that it knows, and with an ellipsis that is summed written out."""
    letters = {label: opt_einsum.get_symbol(i) for i, label in enumerate(sorted(set(equation) - set(",.->")))}
    equation = "".join(letters.get(character, character) for character in equation)
    inputs, arrow, output = equation.partition("->")
    if arrow and "..." not in output:
        equation = inputs.replace("...", "YZ") + arrow + output
    return np.einsum(equation, *operands, optimize=len(operands) > 2)


def written_out(equation, *operands):
    """Return the terms and the output, with letters that numpy.einsum knows, and with the ellipsis written out."""
    inputs, output, _ = opt_einsum.parser.parse_einsum_input((equation.replace(" ", ""), *operands))
    letters = {label: opt_einsum.get_symbol(i) for i, label in enumerate(sorted(set(inputs + output) - {","}))}
    inputs, output = ("".join(letters.get(character, character) for character in text) for text in (inputs, output))
    return inputs.split(","), output


def reference_gradient(equation, operands, dY, position):
    """Compute the gradient of one operand: <dY, einsum> for each unit array in its place, by numpy.einsum.

    All unit arrays at once are a product of identities, one for each axis of the operand.
    """
    terms, output = written_out(equation, *operands)
    own = terms[position]
    used = len(set("".join(terms)))
    entry = [opt_einsum.get_symbol(used + axis) for axis in range(len(own))]
    identities = [label + other for label, other in zip(own, entry, strict=True)]
    inputs = [output, *terms[:position], *terms[position + 1 :], *identities]
    arrays = [dY, *operands[:position], *operands[position + 1 :], *(np.eye(n) for n in operands[position].shape)]
    return np.einsum(f"{','.join(inputs)}->{''.join(entry)}", *arrays, optimize="greedy")


@st.composite
def random_contractions(draw):
    """Draw an equation of one to four operands of rank 0 to 5, and sizes of 0 to 4."""
    labels = "abcdef"
    inputs = draw(st.lists(st.text(labels, max_size=5), min_size=1, max_size=4))
    used = sorted(set("".join(inputs)))
    equation = ",".join(inputs)
    if draw(st.booleans()):
        order = draw(st.permutations(used))
        equation += "->" + "".join(order[: draw(st.integers(0, len(used)))])
    sizes = draw(st.tuples(*[st.integers(0, 4) for _ in labels]))
    optimize = draw(st.sampled_from(["auto", "greedy", "optimal", True, False]))
    return equation, [[sizes[labels.index(label)] for label in term] for term in inputs], optimize
