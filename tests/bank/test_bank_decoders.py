"""A bank on language models: every family's layout, biases that are there and biases that are injected."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from beft.anatomy import projections as anatomy
from beft.bank.bank import BiasBank
from beft.bank.baselines import open_bank
from beft.bank.dropout import example_keys
from beft.errors import BeftError
from beft.theory import null_key_bias as tiny_models
from beft.theory.expressiveness import perturb

SEQUENCES = ("T5", "BART")
ENCODERS = (
    *("BERT", "RoBERTa", "XLM-RoBERTa", "CamemBERT", "DistilBERT", "ELECTRA", "MPNet", "ALBERT", "ViT"),
    *("DeBERTa-v2 (c2p)", "DeBERTa-v2 (c2p, p2c)", "ModernBERT with biases"),
)
DECODERS = [name for name in tiny_models.ARCHITECTURES if name not in ENCODERS]
WITH_BIASES = ["GPT-2", "OPT", "BLOOM", "Qwen2", "GPT-NeoX", "Falcon (grouped)", "BART"]


def language_model(name: str) -> Any:
    auto = "AutoModelForSeq2SeqLM" if name in SEQUENCES else "AutoModelForCausalLM"
    return tiny_models.build(name, auto=auto).requires_grad_(False)


def batch(model: Any, rows: int = 4) -> dict[str, Tensor]:
    return tiny_models.inputs(model, batch=rows) | {"use_cache": False}


def scatter(bank: BiasBank, seed: int = 0) -> None:
    """Give every run other biases, wherever it trains some."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for slot in bank.slots:
            slot.values.data = slot.values.data.double()
            values = torch.randn(slot.values.shape, generator=generator, dtype=torch.float64)
            slot.values.copy_(values * slot.trained[:, None])


def by_hooks(model: Any, bank: BiasBank, run: int, inputs: dict[str, Tensor]) -> Tensor:
    """The logits of one run: its biases added to the outputs of plain modules, slice by slice."""
    handles = []
    for slot in bank.slots:

        def add(module, args, output, slot=slot):
            each = output.unflatten(-1, (slot.part.blocks, -1)).clone()
            each[..., slot.part.start : slot.part.stop] += slot.values[run].view(slot.part.blocks, -1)
            return each.flatten(-2)

        handles.append(model.get_submodule(slot.module).register_forward_hook(add))
    with torch.no_grad():
        logits = model(**inputs).logits
    for handle in handles:
        handle.remove()
    return logits


@pytest.mark.parametrize("name", DECODERS)
def test_every_run_of_a_bank_is_the_model_with_its_biases(name):
    methods = ["b_q", "b_k", "b_v"] + (["all_biases"] if name in WITH_BIASES else [])
    model, plain = language_model(name), language_model(name)
    inputs = batch(model, rows=2 * len(methods))
    with open_bank(model, methods, [0] * len(methods)) as bank:
        scatter(bank)
        rows = torch.arange(len(methods)).repeat(2)  # (B,): run after run, twice
        with torch.no_grad():
            together = bank(rows, None, **inputs)
        for run in range(bank.R):
            mine = rows == run
            own = {n: x[mine] if isinstance(x, Tensor) else x for n, x in inputs.items()}
            torch.testing.assert_close(together[mine], by_hooks(plain, bank, run, own).float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", DECODERS)
def test_a_bank_counts_what_it_injects_and_gives_the_model_back(name):
    model = language_model(name)
    inputs = batch(model)
    with torch.no_grad():
        before = model(**inputs).logits
    found = anatomy.describe(model)
    with open_bank(model, ["b_q", "b_v"], [0, 0]) as bank:
        assert [bank.parameter_counts(i) for i in range(2)] == [
            {"bias": found.layers * heads * tiny_models.SIZE, "head": 0, "pooler": 0}
            for heads in (tiny_models.HEADS, found.kv_heads)
        ]
        assert bank.biases(1, "v")[0].shape == (found.layers, found.kv_heads * tiny_models.SIZE)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, before)


@pytest.mark.parametrize("name", ["GPT-2", "LLaMA", "GPT-J", "BLOOM", "Gemma 2"])
def test_gradients_of_a_run_are_those_it_has_alone(name):
    model = language_model(name).float()
    inputs = batch(model)

    def gradients(methods: list[str], rows: Tensor, picked: Tensor) -> dict[Any, Tensor]:
        with open_bank(model, methods, [0] * len(methods)) as bank:
            bank(
                rows, None, **{n: x[picked] if isinstance(x, Tensor) else x for n, x in inputs.items()}
            ).square().sum().backward()
            return {(s.module, s.part): s.values.grad[rows[0]] for s in bank.slots if s.trained[rows[0]]}

    mine = gradients(["b_v"], torch.zeros(2, dtype=torch.long), torch.tensor([0, 1]))
    with open_bank(model, ["b_v", "b_q"], [0, 0]) as bank:
        logits = bank(torch.tensor([0, 0, 1, 1]), None, **inputs)
        logits.square().sum().backward()
        theirs = {(s.module, s.part): s.values.grad[0] for s in bank.slots if s.trained[0]}
    assert mine.keys() == theirs.keys()
    for place, value in mine.items():
        torch.testing.assert_close(value, theirs[place], rtol=1e-3, atol=1e-3 * float(value.abs().max()))


@pytest.mark.parametrize("name", ["GPT-2", "OPT", "LLaMA", "GPT-J", "Qwen2"])
def test_dropout_is_that_of_the_example_in_whatever_company(name):
    settings = {"GPT-2": {"attn_pdrop": 0.3}, "GPT-J": {"attn_pdrop": 0.3}}
    config = getattr(transformers, tiny_models.ARCHITECTURES[name].config)(
        **tiny_models.ARCHITECTURES[name].settings, **settings.get(name, {"attention_dropout": 0.3})
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    inputs, keys = batch(model), example_keys(torch.zeros(4), 0, torch.arange(4))
    with open_bank(model, ["b_v"], [0]) as bank, torch.no_grad():
        rows = torch.zeros(4, dtype=torch.long)
        together, without = bank(rows, keys, **inputs), bank(rows, None, **inputs)
        alone = bank(rows[:1], keys[2:3], **{n: x[2:3] if isinstance(x, Tensor) else x for n, x in inputs.items()})
    assert (together - without).abs().max() > 1e-2
    real = inputs["attention_mask"][2].bool()
    torch.testing.assert_close(alone[0][real], together[2][real], atol=1e-4, rtol=1e-4)


def test_a_masked_language_model_has_a_bank_too():
    model = tiny_models.build("BERT", auto="AutoModelForMaskedLM").requires_grad_(False)
    with open_bank(model, ["b_v", "all_biases"], [0, 0]) as bank:
        assert (
            bank.language_model
            and bank(torch.tensor([0, 1]), None, **tiny_models.inputs(model, batch=2)).shape[-1] == 101
        )


def test_bfloat16_leaves_a_tied_output_embedding_alone():
    model = language_model("GPT-2").float()
    before = model.transformer.wte.weight
    with open_bank(model, ["b_v"], [0], dtype="bfloat16") as bank, torch.no_grad():
        assert model.transformer.wte.weight is before and before.dtype == torch.float32
        assert torch.isfinite(bank(torch.zeros(4, dtype=torch.long), None, **batch(model))).all()


@pytest.mark.parametrize(("name", "method"), [("LLaMA", "all_biases"), ("OPT", "head"), ("LLaMA", "head")])
def test_a_method_that_trains_nothing_is_refused(name, method):
    with pytest.raises(BeftError, match=f"{method} trains nothing of .*ForCausalLM"):
        BiasBank(language_model(name), ["b_v", method], [0, 0])


def test_a_classifier_on_a_causal_model_is_refused():
    model = tiny_models.build("OPT", auto="AutoModelForSequenceClassification")
    with pytest.raises(BeftError, match=r"OPTForSequenceClassification \(opt\) is a causal language model"):
        BiasBank(model, ["b_v"], [0])


def test_a_null_key_bias_of_a_decoder_has_no_gradient_and_another_has():
    for name, null in (("OPT", True), ("LLaMA", False)):
        model = language_model(name).float()
        assert anatomy.key_bias_is_null(model).null is null
        with open_bank(model, ["b_k", "b_v"], [0, 0]) as bank:
            bank(torch.tensor([0, 0, 1, 1]), None, **batch(model)).square().mean().backward()
            size = [max(float(s.values.grad[r].norm()) for s in bank.slots if s.trained[r]) for r in range(2)]
        assert (size[0] < 1e-4 * size[1]) is null
    assert perturb(model, tiny_models.inputs(model), anatomy.describe(model).of("k")).relative > 1e-3
