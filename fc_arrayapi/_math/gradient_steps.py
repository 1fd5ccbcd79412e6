"""The gradients of an einsum as steps of one or two arrays, found from subscripts and sizes alone.

Einsum is linear in each operand, so the gradient of an operand is again a contraction: that of dY with the other
operands, whose result has the operand's indices. Two kinds of indices need more: one that neither the output nor
another operand has is repeated (a product with ones), and one that the operand repeats is put on a diagonal (a product
with an identity). Both are left to the caller, as the last step of each gradient, which has `unique_labels` before. An
index that only another operand has is summed in that operand.

Several gradients share intermediate products, as in reverse mode: each step ``a,b->c`` of the path of einsum is
followed by ``dc,b->a`` and ``a,dc->b``, from the last step to the first. An intermediate of einsum is computed where a
gradient needs it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .._arrays.libraries import not_traced
from .._arrays.namespace import Array, keep
from .equations import gradient_equation
from .subscripts import Equation, known_shapes, path_of_shapes

# The contraction of each step, the places of its arrays, and the places that no later step needs. The first places
# hold the operands and dY, the next ones the results of the steps.
Steps = tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
# For each operand the place of its gradient, and the indices that this one has; None where it is not wanted.
Results = tuple[tuple[int, str] | None, ...]
Program = tuple[Steps, Results]

# Up to this many operands a separate path is tried for each gradient, beside the one of einsum.
OWN_PATHS = 4

_PROGRAMS: dict[Any, Program] = {}


def gradient_steps(equation: Equation, wanted: tuple[int, ...], operands: Sequence[Array]) -> Program:
    """Return the steps that compute the gradients of some operands.

    Parameters
    ----------
    equation : Equation
        The einsum.
    wanted : tuple of int
        The operands whose gradients are computed.
    operands : sequence of array
        Their sizes decide which steps take the fewest multiplications.

    Returns
    -------
    steps : tuple
        Each step as the subscripts of its contraction, the places of its arrays, and the places to forget after it.
    results : tuple
        The place of each gradient and its indices, those of `unique_labels`; or None.

    Examples
    --------
    >>> import numpy as np
    >>> from fc_arrayapi._math.subscripts import parse
    >>> steps, results = gradient_steps(parse("nc,cs->ns", 2, 2), (0, 1), [np.ones((5, 4)), np.ones((4, 3))])
    >>> [text for text, _, _ in steps], results
    (['ns,cs->nc', 'nc,ns->cs'], ((3, 'nc'), (4, 'cs')))
    """
    shapes = known_shapes(equation, operands) if len(operands) > 2 else ()
    key = (equation, wanted, shapes)
    found = _PROGRAMS.get(key)
    return found or keep(_PROGRAMS, key, _gradient_steps(equation.inputs, equation.output, wanted, shapes))


def unique_labels(inputs: Sequence[str], output: str, position: int) -> str:
    """Return the indices of an operand that another one or the output has, each once."""
    elsewhere = set(output).union(*(labels for k, labels in enumerate(inputs) if k != position))
    return "".join(label for label in dict.fromkeys(inputs[position]) if label in elsewhere)


@not_traced
def _gradient_steps(
    inputs: tuple[str, ...], output: str, wanted: tuple[int, ...], shapes: tuple[tuple[int, ...], ...]
) -> Program:
    sizes = dict(zip("".join(inputs), [size for shape in shapes for size in shape], strict=False))
    ways = []
    if len(inputs) < 3 or len(wanted) < len(inputs) or len(inputs) <= OWN_PATHS:
        ways.append(_Tape(inputs, output, sizes).each_by_itself(wanted))
    if len(inputs) > 2 and len(wanted) > 1:
        ways.append(_Tape(inputs, output, sizes).along_the_path_of_einsum(wanted))
    return min(ways, key=lambda tape: tape.multiplications).program(wanted)


class _Tape:
    """Steps as they are found. A product that two gradients need is one step."""

    def __init__(self, inputs: tuple[str, ...], output: str, sizes: dict[str, int]) -> None:
        self.inputs, self.output, self.sizes = inputs, output, sizes
        self.labels = [*inputs, output]  # those of the array in each place
        self.steps: list[tuple[str, tuple[int, ...]]] = []
        self.places: dict[tuple[tuple[int, ...], str], int] = {}
        self.results: dict[int, int] = {}
        self.multiplications = 0

    def each_by_itself(self, wanted: tuple[int, ...]) -> _Tape:
        """Contract dY with the other operands for each gradient, on the best path for it."""
        for position in wanted:
            places = [k if len(self.inputs) < 3 else self.summed(k) for k in range(len(self.inputs)) if k != position]
            places.insert(position, len(self.inputs))  # dY
            self.add_result(position, self.contract(places, unique_labels(self.inputs, self.output, position)))
        return self

    def along_the_path_of_einsum(self, wanted: tuple[int, ...]) -> _Tape:
        """Follow the path of einsum forward where its intermediates are needed, then back."""
        count = len(self.inputs)
        labels = [unique_labels(self.inputs, self.output, k) for k in range(count)]
        parts: list[tuple[int, ...]] = [()] * count  # of which arrays each intermediate is the product
        remaining = list(range(count))
        for taken, text in self.path(labels, self.output):
            parts.append(tuple(remaining.pop(position) for position in taken))
            labels.append(text.partition("->")[2])
            remaining.append(len(parts) - 1)
        needed = [k in wanted for k in range(count)]
        for own in parts[count:]:
            needed.append(any(needed[k] for k in own))
        values: dict[int, int] = {}

        def value(node: int) -> int:
            """Return the place of an operand or an intermediate of einsum."""
            if node not in values:
                own = parts[node]
                values[node] = self.product([value(k) for k in own], labels[node]) if own else self.summed(node)
            return values[node]

        gradients = {len(parts) - 1: count}
        for node in reversed(range(count, len(parts))):
            for k, part in enumerate(parts[node]):
                if needed[part]:
                    places = [gradients[node] if other == part else value(other) for other in parts[node]]
                    text = gradient_equation(f"{','.join(labels[other] for other in parts[node])}->{labels[node]}", k)
                    gradients[part] = self.product(places, text.partition("->")[2])
        for position in wanted:
            self.add_result(position, gradients[position])
        return self

    def summed(self, position: int) -> int:
        """Return the place of an operand without repeated indices and without those that only it has."""
        return self.product([position], unique_labels(self.inputs, self.output, position))

    def contract(self, places: list[int], result: str) -> int:
        """Contract any number of arrays, two at a time."""
        if len(places) > 2:
            remaining = list(places)
            for positions, text in self.path([self.labels[place] for place in places], result):
                taken = [remaining.pop(position) for position in positions]
                remaining.append(self.product(taken, text.partition("->")[2]))
            return remaining[0]
        return self.product(places, result)

    def path(self, labels: Sequence[str], output: str) -> Any:
        shapes = tuple(tuple(self.sizes[label] for label in own) for own in labels)
        return path_of_shapes(f"{','.join(labels)}->{output}", shapes)

    def product(self, places: Sequence[int], result: str) -> int:
        """Return the place of a product with these indices; their order may differ where it is there already."""
        labels = [self.labels[place] for place in places]
        if labels == [result]:
            return places[0]
        key = tuple(sorted(places)), "".join(sorted(result))
        if key not in self.places:
            self.places[key] = len(self.labels)
            self.labels.append(result)
            self.steps.append((f"{','.join(labels)}->{result}", tuple(places)))
            self.multiplications += math.prod(self.sizes.get(label, 1) for label in set("".join(labels)))
        return self.places[key]

    def add_result(self, position: int, place: int) -> None:
        """Keep a gradient, with the indices of its operand in their order."""
        self.results[position] = self.product([place], unique_labels(self.inputs, self.output, position))

    def program(self, wanted: tuple[int, ...]) -> Program:
        """Return all steps, and the places that are not needed after each."""
        last = {place: k for k, (_, places) in enumerate(self.steps) for place in places}
        kept = {*range(len(self.inputs) + 1), *self.results.values()}
        steps = tuple(
            (text, places, tuple(place for place in places if last[place] == k and place not in kept))
            for k, (text, places) in enumerate(self.steps)
        )
        results = [
            (self.results[k], unique_labels(self.inputs, self.output, k)) if k in wanted else None
            for k in range(len(self.inputs))
        ]
        return steps, tuple(results)
