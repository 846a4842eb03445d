"""The names that a folder hands on from its modules, imported at first use: `import beft` loads no torch."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def hand_on(
    package: str, places: Mapping[str, str] | None = None, modules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], list[str]]:
    """`__getattr__` and `__all__` of a package that hands on names; its `__dir__`, which lists them, is set here.

    Args:
        package: its dotted name.
        places: name -> module of the package that defines it.
        modules: modules of the package that are handed on themselves, as attributes of it.
    """
    places = places or {}

    def get(name: str) -> Any:
        if name in modules:
            return importlib.import_module(f".{name}", package)
        if name in places:
            return getattr(importlib.import_module(f".{places[name]}", package), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    names, own = [*places, *modules], vars(sys.modules[package])
    # For completion and `help`: without it, a name that was not yet used is not listed.
    own["__dir__"] = lambda: sorted({*own, *names} - {"hand_on"})
    return get, names
