"""Shared fixtures: a tiny random encoder, generated data, and the folder of real data sets where there is one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from transformers import AutoModelForImageClassification, ViTConfig

from beft import carriers
from beft.data import sources as data
from beft.models import loading as models
from beft.models.files import DEFAULT, WHEEL_PACKAGE

ROOT = Path(__file__).resolve().parent.parent
# What the tests expect bit for bit is of a CPU; those of a GPU name it. Read by subprocesses too.
os.environ["BEFT_DEVICE"] = "cpu"
settings.register_profile("beft", deadline=None)  # no test is about time, and machines are busy
settings.load_profile("beft")


@pytest.fixture
def tiny() -> models.Loaded:
    """A fresh tiny random BERT with two classes and its tokenizer."""
    return models.load(models.TINY, labels=2)


@pytest.fixture
def still() -> models.Loaded:
    """The same without dropout."""
    loaded = models.load(models.TINY, labels=2)
    for module in loaded.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return loaded


@pytest.fixture
def small_vit() -> Callable[..., Any]:
    """Makes a small random image classifier on frozen weights; keyword arguments change its config."""
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}

    def make(**changes: Any) -> Any:
        config = ViTConfig(**size, image_size=8, patch_size=4, **changes)
        return AutoModelForImageClassification.from_config(config).eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def sentiment() -> data.Dataset:
    """The micro-world's sentiment task."""
    return data.load("microworld_sentiment")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; the test is skipped where there is none."""
    for folder in (os.environ.get("BEFT_DATA"), ROOT.parent / "shared" / "data"):
        if folder and (Path(folder) / "glue" / "sst2" / "train.jsonl").exists():
            return Path(folder)
    pytest.skip("no real data: BEFT_DATA does not name a folder with glue/sst2")


@pytest.fixture(scope="session")
def carried() -> Callable[[str], str]:
    """Gives the name of a carrier back; the test is skipped where it was not fetched."""

    def name_of(name: str) -> str:
        if not carriers.is_fetched(name):
            pytest.skip(f"{name} is not in the cache: python -m beft fetch {name}")
        return name

    return name_of


@pytest.fixture(scope="session")
def default_model() -> str:
    """The name of the default model; the test is skipped where neither its files nor its wheel is here."""
    if not carriers.is_fetched(DEFAULT) and importlib.util.find_spec(WHEEL_PACKAGE) is None:
        pytest.skip(f"{DEFAULT} is not in the cache: python -m beft fetch")
    return DEFAULT


@pytest.fixture
def quiet_figures():
    """No figure may warn (an empty legend, a missing glyph, a bad limit); all are closed afterwards."""
    import matplotlib.pyplot as plt

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    plt.close("all")


@pytest.fixture(scope="session")
def run_elsewhere() -> Callable[..., None]:
    """Runs a script in a folder, offline, in a process that imports nothing of this repository; must end well."""

    def run(script: str, folder: Path, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-I", "-c", script, str(folder), *arguments],
            cwd=folder,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-2000:]

    return run
