"""What one notebook runs with: a profile's YAML, changed by the notebook's own parameters, both checked strictly.

A profile (`notebooks/profiles/<name>.yaml`) has a section `common` and one section per notebook. A notebook's
`parameters` cell holds `profile` and its other parameters as None, which means the profile's value; whoever runs it
(papermill, `python -m beft.reproduce`, a reader in Jupyter) may set them. A name that nobody reads is an error,
never ignored. Numbers and lists may be text, as `papermill -p` gives them. A truth value is never a number; a list
repeats nothing.
"""

import hashlib
import json
import re
import shlex
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError

from .. import paths
from ..data.files import USER_SUFFIXES
from ..errors import BeftError, unknown
from ..records.store import Store
from ..study import ALL_METHODS, PATCHES, Study

DEFAULT_PROFILE = "embedded"
# Besides `profile`, what IPython puts into a notebook's namespace and does not begin with an underscore.
_NO_PARAMETERS = frozenset({"profile", "In", "Out", "get_ipython", "exit", "quit", "open"})
Item = TypeVar("Item")
Key = TypeVar("Key")
Parameters = Mapping[str, tuple[str, TypeAdapter]]
"""Name -> what a value must be, in words for the error, and its type."""


def checked(parameters: Parameters, values: Mapping[str, Any], source: str, kind: str) -> dict[str, Any]:
    """`values` of some of the names in `parameters`, in their proper types.

    `source` is where they were given and `kind` what a name is meant to be ("setting of a cell"), for the BeftError:
    an unknown name, with the nearest ones, or a value that it cannot have.
    """
    for name in values:
        if name not in parameters:
            raise unknown(kind, name, parameters)
    result = {}
    for name, value in values.items():
        words, adapter = parameters[name]
        try:
            result[name] = adapter.validate_python(value)
        except ValidationError as error:
            cause = error.errors()[0].get("ctx", {}).get("error")
            # An unknown name inside the value comes with its nearest ones.
            message = f": {cause}" if isinstance(cause, BeftError) else f" must be {words}, not {value!r}"
            raise BeftError(f"{name} in {source}{message}") from error
    return result


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError("not YAML") from error


def _from_text(convert: Callable[[str], Any]) -> BeforeValidator:
    return BeforeValidator(lambda value: convert(value) if isinstance(value, str) else value)


def _distinct(items: list[Any]) -> list[Any]:
    if any(items.count(item) > 1 for item in items):
        raise ValueError("an item is repeated")
    return items


def _one_of(kind: str, names: Sequence[str]) -> BeforeValidator:
    def known(value: Any) -> Any:
        if value not in names:
            raise unknown(kind, value, names)
        return value

    return BeforeValidator(known)


# What a value may be. Of several before-validators the last runs first: text is parsed, then one item becomes a list.
Whole = Annotated[int, Field(strict=True), _from_text(int)]
Natural = Annotated[Whole, Field(ge=0)]
AtLeast1 = Annotated[Whole, Field(ge=1)]
# Not by YAML, whose version 1.1 takes 4e-4, without a dot, for text.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False), _from_text(float)]
Positive = Annotated[Number, Field(gt=0)]
Correlation = Annotated[Number, Field(ge=-1, le=1)]
Text = Annotated[str, Field(strict=True, pattern=r"\S")]
Share = Annotated[Number, Field(ge=0, lt=1)]
Flag = Annotated[bool, Field(strict=True), _from_text(_yaml)]
Size = AtLeast1 | Annotated[str, Field(strict=True, pattern=r"^[^\W\d]\w*$")]
Method = Annotated[str, _one_of("method", ALL_METHODS)]
Patch = Annotated[str, _one_of("patch", PATCHES)]
Precision = Annotated[str, _one_of("precision", ("float32", "bfloat16"))]
Validate = Annotated[str, _one_of("validation rule", ("each", "last"))]
_as_list = BeforeValidator(lambda value: list(value) if isinstance(value, (list, tuple)) else [value])
Listed = Annotated[list[Item], _as_list, _from_text(_yaml)]
DistinctOrEmpty = Annotated[Listed[Item], AfterValidator(_distinct)]
Distinct = Annotated[DistinctOrEmpty[Item], Field(min_length=1)]
Rates = Distinct[Positive]
By = Annotated[dict[Key, Item], _from_text(_yaml)]


def _table(*lines: tuple[str, Any, str]) -> Parameters:
    """Lines of words, type and the names that have it."""
    return {name: (words, TypeAdapter(its_type)) for words, its_type, names in lines for name in names.split()}


_SEEDS = "a list of distinct whole numbers of at least 0, e.g. [0, 1, 2]"
_COUNT = "a whole number of at least 1"
CELL = _table(
    ("a name or a list of names", Distinct[Text], "model task"),
    ("a regime, a number of rows, or a list of them", Distinct[Size], "regime"),
    (_SEEDS, Distinct[Natural], "seeds"),
    ("a positive number or `paper`", Literal["paper"] | Positive, "rate"),
    ("a whole number of at least 1 or `paper`", Literal["paper"] | AtLeast1, "epochs"),
)
"""Some cells of a table: every combination of these models, tasks and regimes."""

_cell = AfterValidator(lambda values: checked(CELL, values, "a cell", "setting of a cell"))
Cells = Annotated[Listed[Annotated[dict[Any, Any], _cell]], Field(min_length=1)]

_PARAMETERS = _table(
    ("a name or a path", Text, "model task corpus"),
    ("the name of a regime (low, medium, high, all) or a number of rows of at least 1", Size, "regime"),
    (_COUNT, AtLeast1, "batch_size max_length sentences demonstrations corpus_rows link_rows test_rows pairs triples"),
    (_COUNT, AtLeast1, "epochs rate_epochs patch_epochs link_epochs"),
    ("a whole number of at least 0", Natural, "seed"),
    (_SEEDS, Distinct[Natural], "seeds rate_seeds form_seeds tried_seeds"),
    ("a positive number", Positive, "rate patch_rate link_rate"),
    ("a list of distinct positive numbers, e.g. [0.001, 0.01]", Rates, "rates"),
    ("a share of at least 0 and less than 1", Share, "tuning held_out"),
    ("a number from -1 to 1", Correlation, "strength origin_strength"),
    ("a list of distinct numbers from -1 to 1", Distinct[Correlation], "strengths"),
    ("true or false", Flag, "offline names"),
    ("each or last", Validate, "validate"),
    ("float32 or bfloat16", Precision, "dtype"),
    ("a list of distinct precisions, e.g. [float32, bfloat16]", Distinct[Precision], "dtypes"),
    (
        "a list of distinct methods, e.g. [b_q, b_v]",
        Distinct[Method],
        "methods rate_methods form_methods cell_methods size_methods baseline_methods",
    ),
    ("rates by method, e.g. {full: 1e-5, mask: 1e-3}", By[Method, Positive], "method_rates"),
    ("a list of distinct patches, e.g. [b_v, lora]", Distinct[Patch], "patches second_patches"),
    ("rates by patch, e.g. {lora: 1e-3}", By[Patch, Positive], "patch_rates"),
    ("lists of rates by patch, perhaps none, e.g. {lora: [1e-3, 1e-2]}", By[Patch, Rates], "tried_rates"),
    ("a list of cells, e.g. [{task: rte, regime: [low, high], epochs: 6}]", Cells, "cells size_cells baseline_cells"),
    ("a list of names of small models", Distinct[Text], "explained"),
    ("a list of names of shapes, see beft/experiments/shapes.json", Distinct[Text], "shapes"),
    ("a list, perhaps empty, of names of shapes", DistinctOrEmpty[Text], "measured"),
    ("the name of an axis of the word list", Text, "axis"),
    ("the name of an axis, or none", Text, "second_axis"),
    ("a path of a word list as beft/data/word_lists.json, or none for that one", Text, "word_list"),
    ("microworld_posts, a path of posts, or none", Text, "transfer"),
    ("mnli, a path of sentence pairs, or none", Text, "nli"),
)
COMMON = "model task regime batch_size max_length offline"
NOTEBOOKS: dict[str, Parameters] = {
    notebook: {name: _PARAMETERS[name] for name in f"{COMMON} {names}".split()}
    for notebook, names in {
        "01_expressiveness": "seed sentences",
        "02_ranking": "seeds rate epochs held_out dtype dtypes cells",
        "03_fine_tuning": "methods seeds rate rates rate_methods rate_seeds form_methods form_seeds epochs rate_epochs "
        "tuning held_out validate dtype cells cell_methods size_cells size_methods baseline_cells baseline_methods "
        "method_rates",
        "04_bias_free_injection": "methods seeds rate method_rates epochs held_out dtype cells demonstrations "
        "explained shapes measured",
        "05_debiasing": "seeds axis word_list names corpus corpus_rows patches patch_rate patch_rates patch_epochs "
        "tried_rates tried_seeds second_axis second_patches pairs triples strength origin_strength strengths link_rows "
        "link_epochs link_rate rate epochs test_rows transfer nli",
    }.items()
}
"""The parameters of each notebook, in the order in which they are printed."""


def profile_names() -> list[str]:
    """The names of the profiles, one YAML file each."""
    return sorted(path.stem for path in (paths.repository() / "notebooks" / "profiles").glob("*.yaml"))


def read_profile(name: object) -> dict[str, dict[str, Any]]:
    """A profile as {section: {parameter: value}}, every section and value checked.

    Raises BeftError: no such profile; not YAML; an unknown or ill-typed section or parameter.
    """
    if name not in (names := profile_names()):
        raise unknown("profile", name, names)
    file = f"notebooks/profiles/{name}.yaml"
    try:
        content = yaml.safe_load((paths.repository() / file).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise BeftError(f"{file} is not valid YAML{line}: correct it or restore it with git") from error
    if not isinstance(content, dict):
        raise BeftError(f"{file} must hold a section `common` and one section per notebook")
    sections: dict[str, Parameters] = {"common": {name: _PARAMETERS[name] for name in COMMON.split()}, **NOTEBOOKS}
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
        if name not in self.values:
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
        for name in overrides:
            if name not in names:
                raise unknown("setting of a study", name, names)
        return Study(**({n: self.values[n] for n in names if n in self.values} | overrides))

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
        if model.startswith("tiny-") or "data/models/" in model:
            substitutes.append("a tiny random model" if "random" in model else "a tiny model")
        if str(self.values.get("task", "")).startswith("microworld"):
            substitutes.append("generated micro-world text")
        return f"(Substitute: {' and '.join(substitutes)}.)" if substitutes else ""


def load(notebook: str, namespace: Mapping[str, Any]) -> Settings:
    """The settings of a notebook, read right after its `parameters` cell: `s = settings.load("03_...", globals())`.

    Args:
        notebook: the notebook's name without ".ipynb".
        namespace: the notebook's variables. None means the profile's value, for the regime of a user's file "low".
            Numbers and lists given as text, as `papermill -p seeds "[0, 1]"` does, are accepted.

    Raises BeftError: an unknown notebook, profile or parameter (with the nearest names), a value of the wrong type, a
    broken profile, or one that leaves a parameter of this notebook without a value.
    """
    # Warnings of libraries about other libraries: of tqdm.auto where there are no ipywidgets, and of transformers about
    # a name that PEFT uses. They hold a path of this machine, and would stand in every notebook.
    warnings.filterwarnings("ignore", message="IProgress not found")
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    profile = DEFAULT_PROFILE if namespace.get("profile") is None else namespace["profile"]
    if notebook not in NOTEBOOKS:
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
        # The profile's number of rows was chosen for its own task: "low" takes fewer where a file has fewer.
        values.setdefault("regime", "low")
    overrides = {name: value for name, value in values.items() if value != base[name]}
    figures = paths.home() / "figures" / f"{profile}{_suffix(overrides)}"
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
