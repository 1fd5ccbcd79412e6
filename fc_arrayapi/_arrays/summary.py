"""Arrays in a repr: their numbers where they are few, else shape and dtype; the same as tables for notebooks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .libraries import library
from .namespace import dtype_name, is_array, is_chunked, of
from .text import counted, is_unknown, shape_text

# More numbers than these are not printed.
FEW = 12


def text_of(value: Any) -> str:
    """Write an array for a repr, in one line."""
    if not is_array(value):
        return repr(value)
    sizes = [1 if is_unknown(n) else n for n in value.shape]
    few = len(sizes) <= 2 and not any(n > FEW for n in sizes) and (sizes or [1])[0] * (sizes or [1])[-1] <= FEW
    if few and not is_chunked(of(value)):
        return " ".join(repr(value).split())
    blocks = f" in {counted(math.prod(value.numblocks), 'block')}" if is_chunked(of(value)) else ""
    return f"<{' '.join(_facts(value)[:3])}{blocks}>"


def _facts(array: Any) -> list[str]:
    xp = of(array)
    found = [library(xp).name, shape_text(array.shape), dtype_name(array.dtype)]
    return [*found, str(math.prod(array.numblocks))] if is_chunked(xp) else found


def html_of(arrays: Mapping[str, Any]) -> str:
    """Write named arrays as a table; None is left out."""
    rows = [[name, *_facts(array)] for name, array in arrays.items() if is_array(array)]
    columns = ["", "library", "shape", "dtype", "blocks"][: max(map(len, rows), default=4)]
    return html_table(columns, [[*row, *[""] * (len(columns) - len(row))] for row in rows])


def html_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table with a name at the head of each row."""
    from html import escape  # here: its table of characters takes a millisecond

    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        f"<tr><th>{escape(str(name))}</th>{''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)}</tr>"
        for name, *cells in rows
    )
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if any(columns) else ''}<tbody>{body}</tbody></table>"
