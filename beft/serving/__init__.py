"""Many tuned biases on one frozen model, whose rows of a batch each have their own.

Where the numbers of all adapters are kept (`stacks`), what an adapter holds (`contents`), and the served model itself.
"""

from .._lazy import hand_on

__getattr__, __all__ = hand_on(__name__, {"Served": "served", "serve": "opening"})
