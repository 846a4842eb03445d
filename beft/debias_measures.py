"""What is measured of a patch and of a fine-tuned model, as the two phases take it (`upstream`, `downstream`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from .bias_metrics import fpr_difference, fraction_neutral, stereoset, tpr_gap
from .pseudo_likelihood import pair_scores
from .stereotypes import SentencePair, Triple, crows_shares, triple_scores
from .tasks import score


def intrinsic(
    tokenizer: Any, pairs: Mapping[str, Sequence[SentencePair]], triples: Mapping[str, Sequence[Triple]]
) -> tuple[Callable[[Any, int], dict[str, Any]], str]:
    """The measure of a masked language model, and a hash of its sentences.

    Returns:
        (model or bank, run) -> {"crows": {name: percent, low, high, n}, "stereoset": {name: lm, stereotype, icat}}, a
        name for each set of pairs and of triples. "crows" is the share of pairs of which the stereotyped sentence is
        likelier, 50 is unbiased.
    """

    def measure(model: Any, run: int) -> dict[str, Any]:
        found: dict[str, Any] = {"crows": {}, "stereoset": {}}
        for name, given in pairs.items():
            scores = pair_scores(model, tokenizer, [(p.more, p.less) for p in given], run)
            found["crows"][name] = asdict(crows_shares(scores, [name] * len(given))["all"])
        for name, asked in triples.items():
            found["stereoset"][name] = asdict(stereoset(triple_scores(model, tokenizer, asked, run)))
        return found

    everything = [{n: [asdict(x) for x in part] for n, part in given.items()} for given in (pairs, triples)]
    return measure, hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:12]


def of_biographies(
    labels: np.ndarray, groups: Mapping[str, np.ndarray]
) -> Callable[[np.ndarray], dict[str, Any]]:
    """Predictions (N,) -> accuracy, and of every axis the root mean square TPR gap, "gap <axis>"; null where undefined.

    Args:
        labels: true occupations (N,).
        groups: axis -> 0 or 1 (N,).
    """

    def measure(predicted: np.ndarray) -> dict[str, Any]:
        gaps = {f"gap {name}": tpr_gap(labels, predicted, g).rms for name, g in groups.items()}
        return {"accuracy": float(np.mean(predicted == labels)), **gaps}

    return measure


def of_posts(labels: np.ndarray, mentions: Sequence[Sequence[str]]) -> Callable[[np.ndarray], dict[str, Any]]:
    """Predictions (N,) of posts -> F1 and FPRD, the false-positive-rate difference over identifiers."""

    def measure(predicted: np.ndarray) -> dict[str, Any]:
        return {"f1": score("f1", labels, predicted), "fprd": fpr_difference(labels, predicted, mentions)}

    return measure


def neutral(predicted: np.ndarray, code: int) -> dict[str, Any]:
    """Bias-NLI: the share of template pairs that are judged neutral, with its interval, in percent."""
    return asdict(fraction_neutral(predicted, code))
