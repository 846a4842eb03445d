"""One run, one checked JSON record.

The format and the store, its folders on this machine or behind a URL, and the provenance of every number.
"""

from .._lazy import hand_on

__getattr__, __all__ = hand_on(__name__, {"Store": "store", "key": "schema"})
