"""Shared fixtures: a tiny random encoder, generated data, and the folder of real data sets where there is one."""

from __future__ import annotations

import importlib.util
import os

if "PYTEST_XDIST_WORKER" in os.environ:  # read when torch is imported, here and in the processes that a test starts
    os.environ["OMP_NUM_THREADS"] = "1"
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import HealthCheck, settings

from beft import carriers

if TYPE_CHECKING:  # else imported where needed: the process that deals the tests out to others waits for no torch
    from beft.data.datasets import Dataset
    from beft.models.loading import Loaded

ROOT = Path(__file__).resolve().parent.parent
# What the tests expect bit for bit is of a CPU; those of a GPU name it. Read by subprocesses too.
os.environ["BEFT_DEVICE"] = "cpu"
# No test is about time, and machines are busy.
settings.register_profile("beft", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("beft")
# Modules with minutes of work each, the longest first: begun last, one would keep a single process busy at the end.
LONG = (
    "reproduce/test_notebooks.py",
    "reproduce/test_website_in_browser.py",
    "experiments/test_sweep.py",
    "experiments/test_cluster.py",
)

# What is marked `fast`, for someone at work: the folders whose tests neither train nor start a process, but for these.
FAST = ("anatomy", "data", "records", "report", "settings", "theory")
NOT_FAST = (
    "data/test_prompts.py",
    "data/test_rated_sentences.py",
    "records/test_folders.py",
    "report/test_imports.py",
    "report/figures",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """The processes of `-n auto`: one a core, at most eight, and for each 2 GB of free memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, 8, psutil.virtual_memory().available // 2**31))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long modules first, all others as they lie; those of FAST are marked."""
    tests = ROOT / "tests"
    for item in items:
        path = item.path.relative_to(tests).as_posix() if item.path.is_relative_to(tests) else ""
        if path.startswith(FAST) and not path.startswith(NOT_FAST):
            item.add_marker(pytest.mark.fast)
    rank = {tests / name: i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path, len(LONG)))


@pytest.fixture
def tiny() -> Loaded:
    """A fresh tiny random BERT with two classes and its tokenizer."""
    from beft.models import loading as models

    return models.load(models.TINY, labels=2)


@pytest.fixture
def still() -> Loaded:
    """The same without dropout."""
    import torch

    from beft.models import loading as models

    loaded = models.load(models.TINY, labels=2)
    for module in loaded.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return loaded


@pytest.fixture
def small_vit() -> Callable[..., Any]:
    """Makes a small random image classifier on frozen weights; keyword arguments change its config."""
    from transformers import AutoModelForImageClassification, ViTConfig

    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}

    def make(**changes: Any) -> Any:
        config = ViTConfig(**size, image_size=8, patch_size=4, **changes)
        return AutoModelForImageClassification.from_config(config).eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def sentiment() -> Dataset:
    """The micro-world's sentiment task with a short validation split, which most tests score after every epoch."""
    from beft.data import sources as data
    from beft.data.datasets import Split

    whole = data.load("microworld_sentiment")
    return replace(whole, validation=Split(whole.validation.rows[:60], whole.validation.labels[:60]))


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
    from beft.models.files import DEFAULT, WHEEL_PACKAGE

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
