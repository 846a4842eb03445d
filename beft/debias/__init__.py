"""PEFTDebias (Agarwal et al. 2023) with biases as patches, beside its other methods.

Patches are trained on counterfactual text (`upstream`), kept and put into a model (`patches`), frozen while the rest of
it is fine-tuned (`downstream`), and judged by measures of bias (`bias_metrics`, `stereotypes`, `pair_scores`,
`occupations`). `setup` has what notebook 05 does in the planted world, `real` what it does with a real model.
"""

from .._lazy import hand_on

__getattr__, __all__ = hand_on(
    __name__,
    {"Patch": "patches", "fine_tune": "downstream", "load_patch": "patches", "train_patches": "upstream"},
    modules=(
        "bias_metrics",
        "downstream",
        "occupations",
        "pair_scores",
        "patches",
        "real",
        "setup",
        "stereotypes",
        "upstream",
    ),  # fmt: skip
)
