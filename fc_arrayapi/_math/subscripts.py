"""Subscripts of an einsum: parsed, checked against the operands, and the order in which several are contracted.

opt_einsum parses the subscripts and finds the path. An index has one size: an axis of size 1 does not broadcast.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import opt_einsum

from .._arrays.libraries import library, not_traced
from .._arrays.namespace import Array, is_array, keep, of
from .._arrays.text import is_unknown, kind_of

# Stands for an unknown size where a path is chosen.
ASSUMED_SIZE = 1000


class SubscriptsError(ValueError):
    """The subscripts of an einsum are malformed, or name another number of axes than an operand has."""


@dataclass(frozen=True, eq=False)  # compared by identity, which makes look-ups fast
class Equation:
    """Subscripts with the ellipsis written out: one letter for each axis."""

    text: str
    inputs: tuple[str, ...]
    output: str
    # The letters that stand for axes of an ellipsis.
    unnamed: str
    # Axes that must have one size: (operand, axis, other operand, its axis).
    equal: tuple[tuple[int, int, int, int], ...]


# The steps of a contraction: the positions of the operands to take out, and their equation; the result is appended.
Path = tuple[tuple[tuple[int, ...], str], ...]

_EQUATIONS: dict[tuple[str | int, ...], Equation] = {}
_PATHS: dict[Any, Path] = {}


def parse(subscripts: str, *ranks: int) -> Equation:
    """Expand the ellipsis and compare the subscripts with the ranks. The result is cached."""
    key: tuple[str | int, ...] = (subscripts, *ranks)
    return _EQUATIONS.get(key) or keep(_EQUATIONS, key, _parse(subscripts, *ranks))


def _parse(subscripts: str, *ranks: int) -> Equation:
    for character in subscripts:
        if not (character in ",.-> " or (character.isascii() and character.isalpha()) or ord(character) > 127):
            raise SubscriptsError(f"{shown(subscripts)}: {character!r} cannot name an index: use letters")
    written, output = _written_out(subscripts, ranks).split("->")
    inputs = tuple(written.split(","))
    for position, (labels, rank) in enumerate(zip(inputs, ranks, strict=True)):
        if len(labels) != rank:
            raise SubscriptsError(
                f"{shown(subscripts)}: operand {position} has {rank} axes, its subscripts name {len(labels)}"
            )
    for character in output:
        if not any(character in labels for labels in inputs):
            raise SubscriptsError(f"{shown(subscripts)}: the output has {character!r}, the operands have not")
    first: dict[str, tuple[int, int]] = {}
    equal = []
    for operand, labels in enumerate(inputs):
        for axis, label in enumerate(labels):
            if label in first:
                equal.append((*first[label], operand, axis))
            first.setdefault(label, (operand, axis))
    unnamed = "".join(label for label in first if label not in subscripts)
    return Equation(f"{written}->{output}", inputs, output, unnamed, tuple(equal))


@not_traced
def _written_out(subscripts: str, ranks: tuple[int, ...]) -> str:
    """Return the subscripts with the ellipsis and the output written out."""
    try:
        inputs, output, _ = opt_einsum.parser.parse_einsum_input((subscripts, *[(1,) * n for n in ranks]), shapes=True)
    except Exception as error:
        raise SubscriptsError(f"{shown(subscripts)}: {error}") from None
    return f"{inputs}->{output}"


def check_sizes(subscripts: str, equation: Equation, operands: Sequence[Array]) -> None:
    """Raise if an index has two sizes; unknown sizes are accepted."""
    for operand, axis, other, other_axis in equation.equal:
        size, other_size = operands[operand].shape[axis], operands[other].shape[other_axis]
        if size == other_size or is_unknown(size) or is_unknown(other_size):
            continue
        label = equation.inputs[operand][axis]
        index = "an axis of the ellipsis" if label in equation.unnamed else f"index {label}"
        hint = "; an axis of size 1 does not broadcast" if 1 in (size, other_size) else ""
        raise ValueError(
            f"{shown(subscripts)}: {index}: operand {operand} has {size} (axis {axis}), "
            f"operand {other} has {other_size} (axis {other_axis}){hint}"
        )


def find_path(equation: Equation, operands: Sequence[Array], optimize: Any, memory_limit: Any) -> Path:
    """Return the steps that contract three or more operands."""
    fixed = optimize is None or isinstance(optimize, (str, bool, list, tuple))  # an optimizer may find better next time
    shapes = known_shapes(equation, operands)
    if not fixed:
        return _find_path(equation, shapes, optimize, memory_limit)
    if type(optimize) is str and memory_limit is None:
        key: Any = (equation, optimize, *shapes)
    else:
        key = (equation, type(optimize), repr(optimize), repr(memory_limit), *shapes)
    return _PATHS.get(key) or keep(_PATHS, key, _find_path(equation, shapes, optimize, memory_limit))


def path_of_shapes(text: str, shapes: tuple[tuple[int, ...], ...]) -> Path:
    """Return the steps that contract three or more operands of these shapes, on opt_einsum's default path."""
    return _find_path(parse(text, *map(len, shapes)), shapes, "auto", None)


def known_shapes(equation: Equation, operands: Sequence[Array]) -> tuple[tuple[int, ...], ...]:
    """Return the shapes by which a path is chosen."""
    own = library(of(operands[0]))
    shapes = tuple(operand.shape for operand in operands)
    return shapes if own.is_known is None else _assumed_shapes(equation, shapes, own.is_known)


def _assumed_shapes(equation: Equation, shapes: Any, is_known: Callable[[Any], bool]) -> Any:
    """Put ASSUMED_SIZE where a size is unknown, or open."""
    sizes: dict[str, int] = {}
    for labels, shape in zip(equation.inputs, shapes, strict=True):
        for label, size in zip(labels, shape, strict=True):
            if is_known(size):
                sizes[label] = int(size)
    return tuple(tuple(sizes.get(label, ASSUMED_SIZE) for label in labels) for labels in equation.inputs)


@not_traced
def _groups(
    text: str, shapes: tuple[tuple[int, ...], ...], optimize: Any, memory_limit: Any
) -> tuple[tuple[int, ...], ...]:
    """Return opt_einsum's path: the positions of the operands that each step contracts."""
    is_number = isinstance(memory_limit, Real) and float(memory_limit) >= 1
    if not (is_number or memory_limit in (None, -1, "max_input")):
        raise ValueError(
            f"memory_limit is {memory_limit!r}: give the number of elements that an intermediate may have, from 1, or "
            f"'max_input', or None for no limit"
        )
    try:
        path, _ = opt_einsum.contract_path(text, *shapes, shapes=True, optimize=optimize, memory_limit=memory_limit)
        return tuple(tuple(map(operator.index, group)) for group in path)
    except Exception as error:
        raise ValueError(
            f"optimize is {optimize!r}, with which opt_einsum finds no path ({type(error).__name__}: {error}): pass "
            f"'auto', 'greedy', 'optimal', an optimizer of opt_einsum, or a path such as [(0, 1), (0, 1)]"
        ) from error


def _find_path(equation: Equation, shapes: tuple[tuple[int, ...], ...], optimize: Any, memory_limit: Any) -> Path:
    groups = _groups(equation.text, shapes, optimize, memory_limit)
    remaining = list(equation.inputs)
    steps = []
    for group in groups:
        # A group of more than two is contracted two at a time, from the left.
        if not all(-len(remaining) <= position < len(remaining) for position in group):
            raise ValueError(
                f"optimize: the step {group} of the path names operands beyond the {len(remaining)} that are left"
            )
        positions = sorted({position % len(remaining) for position in group})
        while True:
            taken = positions[:2]
            terms = [remaining[position] for position in taken]
            for position in reversed(taken):
                remaining.pop(position)
            needed = set(equation.output).union(*remaining)
            result = "".join(label for label in dict.fromkeys("".join(terms)) if label in needed)
            if not remaining:
                result = equation.output
            # The first pop moves the second position.
            pops = tuple(position - index for index, position in enumerate(taken))
            steps.append((pops, f"{','.join(terms)}->{result}"))
            remaining.append(result)
            if len(positions) <= 2:
                break
            positions = [position - 2 for position in positions[2:]] + [len(remaining) - 1]
    if len(remaining) != 1:
        raise ValueError(f"optimize: the path {[*groups]} leaves {len(remaining)} operands: it must end with one")
    return tuple(steps)


def from_interleaved(arguments: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """Convert arrays and lists of indices in turn to subscripts and operands.

    Without an output, the result has the indices that occur once, in their order, as in NumPy. The order of
    letters is not the same: the 27th is "A", which sorts before "a".
    """
    pairs = len(arguments) // 2
    operands = arguments[: 2 * pairs : 2]
    terms = [_indices(f"operand {k}", term) for k, term in enumerate(arguments[1 : 2 * pairs : 2])]
    used = [index for term in terms for index in term]
    named = sorted({*used} - {...})
    letters = {...: "...", **{index: opt_einsum.get_symbol(k) for k, index in enumerate(named)}}
    output = [...] * (... in used) + [index for index in named if used.count(index) == 1]
    if len(arguments) > 2 * pairs and arguments[-1] is not None:
        if not operands:
            raise _not_interleaved("there is one argument, and no list of indices")
        output = _indices("the output", arguments[-1])
    for index in output:
        if index not in letters or index not in used:
            raise _not_interleaved(f"output index {_index_text(index)} appears in no operand")
        if output.count(index) > 1:
            raise _not_interleaved(f"index {_index_text(index)} appears {output.count(index)} times in the output")
    inputs = ",".join("".join(letters[index] for index in term) for term in terms)
    return f"{inputs}->{''.join(letters[index] for index in output)}" if operands else "", operands


def _indices(name: str, value: Any) -> list[Any]:
    """Return the indices of one array: integers, and Ellipsis for any number of axes."""
    is_list = isinstance(value, Sequence) or (is_array(value) and library(of(value)).own_arrays and value.ndim == 1)
    if not is_list or isinstance(value, (str, bytes)):
        raise _not_interleaved(f"{name}: the indices are {kind_of(value)}, not a list of integers")
    indices = []
    for index in value:
        try:
            if isinstance(index, bool) or str(getattr(index, "dtype", "")) == "bool":  # of NumPy, which only warns
                raise TypeError
            indices.append(index if index is ... else operator.index(index))
        except TypeError:
            raise _not_interleaved(f"{name}: {kind_of(index)} in the list of indices, which are integers") from None
    return indices


def _index_text(index: Any) -> str:
    return "..." if index is ... else str(index)


def _not_interleaved(what: str) -> SubscriptsError:
    return SubscriptsError(
        f"einsum of arrays and lists of indices: {what}: pass subscripts and arrays, or arrays and lists of indices "
        f"in turn: einsum(X, [0, 1], W, [1, 2], [0, 2])"
    )


def tensordot_subscripts(ndim: int, other_ndim: int, own: tuple[int, ...], others: tuple[int, ...]) -> str:
    """Return the subscripts that contract these axes of two arrays."""
    letters = [opt_einsum.get_symbol(axis) for axis in range(ndim + other_ndim)]
    left, right = letters[:ndim], letters[ndim:]
    if len(own) != len(others):
        raise ValueError(f"axes: {len(own)} axes of a meet {len(others)} of b: name the same number for both")
    for axis, other in zip(own, others, strict=True):
        right[other] = left[axis]
    kept = [letter for letter in (*left, *right) if (letter in left) != (letter in right)]
    return f"{''.join(left)},{''.join(right)}->{''.join(kept)}"


def shown(subscripts: str) -> str:
    """Write subscripts as messages begin with them."""
    return f"einsum {subscripts!r}"
