"""Generated text with known ground truth: sentences, pairs, stories, people and posts of one small world.

Every text is deterministic given its seed, and the splits of every task are disjoint by construction.
"""

from ..._lazy import hand_on

__getattr__, __all__ = hand_on(
    __name__,
    {"sentiment": "sentences", "expected_gap": "biographies"}
    | dict.fromkeys(("entailment", "acceptability", "similarity", "choices", "questions"), "tasks")
    | dict.fromkeys(("documents", "posts", "stereotype_pairs", "stereotype_triples"), "people"),
)
