"""The names that a folder hands on from its modules, imported at first use: `import beft` loads no torch."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def hand_on(
    package: str, places: Mapping[str, str] | None = None, modules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], list[str]]:
    """`__getattr__` and `__all__` of a package that hands on names.

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

    return get, [*places, *modules]
