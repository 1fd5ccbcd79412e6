"""Draw which entries meet in each contraction: `python docs/pictures/contractions.py`."""

import matplotlib.pyplot as plt
import numpy as np
from drawing import BLUE, GREEN, GREY, ORANGE, PALE, save


def matrix(axes, left, values, name, part, marked):
    """Draw a matrix below its name and shape and above its marked part; `marked` gives the colours of entries."""
    values = np.atleast_2d(values)
    rows, columns = values.shape
    top = 1 + rows / 2
    for (i, j), value in np.ndenumerate(values):
        colour = marked.get((i, j), GREY)
        x, y = left + j, top - i - 1
        axes.add_patch(plt.Rectangle((x, y), 1, 1, facecolor=PALE[colour], edgecolor="white", linewidth=3))
        strong = (i, j) in marked
        axes.text(
            x + 0.5, y + 0.5, value, ha="center", va="center", fontsize=15,
            color=colour if strong else GREY, weight="bold" if strong else "normal",
        )  # fmt: skip
    axes.text(left + columns / 2, 2.45, name, ha="center", va="center", fontsize=14)
    axes.text(left + columns / 2, -0.45, part, ha="center", va="center", fontsize=13, color=GREY, family="monospace")


def contraction(file, parts, signs, line):
    """Draw one equation; `line` is the sum of the marked entry, piece by piece with its colour."""
    figure = plt.figure(figsize=(5.6, 3))
    axes = figure.add_axes((0, 0, 1, 1))
    left = 0.3
    for (values, name, part, marked), sign in zip(parts, signs, strict=True):
        matrix(axes, left, values, name, part, marked)
        left += np.atleast_2d(values).shape[1]
        axes.text(left + 0.4, 1, sign, ha="center", va="center", fontsize=24)
        left += 0.8
    axes.set(xlim=(0, 8.2), ylim=(-1.6, 2.8), aspect="equal")
    axes.axis("off")
    figure.canvas.draw()
    x = 0.3
    for text, colour in line:
        piece = axes.text(x, -1.2, text, color=colour, fontsize=14, va="center", weight="bold")
        box = piece.get_window_extent(figure.canvas.get_renderer()).transformed(axes.transData.inverted())
        x = box.x1 + 0.12
    save(figure, file)
    plt.close(figure)


def main():
    X, W, dY = (np.asarray(rows) for rows in ([[1, 2], [3, 4]], [[5, 6], [7, 8]], [[1, 2], [3, 5]]))
    black = "black"
    contraction(
        "contraction_y.svg",
        [
            (X, "X (N, C)", "X[0, :]", {(0, 0): BLUE, (0, 1): ORANGE}),
            (W, "W (C, S)", "W[:, 1]", {(0, 1): BLUE, (1, 1): ORANGE}),
            (X @ W, "XW (N, S)", "XW[0, 1]", {(0, 1): GREEN}),
        ],
        "·= ",
        [("1 · 6", BLUE), ("+", black), ("2 · 8", ORANGE), ("=", black), ("22", GREEN)],
    )
    contraction(
        "contraction_dx.svg",
        [
            (dY, "dY (N, S)", "dY[0, :]", {(0, 0): BLUE, (0, 1): ORANGE}),
            (W, "W (C, S)", "W[1, :]", {(1, 0): BLUE, (1, 1): ORANGE}),
            (dY @ W.T, "dX (N, C)", "dX[0, 1]", {(0, 1): GREEN}),
        ],
        " → ",
        [("1 · 7", BLUE), ("+", black), ("2 · 8", ORANGE), ("=", black), ("23", GREEN)],
    )
    contraction(
        "contraction_dw.svg",
        [
            (X, "X (N, C)", "X[:, 0]", {(0, 0): BLUE, (1, 0): ORANGE}),
            (dY, "dY (N, S)", "dY[:, 1]", {(0, 1): BLUE, (1, 1): ORANGE}),
            (X.T @ dY, "dW (C, S)", "dW[0, 1]", {(0, 1): GREEN}),
        ],
        " → ",
        [("1 · 2", BLUE), ("+", black), ("3 · 5", ORANGE), ("=", black), ("17", GREEN)],
    )
    contraction(
        "contraction_db.svg",
        [
            (dY, "dY (N, S)", "dY[:, 1]", {(0, 1): BLUE, (1, 1): ORANGE}),
            (dY.sum(axis=0), "dB (S,)", "dB[1]", {(0, 1): GREEN}),
        ],
        "→ ",
        [("2", BLUE), ("+", black), ("5", ORANGE), ("=", black), ("7", GREEN)],
    )


if __name__ == "__main__":
    main()
