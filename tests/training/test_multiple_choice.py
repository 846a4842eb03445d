"""Language models tuned on prompts: the losses, the shared computation, generation, and the one training loop."""

from __future__ import annotations

import json
import string
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fitting import fitted
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders
from tokenizers import models as tokenizer_models
from transformers import PreTrainedTokenizerFast

from beft.anatomy.projections import describe
from beft.bank.baselines import open_bank
from beft.bank.export import merge
from beft.data.batching import CHUNKS, EncodedOptions, encode_options
from beft.data.datasets import Draw, prompt_dataset
from beft.data.prompts import Example, Prompt
from beft.data.sources import load_prompts
from beft.errors import BeftError
from beft.experiments import ranking, sweep
from beft.experiments import zero_shot as untuned
from beft.experiments.context import Context
from beft.models import loading as models
from beft.models.loading import Loaded
from beft.records.store import Store
from beft.study import Run, Study
from beft.theory import null_key_bias as tiny_models
from beft.theory.scores import mag_angle, magnitude
from beft.training.multiple_choice import Prompted, choice_score, paths
from beft.training.prompting import generate, option_scores, token_f1

STUDY = Study(model="zoo", task="made up", regime="low", epochs=3, batch_size=4, max_length=200, validate="last")


def letters() -> PreTrainedTokenizerFast:
    """A token per character, within the specimens' vocabulary."""
    characters = ["<pad>", "<s>", "</s>", "\n", *sorted({*string.printable[:95]})]
    vocabulary = {c: i for i, c in enumerate(characters)}
    backend = Tokenizer(tokenizer_models.BPE(vocab=vocabulary, merges=[], unk_token="<pad>"))
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>")


def loaded(name: str = "LLaMA") -> Loaded:
    model = tiny_models.build(name, auto="AutoModelForCausalLM").float().requires_grad_(False)
    return Loaded(model, letters(), name, "zoo", "none", "none")


def some_data(form: str = "options", rows: int = 12) -> Any:
    """Sums and their parity: short prompts of several lengths, options of one to four characters."""
    draw = np.random.default_rng(0)
    examples = []
    for _ in range(rows):
        a, b = draw.integers(0, 30, 2)
        prompt, odd = f"{a}+{b} is\n", int((a + b) % 2)
        if form == "options":
            examples.append(Example(prompt, ("Yes", "No", "Now"), odd))
        elif form == "choice":
            examples.append(Example(prompt, (" even", " odd"), odd))
        else:
            examples.append(Example(prompt, answers=(str(a + b),)))
    metric = "f1" if form == "answer" else "accuracy"
    return prompt_dataset(
        Prompt("sums", "made up", (), None, form, metric), examples, examples[: rows // 2], "made here"
    )  # type: ignore[arg-type]


def everyone(data: Any, runs: int = 1) -> list[Draw]:
    return [Draw(np.arange(len(data.train)), np.arange(0))] * runs


def plain_loss(model: Any, tokenizer: Any, example: Example, form: str) -> float:
    """The loss of one example, each option computed by itself."""
    options = (f" {example.answers[0]}\n",) if form == "answer" else example.options
    means = []
    for option in options:
        front, ids = tokenizer(example.prompt)["input_ids"], tokenizer(example.prompt + option)["input_ids"]
        log_probs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        means.append(log_probs[np.arange(len(front) - 1, len(ids) - 1), ids[len(front) :]].mean())
    if form == "options":
        return float(-torch.stack(means).log_softmax(0)[example.label])
    return float(-means[0 if form == "answer" else example.label])


@pytest.mark.parametrize("form", ["options", "choice", "answer"])
@pytest.mark.parametrize("name", ["LLaMA", "OPT", "GPT-2", "BLOOM", "GPT-J", "Falcon (grouped)"])
def test_losses_are_those_of_every_option_computed_alone(name, form):
    here, data = loaded(name), some_data(form)
    objective = Prompted(here, data, STUDY, everyone(data))
    with open_bank(here.model, ["b_v"], [0]) as bank, torch.no_grad():
        got = objective.loss(bank, torch.zeros(12, dtype=torch.long), None, np.arange(12))
    with torch.no_grad():
        wanted = [plain_loss(here.model, here.tokenizer, e, form) for e in data.train.rows]
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-4, atol=1e-5)
    assert 0 < objective.padding.efficiency <= 1


def test_options_of_one_token_need_the_prompt_alone():
    sequences = ([1, 5, 6, 7], [1, 5, 6, 8], [1, 5, 6, 9])
    found = paths(EncodedOptions(sequences, (3, 3, 3)), range(3))
    assert found.ids == [[1, 5, 6]] and [own for _, _, own in found.reads] == [[7], [8], [9]]
    longer = paths(EncodedOptions((*sequences[:2], [1, 5, 6, 9, 4]), (3, 3, 3)), range(3))
    assert longer.ids == [[1, 5, 6, 9]] and [at.tolist() for _, at, _ in longer.reads] == [[2], [2], [2, 3]]
    assert longer.tokens == 4
    apart = paths(EncodedOptions(([1, 2, 3, 4], [1, 2, 5, 6]), (2, 2)), [0, 1])
    assert len(apart.ids) == 2 and apart.tokens == 6


RUNS = [Run("b_v", 0, 1e-2), Run("b_q", 0, 1e-2), Run("b_v", 1, 3e-2)]


def values_of(here: Loaded, data: Any, study: Study, runs: list[Run], run: int) -> tuple[list[torch.Tensor], Any]:
    kept: list[torch.Tensor] = []
    results = fitted(
        here,
        data,
        study,
        runs,
        device="cpu",
        at_end=lambda bank, _: kept.extend(s.values[run].detach().clone() for s in bank.slots if s.trained[run]),
    )
    return kept, results[run]


@pytest.mark.parametrize("form", ["options", "choice", "answer"])
def test_a_run_in_a_bank_of_language_models_is_the_run_alone(form):
    here, data = loaded(), some_data(form)
    study = replace(STUDY, schedule="linear")
    for run in range(3):
        together, result = values_of(here, data, study, RUNS, run)
        alone, lone = values_of(here, data, study, [RUNS[run]], 0)
        assert len(together) == len(alone) == tiny_models.LAYERS
        for a, b in zip(together, alone, strict=True):
            assert b.abs().max() > 1e-4
            torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-4)
        losses = [[e["train_loss"] for e in r.epochs] for r in (result, lone)]
        np.testing.assert_allclose(*losses, rtol=1e-3)
        assert result.epochs[-1]["validation"] == lone.epochs[-1]["validation"]


def test_tuning_an_injected_bias_learns_something():
    here, data = loaded(), some_data("options")
    _, result = values_of(here, data, replace(STUDY, epochs=12), [Run("b_v", 0, 3e-2)], 0)
    losses = [e["train_loss"] for e in result.epochs]
    assert losses[-1] < 0.7 * losses[0]
    assert result.rows == {"train": 12, "tuning": 0, "validation": 6}
    assert result.parameters == {"bias": tiny_models.LAYERS * 2 * tiny_models.SIZE, "head": 0, "pooler": 0}


def test_the_same_seed_gives_the_same_run_bit_for_bit():
    data = some_data("choice")
    first, second = (values_of(loaded(), data, STUDY, RUNS[:2], 1) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True))
    assert first[1].epochs == second[1].epochs


def test_a_linear_schedule_is_torchs(monkeypatch):
    """One run against torch.optim.AdamW with a falling rate, its gradients those of a bank of one."""
    here, data = loaded(), some_data("choice", rows=8)
    study = replace(STUDY, schedule="linear", clip=1e9)
    tuned, _ = values_of(here, data, study, [Run("b_v", 0, 1e-2)], 0)
    objective = Prompted(here, data, study, everyone(data))
    with open_bank(here.model, ["b_v"], [0]) as bank:
        values = [s.values for s in bank.slots]
        optimizer = torch.optim.AdamW(values, lr=1e-2, weight_decay=0, eps=study.eps)
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 6)
        for epoch in range(1, 4):
            chosen = np.random.RandomState(0).permutation(8)
            order = np.random.default_rng([0, epoch]).permutation(chosen)
            for at in (order[:4], order[4:]):
                objective.loss(bank, torch.zeros(4, dtype=torch.long), None, at).mean().backward()
                optimizer.step()
                rate.step()
                optimizer.zero_grad()
        for a, b in zip(tuned, values, strict=True):
            torch.testing.assert_close(a, b[0], rtol=1e-2, atol=1e-4)


def test_a_constant_rate_keeps_the_identity_of_older_records():
    assert "schedule" not in STUDY.identity()
    assert replace(STUDY, schedule="linear").identity()["schedule"] == "linear"
    assert "prompted" not in STUDY.identity() and replace(STUDY, prompted=True).identity()["prompted"] is True
    with pytest.raises(BeftError, match="unknown schedule 'cosine'"):
        replace(STUDY, schedule="cosine")


def test_scores_are_taken_on_tuning_rows_and_validation_for_every_run():
    here, data = loaded(), some_data("options")
    draws = [Draw(np.arange(8), np.arange(8, 12)), Draw(np.arange(4, 12), np.arange(4))]
    objective = Prompted(here, data, STUDY, draws)
    with open_bank(here.model, ["b_v", "b_q"], [0, 0]) as bank:
        found = objective.scores(bank, True, True, CHUNKS["cpu"])
        only = objective.scores(bank, False, False, CHUNKS["cpu"])
    assert len(found["tuning"]) == len(found["validation"]) == 2
    assert found["validation"][0] == found["validation"][1], "nothing is trained yet"
    assert only["validation"] == [None, None] and only["tuning"] == found["tuning"]
    expected = [
        np.mean([np.argmax(s.mean) == e.label for s, e in zip(option_scores(here.model, encoded), some, strict=True)])
        for some in (data.train.rows[8:12], data.train.rows[:4], data.validation.rows)
        for encoded in [[encode_options(here.tokenizer, e, 200) for e in some]]
    ]
    assert [*found["tuning"], found["validation"][0]] == pytest.approx(expected)


def test_any_of_several_right_options_is_right():
    examples = [Example("", ("a", "b", "c"), 0, right=(0, 2)), Example("", ("a", "b"), 1, right=(1,))]
    assert choice_score("accuracy", examples, np.array([2, 1])) == 1.0
    assert choice_score("accuracy", examples, np.array([1, 1])) == 0.5


@pytest.mark.parametrize("method", ["full", "mask", "lora"])
@pytest.mark.parametrize("name", ["LLaMA", "OPT"])
def test_baselines_that_train_weights_score_and_write_as_the_plain_model_they_come_to(method, name):
    here, data = loaded(name), some_data("options")
    before = {n: x.clone() for n, x in here.model.state_dict().items()}
    kept: dict[str, Any] = {}
    encoded = [encode_options(here.tokenizer, e, 200) for e in data.validation.rows]
    prompts = [Example("one two "), Example("3")]

    def look(bank, results):
        kept["scores"] = option_scores(bank, encoded)
        kept["texts"] = generate(bank, here.tokenizer, prompts, 100, new_tokens=5)
        kept["plain"] = merge(bank, 0)

    (result,) = fitted(here, data, replace(STUDY, epochs=2), [Run(method, 0, 1e-2)], at_end=look)
    plain = kept["plain"]
    assert result.outcome == "ok" and result.parameters["weights"] > 0
    for mine, theirs, old in zip(
        kept["scores"], option_scores(plain, encoded), option_scores(here.model, encoded), strict=True
    ):
        np.testing.assert_allclose(mine.total, theirs.total, atol=1e-3)
        assert not np.allclose(mine.total, old.total, atol=1e-3)
    assert kept["texts"] == generate(plain, here.tokenizer, prompts, 100, new_tokens=5)
    after = here.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)


# --- generation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["LLaMA", "OPT", "GPT-2", "BLOOM"])
def test_answers_are_the_same_whatever_the_batch_and_end_at_a_line(name):
    here = loaded(name)
    examples = [Example("a short one "), Example("one that is rather longer than the first "), Example("b")]
    together = generate(here.model, here.tokenizer, examples, 100, new_tokens=12)
    alone = [generate(here.model, here.tokenizer, [e], 100, new_tokens=12)[0] for e in examples]
    assert together == alone and all("\n" not in text for text in together)
    for text, e in zip(together, examples, strict=True):
        ids = here.tokenizer(e.prompt)["input_ids"]
        said = []
        with torch.no_grad():
            for _ in range(12):
                said.append(int(here.model(input_ids=torch.tensor([ids + said])).logits[0, -1].argmax()))
                if "\n" in here.tokenizer.decode(said) or said[-1] == 2:
                    break
        assert text == here.tokenizer.decode(said, skip_special_tokens=True).partition("\n")[0].strip()


def test_every_run_of_a_bank_writes_its_own_answer():
    here, examples = loaded(), [Example("one two three "), Example("four ")]
    with open_bank(here.model, ["b_v", "b_v"], [0, 1]) as bank:
        for slot in bank.slots:
            slot.values.data[1] = 3 * torch.randn(slot.values.shape[1:], generator=torch.Generator().manual_seed(0))
        both = generate(bank, here.tokenizer, examples * 2, 100, [0, 0, 1, 1], new_tokens=8)
        again = generate(bank, here.tokenizer, examples, 100, [1, 1], new_tokens=8)
    assert both[:2] == generate(here.model, here.tokenizer, examples, 100, new_tokens=8)
    assert both[2:] == again != both[:2]


def test_a_prompt_that_leaves_no_room_for_an_answer_is_an_error():
    here = loaded()
    with pytest.raises(BeftError, match="must not be cut"):
        generate(here.model, here.tokenizer, [Example("x" * 90)], 100)


@pytest.mark.parametrize(
    ("text", "answers", "expected"),
    [
        ("the red Fox!", ["red fox"], 1.0),
        ("red", ["red fox"], 2 / 3),
        ("a big red fox", ["red fox", "nothing"], 0.8),
        ("", ["red"], 0.0),
        ("the", ["an"], 1.0),
        ("fox fox", ["fox"], 2 / 3),
        ("red", [], 0.0),
    ],
)
def test_f1_of_tokens(text, answers, expected):
    assert token_f1(text, answers) == pytest.approx(expected)


def test_examples_are_encoded_with_their_own_options():
    tokenizer = letters()
    found = encode_options(tokenizer, Example("2+2 is\n", ("Yes", "No"), 0), 100)
    assert [tokenizer.decode(s[at:]) for s, at in zip(found.sequences, found.starts, strict=True)] == [
        "Yes",
        "No",
    ]


# --- sweeps -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """A folder with a small LLaMA, and a folder of data sets with COPA's columns, its rows made up."""
    here = loaded()
    here.model.save_pretrained(tmp_path / "llama")
    here.tokenizer.save_pretrained(tmp_path / "llama")
    home = tmp_path / "data" / "super_glue" / "copa"
    home.mkdir(parents=True)
    rows = [
        {
            "premise": f"{i} fell.",
            "choice1": f"{i} rose.",
            "choice2": "Ants ran.",
            "question": "effect",
            "label": i % 2,
        }
        for i in range(10)
    ]
    for split in ("train", "validation"):
        (home / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("BEFT_DATA", str(tmp_path / "data"))
    return tmp_path


def test_a_sweep_records_runs_of_a_language_model_and_finds_them_again(at_home):
    study = Study(
        str(at_home / "llama"), "copa", epochs=2, batch_size=4, prompted=True, schedule="linear", offline=True
    )
    store = Store(at_home / "records")
    first = sweep.run(study, RUNS, store, progress=False)
    assert [r["outcome"] for r in first] == ["ok"] * 3
    assert first[0]["settings"]["prompted"] is True and first[0]["settings"]["schedule"] == "linear"
    assert first[0]["data"]["source"] == "data folder, super_glue/copa" and first[0]["bank"]["runs"] == 3
    assert first[0]["parameters"] == {"bias": tiny_models.LAYERS * 2 * tiny_models.SIZE, "head": 0, "pooler": 0}
    assert sweep.run(study, RUNS, store, progress=False) == first
    folder = sweep.adapter(study, RUNS[0], store)
    assert json.loads((folder / "adapter_config.json").read_text())["task_type"] == "CAUSAL_LM"


@pytest.mark.parametrize("name", ["LLaMA", "Phi-3"])  # the second: one matrix for all three terms, grouped heads
def test_the_fisher_scores_of_prompts_are_those_of_each_examples_own_gradient(at_home, name):
    here = loaded(name)
    here.model.save_pretrained(at_home / "bare")
    here.tokenizer.save_pretrained(at_home / "bare")
    study = Study(str(at_home / "bare"), "copa", epochs=1, batch_size=4, prompted=True, schedule="linear", offline=True)
    (record,) = ranking.score_study(study, [0], 1e-3, Store(at_home / "records"), progress=False)
    assert record["by_epoch"] == [] and set(record["scores"]) == {"fisher", "fisher_batch", "reach"}
    assert record["scores"]["reach"] is None

    context = Context(study)
    model, anatomy = context.loaded.model, describe(context.loaded.model)
    squares = {(site.term, site.layer): [] for site in anatomy.sites}
    for example in context.data.train.rows:  # a plain model with biases of zero, one prompt at a time
        added = {site: torch.zeros(site.part.size, requires_grad=True) for site in anatomy.sites}
        hooks = [
            model.get_submodule(site.module).register_forward_hook(
                lambda m, args, out, part=site.part, b=bias: out + part.put(b, out.shape[-1])
            )
            for site, bias in added.items()
        ]
        encoded = encode_options(context.loaded.tokenizer, example, study.max_length)
        ids, start = encoded.sequences[example.label], encoded.starts[example.label]  # COPA learns the right option
        log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        (-log_probs[range(start - 1, len(ids) - 1), ids[start:]].mean()).backward()
        for site, bias in added.items():
            squares[site.term, site.layer].append(bias.grad.square().mean().item())
        for hook in hooks:
            hook.remove()
    for term, values in record["scores"]["fisher"].items():
        plain = [np.mean(squares[term, layer]) for layer in range(anatomy.layers)]
        np.testing.assert_allclose(values, plain, rtol=1e-3)


@pytest.mark.parametrize(
    "name", ["Qwen2", "GPT-2", "GPT-NeoX", "Falcon (grouped)"]
)  # the last three: one for all terms
def test_a_language_model_with_biases_of_its_own_is_scored_by_what_a_run_makes_of_them(at_home, name):
    here = loaded(name)
    places = {site.module: here.model.get_submodule(site.module) for site in describe(here.model).sites}
    for place in places.values():
        torch.nn.init.normal_(place.bias, std=0.1)
    here.model.save_pretrained(at_home / "biased")
    here.tokenizer.save_pretrained(at_home / "biased")
    study = Study(
        str(at_home / "biased"), "copa", epochs=2, batch_size=4, prompted=True, schedule="linear", offline=True
    )
    store, run = Store(at_home / "records"), Run("all_biases", 0, 0.01)
    (record,) = ranking.score_study(study, [0], run.rate, store, progress=False)
    assert [row["epoch"] for row in record["by_epoch"]] == [1, 2] and record["scores"]["reach"] is None

    (tuned,) = sweep.run(study, [run], store, progress=False)
    assert tuned["epochs"][-1]["train_loss"] == record["epochs"][-1]["train_loss"], "it is the run of all biases"
    sweep.export(study, run, store, at_home / "tuned")
    after = load_file(at_home / "tuned" / "model.safetensors")
    for site in describe(here.model).sites:
        b0, b1 = places[site.module].bias.detach(), after[f"{site.module}.bias"]
        for score in (magnitude, mag_angle):
            value = record["scores"][score.__name__][site.term][site.layer]
            own = score(site.part.take(b0).numpy(), site.part.take(b1).numpy())
            assert value == pytest.approx(own, rel=1e-2, abs=1e-7) and value > 0


# --- untuned ----------------------------------------------------------------------------------------------------------


def test_a_model_is_scored_as_it_is_and_with_demonstrations(at_home):
    study = Study(str(at_home / "llama"), "copa", prompted=True, offline=True, max_length=400)
    store = Store(at_home / "records")
    (zero,) = untuned.score_untuned(study, [0, 1, 2], store)
    shown = untuned.score_untuned(study, [0, 1], store, demonstrations=3)
    assert zero["kind"] == "untuned" and zero["demonstrations"] == 0
    assert [r["demonstrations"] for r in shown] == [3, 3] and len(store.all("untuned")) == 3
    assert untuned.score_untuned(study, [0, 1], store, demonstrations=3) == shown
    data = load_prompts("copa")
    here = models.load_causal(study.model)
    rows = np.random.RandomState(1).permutation(10)[:3]
    before = "".join(untuned.demonstration(data.train.rows[i]) + "\n\n" for i in rows)
    means = [[plain_mean(here, before + e.prompt, option) for option in e.options] for e in data.validation.rows]
    right = np.mean([np.argmax(m) == e.label for m, e in zip(means, data.validation.rows, strict=True)])
    assert shown[1]["validation"] == pytest.approx(right)


def plain_mean(here: Loaded, prompt: str, option: str) -> float:
    front, ids = here.tokenizer(prompt)["input_ids"], here.tokenizer(prompt + option)["input_ids"]
    with torch.no_grad():
        log_probs = here.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return float(log_probs[np.arange(len(front) - 1, len(ids) - 1), ids[len(front) :]].mean())


def test_as_many_demonstrations_are_shown_as_fit():
    tokenizer, shown = letters(), [Example("12345 is\n", ("Yes",), 0)] * 32
    text, used = untuned.fitting(tokenizer, shown, [Example("1 is\n", ("No",), 0)], 100)
    assert text == "12345 is\nYes\n\n" * used and used == (100 - 7) // 14
    assert untuned.fitting(tokenizer, shown, [Example("1 is\n", ("No",), 0)], 10) == ("", 0)


def test_a_study_that_is_not_prompted_is_refused_and_answers_are_shown_too(at_home):
    with pytest.raises(BeftError, match="prompted=True"):
        untuned.score_untuned(Study(task="copa"), [0], Store(at_home / "records"))
    assert untuned.demonstration(Example("Q?\nA:", answers=("red", "blue"))) == "Q?\nA: red"


# --- export -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "holds"), [("LLaMA", True), ("GPT-2", False), ("OPT", True)])
@pytest.mark.parametrize("method", ["b_v", "b_v:lora", "full"])
def test_a_recorded_run_leaves_as_a_plain_checkpoint(at_home, name, holds, method):
    here = loaded(name)
    here.model.save_pretrained(at_home / "other")
    here.tokenizer.save_pretrained(at_home / "other")
    study = Study(str(at_home / "other"), "copa", epochs=2, batch_size=4, prompted=True, offline=True)
    store, run = Store(at_home / "records"), Run(method, 0, 1e-2)
    (record,) = sweep.run(study, [run], store, progress=False)
    if method != "full" and not holds:
        with pytest.raises(BeftError, match="no bias that PEFT's BEFT can hold: export"):
            sweep.adapter(study, run, store)
    folder = sweep.export(study, run, store, at_home / "plain")
    plain = models.load_causal(str(folder))
    data = load_prompts("copa")
    score = untuned.evaluate(plain.model, plain.tokenizer, data, 128)
    assert score == record["final"]["validation"]
    assert sweep.run(study, [run], store, progress=False) == [record]
    moved = [x for n, x in plain.model.state_dict().items() if n.endswith("bias") and x.any()]
    assert moved or method == "full"
