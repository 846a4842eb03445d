"""A user runs a notebook with papermill and has it told where the notebook lies (`--inject-paths` and the like).

What papermill then adds is papermill's, not a setting: the notebook runs as it does without. A misspelt parameter
beside it is still refused.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from click.testing import CliRunner
from papermill.cli import papermill

from beft import paths
from beft.errors import BeftError
from beft.settings import profiles as settings

NAME = "03_fine_tuning"
SOURCE = paths.repository() / "notebooks" / f"{NAME}.ipynb"
OPTIONS = ["--inject-paths", "--inject-input-path", "--inject-output-path"]


def prepared(tmp_path: Path, *options: str) -> dict[str, Any]:
    """The variables that papermill's own command line gives the notebook, up to where it reads its settings."""
    target = tmp_path / "out.ipynb"
    done = CliRunner().invoke(
        papermill, [str(SOURCE), str(target), "--prepare-only", "-p", "profile", "smoke", *options]
    )
    assert done.exit_code == 0, done.output
    namespace: dict[str, Any] = {}
    for cell in nbformat.read(target, as_version=4).cells:
        if {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", [])):
            exec(cell.source, namespace)
    return namespace


@pytest.mark.parametrize("option", OPTIONS)
def test_the_settings_are_those_without_the_option(option: str, tmp_path: Path) -> None:
    namespace = prepared(tmp_path, option)
    assert [name for name in namespace if name.startswith("PAPERMILL_")], "papermill injects nothing"
    given, plain = settings.load(NAME, namespace), settings.load(NAME, prepared(tmp_path))
    assert given.values == plain.values and given.overrides == {} and given.figures == plain.figures


def test_a_misspelt_parameter_beside_it_is_refused(tmp_path: Path) -> None:
    namespace = prepared(tmp_path, "--inject-paths", "-p", "sead", "3")
    with pytest.raises(BeftError, match="unknown parameter of 03_fine_tuning 'sead': did you mean seeds"):
        settings.load(NAME, namespace)
    namespace = prepared(tmp_path, "-p", "PAPERMILL_PATH", "x")
    with pytest.raises(BeftError, match="unknown parameter of 03_fine_tuning 'PAPERMILL_PATH'"):
        settings.load(NAME, namespace)


def test_a_notebook_of_the_project_runs_from_the_command_line(tmp_path: Path) -> None:
    """Its cells up to the one that reads the settings, in a kernel."""
    notebook = nbformat.read(SOURCE, as_version=4)
    last = next(i for i, cell in enumerate(notebook.cells) if "settings.load" in cell.source and i)
    notebook.cells = notebook.cells[: last + 1]
    nbformat.write(notebook, tmp_path / SOURCE.name)
    command = [sys.executable, "-m", "papermill", SOURCE.name, "out.ipynb", "-p", "profile", "smoke"]
    environment = os.environ | {"BEFT_HOME": str(tmp_path / "home"), "PYTHONPATH": str(paths.ROOT)}
    done = subprocess.run(
        [*command, "--inject-paths", "-k", "python3"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    printed = str(nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs)
    assert "03_fine_tuning, profile smoke" in printed and "given" not in printed
