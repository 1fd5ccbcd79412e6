"""What a contraction of blocks costs beside its result: the flops, and the memory that it holds while it runs.

Each module states it beside the function, and `plan` reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


class Cost(NamedTuple):
    """Flops, and bytes beside the arguments and the result."""

    flops: int
    held: int


class Sized(Protocol):
    """A block of which the shape is known, and the dtype as NumPy's."""

    shape: tuple[int, ...]
    dtype: Any


_RULES: dict[Any, Callable[..., Cost]] = {}


def costs(rule: Callable[..., Cost]) -> Callable[[Function], Function]:
    """State what a function costs: `rule` takes its arguments, with the shapes and dtypes of arrays alone."""

    def stated(function: Function) -> Function:
        _RULES[function] = rule
        return function

    return stated


def cost_of(function: Any, *blocks: Sized) -> Cost | None:
    """Return what a function, or a partial of one, costs for these blocks; None if nothing is stated."""
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = {}
    while isinstance(function, partial):
        args, options = (*function.args, *args), {**function.keywords, **options}
        function = function.func
    rule = _RULES.get(function)
    return None if rule is None else rule(*args, *blocks, **options)


def rows_and_features(block: Sized) -> tuple[int, int]:
    """Return the rows of a block of any number of leading axes, and its features."""
    return math.prod(block.shape[:-1]), block.shape[-1]
