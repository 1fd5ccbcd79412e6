"""How messages read: that the tests of facts can fail, and the sentences of the ten that users meet most."""

from __future__ import annotations

import pytest
from helpers.assertions import lacks, refused


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
