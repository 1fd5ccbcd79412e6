"""How messages read: that the tests of facts can fail, and the sentences of the five that users meet most."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.assertions import lacks, refused

import fc_arrayapi as fc


@pytest.mark.parametrize(
    ("fact", "message", "there"),
    [
        ("4", "X has 4, W has 5", True),
        ("4", "X has 14, W has 5", False),
        ("4", "X has 0.4, W has 5", False),
        ("4", "X has 4.5 rows", False),
        ("X", "dX has 4", False),
        ("(4,)", "has (4,): pass", True),
        ("(4,)", "has (14,): pass", False),
        ("xp.reshape(B, (3,))", "pass xp.reshape(B, (3,))", True),
        ("xp.reshape(B, (3,))", "pass xp.reshape(B, (4,))", False),
        ("resume=True", "pass resume=True.", True),
    ],
)
def test_a_fact_is_not_found_in_a_longer_word_or_number(fact, message, there):
    assert lacks(message, fact) == ([] if there else [fact])


def test_refused_fails_for_another_fact_type_or_a_message_of_two_lines():
    with refused(ValueError, "X", "4"):
        raise ValueError("X has 4")
    for error in (ValueError("X has 5"), UnicodeError("X has 4"), ValueError("X has\n4")):
        with pytest.raises(AssertionError), refused(ValueError, "X", "4"):
            raise error


# Whole sentences.
SENTENCES = {
    # name: (call, exception, message)
    "features differ": (
        lambda: fc.forward(np.zeros((7, 4)), np.zeros((5, 3))),
        ValueError,
        "forward nc,cs->ns: axis c (input features): X has 4, W has 5; X has shape (7, 4), W must be (C, S), "
        "has (5, 3): give X 5 features, or W 4 rows",
    ),
    "W turned": (
        lambda: fc.forward(np.zeros((7, 4)), np.zeros((3, 4))),
        ValueError,
        "forward nc,cs->ns: axis c (input features): X has 4, W has 3; X has shape (7, 4), W must be (C, S), "
        "has (3, 4): W seems to be in (S, C) order, like the weight of torch.nn.Linear: pass W.T, or use "
        "FullyConnected.from_torch(linear)",
    ),
    "targets that were broadcast": (
        lambda: fc.backward(np.zeros((7, 4)), np.zeros((4, 1)), np.zeros((7, 1)) - np.zeros(7)),
        ValueError,
        "backward: axis s (output features): dY has 7, W has 1; dY has shape (7, 7), W must be (C, S), has (4, 1): "
        "Y minus targets of shape (N,) is (N, N): give the targets a second axis, such as T[:, None]",
    ),
    "B as a number": (
        lambda: fc.forward(np.zeros((7, 4)), np.zeros((4, 3)), np.zeros(())),
        ValueError,
        "forward nc,cs->ns: B must have shape (S,) = (3,), has (): nothing broadcasts: pass "
        "numpy.broadcast_to(B, (3,))",
    ),
    "wrong dtype": (
        lambda: fc.forward(np.zeros((7, 4), "int64"), np.zeros((4, 3))),
        TypeError,
        "forward: X has dtype int64; the layer takes real floating dtypes: convert it first, for example "
        'X.astype("float32")',
    ),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_the_sentences_that_users_meet_most(case):
    call, exception, message = SENTENCES[case]
    with pytest.raises(exception) as raised:
        call()
    assert str(raised.value) == message


@pytest.mark.only("array_api_strict")
def test_the_sentence_about_mixed_libraries(backend):
    with pytest.raises(TypeError) as raised:
        fc.forward(np.zeros((7, 4)), backend.asarray(np.zeros((4, 3))))
    assert str(raised.value) == (
        "X is a numpy array, W is an array_api_strict array: all arrays must come from one library; convert X to the "
        "library of W"
    )
