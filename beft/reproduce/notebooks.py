"""The notebooks: which there are, what they declare, whether they ran, and publishing their outputs."""

import ast
import os
import re
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

from .. import paths
from ..errors import BeftError, unknown
from ..records.folders import write_whole
from ..settings import profiles as settings

Notebook = Any
"""An nbformat NotebookNode: a dict whose items are attributes too."""


def find(folder: Path, only: Sequence[str] = ()) -> list[Path]:
    """The notebooks of a folder in the order of their names, or those named in `only` (with or without ".ipynb").

    Raises BeftError for a name that is not there.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.ipynb")) if not path.name.startswith(".")}
    if not paths:
        raise BeftError(f"there are no notebooks in {folder}: restore them with `git checkout notebooks`")
    if isinstance(only, str) or not isinstance(only, Sequence) or not all(isinstance(name, str) for name in only):
        raise BeftError(f"notebooks {only!r} are no list of names: give e.g. ['02_ranking']")
    wanted = [name.removesuffix(".ipynb") for name in only]
    for name in wanted:
        if name not in paths:
            raise unknown("notebook", name, paths)
    return [path for stem, path in paths.items() if not wanted or stem in wanted]


def read(path: Path) -> Notebook:
    """A notebook in format 4. Raises BeftError where the file is not one."""
    try:
        return nbformat.read(path, as_version=4)
    except OSError as error:
        raise BeftError(f"cannot read the notebook {path}: {error.strerror or error}") from error
    except Exception as error:  # nbformat's several own exceptions, JSON and encoding errors
        raise BeftError(f"{path} is not a notebook: restore it with git ({type(error).__name__})") from error


def parameter_names(path: Path) -> list[str]:
    """The names that the notebook's one cell tagged `parameters` assigns, in order.

    Raises BeftError where there is no such cell or more than one, it is not Python, or it has no `profile`.
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
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
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


def publish_outputs(profile: str, only: Sequence[str] = ()) -> list[Path]:
    """Fill the notebooks' outputs from build/<profile>/; return the notebooks written.

    Cell sources stay as they are, papermill's injected cell and progress bars are dropped, execution counts run
    1..N, and the notebook's metadata says `"beft": {"outputs_from_profile": profile}`. All are checked before one is
    written: BeftError where an executed notebook is missing, unfinished, was run with other parameters than the
    profile's or from other sources, or an output holds a path or the name of this machine.
    """
    names = settings.profile_names()
    if not isinstance(profile, str) or profile not in names:
        raise unknown("profile", profile, names)
    notebooks = {}
    for source in find(paths.repository() / "notebooks", only):
        built = paths.home() / "build" / profile / source.name
        if not built.exists():
            raise BeftError(
                f"build/{profile}/{source.name} does not exist: run "
                f"`python -m beft.reproduce --profile {profile} --only {source.stem}` first"
            )
        notebooks[source] = _merged(read(source), read(built), profile, source.stem)
    for source, notebook in notebooks.items():
        nbformat.validate(notebook)
        try:
            write_whole(source, nbformat.writes(notebook) + "\n")
        except OSError as error:
            reason = error.strerror or error
            raise BeftError(f"cannot write {source}: {reason}; free the disk or its permissions") from error
    return list(notebooks)


def _merged(source: Notebook, built: Notebook, profile: str, name: str) -> Notebook:
    """`source` with the outputs of `built`. Raises BeftError as `publish_outputs` does."""
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor, TagRemovePreprocessor

    again = f"run `python -m beft.reproduce --profile {profile} --only {name}` again"
    if fault := incomplete(built):
        raise BeftError(f"build/{profile}/{name}.ipynb is not whole, {fault}: {again}")
    given = built.metadata.get("papermill", {}).get("parameters", {})
    parameters = {name: value for name, value in given.items() if name not in settings.INJECTED}
    if parameters != {"profile": profile}:
        extra = ", ".join(sorted(parameters.keys() - {"profile"})) or "another profile"
        raise BeftError(f"build/{profile}/{name}.ipynb was run with {extra}, not with the plain profile: {again}")
    built, _ = TagRemovePreprocessor(remove_cell_tags={"injected-parameters"}).preprocess(built, {})
    if [(c.cell_type, c.source) for c in built.cells] != [(c.cell_type, c.source) for c in source.cells]:
        raise BeftError(f"notebooks/{name}.ipynb has changed since build/{profile}/{name}.ipynb was run: {again}")
    count = 0
    for place, (cell, executed) in enumerate(zip(source.cells, built.cells)):
        if cell.cell_type != "code":
            continue
        count += bool(cell.source.strip())
        cell.execution_count = count if cell.source.strip() else None
        cell.outputs = [output for output in executed.outputs if not _progress(output)]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
        # Where a kernel cuts printed text into pieces differs from run to run.
        CoalesceStreamsPreprocessor().preprocess_cell(cell, {}, place)
        if private := _private(cell.outputs):
            raise BeftError(
                f"an output of cell {place} of build/{profile}/{name}.ipynb contains {private!r}, which belongs to "
                "this machine and not into a published notebook: print a relative path or a name instead"
            )
        for key in ("papermill", "execution"):  # durations and times of day
            cell.metadata.pop(key, None)
    source.metadata.pop("papermill", None)
    source.metadata["beft"] = {"outputs_from_profile": profile}
    return source


def _progress(output: Notebook) -> bool:
    """Whether an output is a piece of a progress bar, which holds the times of one run on one machine."""
    on_stderr = output.output_type == "stream" and output.name == "stderr"
    return on_stderr and ("\r" in output.text or not output.text.replace("\x1b[A", "").strip())


def _private(outputs: Sequence[Notebook]) -> str | None:
    """The first path of this user or name of this machine in the text of the outputs, or None."""
    host = socket.gethostname()
    folders = {str(f) for f in (Path.home(), paths.repository(), paths.home(), sys.prefix, tempfile.gettempdir())}
    words = [f for f in sorted(folders, key=len, reverse=True) if len(f.strip(os.sep)) > 1]
    if len(host) >= 4 and host != "localhost":
        words.append(host)
    pattern = re.compile("|".join(rf"(?<![\w.-]){re.escape(word)}(?![\w-])" for word in words))
    for output in outputs:
        # An image is encoded bytes, in which a short word turns up by chance; SVG is text.
        data = output.get("data", {}).items()
        texts = [v for kind, v in data if not kind.startswith("image/") or kind == "image/svg+xml"]
        for text in (output.get("text", ""), *output.get("traceback", []), *texts):
            if match := pattern.search(str(text)):
                return match.group()
    return None
