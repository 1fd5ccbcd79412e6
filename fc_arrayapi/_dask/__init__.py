"""The layer and einsum on chunked Dask arrays, and passes over them."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """Import a file of this folder when it is first asked for: batches in memory need none of them."""
    import importlib

    path = f"{__name__}.{name}"
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
