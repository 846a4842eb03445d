"""Reading notebooks: which there are, what their `parameters` cell declares, whether every cell ran."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import BeftError, unknown
from ..records.folders import write_whole

Notebook = Any
"""An nbformat NotebookNode: a dict whose items are attributes too."""


def find(folder: Path, only: Sequence[str] = ()) -> list[Path]:
    """The notebooks of a folder in the order of their names, or those named in `only` (with or without ".ipynb").

    Raises:
        BeftError: a name that is not there.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.ipynb")) if not path.name.startswith(".")}
    if not paths:
        raise BeftError(f"there are no notebooks in {folder}: restore them with `git checkout notebooks`")
    wanted = [name.removesuffix(".ipynb") for name in only]
    for name in wanted:
        if name not in paths:
            raise unknown("notebook", name, paths)
    return [path for stem, path in paths.items() if not wanted or stem in wanted]


def read(path: Path) -> Notebook:
    """A notebook in format 4. Raises BeftError where the file is not one."""
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except OSError as error:
        raise BeftError(f"cannot read the notebook {path}: {error.strerror or error}") from error
    except Exception as error:  # nbformat's several own exceptions, JSON and encoding errors
        raise BeftError(f"{path} is not a notebook: restore it with git ({type(error).__name__})") from error


def write(path: Path, notebook: Notebook) -> None:
    """Replace a notebook, whole or not at all. Raises BeftError where it cannot be written."""
    import nbformat

    try:
        nbformat.validate(notebook)
        write_whole(path, nbformat.writes(notebook) + "\n")
    except OSError as error:
        raise BeftError(f"cannot write {path}: {error.strerror or error}; free the disk or its permissions") from error


def parameter_names(path: Path) -> list[str]:
    """The names that the notebook's one cell tagged `parameters` assigns, in order.

    Raises:
        BeftError: there is no such cell or more than one, it is not Python, or it has no `profile`.
    """
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    cells = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise BeftError(f"{path.name} has {len(cells)} cells tagged `parameters`: it must have exactly one")
    try:
        tree = ast.parse(cells[0].source)
    except SyntaxError as error:
        raise BeftError(f"the parameters cell of {path.name} is not valid Python: {error}") from error
    names = []
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            names += [t.id for t in statement.targets if isinstance(t, ast.Name)]
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names.append(statement.target.id)
    if "profile" not in names:
        raise BeftError(f"the parameters cell of {path.name} has no `profile`: every notebook must have it")
    return names


def incomplete(notebook: Notebook) -> str | None:
    """Why an executed notebook is not whole, or None: every code cell ran, once, in order 1..N, without an error."""
    cells = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    for place, cell in enumerate(cells, 1):
        for output in cell.outputs:
            if output.output_type == "error":
                return f"cell [{place}] stopped with {output.ename}: the cells after it did not run"
        if cell.execution_count is None:
            return f"cell [{place}] of {len(cells)} did not run: the notebook stopped early"
        if cell.execution_count != place:
            return f"cell [{place}] has execution count {cell.execution_count}: the cells did not run in order, once"
    return None
