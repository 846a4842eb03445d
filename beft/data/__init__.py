"""Rows of text for a task: from a file, a folder, a package, the hub, or generated.

`load` and `load_prompts` return a `Dataset`; `draw` takes the rows of one run from it.
"""

from .._lazy import hand_on

__getattr__, __all__ = hand_on(__name__, {"load": "sources", "load_prompts": "sources", "draw": "datasets"})
