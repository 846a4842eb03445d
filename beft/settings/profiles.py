"""What one notebook runs with: a profile's YAML, changed by the notebook's own parameters, both checked strictly.

A profile (`notebooks/profiles/<name>.yaml`) has a section `common` and one section per notebook. A notebook's
`parameters` cell holds `profile` and its other parameters as None, which means the profile's value; whoever runs it
(papermill, `python -m beft.reproduce`, a reader in Jupyter) may set them. A name that nobody reads is an error,
never ignored.
"""

import hashlib
import json
import re
import shlex
import types
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from .. import paths
from ..data.files import USER_SUFFIXES
from ..errors import BeftError, unknown
from ..paper import is_stand_in
from ..records.store import Store
from ..study import Study
from .parameters import COMMON, NOTEBOOKS, OWN, PARAMETERS, Parameters, checked

DEFAULT_PROFILE = "embedded"
INJECTED = frozenset({"PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"})
"""What papermill adds to the parameters of a notebook with `--inject-paths` and the two options like it."""
# Besides `profile`, what IPython puts into a notebook's namespace and does not begin with an underscore.
_NO_PARAMETERS = INJECTED | {"profile", "In", "Out", "get_ipython", "exit", "quit", "open"}


def profile_names() -> list[str]:
    """The names of the profiles, one YAML file each."""
    return sorted(path.stem for path in (paths.repository() / "notebooks" / "profiles").glob("*.yaml"))


def read_profile(name: object) -> dict[str, dict[str, Any]]:
    """A profile as {section: {parameter: value}}, every section and value checked.

    Raises BeftError: no such profile; not YAML; an unknown or ill-typed section or parameter.
    """
    if not isinstance(name, str) or name not in profile_names():
        raise unknown("profile", name, profile_names())
    file = f"notebooks/profiles/{name}.yaml"
    try:
        content = yaml.safe_load((paths.repository() / file).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise BeftError(f"{file} is not valid YAML{line}: correct it or restore it with git") from error
    if not isinstance(content, dict):
        raise BeftError(f"{file} must hold a section `common` and one section per notebook")
    sections: dict[str, Parameters] = {"common": {name: PARAMETERS[name] for name in COMMON.split()}, **NOTEBOOKS}
    for section, values in content.items():
        if section not in sections:
            raise unknown(f"section in {file}", section, sections)
        if not isinstance(values, dict):
            raise BeftError(f"section {section} of {file} must be a list of `name: value` lines")
        content[section] = checked(sections[section], values, file, f"parameter in section {section} of {file}")
    return content


@dataclass(frozen=True, repr=False)
class Settings:
    """The resolved parameters of one notebook; `s["epochs"]` is a value, `print(s)` shows all of them.

    Attributes:
        notebook: its name without ".ipynb".
        profile: the name of the profile.
        values: every parameter and its value.
        overrides: those parameters that differ from the profile, and their values.
        store: the records of this profile, data/results/<profile>.
        figures: the folder of figures and tables, figures/<profile>; with overrides another beside it, so that an
            experiment never overwrites the profile's figures.
    """

    notebook: str
    profile: str
    values: dict[str, Any]
    overrides: dict[str, Any]
    store: Store
    figures: Path

    def __getitem__(self, name: str) -> Any:
        if not isinstance(name, str) or name not in self.values:
            raise unknown("parameter", name, self.values)
        return self.values[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a parameter, or `default` where this notebook has no such parameter."""
        return self.values.get(name, default)

    def __repr__(self) -> str:
        lines = [f"{self.notebook}, profile {self.profile}"]
        width = max(map(len, self.values), default=0)
        for name, value in self.values.items():
            note = "   (given; the profile's value is another)" if name in self.overrides else ""
            lines.append(f"  {name:<{width}}  {_text(value)}{note}")
        return "\n".join(lines)

    def study(self, **overrides: Any) -> Study:
        """The `study.Study` of these settings: each of its fields that is a parameter here, then `overrides`.

        Raises BeftError for an override that is not a field of Study.
        """
        names = [field.name for field in fields(Study)]
        values = {n: self.values[n] for n in names if n in self.values}
        if values.get("evaluated") == "paper":
            values["evaluated"] = None
        values |= overrides
        return Study(**(values | {n: None for n in OWN if values.get(n) in ("none", {})}))

    @property
    def command(self) -> str:
        """The command that runs this notebook with these settings."""
        texts = {n: v if isinstance(v, str) else json.dumps(v) for n, v in self.overrides.items()}
        options = "".join(f" -p {name} {shlex.quote(text)}" for name, text in texts.items())
        return f"python -m beft.reproduce --profile {self.profile} --only {self.notebook}{options}"

    @property
    def substitute_note(self) -> str:
        """What a caption must add when the numbers stand in for others; empty for a real model on real data."""
        substitutes = []
        model = str(self.values.get("model", ""))
        if is_stand_in(model):
            substitutes.append("a tiny random model" if "random" in model else "a tiny model")
        if self.values.get("file", "none") == "none" and str(self.values.get("task", "")).startswith("microworld"):
            substitutes.append("generated micro-world text")
        return f"(Substitute: {' and '.join(substitutes)}.)" if substitutes else ""


def load(notebook: str, namespace: Mapping[str, Any]) -> Settings:
    """The settings of a notebook, read right after its `parameters` cell: `s = settings.load("03_...", globals())`.

    Args:
        notebook: the notebook's name without ".ipynb".
        namespace: the notebook's variables. None means the profile's value, for the regime of a user's file "low".
            Numbers and lists given as text, as `papermill -p seeds "[0, 1]"` does, are accepted.

    Raises BeftError: an unknown notebook, profile or parameter (with the nearest names), a value of the wrong type, a
    broken profile, or one that leaves a parameter of this notebook without a value; a folder of figures that cannot be
    written, or a results folder that is a file.
    """
    if not isinstance(namespace, Mapping) or not all(isinstance(name, str) for name in namespace):
        raise BeftError(f"{namespace!r} holds no parameters: give the notebook's variables, globals()")
    # Warnings of libraries about other libraries: of tqdm.auto where there are no ipywidgets, and of transformers about
    # a name that PEFT uses. They hold a path of this machine, and would stand in every notebook.
    warnings.filterwarnings("ignore", message="IProgress not found")
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    profile = DEFAULT_PROFILE if namespace.get("profile") is None else namespace["profile"]
    if not isinstance(notebook, str) or notebook not in NOTEBOOKS:
        raise unknown("notebook", notebook, NOTEBOOKS)
    sections = read_profile(profile)
    base = sections.get("common", {}) | sections.get(notebook, {})
    for name in NOTEBOOKS[notebook]:
        if name not in base:
            raise BeftError(
                f"notebooks/profiles/{profile}.yaml gives no value for {name}: add it to section {notebook} or common"
            )
    base = {name: base[name] for name in NOTEBOOKS[notebook]}
    given = {
        name: value
        for name, value in namespace.items()
        if name not in _NO_PARAMETERS and not name.startswith("_")
        if not isinstance(value, types.ModuleType | Settings) and not callable(value)
    }
    # A notebook that is live already holds the variables of its later cells, which are no parameters.
    live = any(isinstance(value, Settings) for value in namespace.values())
    for name in given:
        if name not in base and not live:
            raise unknown(f"parameter of {notebook}", name, ("profile", *base))
    values = {name: value for name, value in given.items() if name in base and value is not None}
    values = checked(NOTEBOOKS[notebook], values, "the parameters", f"parameter of {notebook}")
    if values.get("task", "").lower().endswith(USER_SUFFIXES):
        # The profile's numbers of rows were chosen for its own task: "low" takes fewer where a file has fewer.
        values.setdefault("regime", "low")
        base |= {"null_rows": "low"} if "null_rows" in base else {}
        values.setdefault("evaluated", "paper")
    overrides = {name: value for name, value in values.items() if value != base[name]}
    figures = paths.check_folder(paths.home() / "figures" / f"{profile}{_suffix(overrides)}", "folder of figures")
    store = Store(paths.results(str(profile)))
    return Settings(notebook, str(profile), base | values, overrides, store, figures)


def _text(value: Any) -> str:
    """A value as a reader sees it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{n}: {_text(v)}" for n, v in value.items()) + "}"
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _suffix(overrides: Mapping[str, Any]) -> str:
    """`+epochs-3+task-reviews.csv`: the end of a folder name, which differs whenever the overrides do."""
    suffix, exact = "", True
    for name, value in overrides.items():
        text = _text(value).replace(", ", "_")
        short = re.sub(r"[^A-Za-z0-9._-]+", "-", text.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1])
        exact = exact and short == text
        suffix += f"+{name}-{short}"
    if exact and len(suffix) <= 100:
        return suffix
    # Something was cut or replaced: a short hash keeps two such folders apart.
    return f"{suffix[:100]}-{hashlib.sha256(repr(sorted(overrides.items())).encode()).hexdigest()[:6]}"
