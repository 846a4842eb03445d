"""What one notebook runs with: a profile's YAML, changed by the notebook's own parameters, both checked strictly.

A profile (`notebooks/profiles/<name>.yaml`) has a section `common` and one section per notebook. A notebook's
`parameters` cell holds `profile` and its other parameters as None, which means the profile's value; whoever runs it
(papermill, `python -m beft.reproduce`, a reader in Jupyter) may set them. A name that nobody reads is an error,
never ignored.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import types
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .. import paths
from ..data.files import USER_SUFFIXES
from ..errors import BeftError, unknown
from ..records.store import Store
from .parameters import COMMON, NOTEBOOKS
from .validators import check

if TYPE_CHECKING:
    from ..study import Study

DEFAULT_PROFILE = "embedded"
# Two warnings of libraries about other libraries, with a path of the machine in them, in every notebook: of tqdm.auto
# where there are no ipywidgets, and of transformers about a name that PEFT uses.
warnings.filterwarnings("ignore", message="IProgress not found")
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
# What IPython puts into a notebook's namespace besides names that start with an underscore.
_IPYTHON = frozenset({"In", "Out", "get_ipython", "exit", "quit", "open"})


def profiles() -> list[str]:
    """The names of the profiles, one YAML file each."""
    return sorted(path.stem for path in (paths.repository() / "notebooks" / "profiles").glob("*.yaml"))


def profile(name: object) -> dict[str, dict[str, Any]]:
    """A profile as {section: {parameter: value}}, every section and value checked.

    Raises:
        BeftError: no such profile; not YAML; an unknown, missing or ill-typed section or parameter.
    """
    if name not in (names := profiles()):
        raise unknown("profile", name, names)
    file = f"notebooks/profiles/{name}.yaml"
    try:
        content = yaml.safe_load((paths.repository() / file).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise BeftError(f"{file} is not valid YAML{line}: correct it or restore it with git") from error
    if not isinstance(content, dict):
        raise BeftError(f"{file} must hold a section `common` and one section per notebook")
    result: dict[str, dict[str, Any]] = {}
    for section, values in content.items():
        if section != "common" and section not in NOTEBOOKS:
            raise unknown(f"section in {file}", section, ("common", *NOTEBOOKS))
        valid = COMMON | NOTEBOOKS.get(section, {})
        if not isinstance(values, dict):
            raise BeftError(f"section {section} of {file} must be a list of `name: value` lines")
        for parameter in values:
            if parameter not in valid:
                raise unknown(f"parameter in section {section} of {file}", parameter, valid)
        result[section] = {n: check(n, v, valid[n], file) for n, v in values.items()}
    return result


def resolve(notebook: str, name: object) -> dict[str, Any]:
    """Every parameter of `notebook` under profile `name`: the section `common`, overridden by its own section.

    Raises:
        BeftError: as `profile`, or the profile leaves a parameter of this notebook without a value.
    """
    if notebook not in NOTEBOOKS:
        raise unknown("notebook", notebook, NOTEBOOKS)
    sections = profile(name)
    values = sections.get("common", {}) | sections.get(notebook, {})
    order = COMMON | NOTEBOOKS[notebook]
    for parameter in order:
        if parameter not in values:
            raise BeftError(
                f"notebooks/profiles/{name}.yaml gives no value for {parameter}: add it to section {notebook} or common"
            )
    return {parameter: values[parameter] for parameter in order}


@dataclass(frozen=True, repr=False)
class Settings:
    """The resolved parameters of one notebook; `s["epochs"]` is a value, `print(s)` shows all of them.

    Attributes:
        notebook: its name without ".ipynb".
        profile: the name of the profile.
        values: every parameter and its value.
        overrides: those parameters that differ from the profile, and their values.
        store: the records of this profile, data/results/<profile>.
        figures: the folder of figures and tables, figures/<profile>; with overrides a folder of its own beside it,
            so that an experiment never overwrites the profile's figures.
    """

    notebook: str
    profile: str
    values: dict[str, Any]
    overrides: dict[str, Any]
    store: Store
    figures: Path

    def __getitem__(self, name: str) -> Any:
        if name not in self.values:
            raise unknown("parameter", name, self.values)
        return self.values[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a parameter, or `default` where this notebook has no such parameter."""
        return self.values.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self.values

    def __repr__(self) -> str:
        lines = [f"{self.notebook}, profile {self.profile}"]
        width = max(map(len, self.values), default=0)
        for name, value in self.values.items():
            note = "   (given; the profile's value is another)" if name in self.overrides else ""
            lines.append(f"  {name:<{width}}  {_text(value)}{note}")
        return "\n".join(lines)

    def study(self, **overrides: Any) -> Study:
        """The `study.Study` of these settings: each of its fields that is a parameter here, then `overrides`.

        Raises:
            BeftError: an override that is not a field of Study.
        """
        from ..study import Study

        names = [field.name for field in fields(Study)]
        for name in overrides:
            if name not in names:
                raise unknown("setting of a study", name, names)
        return Study(**({n: self.values[n] for n in names if n in self.values} | overrides))

    @property
    def command(self) -> str:
        """The command that runs this notebook with these settings."""
        given = "".join(f" -p {n} {shlex.quote(_given(v))}" for n, v in self.overrides.items())
        return f"python -m beft.reproduce --profile {self.profile} --only {self.notebook}{given}"

    @property
    def substitute_note(self) -> str:
        """What a caption must add when the numbers stand in for others; empty for a real model on real data."""
        parts = []
        model = str(self.values.get("model", ""))
        if model.startswith("tiny-") or "data/models/" in model:
            parts.append("a tiny random model" if "random" in model else "a tiny model")
        if str(self.values.get("task", "")).startswith("microworld"):
            parts.append("generated micro-world text")
        return f"(Substitute: {' and '.join(parts)}.)" if parts else ""


def load(notebook: str, namespace: Mapping[str, Any]) -> Settings:
    """The settings of a notebook, read right after its `parameters` cell: `s = settings.load("03_...", globals())`.

    Args:
        notebook: the notebook's name without ".ipynb".
        namespace: the notebook's variables. None means the profile's value, for the regime of a user's file "low".
            Numbers and lists given as text, as `papermill -p seeds "[0, 1]"` does, are accepted.

    Raises:
        BeftError: an unknown notebook, profile or parameter (with the nearest names), or a value of the wrong type.
    """
    name = namespace.get("profile")
    name = DEFAULT_PROFILE if name is None else name
    base = resolve(notebook, name)
    valid = COMMON | NOTEBOOKS[notebook]
    # Run again in a live notebook, this cell finds the variables of later cells: they are no parameters.
    again = any(isinstance(value, Settings) for value in namespace.values())
    given: dict[str, Any] = {}
    for variable, value in namespace.items():
        if variable == "profile" or variable in _IPYTHON or variable.startswith("_"):
            continue
        if isinstance(value, types.ModuleType | Settings) or callable(value):
            continue
        if variable in valid:
            if value is not None:
                given[variable] = check(variable, value, valid[variable], "the parameters")
        elif not again:
            raise unknown(f"parameter of {notebook}", variable, ("profile", *valid))
    if given.get("task", "").lower().endswith(USER_SUFFIXES) and "regime" in base:
        # the profile's number of rows was chosen for its own task: "low" takes fewer where a file has fewer
        given.setdefault("regime", "low")
    overrides = {n: v for n, v in given.items() if v != base[n]}
    store = Store(paths.results(str(name)))
    figures = paths.home() / "figures" / (str(name) + _slug(overrides))
    return Settings(notebook, str(name), base | given, overrides, store, figures)


def _given(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (list, dict, bool)) else str(value)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{n}: {_text(v)}" for n, v in value.items()) + "}"
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _slug(overrides: Mapping[str, Any]) -> str:
    """`+epochs-3+task-reviews.csv`: a folder-name suffix that differs whenever the overrides do."""
    parts, exact = "", True
    for name, value in overrides.items():
        text = _text(value).replace(", ", "_")
        short = re.sub(r"[^A-Za-z0-9._-]+", "-", text.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1])
        exact = exact and short == text
        parts += f"+{name}-{short}"
    if exact and len(parts) <= 100:
        return parts
    # Something was cut or replaced: a short hash keeps two such folders apart.
    return f"{parts[:100]}-{hashlib.sha256(repr(sorted(overrides.items())).encode()).hexdigest()[:6]}"
