"""einsum against numpy.einsum in float64, strict sizes, malformed subscripts, and opt_einsum's backend."""

from __future__ import annotations

import re
import threading

import numpy as np
import opt_einsum
import pytest
from assertions import assert_array, nothing_computes
from equations import DOCUMENTED, USES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fc_arrayapi as fc
from fc_arrayapi import contraction, lowering, namespace

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


@pytest.mark.parametrize("equation", DOCUMENTED)
def test_documented_equations(backend, rng, equation):
    hosts = operands_of(equation, rng)
    operands = [backend.asarray(host) for host in hosts]
    with nothing_computes(backend):
        result = fc.einsum(equation, *operands)
    expected = reference(equation, *hosts)
    assert_array(result, expected, like=operands[0], rtol=1e-12)
    spaced = " " + equation.replace(",", " , ").replace("->", " -> ")
    assert_array(fc.einsum(spaced, *operands), expected, like=operands[0], rtol=1e-12)


@pytest.mark.parametrize("equation", DOCUMENTED)
def test_opt_einsum_with_this_backend(backend, rng, equation):
    hosts = operands_of(equation, rng)
    operands = [backend.asarray(host) for host in hosts]
    expected = reference(equation, *hosts)
    with nothing_computes(backend):
        result = opt_einsum.contract(equation, *operands, backend="fc_arrayapi")
    assert_array(result, expected, like=operands[0], rtol=1e-12)
    expression = opt_einsum.contract_expression(equation, *[host.shape for host in hosts])
    assert_array(expression(*operands, backend="fc_arrayapi"), expected, like=operands[0], rtol=1e-12)
    if backend.module == "numpy":
        np.testing.assert_allclose(result, opt_einsum.contract(equation, *hosts), rtol=1e-12, atol=1e-12)


@pytest.mark.only("numpy")
def test_a_path_of_the_caller(backend, rng):
    a, b, c = (rng.normal(size=(3, 3)) for _ in range(3))
    for path in ([(0, 1), (0, 1)], [(1, 2), (0, 1)], [(0, 2), (0, 1)], [(-1, -2), (0, 1)], [(0, 1, 2)]):
        result = fc.einsum("ij,jk,kl->il", a, b, c, optimize=path)
        np.testing.assert_allclose(result, a @ b @ c, rtol=1e-12, atol=1e-12)
    for path in ([], [(0, 1)], [(0, 0), (0, 1)], [(0, 5), (0, 1)]):
        with pytest.raises((ValueError, IndexError)):
            fc.einsum("ij,jk,kl->il", a, b, c, optimize=path)


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


def test_random_equations(backend):
    rng = np.random.default_rng(0)

    @settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(random_contractions())
    def check(contraction):
        equation, shapes, optimize = contraction
        hosts = [rng.normal(size=shape) for shape in shapes]
        operands = [backend.asarray(host) for host in hosts]
        expected = np.einsum(equation, *hosts, optimize=len(hosts) > 2)
        result = fc.einsum(equation, *operands, optimize=optimize)
        assert_array(result, expected, like=operands[0], rtol=1e-12)

    check()


@pytest.mark.parametrize("dtype", ["int64", "int32", "float32", "complex128"])
@pytest.mark.parametrize("equation", ["nc,cs->ns", "ab,ab->", "ab->a", "aab->b", "a,b->ab", "ab,bc,cd->ad", "bi,bi->b"])
def test_every_numeric_dtype(backend, rng, equation, dtype):
    hosts = [(4 * host).astype(dtype) for host in operands_of(equation, rng)]
    if dtype == "complex128":
        hosts = [host * (1 + 2j) for host in hosts]
    operands = [backend.asarray(host) for host in hosts]
    expected = np.einsum(equation, *hosts)
    assert_array(fc.einsum(equation, *operands), expected, like=operands[0], rtol=1e-5 if dtype == "float32" else 1e-12)


def test_mixed_dtypes_are_promoted_before_anything_is_summed(backend):
    small = backend.asarray(np.full((3,), 100, "int8"))
    one, half = backend.asarray(np.ones(1, "int64")), backend.asarray(np.full((1,), 0.5, "float32"))
    assert_array(fc.einsum("i,j->", small, one), 300, like=one, rtol=0)
    assert_array(fc.einsum("i,k,j->", small, small, one), 90000, like=one, rtol=0)
    wide = backend.asarray(np.full((2,), 0.25, "float64"))
    assert_array(fc.einsum("i,j->j", half, wide), [0.125, 0.125], like=wide, rtol=0)


def test_interleaved_operands(backend, rng):
    X, W, V = rng.normal(size=(5, 4)), rng.normal(size=(4, 3)), rng.normal(size=(3, 2))
    x, w, v = (backend.asarray(a) for a in (X, W, V))
    assert_array(fc.einsum(x, [0, 1], w, [1, 2], [0, 2]), X @ W, like=x, rtol=1e-12)
    assert_array(fc.einsum(x, [0, 1], w, [1, 2]), X @ W, like=x, rtol=1e-12)
    assert_array(fc.einsum(x, ["n", "c"], w, ["c", "s"], v, ["s", "t"]), X @ W @ V, like=x, rtol=1e-12)
    assert_array(fc.einsum(x, [Ellipsis, 1], w, [1, 2], [Ellipsis, 2]), X @ W, like=x, rtol=1e-12)


@pytest.mark.parametrize("axes", [0, 1, 2, ((0, 1), (1, 0)), ((2,), (0,)), ([-1, 0], [0, 2]), (1, 1)], ids=str)
def test_tensordot_and_transpose(backend, rng, axes):
    a, b = rng.normal(size=(3, 4, 3)), rng.normal(size=(4, 3, 3))
    if axes in (1, ((2,), (0,)), ([-1, 0], [0, 2]), (1, 1)):
        b = np.ascontiguousarray(b.transpose(1, 0, 2))
    own, other = backend.asarray(a), backend.asarray(b)
    assert_array(fc.tensordot(own, other, axes=axes), np.tensordot(a, b, axes=axes), like=own, rtol=1e-12)
    assert_array(fc.transpose(own, (2, 0, 1)), a.transpose(2, 0, 1), like=own, rtol=0)
    assert_array(fc.transpose(own), a.T, like=own, rtol=0)


def test_axes_of_tensordot_and_transpose_are_checked(backend):
    a, v = backend.asarray(np.ones((2, 2))), backend.asarray(np.ones(2))
    for call, message in (
        (lambda: fc.tensordot(a, a, ((0, 0), (0, 1))), "axes: an axis of a is named twice in (0, 0)"),
        (lambda: fc.tensordot(a, a, ((0, 1), (0, -2))), "axes: an axis of b is named twice in (0, -2)"),
        (lambda: fc.tensordot(a, a, ((5,), (0,))), "axes: a has 2 axes, and no axis 5"),
        (lambda: fc.tensordot(a, a, ((0, 1), (0,))), "axes: 2 axes of a meet 1 of b: name as many of each"),
        (lambda: fc.tensordot(v, a, 2), "axes is 2: a has 1 axes and b has 2"),
        (lambda: fc.tensordot(a, a, -1), "axes is -1: a has 2 axes and b has 2"),
        (lambda: fc.transpose(a, (0,)), "axes: 1 are named, a has 2"),
        (lambda: fc.transpose(a, (0, 0)), "axes: an axis of a is named twice in (0, 0)"),
        (lambda: fc.transpose(a, (0, 2)), "axes: a has 2 axes, and no axis 2"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            call()
    with pytest.raises(TypeError, match=r"^a is a list, which is no array "):
        fc.tensordot([1.0], a, 1)


@pytest.mark.only("numpy", "dask.array")
def test_big_endian_operands(backend):
    big = backend.asarray(np.arange(8.0).reshape(4, 2).astype(">f4"))
    for equation in ("ij->j", "ij,ij->", "ij->ji", "ij,ik->jk"):
        hosts = [np.arange(8.0, dtype="float32").reshape(4, 2)] * (1 + equation.count(","))
        result = namespace.to_numpy(fc.einsum(equation, *[big] * len(hosts)))
        np.testing.assert_array_equal(result, np.einsum(equation, *hosts))


SIZES = [
    (
        "nc,cs->ns",
        [(4, 1), (3, 2)],
        "einsum 'nc,cs->ns': index c: operand 0 has 1 (axis 1), operand 1 has 3 (axis 0); an axis of size 1 does not "
        "broadcast",
    ),
    ("ab,cb", [(2, 5), (2, 4)], "einsum 'ab,cb': index b: operand 0 has 5 (axis 1), operand 1 has 4 (axis 1)"),
    ("aa", [(2, 3)], "einsum 'aa': index a: operand 0 has 2 (axis 0), operand 0 has 3 (axis 1)"),
    (
        "...a,...b",
        [(7, 2), (6, 3)],
        "einsum '...a,...b': an axis of the ellipsis: operand 0 has 7 (axis 0), operand 1 has 6 (axis 0)",
    ),
    (
        "...a,...b",
        [(7, 2), (1, 3)],
        "einsum '...a,...b': an axis of the ellipsis: operand 0 has 7 (axis 0), operand 1 has 1 (axis 0); an axis of "
        "size 1 does not broadcast",
    ),
    ("a,b,a", [(2,), (3,), (4,)], "einsum 'a,b,a': index a: operand 0 has 2 (axis 0), operand 2 has 4 (axis 0)"),
]


@pytest.mark.parametrize(("equation", "shapes", "message"), SIZES, ids=[message for _, _, message in SIZES])
def test_an_index_has_one_size(backend, equation, shapes, message):
    operands = [backend.asarray(np.zeros(shape)) for shape in shapes]
    for _ in range(2):  # the second time by the plan that is kept
        with nothing_computes(backend), pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            fc.einsum(equation, *operands)
    with pytest.raises(ValueError, match=r"index|Size of label|an axis of the ellipsis"):  # opt_einsum sees most itself
        opt_einsum.contract(equation, *operands, backend="fc_arrayapi")


MALFORMED = [
    ("ab,bc->ac", 1, "Number of einsum subscripts, 2, must be equal to the number of operands, 1."),
    ("ab", 2, "Number of einsum subscripts, 1, must be equal to the number of operands, 2."),
    ("ab->aa", 1, "Output character 'a' appeared more than once in the output."),
    ("ab->c", 1, "Output character 'c' did not appear in the input"),
    ("ab->a->b", 1, "Subscripts can only contain one '->'."),
    ("ab-a", 1, "Subscripts can only contain one '->'."),
    ("ab>a", 1, "Subscripts can only contain one '->'."),
    ("a..b", 1, "Invalid Ellipses."),
    ("...a...", 1, "Invalid Ellipses."),
    ("...abc", 1, "Ellipses lengths do not match."),
    ("a1", 1, "'1' is no letter that can name an index"),
    ("a$", 1, "'$' is no letter that can name an index"),
    ("a\tb", 1, r"'\t' is no letter that can name an index"),
    ("abc", 1, "operand 0 has 2 axes, its subscripts name 3"),
    ("a,ab", 2, "operand 0 has 2 axes, its subscripts name 1"),
    ("", 1, "operand 0 has 2 axes, its subscripts name 0"),
    ("ab,ab->a,b", 2, "the output has ',', the operands have not"),
    ("ab", 0, "there are no operands"),
]


@pytest.mark.parametrize(("subscripts", "count", "reason"), MALFORMED)
def test_malformed_subscripts(backend, subscripts, count, reason):
    operands = [backend.asarray(np.zeros((2, 2)))] * count
    message = f"einsum {subscripts!r}: {reason}"
    with pytest.raises(fc.SubscriptsError, match=f"^{re.escape(message)}$"):
        fc.einsum(subscripts, *operands)


def test_malformed_interleaved_input(backend):
    x = backend.asarray(np.zeros((2, 2)))
    for arguments in [(x,), (x, x), (x, [0, [1]]), (x, [0, "a"]), ([0, 1], x), (x, [0, 1], 5), (x, [0, 0, 1])]:
        with pytest.raises((fc.SubscriptsError, TypeError)):
            fc.einsum(*arguments)
    with pytest.raises(fc.SubscriptsError, match=r"^einsum takes subscripts and arrays, or arrays and lists "):
        fc.einsum(x, [0, [1]])


@pytest.mark.only("numpy")
def test_two_thousand_malformed_subscripts_give_our_error_alone(backend):
    rng = np.random.default_rng(7)
    alphabet = list("aabbccd") + list(",,..--->>  ") + list("1$(é\n…")
    malformed = agreed = 0
    while malformed < 2000:
        subscripts = "".join(rng.choice(alphabet, rng.integers(0, 12)))
        ranks = rng.integers(0, 4, rng.integers(0, 4))
        if rng.random() < 0.5:  # so that some of them fit
            ranks = [len(term.strip()) for term in subscripts.partition("->")[0].split(",")]
        operands = [np.ones((2,) * rank) for rank in ranks]
        try:
            result = fc.einsum(subscripts, *operands)
        except fc.SubscriptsError:
            malformed += 1
            continue
        if subscripts.isascii():
            agreed += 1
            np.testing.assert_array_equal(result, reference(subscripts.replace(" ", ""), *operands))
    assert agreed > 20  # what is not malformed is right


def test_operands_must_be_arrays_of_one_library(backend):
    x = backend.asarray(np.zeros((2, 2)))
    with pytest.raises(TypeError, match=r"^operand 1 is a list, which is no array of a library of the array API "):
        fc.einsum("ab,bc", x, [[1.0]])
    with pytest.raises(TypeError, match=r"^out: arrays of the standard can't be written to; use the result "):
        fc.einsum("ab", x, out=x)
    if not backend.chunked and backend.module != "numpy":
        with pytest.raises(TypeError, match=r"^operand 0 is .* array, operand 1 is a numpy array: all arrays must "):
            fc.einsum("ab,bc", x, np.zeros((2, 2)))


@pytest.mark.only("dask.array")
def test_numpy_operands_beside_a_dask_one(backend, rng):
    X, U, V = rng.normal(size=(50, 4)), rng.normal(size=(4, 2)), rng.normal(size=(2, 3))
    x = backend.asarray(X, chunks=(10, 2))
    Y = fc.einsum("nc,cr,rs->ns", x, U, V)
    assert Y.chunks == (x.chunks[0], (3,))
    assert_array(Y, X @ U @ V, like=x, rtol=1e-12)


@pytest.mark.needs("unknown_chunks")
@pytest.mark.only("dask.array")
def test_unknown_batch_lengths(backend, rng):
    X, U, V = rng.normal(size=(50, 4)), rng.normal(size=(4, 2)), rng.normal(size=(2, 3))
    keep = X[:, 0] > 0
    x = backend.asarray(X, chunks=(10, 2))[backend.asarray(keep, chunks=10)]
    with nothing_computes(backend):
        Y = fc.einsum("nc,cr,rs->ns", x, U, V)
        gram = fc.einsum("nc,nd->cd", x, x)
    np.testing.assert_allclose(Y.compute(), X[keep] @ U @ V, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gram.compute(), X[keep].T @ X[keep], rtol=1e-12, atol=1e-12)
    wide = backend.asarray(X, chunks=(10, 2))[backend.asarray(np.ones(50, bool), chunks=10)]
    three = fc.einsum("nc,nd,ne->cde", wide, backend.asarray(X, chunks=(10, 4)), wide)
    np.testing.assert_allclose(three.compute(), np.einsum("nc,nd,ne->cde", X, X, X), rtol=1e-12, atol=1e-12)
    other = keep.copy()
    other[np.flatnonzero(keep)[0]] = False
    y = backend.asarray(X, chunks=(10, 2))[backend.asarray(other, chunks=10)]
    with pytest.raises(ValueError, match=r"index n: operand 0 has \d+ \(axis 0\), operand 1 has \d+ \(axis 0\)"):
        fc.einsum("nc,nd->cd", x, y).compute()


@pytest.mark.only("numpy")
@pytest.mark.parametrize("equation", ["nc,cs->ns", "nc,ns->cs", "ns,cs->nc", "bnc,bcs->bns", "bnc,chd->bnhd"])
def test_products_are_c_ordered(backend, rng, equation):
    assert fc.einsum(equation, *operands_of(equation, rng)).flags.c_contiguous


@pytest.mark.only("numpy")
@pytest.mark.parametrize("equation", [e for e in USES if e.count(",") == 1 and "->" in e and "." not in e])
def test_products_are_never_broadcast_and_summed(backend, rng, equation, monkeypatch):
    """Where an index is summed that both operands have, there is a matmul, and nothing that fits no output."""
    lowering._STEPS.clear()
    contraction._EQUATIONS.clear()
    inputs, output = equation.split("->")
    left, right = inputs.split(",")
    if set(left) & set(right) - set(output):
        monkeypatch.delattr(namespace.of(np.ones(1)), "multiply")
    fc.einsum(equation, *operands_of(equation, rng))


@pytest.mark.only("numpy")
def test_what_is_kept_is_bounded_and_holds_no_arrays(backend, monkeypatch):
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
    monkeypatch.setattr(lowering, "KEPT_EQUATIONS", 10)
    for i in range(50):
        a, b = opt_einsum.get_symbol(i), opt_einsum.get_symbol(i + 1)
        fc.einsum(f"{a}{b},{b}{a}->{a}", np.ones((2, 2)), np.ones((2, 2)))
    assert len(lowering._STEPS) <= 11
    assert len(contraction._EQUATIONS) <= 11


def test_eight_threads_at_once(backend, rng):
    hosts = {equation: operands_of(equation, rng) for equation in USES}
    operands = {equation: [backend.asarray(host) for host in hosts[equation]] for equation in USES}
    lowering._STEPS.clear()
    contraction._EQUATIONS.clear()
    contraction._PATHS.clear()
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
