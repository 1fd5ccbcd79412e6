"""Draw the tasks of one pass over a batch of four blocks, from Dask's own graph: `python docs/pictures/graph.py`."""

import tempfile
from pathlib import Path

import dask
import matplotlib.pyplot as plt
import numpy as np
from drawing import BLUE, GREEN, GREY, ORANGE, PALE, save

import fc_arrayapi as fc

BLOCKS = 4
# The row of a task in the picture, from below, and its colour.
ROWS = {"read": 0, "Y": 1, "dY": 2, "dW, dB": 3, "keep": 4, "add": 5, "finish": 6}
COLOURS = {"read": BLUE, "Y": GREEN, "dY": GREEN, "dW, dB": ORANGE, "keep": GREY, "add": ORANGE, "finish": GREY}


def graph(folder):
    """Return what each task of the pass needs, for a loss of squares over two files."""
    for name, columns in (("x", 8), ("t", 3)):
        np.save(folder / f"{name}.npy", np.ones((BLOCKS * 100, columns)))
    X, T = (fc.open_array(folder / f"{name}.npy", rows=100) for name in "xt")
    layer = fc.FullyConnected.init(8, 3)
    Y = layer(X)
    grads = layer.backward(X, Y - T, needs=("dW", "dB"))
    tasks = {}
    for part in (grads.dW, grads.dB):
        tasks.update(dict(part.__dask_graph__()))
    needed = {key: dask.core.get_dependencies(tasks, key) for key in tasks}
    names = {X.name: "X", T.name: "T", Y.name: "Y", (Y - T).name: "dY"}
    return needed, names


def kind(key, needed, names):
    """Return which row a task belongs to, and what is written in it; None for a constant that is in the graph once."""
    if not isinstance(key, tuple):
        return None
    name = names.get(key[0])
    if name in ("X", "T"):
        return "read", f"read {name}{key[1]}"
    if name in ("Y", "dY"):
        return name, f"{name}{key[1]}"
    if key[0].startswith("contract_blocks"):
        return "dW, dB", f"part {key[-1]}"
    if key[0].startswith("keep"):
        return "keep", ""
    if key[0].startswith("_add"):
        return "add", "+"
    if key[0].startswith("finish"):
        return "finish", "dW" if len(key) == 3 else "dB"
    return None


def main():
    with tempfile.TemporaryDirectory() as folder:
        needed, names = graph(Path(folder))
    drawn = {key: kind(key, needed, names) for key in needed}
    drawn = {key: what for key, what in drawn.items() if what is not None and what[0] != "keep"}

    def sources(key):
        """Return the drawn tasks behind a task: those that are left out are passed through."""
        for source in needed[key]:
            if source in drawn:
                yield source
            else:
                yield from sources(source)

    place, figure = {}, plt.figure(figsize=(9, 5.6))
    axes = figure.add_axes((0, 0, 1, 1))
    aggregates = [key for key in drawn if drawn[key][0] == "add" and "aggregate" in key[0]]
    for key, (row, text) in drawn.items():
        y = ROWS[row] + 0.0
        if row == "read":
            x = key[1] + (-0.22 if text.startswith("read X") else 0.22)
        elif row in ("Y", "dY"):
            x = key[1]
        elif row == "dW, dB":
            x = key[-1]
        elif row == "add":
            x, y = (BLOCKS / 2 - 0.5, 5.0) if key in aggregates else (2 * key[-1] + 0.5, 4.2)
        else:
            x, y = BLOCKS / 2 - 0.5 + (-0.4 if text == "dW" else 0.4), 6
        place[key] = x, y
    for key in drawn:
        for source in set(sources(key)):
            (x0, y0), (x1, y1) = place[source], place[key]
            across = "X" in drawn[source][1] and drawn[key][0] == "dW, dB"  # around the tasks between
            axes.annotate(
                "",
                (x1, y1 - 0.22),
                (x0, y0 + 0.22),
                arrowprops={
                    "arrowstyle": "->",
                    "color": GREY,
                    "linewidth": 1.1,
                    "connectionstyle": "arc3,rad=-0.35" if across else "arc3",
                },
            )
    for key, (row, text) in drawn.items():
        x, y = place[key]
        axes.text(
            x, y, text, ha="center", va="center", fontsize=11,
            bbox={"boxstyle": "round,pad=0.4", "facecolor": PALE[COLOURS[row]], "edgecolor": COLOURS[row]},
        )  # fmt: skip
    axes.add_patch(plt.Rectangle((-0.47, -0.45), 0.94, 3.9, fill=False, linestyle="--", edgecolor=GREY))
    axes.text(-0.44, 3.55, "one block", color=GREY, fontsize=11)
    axes.set(xlim=(-0.6, BLOCKS - 0.4), ylim=(-0.6, 6.5))
    axes.axis("off")
    save(figure, "graph.svg")
    print(f"{len(needed)} tasks in Dask's graph, {len(drawn)} drawn")


if __name__ == "__main__":
    main()
