"""What is measured of a patch and of a fine-tuned model, as the two phases take it (`upstream`, `downstream`)."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..data.identity_templates import Phrase
from ..data.tasks import score
from ..errors import BeftError
from .bias_metrics import fpr_difference, fraction_neutral, tpr_gap
from .pair_scores import causal_pair_scores, pair_scores
from .stereotypes import SentencePair, Triple, crows_shares, stereoset_by_kind, triple_scores


def intrinsic(
    tokenizer: Any, pairs: Mapping[str, Sequence[SentencePair]], triples: Mapping[str, Sequence[Triple]]
) -> tuple[Callable[[Any, int], dict[str, Any]], str]:
    """The measure of a masked language model, and a hash of its sentences.

    Returns:
        (model or bank, run) -> {"crows": {name: percent, low, high, n, nats}, "stereoset": {name: lm, stereotype,
        icat}}, a name for each set of pairs and of triples. Of "crows", `percent` is the share of pairs of which the
        stereotyped sentence is likelier, 50 is unbiased; `nats` by how much it is likelier, on average, 0 is unbiased.
        Decoders, whose tokenizer has no mask, score pairs by what stands before a token, and no triples.
    """

    def measure(model: Any, run: int) -> dict[str, Any]:
        found: dict[str, Any] = {"crows": {}, "stereoset": {}}
        for name, given in pairs.items():
            score_pairs = causal_pair_scores if tokenizer.mask_token_id is None else pair_scores
            scores = score_pairs(model, tokenizer, [(p.more, p.less) for p in given], run)
            counted = asdict(crows_shares(scores, [name] * len(given))["all"])
            found["crows"][name] = counted | {"nats": float(np.mean(scores[:, 0] - scores[:, 1]))}
        for name, asked in triples.items() if tokenizer.mask_token_id is not None else ():
            chances = triple_scores(model, tokenizer, asked, run)
            by_kind = stereoset_by_kind(chances, [name] * len(asked), [t.target for t in asked])
            found["stereoset"][name] = asdict(by_kind["all"])
        return found

    everything = [{n: [asdict(x) for x in part] for n, part in given.items()} for given in (pairs, triples)]
    return measure, hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:12]


def of_biographies(labels: np.ndarray, groups: Mapping[str, np.ndarray]) -> Callable[[np.ndarray], dict[str, Any]]:
    """Predictions (N,) -> accuracy, and of every axis the root mean square TPR gap, "gap <axis>"; null where undefined.

    Args:
        labels: true occupations (N,).
        groups: axis -> 0 or 1 (N,).
    """

    def measure(predicted: np.ndarray) -> dict[str, Any]:
        gaps = {f"gap {name}": tpr_gap(labels, predicted, g).rms for name, g in groups.items()}
        return {"accuracy": float(np.mean(predicted == labels)), **gaps}

    return measure


def of_posts(
    labels: np.ndarray,
    mentions: Sequence[Sequence[str]],
    phrases: Sequence[Phrase] = (),
) -> Callable[[np.ndarray], dict[str, Any]]:
    """Predictions (N + P,) of posts and identity phrases -> F1 and FPRD of the posts, and FPRD of the phrases (IPTTS).

    FPRD is the false-positive-rate difference over identifiers (`bias_metrics.fpr_difference`).

    Args:
        labels: of the posts (N,).
        mentions: the identifiers that each of them has.
        phrases: P of them, predicted behind the posts.
    """
    asked = np.array([p.label for p in phrases]), [(p.identifier,) for p in phrases]

    def measure(predicted: np.ndarray) -> dict[str, Any]:
        posts, told = predicted[: len(labels)], predicted[len(labels) :]
        found = {"f1": score("f1", labels, posts), "fprd": fpr_difference(labels, posts, mentions)}
        return found | ({"fprd iptts": fpr_difference(asked[0], told, asked[1])} if phrases else {})

    return measure


def of_nli(labels: np.ndarray, pairs: int, neutral: int = 1) -> Callable[[np.ndarray], dict[str, Any]]:
    """Predictions (N + P,) of sentence pairs and Bias-NLI pairs -> accuracy, and the share of these judged neutral."""

    def measure(predicted: np.ndarray) -> dict[str, Any]:
        told = predicted[len(labels) :]
        if len(told) != pairs:
            raise BeftError(f"{len(told)} predictions for {pairs} pairs of Bias-NLI: predict all of them")
        share = fraction_neutral(told, neutral).percent / 100
        return {"accuracy": float(np.mean(predicted[: len(labels)] == labels)), "fraction neutral": share}

    return measure
