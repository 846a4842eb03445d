"""Where a record comes from: the commit of this code and no other, and whether it was changed since."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from beft.data.datasets import Split, labelled_dataset, text_dataset
from beft.data.tasks import get_task
from beft.paths import ROOT
from beft.records import provenance


def test_the_code_of_a_clone_has_a_commit() -> None:
    assert len(provenance.code()["commit"]) == 40 or not (ROOT / ".git").exists()


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_dirty_means_changed_code_and_not_generated_outputs(tmp_path: Path) -> None:
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    clean = provenance.code(tmp_path)
    for name in ("data/results/p/a.json", "figures/p/a.png", "build/p/n.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("generated")
    assert len(clean["commit"]) == 40 and clean["dirty"] is False
    assert provenance.code(tmp_path) == clean
    (tmp_path / "code.py").write_text("2")
    assert provenance.code(tmp_path) == clean | {"dirty": True}


def test_the_commit_of_a_surrounding_repository_is_not_taken_for_ours(tmp_path: Path) -> None:
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "other")
    (tmp_path / "site-packages").mkdir()
    assert provenance.code(tmp_path / "site-packages") == {"commit": "unknown", "dirty": None}


def test_without_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.code(tmp_path) == {"commit": "unknown", "dirty": None}


def test_a_record_says_what_the_most_frequent_answer_reaches_and_of_texts_nothing() -> None:
    model = SimpleNamespace(source="here", revision="1", sha256="x", config_sha256="")
    rows = Split((("a",), ("b",), ("c",), ("d",)), np.array([0, 1, 1, 1]))
    labelled = labelled_dataset(get_task("sst2"), rows, rows, "here")
    assert provenance.origin("m", model, labelled, {})["data"]["majority"] == {"accuracy": 0.75}
    texts = text_dataset("corpus", ["a"], ["b"], "here")
    assert "majority" not in provenance.origin("m", model, texts, {})["data"]
