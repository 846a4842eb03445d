"""Which parameters each notebook has, and what each may be: one pydantic model per notebook.

Numbers and lists may be text, as `papermill -p` gives them. A truth value is never a number; a list repeats nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from ..errors import BeftError, unknown
from ..study import ALL_METHODS, PATCHES

Item = TypeVar("Item")
Key = TypeVar("Key")


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model by the names that a user gives."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def checked(model: type[BaseModel], values: Mapping[str, Any], source: str, kind: str) -> dict[str, Any]:
    """`values` of some fields of `model` in their proper types, in the order given.

    `source` is where they were given and `kind` what a name is meant to be ("setting of a cell"), for the error.

    Raises:
        BeftError: an unknown name, with the nearest ones, or a value that its field cannot have.
    """
    fields = fields_of(model)
    for name in values:
        if name not in fields:
            raise unknown(kind, name, fields)
    try:
        result = model.model_validate(dict(values)).model_dump(by_alias=True, exclude_unset=True)
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0])
        cause = fault.get("ctx", {}).get("error")
        message = f" must be {fields[name].description}, not {values[name]!r}"
        if isinstance(cause, BeftError):  # an unknown name inside the value, with its nearest ones
            message = f": {cause}"
        raise BeftError(f"{name} in {source}{message}") from error
    return {name: result[name] for name in values}


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


def _words(description: str) -> Any:
    """What a parameter may be, for the error. One that is not given is None, as in a notebook: the profile's value."""
    return Field(default=None, description=description)


# What a value may be. Of several before-validators the last runs first: text is parsed, then one item becomes a list.
Whole = Annotated[int, Field(strict=True), _from_text(int)]
Natural = Annotated[Whole, Field(ge=0)]
AtLeast1 = Annotated[Whole, Field(ge=1)]
# Not by YAML, whose version 1.1 takes 4e-4, without a dot, for text.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False), _from_text(float)]
Positive = Annotated[Number, Field(gt=0)]
Correlation = Annotated[Number, Field(ge=-1, le=1)]
Text = Annotated[str, Field(strict=True, pattern=r"\S")]
Size = AtLeast1 | Annotated[str, Field(strict=True, pattern=r"^[^\W\d]\w*$")]
Method = Annotated[str, _one_of("method", ALL_METHODS)]
Patch = Annotated[str, _one_of("patch", PATCHES)]
Precision = Annotated[str, _one_of("precision", ("float32", "bfloat16"))]
_as_list = BeforeValidator(lambda value: list(value) if isinstance(value, (list, tuple)) else [value])
Listed = Annotated[list[Item], _as_list, _from_text(_yaml)]
DistinctOrEmpty = Annotated[Listed[Item], AfterValidator(_distinct)]
Distinct = Annotated[DistinctOrEmpty[Item], Field(min_length=1)]
By = Annotated[dict[Key, Item], _from_text(_yaml)]

# What a parameter may be, in words.
Name = Annotated[Text, _words("a name or a path")]
Count = Annotated[AtLeast1, _words("a whole number of at least 1")]
Rate = Annotated[Positive, _words("a positive number")]
Rates = Annotated[Distinct[Positive], _words("a list of distinct positive numbers, e.g. [0.001, 0.01]")]
Seed = Annotated[Natural, _words("a whole number of at least 0")]
Seeds = Annotated[Distinct[Natural], _words("a list of distinct whole numbers of at least 0, e.g. [0, 1, 2]")]
Regime = Annotated[Size, _words("the name of a regime (low, medium, high, all) or a number of rows of at least 1")]
Share = Annotated[Number, Field(ge=0, lt=1), _words("a share of at least 0 and less than 1")]
Strength = Annotated[Correlation, _words("a number from -1 to 1")]
Flag = Annotated[bool, Field(strict=True), _from_text(_yaml), _words("true or false")]
Dtype = Annotated[Precision, _words("float32 or bfloat16")]
Dtypes = Annotated[Distinct[Precision], _words("a list of distinct precisions, e.g. [float32, bfloat16]")]
Validate = Annotated[str, _one_of("validation rule", ("each", "last")), _words("each or last")]
Methods = Annotated[Distinct[Method], _words("a list of distinct methods, e.g. [b_q, b_v]")]
MethodRates = Annotated[By[Method, Positive], _words("rates by method, e.g. {full: 1e-5, mask: 1e-3}")]
Patches = Annotated[Distinct[Patch], _words("a list of distinct patches, e.g. [b_v, lora]")]
PatchRates = Annotated[By[Patch, Positive], _words("rates by patch, e.g. {lora: 1e-3}")]
TriedRates = Annotated[
    By[Patch, Distinct[Positive]],
    _words("lists of rates by patch, perhaps none, e.g. {lora: [1e-3, 1e-2]}"),
]
Names = Annotated[Distinct[Text], _words("a name or a list of names")]


class Cell(BaseModel):
    """Some cells of a table: every combination of these models, tasks and regimes."""

    model_config = ConfigDict(extra="forbid")

    model: Names
    task: Names
    regime: Annotated[Distinct[Size], _words("a regime, a number of rows, or a list of them")]
    seeds: Seeds
    rate: Annotated[Literal["paper"] | Positive, _words("a positive number or `paper`")]
    epochs: Annotated[Literal["paper"] | AtLeast1, _words("a whole number of at least 1 or `paper`")]


_cell = AfterValidator(lambda values: checked(Cell, values, "a cell", "setting of a cell"))
Cells = Annotated[
    Listed[Annotated[dict[Any, Any], _cell]],
    Field(min_length=1),
    _words("a list of cells, e.g. [{task: rte, regime: [low, high], epochs: 6}]"),
]


class Parameters(BaseModel):
    """Parameters that every notebook has; the models below have those of one notebook besides."""

    model_config = ConfigDict(extra="forbid")

    model: Name
    task: Name
    regime: Regime
    batch_size: Count
    max_length: Count
    offline: Flag


class Expressiveness(Parameters):
    seed: Seed
    sentences: Count


class Ranking(Parameters):
    seeds: Seeds
    rate: Rate
    epochs: Count
    held_out: Share
    dtype: Dtype
    dtypes: Dtypes
    cells: Cells


class FineTuning(Parameters):
    methods: Methods
    seeds: Seeds
    rate: Rate
    rates: Rates
    rate_methods: Methods
    rate_seeds: Seeds
    form_methods: Methods
    form_seeds: Seeds
    epochs: Count
    rate_epochs: Count
    tuning: Share
    held_out: Share
    validate_: Annotated[Validate, Field(alias="validate")]  # pydantic's models have a method of that name
    dtype: Dtype
    cells: Cells
    cell_methods: Methods
    size_cells: Cells
    size_methods: Methods
    baseline_cells: Cells
    baseline_methods: Methods
    method_rates: MethodRates


class BiasFreeInjection(Parameters):
    methods: Methods
    seeds: Seeds
    rate: Rate
    method_rates: MethodRates
    epochs: Count
    held_out: Share
    dtype: Dtype
    cells: Cells
    demonstrations: Count
    explained: Annotated[Distinct[Text], _words("a list of names of small models")]
    shapes: Annotated[Distinct[Text], _words("a list of names of shapes, see beft/experiments/shapes.json")]
    measured: Annotated[DistinctOrEmpty[Text], _words("a list, perhaps empty, of names of shapes")]


class Debiasing(Parameters):
    seeds: Seeds
    axis: Annotated[Text, _words("the name of an axis of the word list")]
    word_list: Annotated[Text, _words("a path of a word list as beft/data/word_lists.json, or none for that one")]
    names: Flag
    corpus: Name
    corpus_rows: Count
    patches: Patches
    patch_rate: Rate
    patch_rates: PatchRates
    patch_epochs: Count
    tried_rates: TriedRates
    tried_seeds: Seeds
    second_axis: Annotated[Text, _words("the name of an axis, or none")]
    second_patches: Patches
    pairs: Count
    triples: Count
    strength: Strength
    origin_strength: Strength
    strengths: Annotated[Distinct[Correlation], _words("a list of distinct numbers from -1 to 1")]
    link_rows: Count
    link_epochs: Count
    link_rate: Rate
    rate: Rate
    epochs: Count
    test_rows: Count
    transfer: Annotated[Text, _words("microworld_posts, a path of posts, or none")]
    nli: Annotated[Text, _words("mnli, a path of sentence pairs, or none")]


NOTEBOOKS: dict[str, type[Parameters]] = {
    "01_expressiveness": Expressiveness,
    "02_ranking": Ranking,
    "03_fine_tuning": FineTuning,
    "04_bias_free_injection": BiasFreeInjection,
    "05_debiasing": Debiasing,
}
"""The parameters of each notebook."""
