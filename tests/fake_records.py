"""Made-up records in the real format, for tests of figures and tables. Nothing here was measured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from beft.records.schema import key

TERMS = ("q", "k", "v")


def run(method="b_v", seed=0, rate=1e-3, final=0.8, tuning=None, epochs=3, outcome="ok", majority=None, **settings):
    """One run record whose validation curve rises to `final`; a lost run stops after its first epoch.

    Without a `majority` it is one of the older records, which do not hold it.
    """
    settings = {"model": "all-MiniLM-L6-v2", "task": "sst2", "regime": "low", "train_size": 1000, **settings}
    settings |= {"tuning_size": 0 if tuning is None else 200, "method": method, "seed": seed, "rate": rate}
    settings |= {"epochs": epochs, "batch_size": 16, "dtype": settings.get("dtype", "float32")}
    done = epochs if outcome == "ok" else 1
    curve = [
        {"epoch": e, "train_loss": 0.7 - 0.1 * e, "tuning": tuning, "validation": final - 0.02 * (epochs - e)}
        for e in range(1, done + 1)
    ]
    last = {"epoch": done, "validation": curve[-1]["validation"], "tuning": tuning}
    bias = {"head": 0, "all_biases": 20000}.get(method, 2304)
    return {
        "schema": 1,
        "kind": "run",
        "key": key(settings),
        "checksum": "",
        "settings": settings,
        "model": {"name": settings["model"]},
        "data": {"task": settings["task"], "metric": "accuracy", "substitute": False}
        | ({} if majority is None else {"majority": {"accuracy": majority}}),
        "parameters": {"bias": bias, "head": 770, "pooler": 384},
        "epochs": curve,
        "final": last,
        "best": {**last, "chosen_on": "validation" if tuning is None else "tuning"},
        "seconds": 1.0,
        "outcome": outcome,
    }


def transferred(method="b_v", seed=0, source=0.8, outcome="ok", trained=3458, task="films", train_size=1000, **targets):
    """One transfer record with these scores on the targets, whose largest classes have half of the rows."""
    made = run(method, seed, final=source, outcome=outcome, task=task, train_size=train_size)
    settings = made["settings"] | {"kind": "transfer", "targets": dict.fromkeys(targets, "00")}
    ok = outcome == "ok"
    return made | {
        "kind": "transfer",
        "key": key(settings),
        "settings": settings,
        "parameters": {"bias": trained - 770, "head": 770},
        "source": {"score": source if ok else None, "majority": 0.5},
        "targets": {n: {"score": x if ok else None, "majority": 0.5} for n, x in targets.items()},
    }


def grid(methods=("head", "b_k", "b_q", "b_v", "all_biases"), seeds=(0, 1, 2), rates=(1e-3,), tuning=False):
    """Runs of every method, seed and rate; b_k equals the head, as where it is null."""
    level = {"head": 0.6, "b_k": 0.6, "b_q": 0.7, "b_v": 0.8, "all_biases": 0.82}
    made = []
    for rate in rates:
        for method in methods:
            for seed in seeds:
                final = level[method] + 0.01 * seed - 0.03 * abs(np.log10(rate) + 2.5)
                made.append(run(method, seed, rate, final, tuning=final + 0.005 if tuning else None))
    return made


def ranking(seed=0, dtype="float32", layers=6, null=True, epochs=3, outcome="ok"):
    """One ranking record; in bfloat16 b_k comes out first under Mag+Angle."""
    rng = np.random.default_rng(seed)
    level = {
        "magnitude": {"q": 4e-3, "k": 5e-5, "v": 5e-3},
        "mag_angle": {"q": 4e-3, "k": 0.9 if dtype == "bfloat16" else 5e-4, "v": 0.05},
        "fisher": {"q": 1e-6, "k": 1e-17, "v": 1e-5},
        "fisher_batch": {"q": 1e-7, "k": 1e-18, "v": 1e-6},
        "reach": {"q": 0.13, "k": 0.0, "v": 1.0},
        "norms": {"q": 4.0, "k": 0.015, "v": 0.9},
    }
    scores = {n: {t: (v * rng.uniform(0.5, 1.5, layers)).tolist() for t, v in by.items()} for n, by in level.items()}
    grown = ("magnitude", "mag_angle")
    steps = [
        {"epoch": e, **{n: {t: [x * e / epochs for x in scores[n][t]] for t in TERMS} for n in grown}}
        for e in range(1, epochs + 1)
    ]
    settings = {"kind": "ranking", "seed": seed, "rate": 1e-3, "dtype": dtype, "epochs": epochs}
    return {
        "kind": "ranking",
        "key": key(settings),
        "settings": settings,
        "scores": scores,
        "by_epoch": steps,
        "key_bias_null": {"null": null, "reason": "one softmax over keys that share b_k"},
        "outcome": outcome,
    }


SIZES = {"full": 5000, "adapter": 900, "lora": 800, "b_q": 64, "b_v": 64}


def patch(method, seed, nats, axis="gender"):
    """One patch of debiasing that leaves so many nats of the link of gender."""
    crows = {"gender": {"percent": 90.0, "nats": nats}, "origin": {"percent": 70.0, "nats": 1.0}}
    stereo = {"gender": {"lm": 99.0, "stereotype": 80.0, "icat": 39.6}}
    own = {} if method == "none" else {"axis": axis, "seed": seed}
    return {
        "settings": {"method": method} | own,
        "parameters": {"patch": SIZES.get(method, 0)},
        "measures": {"crows": crows, "stereoset": stereo},
        "outcome": "ok",
    }


def tuned_model(method, seed, measures):
    """One model fine-tuned with a frozen patch, or with none."""
    own = {"size": SIZES[method]} if method in SIZES else {}
    return {"settings": {"method": method, "seed": seed}, "patch": own, "measures": measures, "outcome": "ok"}


def fake_settings(folder: Path, note: str = "") -> SimpleNamespace:
    """What `save_figure` and `save_table` need of a notebook's settings."""
    return SimpleNamespace(
        figures=folder / "figures",
        notebook="03_fine_tuning",
        profile="smoke",
        command="make",
        substitute_note=note,
    )
