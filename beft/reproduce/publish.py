"""Put the outputs of an executed notebook into the source notebook, and nothing else of it."""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import paths
from ..errors import BeftError, unknown
from ..settings import profiles as settings
from .notebooks import Notebook, find, incomplete, read, tagged


def publish(profile: str, only: Sequence[str] = ()) -> list[Path]:
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
    done = []
    for source in find(paths.repository() / "notebooks", only):
        built = paths.home() / "build" / profile / source.name
        if not built.exists():
            raise BeftError(
                f"build/{profile}/{source.name} does not exist: run "
                f"`python -m beft.reproduce --profile {profile} --only {source.stem}` first"
            )
        done.append((source, merged(read(source), read(built), profile, source.stem)))
    for source, notebook in done:
        _write(source, notebook)
    readme = paths.repository() / "README.md"
    if readme.exists():
        text = readme.read_text(encoding="utf-8")
        readme.write_text(with_tables(text, paths.home() / "figures"), encoding="utf-8")
    return [source for source, _ in done]


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
    """`source` with the outputs of `built`. Raises BeftError as `publish` does."""
    again = f"run `python -m beft.reproduce --profile {profile} --only {name}` again"
    fault = incomplete(built)
    if fault is not None:
        raise BeftError(f"build/{profile}/{name}.ipynb is not whole, {fault}: {again}")
    given = dict(built.metadata.get("papermill", {}).get("parameters", {}))
    if given != {"profile": profile}:
        extra = ", ".join(sorted(given.keys() - {"profile"})) or "another profile"
        raise BeftError(
            f"build/{profile}/{name}.ipynb was run with {extra}, not with the plain profile: {again}"
        )
    injected = [id(cell) for cell in tagged(built, "injected-parameters")]
    cells = [cell for cell in built.cells if id(cell) not in injected]
    if [(c.cell_type, c.source) for c in cells] != [(c.cell_type, c.source) for c in source.cells]:
        raise BeftError(
            f"notebooks/{name}.ipynb has changed since build/{profile}/{name}.ipynb was run: {again}"
        )
    count = 0
    for place, (cell, executed) in enumerate(zip(source.cells, cells)):
        if cell.cell_type != "code":
            continue
        count += bool(cell.source.strip())
        cell.execution_count = count if cell.source.strip() else None
        kept = [_clean(output, count) for output in executed.outputs if not _progress(output)]
        cell.outputs = _joined(kept)
        found = _private(cell.outputs)
        if found is not None:
            raise BeftError(
                f"an output of cell {place} of build/{profile}/{name}.ipynb contains {found!r}, which belongs to this "
                "machine and not into a published notebook: print a relative path or a name instead"
            )
        for key in ("papermill", "execution"):  # durations and times of day
            cell.metadata.pop(key, None)
    source.metadata.pop("papermill", None)
    source.metadata["beft"] = {"outputs_from_profile": profile}
    return source


def _progress(output: Any) -> bool:
    """A piece of a progress bar: times of one run on one machine, of no use once it is over."""
    if output.output_type != "stream" or output.name != "stderr":
        return False
    return "\r" in output.text or not output.text.replace("\x1b[A", "").strip()


def _joined(outputs: Sequence[Any]) -> list[Any]:
    """Printed text that arrived in pieces as one: where a kernel cuts it differs from run to run."""
    joined: list[Any] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def _clean(output: Any, count: int) -> Any:
    if "execution_count" in output:
        output.execution_count = count
    return output


def _private(outputs: Sequence[Any]) -> str | None:
    """A path of this user or the machine's name, if the text of an output holds one; else None."""
    home, host = str(Path.home()), socket.gethostname()
    places = {home, str(paths.repository()), str(paths.home()), sys.prefix, tempfile.gettempdir()}
    words = [p for p in sorted(places, key=len, reverse=True) if len(p.strip(os.sep)) > 1]
    if len(host) >= 4 and host != "localhost":
        words.append(host)
    pattern = re.compile("|".join(rf"(?<![\w.-]){re.escape(word)}(?![\w-])" for word in words))
    for output in outputs:
        texts = [output.get("text", ""), *output.get("traceback", [])]
        # An image is encoded bytes, in which a short word turns up by chance; SVG is text.
        data = output.get("data", {}).items()
        texts += [str(v) for kind, v in data if not kind.startswith("image/") or kind == "image/svg+xml"]
        for text in texts:
            match = pattern.search(text if isinstance(text, str) else str(text))
            if match:
                return match.group()
    return None


def _write(path: Path, notebook: Notebook) -> None:
    """Replace a notebook, whole or not at all."""
    import nbformat

    temporary = path.with_name(f".{path.name}.tmp")
    try:
        nbformat.validate(notebook)
        with open(temporary, "w", encoding="utf-8") as file:
            nbformat.write(notebook, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise BeftError(
            f"cannot write {path}: {error.strerror or error}; free the disk or its permissions"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
