"""The mathematics of the three biases, and the scores that rank them, without a trainer.

`attention` has one head in closed form, `expressiveness` measures whole models, `null_key_bias` lists where b_k has an
effect, `scores` ranks the terms.
"""

from .._lazy import hand_on

__getattr__, __all__ = hand_on(
    __name__,
    {
        "Head": "attention",
        **dict.fromkeys(("perturb", "reach", "sensitivity"), "expressiveness"),
        "exceptions": "null_key_bias",
        **dict.fromkeys(("agreement", "fisher", "fisher_batch", "mag_angle", "magnitude", "rank"), "scores"),
    },
    modules=("attention", "expressiveness", "null_key_bias", "scores"),
)
