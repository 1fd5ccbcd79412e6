"""What einsum refuses: sizes that differ, malformed subscripts and paths, operands of no use; each with its message."""

from __future__ import annotations

import re

import numpy as np
import opt_einsum
import pytest
from helpers.assertions import nothing_computes
from helpers.equations import reference

import fc_arrayapi as fc

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
    for arguments in [
        (x,), (x, x), (x, [0, [1]]), (x, [0, "a"]), (x, [0, 1], 5), (x, [0, 1], [2]), (x, [0, {}]),
        (x, [0, 1], x), (x, ["a", 1]), (5, x), (b"ab", x), (["ab"], x),
    ]:  # fmt: skip
        with pytest.raises(fc.SubscriptsError, match=r"^einsum takes subscripts and arrays, or arrays and lists "):
            fc.einsum(*arguments)
    with pytest.raises(fc.SubscriptsError, match=r"^einsum '': there are no operands$"):
        fc.einsum(None)
    with pytest.raises(fc.SubscriptsError, match=r"^einsum 'aab': operand 0 has 2 axes, its subscripts name 3$"):
        fc.einsum(x, [0, 0, 1])
    with pytest.raises(TypeError, match=r"^operand 1 is a list, which is no array "):
        fc.einsum(x, [0, 1], [0.5], [1])


PATHS = [
    ("nonsense", "by which opt_einsum finds no path (KeyError: "),
    ([(0, 1)], "by which opt_einsum finds no path (ValueError: "),
    ([(0, 5), (0, 1)], "by which opt_einsum finds no path (IndexError: "),
    ([0, 1], "by which opt_einsum finds no path (TypeError: "),
    ([(0, 0.5)], "by which opt_einsum finds no path (TypeError: "),
    (1, "by which opt_einsum finds no path (TypeError: "),
    (len, "by which opt_einsum finds no path (TypeError: "),
    ([], "the path [] leaves 3 operands: it must end with one"),
    ({}, "the path [] leaves 3 operands: it must end with one"),
    ([(0, 0), (0, 1)], "the path [(0, 0), (0, 1)] leaves 2 operands: it must end with one"),
]


@pytest.mark.parametrize(("optimize", "reason"), PATHS, ids=[str(optimize) for optimize, _ in PATHS])
def test_what_is_no_path_is_refused(backend, optimize, reason):
    x = backend.asarray(np.ones((3, 3)))
    for _ in range(2):
        with nothing_computes(backend), pytest.raises(ValueError, match=rf"^optimize.*{re.escape(reason)}"):
            fc.einsum("ij,jk,kl->il", x, x, x, optimize=optimize)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_only_numbers_are_contracted(backend, count):
    """In NumPy a sum of bools is a bool, in torch a number, and a matmul of them is refused in JAX."""
    flags = [backend.asarray(np.ones(3, bool))] * count
    with nothing_computes(backend), pytest.raises(TypeError, match=r"^einsum '.*': operand 0 has dtype bool; einsum "):
        fc.einsum(",".join("a" * count), *flags)
    numbers = [backend.asarray(np.ones(3))] * (count - 1)
    with pytest.raises(TypeError, match=rf"^einsum '.*': operand {count - 1} has dtype bool; einsum takes numbers: "):
        fc.einsum(",".join("a" * count), *numbers, flags[0])


@pytest.mark.only("numpy")
@pytest.mark.parametrize("dtype", ["object", "U3", "datetime64[s]"])
def test_what_numpy_holds_beside_numbers_is_refused(backend, dtype):
    with pytest.raises(TypeError, match=r"^einsum 'a->': operand 0 has dtype .*; einsum takes numbers: convert it "):
        fc.einsum("a->", np.zeros(3, "int64").astype(dtype))


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
    with pytest.raises(
        TypeError, match=r"^operand 1 is a list, which is no array .*, for example numpy.asarray\(operand_1\)$"
    ):
        fc.einsum("ab,bc", x, [[1.0]])
    with pytest.raises(
        TypeError, match=r"^einsum 'ab': operand 0 has dtype bool; .* xp.astype\(operand_0, xp.int64\)$"
    ):
        fc.einsum("ab", backend.asarray(np.ones((2, 2), bool)))
    if backend.chunked:
        with pytest.raises(TypeError, match=r"make operand 0 a Dask array too, dask.array.from_array\(operand_0\)$"):
            fc.einsum("ab,bc", np.zeros((2, 2)), x)
    with pytest.raises(TypeError, match=r"^out: arrays of the standard can't be written to; use the result "):
        fc.einsum("ab", x, out=x)
    if not backend.chunked and backend.module != "numpy":
        with pytest.raises(TypeError, match=r"^operand 0 is .* array, operand 1 is a numpy array: all arrays must "):
            fc.einsum("ab,bc", x, np.zeros((2, 2)))


def test_axes_of_tensordot_and_transpose_are_checked(backend):
    a, v = backend.asarray(np.ones((2, 2))), backend.asarray(np.ones(2))
    for call, message in (
        (lambda: fc.tensordot(a, a, ((0, 0), (0, 1))), "axes: an axis of a is named twice in (0, 0)"),
        (lambda: fc.tensordot(a, a, ((0, 1), (0, -2))), "axes: an axis of b is named twice in (0, -2)"),
        (lambda: fc.tensordot(a, a, ((5,), (0,))), "axes: a has 2 axes, and no axis 5"),
        (lambda: fc.tensordot(a, a, ((0, 1), (0,))), "axes: 2 axes of a meet 1 of b: name as many of each"),
        (lambda: fc.tensordot(v, a, 2), "axes is 2: a has 1 axes and b has 2"),
        (lambda: fc.tensordot(a, a, -1), "axes is -1: a has 2 axes and b has 2"),
        (lambda: fc.transpose(a, (0,)), "axes: 1 are named, a has 2: name each once, in the new order"),
        (lambda: fc.transpose(a, (0, 0)), "axes: an axis of a is named twice in (0, 0)"),
        (lambda: fc.transpose(a, (0, 2)), "axes: a has 2 axes, and no axis 2"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            call()
    with pytest.raises(TypeError, match=r"^a is a list, which is no array "):
        fc.tensordot([1.0], a, 1)


@pytest.mark.parametrize("axes", [((1,),), ((1,), (0,), (0,)), 1.0, (1.0, 0), ((1,), (0.0,)), "10", None], ids=repr)
def test_axes_of_tensordot_are_whole_numbers_of_two_arrays(backend, axes):
    a = backend.asarray(np.ones((2, 2)))
    message = f"axes is {axes!r}: give their number, or the axes of a and those of b, for example ((1,), (0,))"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        fc.tensordot(a, a, axes)


@pytest.mark.parametrize("axes", [1, (1.0, 0), "10", ((1,), (0,))], ids=repr)
def test_axes_of_transpose_are_whole_numbers(backend, axes):
    message = f"axes is {axes!r}: name each axis of a once, in the new order, for example (1, 0)"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        fc.transpose(backend.asarray(np.ones((2, 2))), axes)
