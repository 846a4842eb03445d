"""A saved notebook as HTML: its text, its code and the outputs that it was saved with."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bleach
from markupsafe import Markup

from ...errors import BeftError
from ..notebooks import Notebook, incomplete, read
from .addresses import Addresses
from .markdown import mathml, renderer

TEMPLATES = Path(__file__).parent / "templates"
# What an output of HTML may hold: the tables of pandas and plain text.
_TAGS = "a b br code div em h1 h2 h3 h4 hr i li ol p pre span strong sub sup table tbody td tfoot th thead tr ul"
_ATTRIBUTES = {"a": ["href"], "td": ["colspan", "rowspan"], "th": ["colspan", "rowspan", "scope"], "*": ["class"]}
_STYLE = re.compile(r"<(style|script)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class NotebookPage:
    """A notebook as HTML, the images of its outputs by file name, and the profile that the outputs are of."""

    html: Markup
    images: dict[str, bytes]
    profile: str


def read_executed(path: Path) -> Notebook:
    """A notebook that was saved with its outputs.

    Raises BeftError: it is no notebook, or a cell has not run.
    """
    notebook = read(path)
    if fault := incomplete(notebook):
        raise BeftError(
            f"notebooks/{path.name} is not saved with its outputs, {fault}: run `make reproduce` and `make publish` "
            f"with PROFILE=laptop ONLY={path.stem}, or restore it with git"
        )
    return notebook


def notebook_page(notebook: Notebook, name: str, addresses: Addresses, captions: Mapping[str, str]) -> NotebookPage:
    """A notebook as HTML.

    Args:
        notebook: as `read_executed` gives it; it is changed.
        name: without ".ipynb".
        addresses: where links lead to.
        captions: the captions of the figures of this notebook, by name; the alternative text of their images.

    Raises BeftError: a link or image that is not there; a formula that cannot be converted.
    """
    from nbconvert.exporters import HTMLExporter
    from traitlets.config import Config

    source = f"notebooks/{name}.ipynb"
    _describe_images(notebook, captions)
    config = Config()
    config.ExtractOutputPreprocessor.enabled = True
    config.NbConvertBase.display_data_priority = [
        "text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/latex", "text/plain",
    ]  # fmt: skip
    exporter = HTMLExporter(
        config=config,
        extra_template_basedirs=[str(TEMPLATES)],
        template_name="notebook",
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    exporter.register_filter("site_markdown", renderer(addresses, source, f"notebooks/{name}.html"))
    exporter.register_filter("site_html", clean)
    exporter.register_filter("site_latex", lambda tex: Markup(mathml(tex.strip().strip("$"), "block", source)))  # noqa: S704
    # Without a path before the names: images lie beside the page.
    resources = {"unique_key": name, "output_files_dir": f"{name}_files"}
    body, resources = exporter.from_notebook_node(notebook, resources=resources)
    images = {Path(file).name: content for file, content in resources.get("outputs", {}).items()}
    return NotebookPage(Markup(body), images, _profile(notebook))  # noqa: S704 - the template escapes


def clean(text: str) -> Markup:
    """HTML of an output, of which tables and plain text stay and everything else is shown as text or left out."""
    kept = bleach.clean(_STYLE.sub("", text), tags=set(_TAGS.split()), attributes=_ATTRIBUTES)
    return Markup(kept)  # noqa: S704 - cleaned


def _describe_images(notebook: Notebook, captions: Mapping[str, str]) -> None:
    """Give each image an alternative text: the caption that its cell prints, "name: caption", or its place."""
    for place, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        printed = "".join(output.text for output in cell.outputs if output.output_type == "stream")
        shown = [captions[name] for name in re.findall(r"^(\w+): ", printed, re.MULTILINE) if name in captions]
        outputs = [o for o in cell.outputs if any(kind.startswith("image/") for kind in o.get("data", {}))]
        for count, output in enumerate(outputs):
            text = shown[count] if count < len(shown) else f"Output of code cell {place}"
            for kind in [kind for kind in output.data if kind.startswith("image/")]:
                output.setdefault("metadata", {}).setdefault(kind, {}).setdefault("alt", text)


def _profile(notebook: Notebook) -> str:
    about: Any = notebook.metadata.get("beft", {})
    return str(about.get("outputs_from_profile", ""))
