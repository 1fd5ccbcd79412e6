"""What a task holds while it runs, and what it returns, from shapes and dtypes alone: nothing is read or computed.

Each step of a task is run on stand-ins, arrays of the same number of axes with a few zeros each. Sizes are replaced by
primes, so that the sizes of the result tell which they are made of, and whether it is a view. Functions that are not
Dask's, NumPy's or ours are not run: their result is taken for as large as their first argument, with one copy beside.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from .._math.costs import cost_of
from .in_place import is_plain
from .one_task import Steps

# What a reader holds beside a block comes from several threads, and the allocator keeps some of it.
KEPT_BY_READERS = 1.75
# Where a library has threads of its own to read with, as zarr has, less is kept for each thread of a pass. In addition
# KEPT_ONCE times what they hold beside a block, but of no more than the block, is kept once: half of that was seen in a
# pass of 32 blocks, nearly all in one of 128.
KEPT_WITH_OWN_THREADS, KEPT_ONCE = 0.75, 4.25
# glibc maps larger blocks by themselves; smaller ones it cuts from heaps, which keep what is freed.
MAPPED_BYTES = 2**25
PRIMES = (3, 5, 7, 11, 13, 17, 19, 23)
# Functions of these modules may be run on stand-ins; those of NumPy that read files are in dask.array alone.
_KNOWN = re.compile(
    r"(dask\.(array|core|utils|layers|blockwise|_task_spec)|numpy|_operator|operator|builtins|fc_arrayapi)(\.|$)"
)


class Block:
    """A block of which the shape and dtype are known.

    Parameters
    ----------
    shape : tuple of int
    dtype : numpy dtype
    memory : Memory
        Where its bytes are counted until the last name for it is gone.
    base : Block, optional
        The block of which it is a view.
    nbytes : int, optional
        The bytes that it takes, by default those of its numbers, or none for a view.
    of_source : bool
        It is read as it is, and not computed.
    """

    __slots__ = ("base", "dtype", "memory", "of_source", "owned", "shape")

    def __init__(
        self,
        shape: Sequence[int],
        dtype: Any,
        memory: Memory,
        base: Block | None = None,
        nbytes: int | None = None,
        of_source: bool = False,
    ) -> None:
        self.shape, self.dtype, self.memory, self.base = tuple(map(int, shape)), np.dtype(dtype), memory, base
        self.of_source = of_source
        self.owned = nbytes if nbytes is not None else 0 if base is not None else self.nbytes
        memory.take(self.owned)
        memory.mapped |= self.owned >= MAPPED_BYTES

    def __del__(self) -> None:
        self.memory.take(-self.owned)

    def give_up(self) -> None:
        """Give the bytes to another block, which is written in the place of this one."""
        self.memory.take(-self.owned)
        self.owned = 0

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * int(self.dtype.itemsize)

    @property
    def held(self) -> int:
        """The bytes that stay as long as this block does."""
        return self.owned + (0 if self.base is None else self.base.held)


class Memory:
    """Counts the bytes of blocks that are there, and the most that there were; and what is read and computed."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.largest = 0  # of the blocks in heaps
        self.mapped = False  # whether any block was larger than those
        self.flops = self.elements = self.read = 0
        self.work = 0  # flops, those in float64 twice
        self.unknown: dict[str, None] = {}
        self.sources: dict[tuple[str, tuple[int, ...]], Read] = {}
        self.widest = 0
        self.kept_by_own_threads = 0  # bytes, of those of readers
        self.cut = False  # whether any task takes some rows of a block that was computed
        self._kept: dict[Any, Any] = {}

    def take(self, nbytes: int) -> None:
        self.now += nbytes
        self.most = max(self.most, self.now)
        if nbytes < MAPPED_BYTES:
            self.largest = max(self.largest, nbytes)

    def call(self, function: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """Return the sizes of what a function returns."""
        name = getattr(function, "__name__", "")
        if name in ("getter", "getter_nofancy", "getter_inline", "getitem") and len(args) > 1:
            return self._part(args[0], args[1], small_copied=function.__module__ == "dask.array.chunk")
        if name == "getitem_variadic":
            return self._part(args[0], args[1:])
        if name in ("concatenate3", "concatenate_axes"):
            return self._joined(args[0])
        if name == "concatenate_shaped":
            from dask.array.core import reshapelist

            return self._joined(reshapelist(args[1], list(args[0])))
        blocks = [value for value in _flat((args, options)) if isinstance(value, Block)]
        if not blocks and not _shapes((args, options)):
            return self._leaf(function, args, options)
        if name == "_contract_blocks" and "apply" in options:
            operands = list(_flat(args))
            if all(hasattr(operand, "shape") for operand in operands):  # else nothing is known of one
                self._count_contraction(options["apply"], operands)
        elif blocks and name not in ("_keep", "_finish"):
            self.elements += max(block.nbytes for block in blocks)
        if not _is_known(function):
            return self._unknown(function, blocks)
        try:
            made = self._on_stand_ins(function, args, options)
        except Exception:  # a stand-in that a function does not take, as where an argument is not known
            return self._unknown(function, blocks, named=not self.unknown)
        if not blocks and isinstance(made, Block):  # what Dask makes, such as random numbers
            self._count_source("X", None, made.shape, made.nbytes)
        return made

    def _count_contraction(self, function: Any, blocks: Sequence[Block]) -> None:
        cost = cost_of(function, *blocks)
        if cost is None:
            return
        self.flops += cost.flops
        self.work += cost.flops * max(1, max(block.dtype.itemsize for block in blocks) // 4)
        self.take(cost.held)
        self.take(-cost.held)
        rows = max(math.prod(block.shape[:-1]) for block in blocks)
        widest = max((block.shape[-1] for block in blocks if block.shape), default=0)
        self.widest = max(self.widest, rows * widest * max(4, blocks[0].dtype.itemsize))

    def _part(self, array: Any, index: Any, small_copied: bool = False) -> Any:
        """Return a part of an array, which Dask copies in places if it is at most half of it."""
        if (isinstance(index, tuple) and any(isinstance(part, Block) for part in index)) or isinstance(index, Block):
            return self._unknown(operator.getitem, [array]) if isinstance(array, Block) else None
        if isinstance(array, (tuple, list, dict)):
            return array[index]
        shape = np.broadcast_to(np.zeros((), np.int8), array.shape)[index].shape
        if isinstance(array, Block):
            self.cut |= not array.of_source and shape[:1] < array.shape[:1]
            basic = all(isinstance(part, (int, np.integer, slice, type(None), type(...))) for part in _tuple(index))
            view = basic and not (small_copied and 2 * math.prod(shape) <= math.prod(array.shape))
            return Block(shape, array.dtype, self, base=array if view else None, of_source=array.of_source)
        first = _tuple(index)[0] if shape and isinstance(index, (tuple, slice)) else None
        return self._read(array, shape, first.start or 0 if isinstance(first, slice) else 0)

    def _read(self, array: Any, shape: tuple[int, ...], start: int) -> Block:
        nbytes = math.prod(shape) * array.dtype.itemsize
        name = str(getattr(array, "path", type(array).__name__))
        self._count_source(name, array, shape, nbytes, start)
        if isinstance(array, np.ndarray):
            return Block(shape, array.dtype, self, nbytes=0, of_source=True)
        copies = array.copies([shape[0] if shape else 1], start) if hasattr(array, "copies") else 1
        beside, kept = max(0, copies - 1) * nbytes, KEPT_BY_READERS
        if getattr(array, "own_threads", False):
            kept = KEPT_WITH_OWN_THREADS
            self.kept_by_own_threads = max(self.kept_by_own_threads, round(KEPT_ONCE * min(nbytes, beside)))
        beside = round(kept * beside)
        self.take(beside)
        block = Block(shape, array.dtype, self, nbytes=nbytes if copies else 0, of_source=True)
        self.take(-beside)
        return block

    def _count_source(self, name: str, array: Any, shape: tuple[int, ...], nbytes: int, start: int = 0) -> None:
        self.read += nbytes
        self.sources.setdefault((name, shape[1:]), Read(array)).add(shape, nbytes, start)

    def _joined(self, parts: Any) -> Any:
        shape, dtype, _ = _nested_shape(parts)
        return Block(shape, dtype, self)

    def _leaf(self, function: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """Return what a function without blocks gives, such as numbers or the indices of a block, if it is known."""
        if not _is_known(function):
            self.unknown[_name(function)] = None
            return None
        made = function(*args, **options)
        return Block(made.shape, made.dtype, self) if isinstance(made, np.ndarray) and made.ndim else made

    def _unknown(self, function: Any, blocks: Sequence[Block], named: bool = True) -> Any:
        if named:
            self.unknown[_name(function)] = None
        if not blocks:
            return None
        largest = max(blocks, key=lambda block: block.nbytes)
        self.take(largest.nbytes)
        self.take(-largest.nbytes)
        return Block(blocks[0].shape, blocks[0].dtype, self, nbytes=largest.nbytes)

    def _on_stand_ins(self, function: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        blocks: list[Block] = []
        key = (_identity(function), _summary((args, options), blocks))
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = _try(function, args, options)
        return _made(found, blocks, self)


class Read:
    """The blocks that were read of a source."""

    def __init__(self, array: Any) -> None:
        self.array, self.blocks, self.rows, self.nbytes = array, 0, 0, 0
        self._starts: set[int] = set()

    @property
    def uneven(self) -> bool:
        """Whether blocks, but for the last one, differ in their rows."""
        return any(start % self.rows for start in self._starts)

    def add(self, shape: tuple[int, ...], nbytes: int, start: int) -> None:
        self.blocks += 1
        self._starts.add(start)
        self.rows = max(self.rows, shape[0] if shape else 1)
        self.nbytes = max(self.nbytes, nbytes)


def run(task: Any, results: Mapping[Any, Any], memory: Memory) -> Any:
    """Run a task on blocks without numbers and return its result."""
    function = task.func
    if isinstance(function, Steps):
        inner = dict(zip(function.inputs, (_value(arg, results, memory) for arg in task.args), strict=True))
        for step, done, elementwise in function.order:
            target = None if elementwise is None else elementwise.target(inner, done, owns_its_memory)
            if target is not None:
                inner[target].give_up()
            inner[step.key] = run(step, inner, memory) if hasattr(step, "func") else _value(step, inner, memory)
            for key in done:
                del inner[key]
        return inner[step.key]
    args = tuple(_value(arg, results, memory) for arg in task.args)
    options = {name: _value(arg, results, memory) for name, arg in (task.kwargs or {}).items()}
    return memory.call(function, args, options)


def owns_its_memory(block: Any) -> bool:
    """Say whether the numbers of a block are its own, as `in_place.owns_its_memory` does of arrays."""
    return isinstance(block, Block) and block.base is None and is_plain(block) and block.owned == block.nbytes


def _value(arg: Any, results: Mapping[Any, Any], memory: Memory) -> Any:
    if type(arg).__name__ == "TaskRef":
        return results[arg.key]
    if type(arg).__name__ == "Alias":
        return results[arg.target.key if hasattr(arg.target, "key") else arg.target]
    if type(arg).__name__ == "DataNode":
        return arg.value
    if hasattr(arg, "func") and hasattr(arg, "dependencies"):  # a task among the arguments
        if type(arg).__name__ in ("List", "Tuple", "Set"):
            return [_value(part, results, memory) for part in arg.args]
        if type(arg).__name__ == "Dict":
            return arg({key: results[key] for key in arg.dependencies})
        return run(arg, results, memory)
    return arg


def _tuple(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _name(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__qualname__", "") or type(function).__qualname__


def _is_known(function: Any) -> bool:
    while isinstance(function, partial):
        function = function.func
    if hasattr(function, "funcs") and hasattr(function, "first"):  # toolz.compose, of Dask
        return _is_known(function.first) and all(map(_is_known, function.funcs))
    module = getattr(function, "__module__", None) or type(function).__module__
    return bool(_KNOWN.match(module))


def _flat(value: Any) -> Any:
    """Yield what is in nested containers."""
    if isinstance(value, (list, tuple, set)):
        for part in value:
            yield from _flat(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _flat(part)
    elif isinstance(value, partial):
        yield from _flat((value.args, value.keywords))
    else:
        yield value


def _shapes(value: Any) -> bool:
    """Say whether there is a shape among the arguments, so that what a function makes can be made smaller."""
    return _is_shape(value) or (
        isinstance(value, (list, tuple, dict))
        and any(map(_shapes, value.values() if isinstance(value, dict) else value))
    )


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(type(part) is int and part >= 0 for part in value)


def _identity(function: Any) -> Any:
    if isinstance(function, partial):
        return _identity(function.func), _hashable(function.args), _hashable(function.keywords)
    return function if getattr(function, "__hash__", None) else id(function)


def _hashable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_hashable, value))
    if isinstance(value, dict):
        return tuple((key, _hashable(part)) for key, part in value.items())
    if isinstance(value, partial):
        return _identity(value)
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value


def _summary(value: Any, blocks: list[Block]) -> Any:
    """Return what the result depends on, and collect the blocks in the order in which they are met."""
    if isinstance(value, Block):
        blocks.append(value)
        return ("block", value.shape, value.dtype.str)
    if isinstance(value, np.ndarray):
        return ("array", value.shape, value.dtype.str)
    if isinstance(value, (list, tuple)):
        return tuple(_summary(part, blocks) for part in value)
    if isinstance(value, dict):
        return tuple((key, _summary(part, blocks)) for key, part in value.items())
    return _hashable(value)


def _try(function: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Run a function on stand-ins; return the sizes of its result, or the place of the block that it is."""
    primes: dict[int, int] = {0: 0, 1: 1}
    stand_ins: list[Any] = []

    def small(size: int) -> int:
        if size not in primes:
            primes[size] = PRIMES[len(primes) - 2]
        return primes[size]

    def replaced(value: Any) -> Any:
        if isinstance(value, Block):
            stand_ins.append(np.zeros(tuple(map(small, value.shape)), value.dtype))
            return stand_ins[-1]
        if isinstance(value, np.ndarray):
            return np.zeros(tuple(map(small, value.shape)), value.dtype)
        if _is_shape(value):
            return tuple(map(small, value))
        if type(value) in (list, tuple):
            return type(value)(replaced(part) for part in value)
        if type(value) is dict:
            return {key: replaced(part) for key, part in value.items()}
        return value

    def large(size: int) -> int:
        """Return the product of the sizes whose primes this one is made of."""
        known = {prime: value for value, prime in primes.items() if prime > 1}
        found = 1
        for prime, value in known.items():
            while size % prime == 0 and size:
                found, size = found * value, size // prime
        if size > 1:
            raise ValueError(size)
        return found if size else 0

    def sizes(result: Any) -> Any:
        if isinstance(result, (list, tuple)):
            return type(result)(map(sizes, result)) if type(result) in (list, tuple) else tuple(map(sizes, result))
        if isinstance(result, dict):
            return {key: sizes(part) for key, part in result.items()}
        if not isinstance(result, (np.ndarray, np.generic)):
            return ("value", result)
        base = next((k for k, given in enumerate(stand_ins) if result is given or _is_view(result, given)), None)
        one_number = isinstance(result, np.ndarray) and result.size > 1 and not any(result.strides)  # da.ones
        return ("array", tuple(map(large, result.shape)), result.dtype, base, 0 if one_number else None)

    given, named = replaced(args), replaced(dict(options))
    with np.errstate(all="ignore"):
        return sizes(function(*given, **named))


def _is_view(result: Any, given: Any) -> bool:
    return isinstance(result, np.ndarray) and result.size > 0 and np.may_share_memory(result, given)


def _made(found: Any, blocks: Sequence[Block], memory: Memory) -> Any:
    if isinstance(found, tuple) and found and found[0] == "array":
        _, shape, dtype, base, nbytes = found
        return Block(shape, dtype, memory, base=None if base is None else blocks[base], nbytes=nbytes)
    if isinstance(found, tuple) and found and found[0] == "value":
        return found[1]
    if isinstance(found, dict):
        return {key: _made(part, blocks, memory) for key, part in found.items()}
    return type(found)(_made(part, blocks, memory) for part in found)


def _nested_shape(parts: Any) -> tuple[tuple[int, ...], Any, int]:
    """Return the shape of nested lists of blocks that are joined, one axis for each level."""
    if isinstance(parts, Block) or not isinstance(parts, (list, tuple)):
        return tuple(parts.shape), parts.dtype, 0
    shapes = [_nested_shape(part) for part in parts]
    shape, dtype, below = list(shapes[0][0]), shapes[0][1], shapes[0][2]
    axis = len(shape) - 1 - below
    shape[axis] = sum(each[0][axis] for each in shapes)
    return tuple(shape), dtype, below + 1
