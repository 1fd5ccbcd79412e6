"""One task for each block: what Dask's own optimization leaves in several is joined, with its steps in order.

Dask maps functions over blocks, and joins those that follow each other. It leaves two things that a pass feels:

- A block of X that both forward and backward take is read, or cast, in a separate task. Another thread may take it,
  whose core does not have it in its cache.
- A joined task sorts its few steps anew each time that it runs: 0.4 ms in which no other thread runs Python.

On a cluster a task costs much more: 2 ms of the scheduler, and often the way of a sum from one worker to another.
There a task computes several blocks and adds their sums.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from .in_place import Elementwise, owns_its_memory

Graph = Mapping[Any, Any]

# A task on a cluster computes the most of these blocks with which no thread has over a tenth more of them than it must.
BLOCKS_IN_A_TASK = (1, 2, 4, 8)


def joined(collections: Iterable[Any], threads: int = 0) -> list[Any]:
    """Return lazy values whose arrays compute each block in one task; a caller's own way to optimize stays.

    With the `threads` of a cluster, a task may compute several blocks.
    """
    from dask.array.core import Array  # not Dask's expressions, which optimize themselves

    ours = partial(optimize, threads=threads) if threads else optimize
    return [_Joined(collection, ours) if isinstance(collection, Array) else collection for collection in collections]


class _Joined:
    """A Dask array whose way to optimize is chosen once.

    Dask reads it from its configuration, several times in a pass, and all threads share the configuration. If it
    were set for a pass, then another pass that ends would unset it, and Dask returns results that are optimized in
    two ways in another order than it was asked for.
    """

    def __init__(self, array: Any, ours: Any) -> None:
        import dask
        from dask.array.optimization import optimize as dasks

        chosen = array.__dask_optimize__
        stays = chosen is not dasks or dask.config.get("optimization.fuse.active", None) is False
        self.array, self.__dask_optimize__ = array, chosen if stays else ours

    def __getattr__(self, name: str) -> Any:
        return getattr(self.array, name)


def optimize(graph: Any, keys: Any, threads: int = 0, **options: Any) -> Graph:
    """Optimize a graph as Dask does, and join each block's chain of tasks into one.

    A task joins the one that takes its result if no other does, and if that one takes no other result, or if it only
    reads or cuts a block. Data that lie in the graph, such as W, are no results.

    Parameters
    ----------
    graph, keys, **options
        As in `dask.array.optimization.optimize`.
    threads : int
        Those of all workers of a cluster; 0 on one machine. On a cluster, tasks that each compute a block also join
        the one that adds their results.
    """
    from dask.array.optimization import GETTERS
    from dask.array.optimization import optimize as dasks
    from dask.core import flatten

    asked = set(flatten(keys if isinstance(keys, (list, set)) else [keys]))
    tasks: dict[Any, Any] = dict(dasks(graph, list(asked), **options))
    try:
        from dask._task_spec import Alias, DataNode, Task
    except ImportError:  # in a Dask of another time
        return tasks
    results = {
        key: [other for other in task.dependencies if not isinstance(tasks.get(other), DataNode)]
        for key, task in tasks.items()
        if not isinstance(task, DataNode)
    }
    uses: dict[Any, int] = {}
    for others in results.values():
        for other in others:
            uses[other] = uses.get(other, 0) + 1
    once = {key for key, count in uses.items() if count == 1 and key not in asked}
    alone = {key for key in once if type(tasks.get(key)) in (Task, Alias)}
    reads = {key for key in alone if getattr(tasks[key], "func", None) in (*GETTERS, operator.getitem)}
    together = _several_blocks(results, alone, reads, threads) if threads else ()
    joined_with: dict[Any, list[Any]] = {}
    for key, others in results.items():
        if type(tasks[key]) in (Task, Alias):
            whole = len(others) == 1 or key in together
            joined_with[key] = [other for other in others if other in alone and (whole or other in reads)]
    inner = {other for others in joined_with.values() for other in others}
    known: dict[Any, Steps] = {}
    return {key: _one_task(key, joined_with, tasks, known) for key in tasks if key not in inner}


def _several_blocks(
    results: Mapping[Any, Sequence[Any]], alone: set[Any], reads: set[Any], threads: int
) -> Iterable[Any]:
    """Return the keys of tasks on a cluster that compute all that leads to them: several blocks, but not too many."""
    from dask.core import toposort

    # Blocks that lead to a task: infinitely many where another task takes one of them too, or a worker holds it.
    blocks: dict[Any, float] = {}
    in_graph = {key: [other for other in others if other in results] for key, others in results.items()}
    for key in toposort(in_graph, dependencies=in_graph):
        others = results[key]
        own = 0 if key in reads and not others else 1
        blocks[key] = max(own, sum(blocks[other] if other in alone else math.inf for other in others))
    count = sum(many for key, many in blocks.items() if key not in alone and many < math.inf)
    most = max(
        many
        for many in BLOCKS_IN_A_TASK
        if many * math.ceil(math.ceil(count / many) / threads) <= 1.1 * math.ceil(count / threads)
    )
    return {key for key, many in blocks.items() if many <= most}


def _one_task(last: Any, joined_with: Mapping[Any, Sequence[Any]], tasks: Graph, known: dict[Any, Steps]) -> Any:
    """Return the task of a key, joined with those before it."""
    from dask._task_spec import Task, TaskRef

    chain, found = {}, [last]
    while found:
        key = found.pop()
        chain[key] = tasks[key]
        found += joined_with.get(key, ())
    if len(chain) == 1:
        return with_order(tasks[last], known)
    inputs = tuple({other: None for task in chain.values() for other in task.dependencies if other not in chain})
    return Task(last, Steps.of(chain, last, inputs, known), *map(TaskRef, inputs))


def with_order(task: Any, known: dict[Any, Steps] | None = None) -> Any:
    """Return a task that Dask joined from several with the order of its steps; any other as it is.

    All blocks of an array have one and the same dictionary of tasks: its order is kept in `known` by its identity.
    """
    from dask._task_spec import Task, _execute_subgraph

    if type(task) is not Task or task.func is not _execute_subgraph:
        return task
    steps, last, inputs, *values = task.args
    known = {} if known is None else known
    place = id(steps), last, tuple(inputs)
    found = known.get(place)
    if found is None:
        found = known[place] = Steps.of(steps, last, inputs, known)
    return Task(task.key, found, *values)


class Steps:
    """Tasks that run one after the other; each result is dropped after its last use.

    Parameters
    ----------
    order : sequence of (task, keys, Elementwise or None)
        The tasks, the results that no later one takes, and what is known of elementwise tasks.
    inputs : sequence
        The keys of the values that it is called with.
    """

    __slots__ = ("inputs", "order")

    def __init__(self, order: Sequence[tuple[Any, tuple[Any, ...], Any]], inputs: Sequence[Any]) -> None:
        self.order, self.inputs = order, inputs

    @classmethod
    def of(cls, tasks: Graph, last: Any, inputs: Iterable[Any], known: dict[Any, Steps] | None = None) -> Steps:
        """Order the tasks that lead to a key: what a task takes comes just before it."""
        order: list[Any] = []
        seen, stack = set(), [(last, iter(sorted(tasks[last].dependencies, key=str)))]
        while stack:
            key, others = stack[-1]
            for other in others:
                if other in tasks and other not in seen:
                    seen.add(other)
                    stack.append((other, iter(sorted(tasks[other].dependencies, key=str))))
                    break
            else:
                stack.pop()
                order.append(key)
        last_use = {other: place for place, key in enumerate(order) for other in tasks[key].dependencies}
        drops: list[tuple[Any, ...]] = [()] * len(order)
        for other, place in last_use.items():
            drops[place] += (other,)
        steps = [(tasks[key], done) for key, done in zip(order, drops, strict=True)]
        return cls([(with_order(task, known), done, Elementwise.of(task)) for task, done in steps], tuple(inputs))

    def __call__(self, *values: Any) -> Any:
        """Run the tasks and return the result of the last one."""
        results = dict(zip(self.inputs, values, strict=True))
        del values
        for task, done, elementwise in self.order:
            target = None if elementwise is None else elementwise.target(results, done, owns_its_memory)
            results[task.key] = task(results) if target is None else elementwise(results, target)
            for key in done:
                del results[key]
        return results[task.key]
