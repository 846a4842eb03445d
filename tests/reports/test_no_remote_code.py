"""No code that comes with a model, an adapter or a tokenizer is ever run, even where somebody would answer "y".

transformers asks on standard input unless it is told `trust_remote_code=False` at every call.
"""

from __future__ import annotations

import ast
import io
import json
import sys
from pathlib import Path

import pytest

from beft.bank.peft_adapter import load_tuned
from beft.errors import BeftError
from beft.experiments.memory import config_of
from beft.models import loading

ROOT = Path(__file__).parents[2]
CLASSES = (
    "AutoConfig",
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForMaskedLM",
    "AutoModelForSequenceClassification",
)


@pytest.fixture
def planted(tmp_path, tiny, monkeypatch):
    """A model's folder whose modules write a file when they are run, and somebody who answers "y" to everything."""
    folder, trace = tmp_path / "planted", tmp_path / "it-ran"
    tiny.model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    code = f"open({str(trace)!r}, 'w').close()\n"
    (folder / "theirs.py").write_text(code + "class Theirs: pass\n")
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code + "def generate(model, **_): pass\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 100))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    yield folder
    assert not trace.exists(), "code of the model was run"
    assert sys.stdin.read() == "y\n" * 100, "somebody was asked"


def change(folder, name, **settings):
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | settings))


LOADS = {
    "a classifier": lambda folder: loading.load(folder, labels=2),
    "a causal model": loading.load_causal,
    "a masked model": loading.load_masked,
    "a config": config_of,
}


@pytest.mark.parametrize("load", list(LOADS))
def test_the_code_of_an_unknown_model_type_is_not_run(planted, load):
    change(planted, "config.json", model_type="theirs", auto_map=dict.fromkeys(CLASSES, "theirs.Theirs"))
    with pytest.raises(BeftError) as caught:
        LOADS[load](str(planted))
    assert "custom code" in str(caught.value) or "such code is not run" in str(caught.value)


def test_the_sentence_says_what_to_give_instead(planted):
    change(planted, "config.json", model_type="theirs", auto_map=dict.fromkeys(CLASSES, "theirs.Theirs"))
    with pytest.raises(BeftError, match="needs code that comes with it.*not run: give a model of an architecture that"):
        loading.load(str(planted), labels=2)


def test_a_known_model_type_is_read_by_transformers_own_code(planted):
    change(planted, "config.json", auto_map=dict.fromkeys(CLASSES, "theirs.Theirs"))
    assert type(loading.load(str(planted), labels=2).model).__module__.startswith("transformers.")


def test_the_code_of_a_tokenizer_is_not_run(planted):
    change(
        planted, "tokenizer_config.json", tokenizer_class="Theirs", auto_map={"AutoTokenizer": ["theirs.Theirs", None]}
    )
    try:
        assert type(loading.load(str(planted), labels=2).tokenizer).__module__.startswith("transformers.")
    except BeftError as error:
        assert "custom code" in str(error) or "such code is not run" in str(error)


def test_attention_that_would_be_fetched_is_refused(planted):
    change(planted, "config.json", attn_implementation="somebody/kernel")
    with pytest.raises(BeftError, match=r"attention by code from the hub \(somebody/kernel\)"):
        loading.load(str(planted), labels=2)


def test_an_adapter_runs_nothing(planted, tiny, monkeypatch):
    from beft.bank.bank import BiasBank
    from beft.bank.peft_adapter import save_adapter

    with BiasBank(tiny.model, ["b_v"], [0]) as bank:
        save_adapter(bank, 0, planted / "adapter", str(planted))
    (planted / "adapter" / "theirs.py").write_text((planted / "theirs.py").read_text())
    monkeypatch.syspath_prepend(planted)
    theirs = {"base_model_class": "Theirs", "parent_library": "theirs"}
    change(planted / "adapter", "adapter_config.json", auto_mapping=theirs, base_model_name_or_path=str(planted))
    change(planted, "config.json", model_type="theirs", auto_map=dict.fromkeys(CLASSES, "theirs.Theirs"))
    assert load_tuned(tiny.model, planted / "adapter") is not None


# --- every call -----------------------------------------------------------------------------------------------------

SOURCES = sorted(p for part in ("beft", "benchmarks", "data/models") for p in (ROOT / part).rglob("*.py"))
LOADERS = ("from_pretrained", "from_config", "pipeline", "load_custom_generate")
# PEFT puts an adapter on a model that is given to it, and takes no such argument.
GIVEN_A_MODEL = ("PeftModel.from_pretrained",)


def loads(source):
    """(line, call, whether it refuses code) of every call that could run code that comes with what it loads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name.split(".")[-1] in LOADERS and name not in GIVEN_A_MODEL:
                refuses = any(
                    k.arg == "trust_remote_code" and isinstance(k.value, ast.Constant) and k.value.value is False
                    for k in node.keywords
                )
                given = [ast.unparse(k.value) for k in node.keywords if k.arg is None]
                yield node.lineno, name, refuses or any(_refuses(source, variable) for variable in given)


def _refuses(source, variable):
    """Whether a dict that is passed on as keywords has it."""
    return any(
        isinstance(node, ast.Assign | ast.AnnAssign)
        and ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target) == variable
        and isinstance(node.value, ast.Dict)
        and "'trust_remote_code': False" in ast.unparse(node.value)
        for node in ast.walk(ast.parse(source))
    )


def test_every_call_that_loads_refuses_code():
    calls = [(path, *call) for path in SOURCES for call in loads(path.read_text(encoding="utf-8"))]
    assert len(calls) > 8
    assert [f"{path.relative_to(ROOT)}:{line} {name}" for path, line, name, refuses in calls if not refuses] == []


def test_nothing_is_unpickled_and_no_code_is_trusted():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("pickle.load", "pickle.loads"), path
                if ast.unparse(node.func) == "torch.load":  # of weights alone it runs no code
                    assert "weights_only=True" in map(ast.unparse, node.keywords), path
            if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle"):
                assert ast.unparse(node.value) == "False", path


@pytest.mark.parametrize(
    ("source", "refuses"),
    [
        ("AutoModel.from_pretrained(x)", [False]),
        ("AutoModel.from_pretrained(x, trust_remote_code=True)", [False]),
        ("AutoModel.from_pretrained(x, trust_remote_code=False)", [True]),
        ("o = {'trust_remote_code': False}\nAutoModel.from_pretrained(x, **o)", [True]),
        ("o = {'trust_remote_code': True}\nAutoModel.from_pretrained(x, **o)", [False]),
        ("pipeline('text-classification', x)", [False]),
        ("PeftModel.from_pretrained(model, x)", []),
    ],
)
def test_a_call_that_does_not_refuse_code_is_found(source, refuses):
    assert [refused for _, _, refused in loads(source)] == refuses
