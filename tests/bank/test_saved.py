"""A tuned classifier on disk: what is damaged or belongs to something else is one sentence."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import save_file

from beft.bank.saved import ABOUT, About, read_classifier, write_about
from beft.data.own_prompt import parse, wording
from beft.errors import BeftError
from beft.models import loading
from beft.models.files import SHIPPED


@pytest.fixture
def saved(tiny, tmp_path):
    folder = tmp_path / "model"
    tiny.model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    return folder


def test_labels_columns_and_length_come_back(saved):
    about = About(("schlecht", "größer"), ("text_a", "text_b"), 64)
    write_about(saved, about)
    loaded, read = read_classifier(saved)
    assert read == about and loaded.model.config.label2id == {"schlecht": 0, "größer": 1}


def test_a_checkpoint_of_another_has_the_labels_of_its_config_and_columns_that_are_not_known(saved):
    config = json.loads((saved / "config.json").read_text())
    config |= {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
    (saved / "config.json").write_text(json.dumps(config))
    assert read_classifier(saved)[1] == About(("no", "yes"), (), 128)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"columns": []}', "cannot be read"),
        ('{"labels": "ab", "columns": [], "max_length": 8}', "does not hold labels"),
        ('{"labels": ["a", "b"], "columns": ["a", "b", "c"], "max_length": 8}', "does not hold labels"),
        ('{"labels": ["a", "b", "c"], "columns": [], "max_length": 8}', "has 3 labels for 2 outputs"),
        ('{"labels": ["a", "b"], "template": "{text} {label}"}', "has a template and no options by label"),
        ('{"labels": ["a", "b"], "template": "{text}", "options": {}}', r"holds no prompt \(template '{text}' has no"),
        (
            '{"labels": ["a", "b"], "template": "{t} {label}", "options": {"a": "x"}}',
            "holds no prompt .*option for 'b'",
        ),
    ],
)
def test_a_damaged_note_is_refused(saved, content, says):
    (saved / ABOUT).write_text(content)
    with pytest.raises(BeftError, match=rf"{ABOUT} {says}"):
        read_classifier(saved)


@pytest.fixture
def prompted(tmp_path):
    folder = tmp_path / "model"
    loaded = loading.load_causal("tiny-llama")
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    template = parse("{title}: {text}\n{body} is\n {label}")
    words = wording(template, ("a|b", "c"), {"a|b": "good", "c": "so\nbad"}, "here")
    write_about(folder, About(("a|b", "c"), ("title", "text", "body"), 64, words))
    return folder, words


def test_a_prompt_comes_back_with_a_language_model_and_stands_in_the_readme(prompted):
    folder, words = prompted
    loaded, about = read_classifier(folder)
    assert about == About(("a|b", "c"), ("title", "text", "body"), 64, words)
    assert loaded.model.get_output_embeddings() is not None
    card = (folder / "README.md").read_text()
    assert "    {title}: {text}\n    {body} is\n     {label}\n" in card
    assert "| a\\|b | good |\n| c | so<br>bad |" in card and "most\n64 tokens" in card
    write_about(folder, about)
    assert (folder / "README.md").read_text() == card, "the section is written once"


def test_weights_without_a_head_are_refused_not_drawn():
    with pytest.raises(BeftError, match=r"lack 2 of the model's tensors .* \(classifier.bias\)"):
        read_classifier(SHIPPED / "tiny-bert")


def test_a_folder_without_a_model_and_a_file_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path, tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(BeftError, match="holds no saved model and no adapter"):
            read_classifier(place)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("{", "adapter in .* cannot be read"),
        ("[]", "is not that of a PEFT adapter"),
        ('{"peft_type": "BEFT", "base_model_name_or_path": "tiny-bert"}', "has no head for texts with labels"),
    ],
)
def test_a_damaged_adapter_is_refused(tmp_path, config, says):
    save_file({}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(config)
    with pytest.raises(BeftError, match=says):
        read_classifier(tmp_path)


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-random-bert"])
def test_the_shape_of_a_model_has_no_values(name):
    model = loading.shape_of(name)
    assert model.config.model_type == "bert"
    assert {p.device.type for p in model.parameters()} == {"meta" if name == "tiny-bert" else "cpu"}
