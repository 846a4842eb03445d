"""What each parameter of a notebook may be, in words and as a type, and which parameters each notebook has.

Numbers and lists may be text, as `papermill -p` gives them, or NumPy's. A truth value is never a number; a list repeats
nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError

from ..data.files import USER_SUFFIXES
from ..errors import BeftError, brief, unknown
from ..study import ALL_METHODS, PATCHES, parse_method, plain

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
    for name, value in plain(dict(values)).items():
        words, adapter = parameters[name]
        if words.startswith("a list") and isinstance(value, str) and "," in value and value.lstrip()[:1] not in "[{-":
            remedy = "write it so" if ":" in value else f"write it as '[{value}]'"
            raise BeftError(f"{name} in {source} must be {words}, not {brief(value)}: {remedy}")
        try:
            result[name] = adapter.validate_python(value)
        except ValidationError as error:
            cause = error.errors()[0].get("ctx", {}).get("error")
            # An unknown name inside the value comes with its nearest ones.
            message = f": {cause}" if isinstance(cause, BeftError) else f" must be {words}, not {brief(value)}"
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


def _own_file(value: str) -> str:
    if value != "none" and not value.lower().endswith(USER_SUFFIXES):
        raise ValueError("not the name of a data file")
    return value


def _label(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):  # a class that is named by a number
        return str(value)
    return value


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
OwnFile = Annotated[Text, AfterValidator(_own_file)]
Template = Annotated[Text, AfterValidator(lambda text: text.replace("\\n", "\n"))]  # as a shell passes it
Label = Annotated[str, Field(strict=True), BeforeValidator(_label)]
Share = Annotated[Number, Field(ge=0, lt=1)]
Flag = Annotated[bool, Field(strict=True), _from_text(_yaml)]
Size = AtLeast1 | Annotated[str, Field(strict=True, pattern=r"^[^\W\d]\w*$")]
Method = Annotated[str, BeforeValidator(lambda value: parse_method(value, ALL_METHODS).name)]
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
    (_SEEDS, Distinct[Natural], "seeds rate_seeds"),
    ("a positive number, `paper` or `chosen`", Literal["paper", "chosen"] | Positive, "rate"),
    ("a whole number of at least 1 or `paper`", Literal["paper"] | AtLeast1, "epochs"),
    ("float32 or bfloat16", Precision, "dtype"),
    ("a number from 0 to below 1", Share, "held_out"),
    ("a list of distinct methods, e.g. [b_q, b_v]", Distinct[Method], "methods"),
    ("rates by method, e.g. {b_q: 0.03}", By[Method, Positive], "rates"),
    ("a whole number of at least 1", AtLeast1, "evaluated"),
    ("the path of a file of validation rows", OwnFile, "validation"),
    ("the prompt of a file, such as '{text}\\nSentiment: {label}'", Template, "template"),
    ("options by label, in quotes where YAML reads more, e.g. {pos: good}", By[Label, Text], "labels"),
    ("the reason in words", Text, "not_run"),
)
"""Some cells of a table: every combination of these models, tasks and regimes."""

_cell = AfterValidator(lambda values: checked(CELL, values, "a cell", "setting of a cell"))
CellsOrNone = Listed[Annotated[dict[Any, Any], _cell]]
Cells = Annotated[CellsOrNone, Field(min_length=1)]

PARAMETERS = _table(
    ("a name or a path", Text, "model task corpus real_model"),
    ("the path of a .csv, .tsv, .jsonl, .json or .parquet file with texts and labels, or none", OwnFile, "file"),
    ("the path of a .csv, .tsv, .jsonl, .json or .parquet file of validation rows, or none", OwnFile, "validation"),
    ("the prompt of a file, such as '{text}\\nSentiment: {label}', or none", Template, "template"),
    ("options by label, in quotes where YAML reads more, or {}, e.g. {pos: good}", By[Label, Text], "labels"),
    ("the name of a regime (low, medium, high, all) or a number of rows of at least 1", Size, "regime null_rows"),
    (_COUNT, AtLeast1, "batch_size max_length sentences demonstrations corpus_rows link_rows test_rows pairs triples"),
    (
        _COUNT,
        AtLeast1,
        "real_rows real_held_out real_batch_size real_epochs real_task_rows real_test_rows real_task_epochs",
    ),
    ("the name of a method, e.g. b_v", Method, "method"),
    (_COUNT, AtLeast1, "epochs rate_epochs patch_epochs link_epochs"),
    ("a whole number of at least 1, or paper", Literal["paper"] | AtLeast1, "evaluated"),
    ("a whole number of at least 0", Natural, "seed"),
    (_SEEDS, Distinct[Natural], "seeds rate_seeds tried_seeds real_seeds real_tried_seeds"),
    ("a positive number", Positive, "rate patch_rate link_rate real_task_rate"),
    ("a list of distinct positive numbers, e.g. [0.001, 0.01]", Rates, "rates"),
    ("a share of at least 0 and less than 1", Share, "tuning held_out"),
    ("a number from -1 to 1", Correlation, "strength origin_strength"),
    ("a list of distinct numbers from -1 to 1", Distinct[Correlation], "strengths"),
    ("true or false", Flag, "offline names real_crows"),
    ("each or last", Validate, "validate"),
    ("float32 or bfloat16", Precision, "dtype real_dtype"),
    ("a list of distinct precisions, e.g. [float32, bfloat16]", Distinct[Precision], "dtypes"),
    (
        "a list of distinct methods, e.g. [b_q, b_v]",
        Distinct[Method],
        "methods rate_methods form_methods cell_methods size_methods baseline_methods transfer_methods layer_methods",
    ),
    ("rates by method, e.g. {full: 1e-5, mask: 1e-3}", By[Method, Positive], "method_rates"),
    ("a list of distinct patches, e.g. [b_v, lora]", Distinct[Patch], "patches second_patches real_patches"),
    ("rates by patch, e.g. {lora: 1e-3}", By[Patch, Positive], "patch_rates real_rates"),
    ("lists of rates by method, perhaps none, e.g. {full: [3e-5, 1e-4]}", By[Method, Rates], "rate_grids"),
    (
        "lists of rates by patch, perhaps none, e.g. {lora: [1e-3, 1e-2]}",
        By[Patch, Rates],
        "tried_rates real_tried_rates",
    ),
    (
        "a list of cells, e.g. [{task: rte, regime: [low, high], epochs: 6}]",
        Cells,
        "cells size_cells form_cells baseline_cells transfer_cells",
    ),
    (
        "a list of cells, perhaps none, e.g. [{task: rte, epochs: 16}]",
        CellsOrNone,
        "long_cells step_cells layer_cells score_cells confirming_cells",
    ),
    ("a list of distinct whole numbers of at least 1, e.g. [1, 2, 4]", Distinct[AtLeast1], "layer_counts"),
    ("a list, perhaps empty, of distinct positive numbers, e.g. [0.01, 0.1]", DistinctOrEmpty[Positive], "layer_rates"),
    ("a list, perhaps empty, of distinct methods, e.g. [b_v]", DistinctOrEmpty[Method], "layer_search"),
    ("a list, perhaps empty, of distinct seeds, e.g. [0, 1, 2]", DistinctOrEmpty[Natural], "layer_seeds"),
    ("a list of names or paths of tasks", Distinct[Text], "transfer_targets"),
    ("a list of names of small models", Distinct[Text], "explained"),
    ("a list of names of shapes, see beft/experiments/shapes.json", Distinct[Text], "shapes"),
    ("a list, perhaps empty, of names of shapes", DistinctOrEmpty[Text], "measured"),
    ("the name of an axis of the word list", Text, "axis"),
    ("the name of an axis, or none", Text, "second_axis"),
    ("a path of a word list as beft/data/word_lists.json, or none for that one", Text, "word_list"),
    ("microworld_posts, a path of posts, or none", Text, "transfer"),
    ("mnli, a path of sentence pairs, or none", Text, "nli"),
    (
        "a list of kinds of sentences: film, product, editorial, tweet; or microworld_people",
        Distinct[Text],
        "real_corpus",
    ),
    ("the name of a task with a prompt, or none", Text, "real_task"),
)
OWN = ("validation", "template", "labels")
"""Parameters that belong to a file of one's own: "none", or no labels, where nothing is given."""
COMMON = "model task regime batch_size max_length evaluated offline"
NOTEBOOKS: dict[str, Parameters] = {
    notebook: {name: PARAMETERS[name] for name in f"{COMMON} {names}".split()}
    for notebook, names in {
        "00_quickstart": "file validation method seed rate epochs",
        "01_expressiveness": "seed sentences",
        "02_ranking": "validation seeds rate rates rate_grids rate_methods rate_seeds epochs tuning held_out dtype "
        "dtypes cells layer_cells layer_methods layer_seeds layer_rates layer_counts layer_search",
        "03_fine_tuning": "validation methods seeds rate rates rate_grids rate_methods rate_seeds form_methods "
        "form_cells epochs null_rows rate_epochs tuning held_out validate dtype cells cell_methods confirming_cells "
        "long_cells size_cells step_cells size_methods baseline_cells baseline_methods transfer_cells "
        "transfer_targets transfer_methods method_rates",
        "04_bias_free_injection": "validation template labels methods seeds rate rates rate_grids rate_seeds tuning "
        "method_rates epochs held_out dtype cells confirming_cells score_cells layer_cells layer_methods layer_seeds "
        "layer_rates layer_counts layer_search demonstrations explained shapes measured",
        "05_debiasing": "seeds axis word_list names corpus corpus_rows patches patch_rate patch_rates patch_epochs "
        "tried_rates tried_seeds second_axis second_patches pairs triples strength origin_strength strengths link_rows "
        "link_epochs link_rate rate epochs test_rows transfer nli real_model real_corpus real_rows real_held_out "
        "real_patches real_rates real_tried_rates real_tried_seeds real_epochs real_batch_size real_seeds real_dtype "
        "real_crows real_task real_task_rows real_test_rows real_task_rate real_task_epochs",
        "06_efficiency": "seed sentences",
    }.items()
}
"""The parameters of each notebook, in the order in which they are printed."""
