"""Put the outputs of an executed notebook into the source notebook, and nothing else of it."""

import os
import re
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .. import paths
from ..errors import BeftError, unknown
from ..settings import profiles as settings
from .notebooks import Notebook, find, incomplete, read, write


def publish_outputs(profile: str, only: Sequence[str] = ()) -> list[Path]:
    """Fill the notebooks' outputs from build/<profile>/; return the notebooks written.

    Cell sources stay as they are, papermill's injected cell and progress bars are dropped, execution counts run
    1..N, and the notebook's metadata says `"beft": {"outputs_from_profile": profile}`. All are checked before one is
    written.

    Raises:
        BeftError: an executed notebook is missing, unfinished, was run with other parameters than the profile's, or
            from other sources; or an output holds a path or the name of this machine.
    """
    if profile not in (names := settings.profile_names()):
        raise unknown("profile", profile, names)
    notebooks = {}
    for source in find(paths.repository() / "notebooks", only):
        built = paths.home() / "build" / profile / source.name
        if not built.exists():
            raise BeftError(
                f"build/{profile}/{source.name} does not exist: run "
                f"`python -m beft.reproduce --profile {profile} --only {source.stem}` first"
            )
        notebooks[source] = merged(read(source), read(built), profile, source.stem)
    for source, notebook in notebooks.items():
        write(source, notebook)
    readme = paths.repository() / "README.md"
    if readme.exists():
        text = readme.read_text(encoding="utf-8")
        readme.write_text(with_tables(text, paths.home() / "figures"), encoding="utf-8")
    return list(notebooks)


def with_tables(text: str, figures: Path) -> str:
    """README's text with each `<!-- table PROFILE/NAME -->` block filled from figures/PROFILE/NAME.md.

    A table that has not been made leaves its block as it is: README shows what the committed records gave.
    """

    def fill(block: re.Match[str]) -> str:
        made = figures / f"{block['name']}.md"
        table = made.read_text(encoding="utf-8").strip() if made.exists() else block["table"].strip()
        return f"<!-- table {block['name']} -->\n{table}\n<!-- end of table -->"

    pattern = r"<!-- table (?P<name>[\w./+-]+) -->\n(?P<table>.*?)<!-- end of table -->"
    return re.sub(pattern, fill, text, flags=re.DOTALL)


def merged(source: Notebook, built: Notebook, profile: str, name: str) -> Notebook:
    """`source` with the outputs of `built`. Raises BeftError as `publish_outputs` does."""
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor, TagRemovePreprocessor

    again = f"run `python -m beft.reproduce --profile {profile} --only {name}` again"
    fault = incomplete(built)
    if fault is not None:
        raise BeftError(f"build/{profile}/{name}.ipynb is not whole, {fault}: {again}")
    parameters = dict(built.metadata.get("papermill", {}).get("parameters", {}))
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
        private = _private(cell.outputs)
        if private is not None:
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
    if output.output_type != "stream" or output.name != "stderr":
        return False
    return "\r" in output.text or not output.text.replace("\x1b[A", "").strip()


def _private(outputs: Sequence[Notebook]) -> str | None:
    """The first path of this user or name of this machine in the text of the outputs, or None."""
    host = socket.gethostname()
    folders = {
        str(Path.home()),
        str(paths.repository()),
        str(paths.home()),
        sys.prefix,
        tempfile.gettempdir(),
    }
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
