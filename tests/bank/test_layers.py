"""Methods that name layers of a term: their names, what a run of them trains, and that it trains nothing else."""

from __future__ import annotations

import pytest
import torch
from fitting import fitted
from hypothesis import given
from hypothesis import strategies as st

from beft.anatomy.projections import describe
from beft.bank.baselines import open_bank
from beft.bank.export import merge
from beft.bank.peft_adapter import load_adapter, load_tuned, save_adapter
from beft.bank.slots import places
from beft.errors import BeftError
from beft.experiments.context import Context
from beft.experiments.packing import pack
from beft.models import loading as models
from beft.study import Run, Study, layers_of, parse_method
from beft.theory.null_key_bias import build

STUDY = Study(model=models.TINY, task="microworld_sentiment", regime=48, epochs=2, offline=True)


@given(st.sets(st.integers(0, 99), min_size=1), st.sampled_from(["b_q", "b_k", "b_v"]), st.sampled_from(["", ":lora"]))
def test_every_set_of_layers_has_one_name_that_means_it(layers, term, form):
    name = layers_of(term, layers) + form
    method = parse_method(name)
    assert (method.name, method.term, set(method.layers)) == (name, term[-1], layers)
    assert method.base + form == name and method.form == form[1:]
    one_by_one = f"{term}[{', '.join(map(str, sorted(layers, reverse=True)))}]{form}"
    assert Run(one_by_one, 0, 1e-3) == Run(name, 0, 1e-3), "records are keyed by the name"


def test_names_of_layers_are_those_of_python_ranges():
    assert parse_method("b_v[6:12]").layers == (6, 7, 8, 9, 10, 11)
    assert parse_method("b_v[11]").layers == (11,)
    assert parse_method("b_q[0,3:5]").layers == (0, 3, 4)
    assert parse_method("b_v").layers == () and parse_method("all_biases").layers == ()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("b_v[6:6]", r"method 'b_v\[6:6\]' has an empty range of layers, 6:6"),
        ("b_v[6:2]", "empty range of layers"),
        ("b_v[]", "names no layers: write them from 0 as"),
        ("b_v[-1]", "names no layers"),
        ("b_v[6:]", "names no layers"),
        ("b_v[1,]", "names no layers"),
        ("b_v[²]", "names no layers"),
        ("b_w[1]", "unknown method 'b_w"),
        ("head[1]", r"unknown method 'head\[1\]'"),
        ("all_biases[1]", "unknown method"),
        ("b_v[1", "unknown method|names no layers"),
        ("b_v1]", "unknown method"),
        ("b_v[1]lora", "unknown method|names no layers"),
        ("b_v[1]:lorra", "unknown method"),
        ("b_v:lora[1]", "unknown method"),
        (["b_v"], "unknown method"),
    ],
)
def test_layers_that_are_none_are_refused_in_a_sentence(name, message):
    with pytest.raises(BeftError, match=message):
        Run(name, 0, 1e-3)


def test_layers_that_the_model_does_not_have_are_refused(tiny):
    with pytest.raises(BeftError, match=r"b_v\[1:3\] names layer 2, and this .* model has the layers 0 to 1"):
        open_bank(tiny.model, ["b_v[1:3]"], [0])


@pytest.mark.parametrize("name", ["MPNet", "GPT-NeoX", "LLaMA"])
def test_only_the_places_of_these_layers_are_trained(name):
    model = build(name).float().requires_grad_(False)
    site = describe(model).of("v")[1]
    assert list(places(model, "b_v[1]")) == [(site.module, site.part)]
    assert list(places(model, "b_v[0:2]")) == list(places(model, "b_v"))


def test_a_run_of_every_layer_is_the_run_of_the_term_and_one_layer_leaves_the_others_alone(still, sentiment):
    layers = still.model.config.num_hidden_layers
    runs = [Run(method, 0, 1e-2) for method in ("b_v", f"b_v[0:{layers}]", "b_v[1]", "b_q[0]")]

    def look(bank, results):
        torch.testing.assert_close(bank.biases(0, "v")[1], bank.biases(1, "v")[1])
        for run, term, moved in ((2, "v", 1), (3, "q", 0)):
            before, after = bank.biases(run, term)
            assert torch.equal(before[1 - moved], after[1 - moved]) and not torch.equal(before[moved], after[moved])

    whole, named, *_ = fitted(still, sentiment, STUDY, runs, at_end=look)
    assert whole.final["validation"] == named.final["validation"]


def test_runs_share_a_bank_with_those_whose_backward_pass_ends_at_the_same_layer():
    methods = ["b_v[1]", "b_v", "head", "b_q[1]", "b_q[0:2]", "b_v[0]"]
    banks = pack(Context(STUDY), [Run(method, 0, 1e-2) for method in methods])
    assert [[run.method for run in bank] for bank in banks] == [
        ["head"],
        ["b_v"],
        ["b_q[0:2]", "b_v[0]"],
        ["b_v[1]", "b_q[1]"],
    ]


def test_nothing_is_kept_for_a_gradient_below_the_lowest_layer_that_is_trained(tiny):
    batch = dict(tiny.tokenizer(["a good day"], return_tensors="pt"))
    layers = describe(tiny.model).of("v")
    inputs: list[torch.Tensor] = []
    with open_bank(tiny.model, ["b_v[1]"], [0]) as bank:
        handles = [
            tiny.model.get_submodule(site.module).register_forward_hook(lambda m, args, out: inputs.append(args[0]))
            for site in layers
        ]
        bank(torch.zeros(1, dtype=torch.long), **batch).sum().backward()
        for handle in handles:
            handle.remove()
    assert [x.requires_grad for x in inputs] == [False, False], "the bias of layer 1 enters behind its projection"


def test_an_adapter_of_some_layers_comes_back_through_peft_and_into_a_bank(tiny, tmp_path):
    batch = dict(tiny.tokenizer(["a good day", "the bad film"], return_tensors="pt", padding=True))
    with open_bank(tiny.model, ["b_v[1]"], [3]) as bank:
        with torch.no_grad():
            for slot in bank.trained(0):
                slot.values.add_(torch.randn(slot.values.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
        ours = bank(torch.zeros(2, dtype=torch.long), **batch)
        save_adapter(bank, 0, tmp_path / "adapter")
        merged = merge(bank, 0)
    torch.testing.assert_close(merged(**batch).logits, ours, rtol=1e-5, atol=1e-5)
    with open_bank(tiny.model, ["b_v[1]"], [0]) as bank:
        load_adapter(bank, 0, tmp_path / "adapter")
        torch.testing.assert_close(bank(torch.zeros(2, dtype=torch.long), **batch), ours, rtol=0, atol=0)
    with open_bank(tiny.model, ["b_v[0]"], [0]) as bank, pytest.raises(BeftError, match="has no .*layer.0"):
        load_adapter(bank, 0, tmp_path / "adapter")
    tuned = load_tuned(models.load(models.TINY, labels=2).model, tmp_path / "adapter")
    torch.testing.assert_close(tuned(**batch).logits, ours, rtol=1e-5, atol=1e-5)
