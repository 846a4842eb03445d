"""Small notebooks that are run or published in tests: where their outputs are, and outputs without a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat

from beft.reproduce.notebooks import read

Make = Callable[..., Path]


def built(tmp_path: Path, name: str) -> Path:
    return tmp_path / "home" / "build" / "smoke" / f"{name}.ipynb"


def leave_outputs(tmp_path: Path, source: Path, *outputs: Any) -> None:
    """Leave what a run of `source` under smoke would have left, with these outputs in its last cell."""
    notebook = read(source)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    for count, cell in enumerate(code, 1):
        cell.execution_count = count
    code[-1].outputs = list(outputs)
    notebook.metadata["papermill"] = {"parameters": {"profile": "smoke"}, "output_path": str(tmp_path)}
    target = built(tmp_path, source.stem)
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)
