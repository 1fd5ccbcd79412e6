"""Call a function when another package is imported, without importing it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


def on_import(name: str, call: Callable[[ModuleType], None]) -> None:
    """Call a function with a package: now if it is imported already, else right after it is.

    Parameters
    ----------
    name : str
        The package's name. It is not imported here.
    call : callable
        Called once, with the module.
    """
    if sys.modules.get(name) is not None:
        call(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Watcher(name, call))


class _Watcher:
    """A finder that finds nothing by itself: it lets the others find one package, and watches that being loaded.

    Not derived from importlib.abc.MetaPathFinder, whose import takes 4 ms.
    """

    def __init__(self, name: str, call: Callable[[ModuleType], None]) -> None:
        self.name, self.call = name, call

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the package's own way to be imported, with `call` at its end."""
        if fullname != self.name:
            return None
        found = (other.find_spec(fullname, path, target) for other in sys.meta_path if other is not self)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_call(module: ModuleType) -> None:
            load(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                self.call(module)

        spec.loader.exec_module = load_and_call  # type: ignore[method-assign]
        return spec
