"""Which runs of single layers there are: of each layer, and of the first few of an order."""

from __future__ import annotations

import pytest
from small_sweep import STUDY

from beft.anatomy.projections import describe
from beft.errors import BeftError
from beft.experiments import layers
from beft.experiments.grid import Cell
from beft.models import loading
from beft.study import Study

CELL = Cell(STUDY, (0, 3), 0.01, {"b_v": 0.02})


def test_each_layer_of_each_term_is_tuned_alone_beside_the_term_and_the_head():
    ((study, runs),) = layers.alone([CELL], ["b_q", "b_v"])
    assert study == STUDY and {run.seed for run in runs} == {0, 3}
    assert list(dict.fromkeys(run.method for run in runs)) == [
        *("head", "b_q", "b_v"),
        *("b_q[0]", "b_q[1]", "b_v[0]", "b_v[1]"),
    ]
    assert {run.rate for run in runs if run.method.startswith("b_v")} == {0.02}, "a term's rate is that of its layers"
    assert {run.rate for run in runs if not run.method.startswith("b_v")} == {0.01}


def test_layers_of_a_language_model_are_tuned_alone_on_prompts():
    study = Study("tiny-llama", "microworld_sentiment", prompted=True, offline=True)
    ((_, runs),) = layers.alone([Cell(study, (0,), 0.01, {})], ["b_v"])
    layers_of_model = describe(loading.load_causal("tiny-llama", offline=True).model).layers
    assert [run.method for run in runs] == ["b_v", *(f"b_v[{n}]" for n in range(layers_of_model))]


def test_few_layers_are_the_first_of_each_order_and_a_set_of_layers_is_tuned_once():
    ((_, runs),) = layers.few([CELL], [{"b_v": [[2, 0, 1], [0, 2, 1]]}], [1, 2, 3])
    assert [run.method for run in runs if run.seed == 0] == ["b_v[2]", "b_v[0,2]", "b_v[0]"]


@pytest.mark.parametrize("term", ["all_biases", "head", "lora", "b_v:lora", "b_v[0]"])
def test_what_is_no_single_term_is_refused(term):
    with pytest.raises(BeftError, match="is no single term with layers of its own"):
        layers.alone([CELL], [term])
