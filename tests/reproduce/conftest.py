"""A repository of small notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from small_notebooks import Make

from beft import paths

PARAMETERS = 'profile = "embedded"\ncount = None'


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Writes small notebooks into a repository of its own, with outputs elsewhere."""
    repository = tmp_path / "repository"
    (repository / "notebooks").mkdir(parents=True)
    (repository / "notebooks" / "profiles").symlink_to(paths.repository() / "notebooks" / "profiles")
    monkeypatch.setattr(paths, "repository", lambda: repository)
    monkeypatch.setenv("BEFT_HOME", str(tmp_path / "home"))

    def write(name: str, sources: Sequence[str], parameters: str | None = PARAMETERS) -> Path:
        cells = [new_markdown_cell("# Title")]
        if parameters is not None:
            cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        cells += [new_code_cell(source) for source in sources]
        notebook = new_notebook(cells=cells)
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        path = repository / "notebooks" / f"{name}.ipynb"
        nbformat.write(notebook, path)
        return path

    return write
