"""One task for each block: what Dask's own optimization leaves in several is joined, with its steps in order.

Dask maps functions over blocks, and joins those that follow each other. It leaves two things that a pass feels:

- A block of X that both forward and backward take is read, or cast, in a separate task. Another thread may take it,
  whose core does not have it in its cache.
- A joined task sorts its few steps anew each time that it runs: 0.4 ms in which no other thread runs Python.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .in_place import Elementwise, owns_its_memory

Graph = Mapping[Any, Any]


def joined(collections: Iterable[Any]) -> list[Any]:
    """Return lazy values whose arrays compute each block in one task; a caller's own way to optimize stays."""
    from dask.array.core import Array  # not Dask's expressions, which optimize themselves

    return [_Joined(collection) if isinstance(collection, Array) else collection for collection in collections]


class _Joined:
    """A Dask array whose way to optimize is chosen once.

    Dask reads it from its configuration, several times in a pass, and all threads share the configuration. If it
    were set for a pass, then another pass that ends would unset it, and Dask returns results that are optimized in
    two ways in another order than it was asked for.
    """

    def __init__(self, array: Any) -> None:
        import dask
        from dask.array.optimization import optimize as dasks

        chosen = array.__dask_optimize__
        ours = chosen is dasks and dask.config.get("optimization.fuse.active", None) is not False
        self.array, self.__dask_optimize__ = array, optimize if ours else chosen

    def __getattr__(self, name: str) -> Any:
        return getattr(self.array, name)


def optimize(graph: Any, keys: Any, **options: Any) -> Graph:
    """Optimize a graph as Dask does, and join each block's chain of tasks into one.

    A task joins the one that takes its result if no other does, and if that one takes no other result, or if it only
    reads or cuts a block. Data that lie in the graph, such as W, are no results.
    """
    from dask.array.optimization import GETTERS
    from dask.array.optimization import optimize as dasks
    from dask.core import flatten

    asked = set(flatten(keys if isinstance(keys, (list, set)) else [keys]))
    tasks: dict[Any, Any] = dict(dasks(graph, list(asked), **options))
    try:
        from dask._task_spec import DataNode, Task
    except ImportError:  # in a Dask of another time
        return tasks
    reads = *GETTERS, operator.getitem
    uses: dict[Any, int] = {}
    for task in tasks.values():
        for key in task.dependencies:
            uses[key] = uses.get(key, 0) + 1
    joined_with: dict[Any, list[Any]] = {}
    inner = set()
    for key, task in tasks.items():
        results = [other for other in task.dependencies if not isinstance(tasks.get(other), DataNode)]
        for other in results if type(task) is Task else ():
            alone = uses[other] == 1 and other not in asked and type(tasks.get(other)) is Task
            if alone and (len(results) == 1 or tasks[other].func in reads):
                joined_with.setdefault(key, []).append(other)
                inner.add(other)
    known: dict[Any, Steps] = {}
    return {key: _one_task(key, joined_with, tasks, known) for key in tasks if key not in inner}


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
