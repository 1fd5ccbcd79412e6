"""What einsum refuses: sizes that differ, malformed subscripts and paths, operands of no use; with the facts told."""

from __future__ import annotations

import numpy as np
import opt_einsum
import pytest
from helpers.assertions import nothing_computes, refused
from helpers.equations import reference

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace

SIZES = [
    # (subscripts, shapes, facts of the message)
    ("nc,cs->ns", [(4, 1), (3, 2)], ("index c", "operand 0 has 1 (axis 1)", "operand 1 has 3 (axis 0)")),
    ("ab,cb", [(2, 5), (2, 4)], ("index b", "operand 0 has 5 (axis 1)", "operand 1 has 4 (axis 1)")),
    ("aa", [(2, 3)], ("index a", "operand 0 has 2 (axis 0)", "operand 0 has 3 (axis 1)")),
    ("...a,...b", [(7, 2), (6, 3)], ("ellipsis", "operand 0 has 7 (axis 0)", "operand 1 has 6 (axis 0)")),
    ("...a,...b", [(7, 2), (1, 3)], ("ellipsis", "operand 0 has 7 (axis 0)", "operand 1 has 1 (axis 0)")),
    ("a,b,a", [(2,), (3,), (4,)], ("index a", "operand 0 has 2 (axis 0)", "operand 2 has 4 (axis 0)")),
]


@pytest.mark.parametrize(("equation", "shapes", "facts"), SIZES, ids=[f"{row[0]} {row[1]}" for row in SIZES])
def test_an_index_has_one_size(backend, equation, shapes, facts):
    operands = [backend.asarray(np.zeros(shape)) for shape in shapes]
    for _ in range(2):  # the second time by the plan that is kept
        with nothing_computes(backend), refused(ValueError, f"einsum {equation!r}", *facts) as raised:
            fc.einsum(equation, *operands)
        assert ("not broadcast" in str(raised.value)) == any(" has 1 " in fact for fact in facts)
    with pytest.raises(ValueError, match=r"index|Size of label|ellipsis"):  # opt_einsum sees most itself
        opt_einsum.contract(equation, *operands, backend="fc_arrayapi")


MALFORMED = [
    # (subscripts, number of operands, facts of the message); a sentence with capitals is opt_einsum's
    ("ab,bc->ac", 1, ("Number of einsum subscripts, 2, must be equal to the number of operands, 1.",)),
    ("ab", 2, ("Number of einsum subscripts, 1, must be equal to the number of operands, 2.",)),
    ("ab->aa", 1, ("Output character 'a' appeared more than once in the output.",)),
    ("ab->c", 1, ("Output character 'c' did not appear in the input",)),
    ("ab->a->b", 1, ("Subscripts can only contain one '->'.",)),
    ("ab-a", 1, ("Subscripts can only contain one '->'.",)),
    ("ab>a", 1, ("Subscripts can only contain one '->'.",)),
    ("a..b", 1, ("Invalid Ellipses.",)),
    ("...a...", 1, ("Invalid Ellipses.",)),
    ("...abc", 1, ("Ellipses lengths do not match.",)),
    ("a1", 1, ("'1'", "letters")),
    ("a$", 1, ("'$'", "letters")),
    ("a\tb", 1, (r"'\t'", "letters")),
    ("abc", 1, ("operand 0 has 2 axes", "3")),
    ("a,ab", 2, ("operand 0 has 2 axes", "1")),
    ("", 1, ("operand 0 has 2 axes", "0")),
    ("ab,ab->a,b", 2, ("output", "','")),
    ("ab", 0, ("no operands",)),
]


@pytest.mark.parametrize(("subscripts", "count", "facts"), MALFORMED)
def test_malformed_subscripts(backend, subscripts, count, facts):
    operands = [backend.asarray(np.zeros((2, 2)))] * count
    with refused(fc.SubscriptsError, f"einsum {subscripts!r}", *facts):
        fc.einsum(subscripts, *operands)


def test_malformed_interleaved_input(backend):
    x = backend.asarray(np.zeros((2, 2)))
    for arguments in [
        (x,), (x, x), (x, [0, [1]]), (x, [0, "a"]), (x, [0, 1], 5), (x, [0, 1], [2]), (x, [0, {}]),
        (x, [0, 1], x), (x, ["a", 1]), (5, x), (b"ab", x), (["ab"], x),
    ]:  # fmt: skip
        with refused(fc.SubscriptsError, "einsum", "einsum(X, [0, 1], W, [1, 2], [0, 2])"):
            fc.einsum(*arguments)
    with refused(fc.SubscriptsError, "einsum ''", "no operands"):
        fc.einsum(None)
    with refused(fc.SubscriptsError, "einsum 'aab->b'", "operand 0 has 2 axes", "3"):
        fc.einsum(x, [0, 0, 1])
    with refused(TypeError, "operand 1 is a list", "numpy.asarray(operand_1)"):
        fc.einsum(x, [0, 1], [0.5], [1])


INTERLEAVED = [
    # (arguments after the array, facts of the message)
    (([0.5, 1],), ("operand 0", "float", "integers")),
    (([True, 0],), ("operand 0", "bool", "integers")),
    ((["b", 0],), ("operand 0", "str", "integers")),
    (([None, 0],), ("operand 0", "None", "integers")),
    (("ij",), ("operand 0", "str", "integers")),
    ((b"ij",), ("operand 0", "bytes", "integers")),
    (({0, 1},), ("operand 0", "set", "integers")),
    (([0, 1], "ij"), ("the output", "str", "integers")),
    (([0, 1], [0, True]), ("the output", "bool", "integers")),
    (([0, 1], [1, 1]), ("index 1", "2 times", "output")),
    (([..., 1], [..., ...]), ("index ...", "2 times", "output")),
    (([0, 1], [2]), ("output index 2", "no operand")),
    (([0, 1], [..., 1]), ("output index ...", "no operand")),
]


@pytest.mark.parametrize(("arguments", "facts"), INTERLEAVED, ids=[str(row[0]) for row in INTERLEAVED])
def test_an_index_list_holds_integers_and_an_output_names_each_once(backend, arguments, facts):
    x = backend.asarray(np.zeros((2, 2)))
    with nothing_computes(backend), refused(fc.SubscriptsError, "einsum(X, [0, 1], W, [1, 2], [0, 2])", *facts):
        fc.einsum(x, *arguments)


def test_an_array_is_an_index_list_if_it_holds_integers(backend):
    x, flags = backend.asarray(np.zeros((2, 2))), backend.asarray(np.ones(2, bool))
    with nothing_computes(backend), refused(fc.SubscriptsError, "operand 0", "integers"):
        fc.einsum(x, flags)


PATHS = [
    # (optimize, facts of the message)
    ("nonsense", ("KeyError", "[(0, 1), (0, 1)]")),
    ([(0, 1)], ("ValueError", "[(0, 1), (0, 1)]")),
    ([(0, 5), (0, 1)], ("IndexError", "[(0, 1), (0, 1)]")),
    ([0, 1], ("TypeError", "[(0, 1), (0, 1)]")),
    ([(0, 0.5)], ("TypeError", "[(0, 1), (0, 1)]")),
    (1, ("TypeError", "[(0, 1), (0, 1)]")),
    (len, ("TypeError", "[(0, 1), (0, 1)]")),
    ([], ("path []", "3 operands")),
    ({}, ("path []", "3 operands")),
    ([(0, 0), (0, 1)], ("path [(0, 0), (0, 1)]", "2 operands")),
]


@pytest.mark.parametrize(("optimize", "facts"), PATHS, ids=[str(optimize) for optimize, _ in PATHS])
def test_a_wrong_path_is_refused(backend, optimize, facts):
    x = backend.asarray(np.ones((3, 3)))
    facts = facts if facts[0].startswith("path") else (f"optimize is {optimize!r}", *facts)
    for _ in range(2):
        with nothing_computes(backend), refused(ValueError, "optimize", *facts):
            fc.einsum("ij,jk,kl->il", x, x, x, optimize=optimize)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_only_numbers_are_contracted(backend, count):
    """In NumPy a sum of bools is a bool, in torch a number, and a matmul of them is refused in JAX."""
    flags = [backend.asarray(np.ones(3, bool))] * count
    subscripts = ",".join("a" * count)
    with nothing_computes(backend), refused(TypeError, f"einsum {subscripts!r}: operand 0", "bool", "numbers"):
        fc.einsum(subscripts, *flags)
    numbers = [backend.asarray(np.ones(3))] * (count - 1)
    with refused(TypeError, f"einsum {subscripts!r}: operand {count - 1}", "bool", "numbers"):
        fc.einsum(subscripts, *numbers, flags[0])


NOT_NUMERIC = [
    # (dtype, its name in messages, the dtype that a message advises)
    ("object", "object", "float32"),
    ("U3", "str96", "float32"),
    ("datetime64[s]", "datetime64[s]", "int64"),
    ("bfloat16", "bfloat16", "float32"),
    ("float8_e4m3fn", "float8_e4m3fn", "float32"),
    ("float8_e5m2", "float8_e5m2", "float32"),
    ("float4_e2m1fn", "float4_e2m1fn", "float32"),
    ("int4", "int4", "int64"),
]


@pytest.mark.only("numpy", "dask.array")
@pytest.mark.parametrize(("dtype", "shown", "advised"), NOT_NUMERIC)
def test_einsum_refuses_numpy_dtypes_that_are_not_numeric(backend, dtype, shown, advised):
    import ml_dtypes

    x = backend.asarray(np.zeros((3, 3), "int64").astype(getattr(ml_dtypes, dtype, dtype)))
    for call in (
        lambda: fc.einsum("ab->", x),
        lambda: fc.einsum("ab,bc", x, x),
        lambda: fc.einsum("ab,bc,cd", x, x, x),
        lambda: fc.tensordot(x, x, 1),
        lambda: fc.transpose(x),
    ):
        with nothing_computes(backend), refused(TypeError, "operand 0", shown, f'operand_0.astype("{advised}")'):
            call()


@pytest.mark.only("torch", "jax.numpy")
@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_einsum_refuses_floats_of_8_bits(backend, dtype):
    """torch sums none of them, and JAX sums in their three or four digits."""
    x = backend.xp.asarray(backend.xp.ones((2, 2)), dtype=backend.dtype(dtype))
    call = backend.spelled("xp.astype(operand_1, xp.float32)")
    for equation in ("ab,bc", "ab,ab->ab"):
        with refused(TypeError, f"einsum {equation!r}: operand 1", dtype, call):
            fc.einsum(equation, backend.xp.ones((2, 2)), x)


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
    with refused(TypeError, "operand 1 is a list", "numpy.asarray(operand_1)"):
        fc.einsum("ab,bc", x, [[1.0]])
    with refused(TypeError, "einsum 'ab': operand 0", "bool", backend.spelled("xp.astype(operand_0, xp.int64)")):
        fc.einsum("ab", backend.asarray(np.ones((2, 2), bool)))
    if not backend.chunked and backend.module != "numpy":
        article = "an" if backend.module[0] == "a" else "a"
        kinds = f"operand 0 is {article} {backend.module} array", "operand 1 is a numpy array"
        with refused(TypeError, *kinds, "operand 1 to the library of operand 0"):
            fc.einsum("ab,bc", x, np.zeros((2, 2)))


def test_axes_of_tensordot_and_transpose_are_checked(backend):
    a, v = backend.asarray(np.ones((2, 2))), backend.asarray(np.ones(2))
    for call, facts in (
        (lambda: fc.tensordot(a, a, ((0, 0), (0, 1))), ("axis of a", "twice", "(0, 0)")),
        (lambda: fc.tensordot(a, a, ((0, 1), (0, -2))), ("axis of b", "twice", "(0, -2)")),
        (lambda: fc.tensordot(a, a, ((5,), (0,))), ("a has 2 axes", "axis 5")),
        (lambda: fc.tensordot(a, a, ((0, 1), (0,))), ("2 axes of a", "1 of b")),
        (lambda: fc.tensordot(v, a, 2), ("axes is 2", "a has 1", "b has 2")),
        (lambda: fc.tensordot(a, a, -1), ("axes is -1", "a has 2", "b has 2")),
        (lambda: fc.transpose(a, (0,)), ("1", "a has 2", "once")),
        (lambda: fc.transpose(a, (0, 0)), ("axis of a", "twice", "(0, 0)")),
        (lambda: fc.transpose(a, (0, 2)), ("a has 2 axes", "axis 2")),
    ):
        with refused(ValueError, "axes", *facts):
            call()
    with refused(TypeError, "a is a list", "numpy.asarray(a)"):
        fc.tensordot([1.0], a, 1)


@pytest.mark.parametrize("axes", [((1,),), ((1,), (0,), (0,)), 1.0, (1.0, 0), ((1,), (0.0,)), "10", None], ids=repr)
def test_axes_of_tensordot_are_a_pair_of_integers(backend, axes):
    a = backend.asarray(np.ones((2, 2)))
    with refused(TypeError, f"axes is {axes!r}", "axes of a", "b", "((1,), (0,))"):
        fc.tensordot(a, a, axes)


@pytest.mark.parametrize("axes", [1, (1.0, 0), "10", ((1,), (0,))], ids=repr)
def test_axes_of_transpose_are_integers(backend, axes):
    with refused(TypeError, f"axes is {axes!r}", "axis of a", "once", "(1, 0)"):
        fc.transpose(backend.asarray(np.ones((2, 2))), axes)


@pytest.mark.only("torch", "array_api_strict")
def test_operands_on_two_devices_are_refused(backend):
    elsewhere = "meta" if backend.module == "torch" else backend.xp.Device("device1")
    a, b = backend.asarray(np.ones((2, 3))), backend.asarray(np.ones((3, 4)))
    fc.einsum("ab,bc->ac", a, b)
    moved = namespace.to_device(b, elsewhere)
    for call in (
        lambda: fc.einsum("ab,bc->ac", a, moved),
        lambda: fc.tensordot(a, moved, 1),
        lambda: fc.einsum_backward("ab,bc->ac", a, b, dY=namespace.to_device(a @ b, elsewhere)),
    ):
        with refused(ValueError, "operand 0 is on", "is on meta" if backend.module == "torch" else "device1", "move"):
            call()
