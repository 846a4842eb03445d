"""The command line: a file of reviews is tuned, saved, exported and predicted with, without a line of Python. Labels
alone go to standard output; bad input is one sentence and status 2, Ctrl-C at any moment one sentence and status 130.
"""

from __future__ import annotations

import inspect
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import beft
from beft import paths
from beft.command_line import INTERRUPTED, main
from beft.models.files import TINY

SMALL = ["--model", TINY, "--offline"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with reviews and a model tuned on them: as a checkpoint, and as an adapter."""
    folder = tmp_path_factory.mktemp("home")
    rows = [f"the film was {'good' if i % 3 else 'bad'} {i},{'yes' if i % 3 else 'no'}" for i in range(30)]
    (folder / "reviews.csv").write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        options = ["--epochs", "2", "--rate", "1e-2", "--save", "model", "--adapter", "adapter"]
        assert main(["tune", "reviews.csv", *SMALL, *options]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def _there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def test_tuning_prints_the_score_by_its_name_beside_the_largest_class_and_where_things_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["tune", "reviews.csv", *SMALL, "--epochs", "1", "--save", "again", "--adapter", "its/adapter"]) == 0
    printed = capsys.readouterr()
    score, *places = printed.out.splitlines()[-3:]
    tuned = beft.tune("reviews.csv", model=TINY, epochs=1, offline=True, progress=False)
    assert tuned.result is not None and tuned.majority == pytest.approx(2 / 3)
    assert score == f"accuracy {tuned.score:.3f} on 6 validation rows, 66.7% of which are of the largest class"
    assert places == ["adapter: its/adapter", "model: again"]
    assert "b_v on reviews" in printed.err, "the progress bar"
    assert {"beft.json", "config.json"} <= {path.name for path in Path("again").iterdir()}


def test_how_the_file_is_read_reaches_the_same_function(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def tune(task: str, **settings: object) -> None:
        asked.append({"task": task} | settings)
        raise beft.BeftError("enough")

    monkeypatch.setattr("beft.api.tune", tune)
    reading = ["--kind", "values", "--drop", "blank", "--drop", "rare", "--validation", "v.csv"]
    assert main(["tune", "reviews.csv", *reading, "--column", "text=review", "--column", "label=a=b"]) == 2
    expected = {"kind": "values", "drop": ["blank", "rare"], "validation": "v.csv"}
    expected |= {"columns": {"text": "review", "label": "a=b"}}
    assert asked == [{"task": "reviews.csv", "progress": True, "offline": False} | expected]


def test_a_template_with_its_options_tunes_a_language_model_and_predicts_with_it(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--template", r"{text}\nAll in all, {label}", "--label", "yes=good", "--label", "no=bad"]
    small = ["--model", "tiny-llama", "--offline", "--epochs", "1", "--quiet"]
    assert main(["tune", "reviews.csv", *small, *options, "--save", "prompted"]) == 0
    assert "accuracy 0." in capsys.readouterr().out
    (home / "some.txt").write_text("a good film\nbad and slow\n", encoding="utf-8")
    assert main(["predict", "prompted", "some.txt", "--offline"]) == 0
    answers = capsys.readouterr().out.splitlines()
    tuned = beft.Tuned.load("prompted")
    assert answers == tuned.predict(["a good film", "bad and slow"]) and set(answers) <= {"yes", "no"}
    assert tuned.wording is not None and tuned.wording.template.text == "{text}\nAll in all, {label}"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--label", "good"], "--label good is no option of a label: write --label pos=good"),
        (["--label", "a=b", "--label", "a=c"], "--label names a twice: give it once"),
        (["--label", "a=b"], "labels are the options of a template, and there is none"),
        (["--template", "{text}"], "has no place for the label"),
    ],
)
def test_a_template_or_an_option_that_is_none_is_one_sentence(
    options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "reviews.csv", "--model", "tiny-llama", "--offline", *options]) == 2
    assert says in capsys.readouterr().err


def test_without_a_folder_it_says_that_nothing_was_saved(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "reviews.csv", *SMALL, "--epochs", "1", "--quiet", "--max_length=16"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1].startswith("nothing was saved: --save FOLDER") and "step" not in printed.err


@pytest.mark.parametrize("folder", ["model", "adapter"])
def test_predictions_are_those_of_python_one_a_line(
    home: Path, folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["a good film", "bad and slow"]
    answers = [f"{label}\n" for label in beft.Tuned.load(folder, offline=True).predict(texts)]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(texts) + "\n"))
    assert main(["predict", folder, "-", "--offline"]) == 0
    assert capsys.readouterr().out == "".join(answers)
    (home / "new.txt").write_text("\n".join(texts), encoding="utf-8")
    (home / "new.csv").write_text("id,text\n" + "".join(f"7,{text}\n" for text in texts), encoding="utf-8")
    for place in ("new.txt", "new.csv"):
        assert main(["predict", folder, place, "--offline", "--output", "labels.txt"]) == 0
        assert (home / "labels.txt").read_text() == "".join(answers)
        assert capsys.readouterr().out == "labels: labels.txt\n"


def test_an_adapter_is_exported_as_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "adapter", "exported", "--offline"]) == 0
    assert capsys.readouterr().out == "model: exported\n"
    texts = ["a good film", "bad and slow"]
    expected = beft.Tuned.load("model").probabilities(texts)
    assert beft.Tuned.load("exported").probabilities(texts) == pytest.approx(expected, abs=1e-6)


def test_a_model_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "tiny-llama"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "llama: 4 layers, 4 heads of 32"
    assert lines[3] == "v: layers.0.self_attn.v_proj, 64 entries, without a bias"
    assert lines[4].startswith("the key bias has an effect: RoPE")


def test_the_notebooks_are_run_with_the_same_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--profile", "smok"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown profile 'smok': did you mean smoke")
    assert main(["reproduce", "--profile", "smoke", "--only", "03_fine_tuning", "-p", "methods", "b_v,b_q"]) == 2
    assert "a list of distinct methods, e.g. [b_q, b_v], not 'b_v,b_q'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tune"], "required: FILE_OR_TASK (see python -m beft tune --help)"),
        (["tune", "nothing.csv"], "there is no file 'nothing.csv'"),
        (["tune", "reviews.csv", "more"], "tune takes no further argument 'more'"),
        (["tune", "reviews.csv", "--lr", "1e-3"], "unknown option of tune 'lr': lr is called rate here"),
        (["tune", "reviews.csv", "--max_len=3"], "max_len is called max_length here"),
        (["tune", "reviews.csv", "--rate", "fast"], "argument --rate: invalid float value: 'fast'"),
        (["tune", "reviews.csv", "--rate", "-1"], "rate -1.0 is not a positive number"),
        (["tune", "reviews.csv", "--epochs", "0"], "epochs 0 is not a whole number of at least 1"),
        (["tune", "reviews.csv", "--regime", "lo"], "unknown regime of reviews 'lo': did you mean low"),
        (["tune", "reviews.csv", "--model", "tiny", "--offline"], "unknown model 'tiny': did you mean"),
        (["tune", "reviews.csv", *SMALL, "--save", "reviews.csv"], "reviews.csv is not a folder: give another"),
        (["tune", "reviews.csv", *SMALL, "--save", "reviews.csv/in"], "reviews.csv is not a folder: give another"),
        (["tune", "reviews.csv", "--column", "review"], "--column review does not say which column it is"),
        (["tunes", "reviews.csv"], "invalid choice: 'tunes'"),
        (["predict", "model"], "required: texts"),
        (["predict", "nothing", "reviews.csv"], "nothing holds no saved model and no adapter"),
        (["predict", "model", "nothing.csv"], "there is no file 'nothing.csv'"),
        (["predict", "model", "nothing.txt"], "cannot read nothing.txt (No such file or directory)"),
        (["predict", "model", "reviews.csv", "--output", "./reviews.csv"], "is the file of the texts"),
        (["predict", "model", "reviews.csv", "--output", "reviews.csv/x"], "reviews.csv is not a folder"),
        (["predict", "model", "reviews.csv", "--max-length", "1"], "max_length 1 leaves no token"),
        (["export", "nothing", "out"], "nothing holds no saved model and no adapter"),
        (["export", "nothing.json", "out"], "there is no record nothing.json"),
        (["export", "adapter", "reviews.csv"], "reviews.csv is not a folder: give another"),
        (["describe", "tiny", "--offline"], "unknown model 'tiny'"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and says in printed.err and printed.err.count("\n") == 1
    assert printed.out == "" or printed.out.startswith("reviews.csv: 30 rows")  # what was read before the fault


def test_no_texts_to_predict_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for given, says in (("", "there are no texts"), ("good\n\nbad\n", "text 2 of 3 is empty")):
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        assert main(["predict", "model", "-"]) == 2
        assert says in capsys.readouterr().err


def test_help_lists_the_commands_and_the_defaults_are_those_of_python(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(f"    {name}" in listed for name in ("tune", "predict", "reproduce", "export", "describe"))
    with pytest.raises(SystemExit, match="0"):
        main(["tune", "--help"])
    text = " ".join(capsys.readouterr().out.replace("all-\n", "all-").split())
    by_name = {name: parameter.default for name, parameter in inspect.signature(beft.tune).parameters.items()}
    by_name |= {name: getattr(beft.Study, name) for name in ("model", "batch_size", "max_length", "dtype")}
    for name in ("method", "rate", "epochs", "seed", "model", "batch_size", "max_length", "dtype"):
        after = text.split(f" --{name.replace('_', '-')} ")[-1].replace("- ", "-")
        assert after.split("(default: ")[1].startswith(f"{by_name[name]})"), name


def test_the_public_names_are_listed_and_help_has_them_without_loading_torch_before() -> None:
    script = (
        "import sys, beft; print(*dir(beft)); assert not {'torch', 'numpy'} & sys.modules.keys(); "
        "from beft.__main__ import main; status = main(); assert 'torch' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=paths.ROOT, capture_output=True, text=True, check=True, timeout=300
    )
    names, _, usage = done.stdout.partition("\n")
    assert set(beft.__all__) <= set(names.split()) and usage.startswith("usage: python -m beft")
    import pydoc

    text = pydoc.render_doc(beft, renderer=pydoc.plaintext)
    assert all(f" {name}" in text for name in beft.__all__ if name != "__version__")
    assert "Tune one bias term on a file" in text


def test_an_interrupt_of_the_training_is_one_sentence_and_status_130(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr("beft.training.loop.train_epoch", lambda *given: signal.raise_signal(signal.SIGINT))
    try:
        assert main(["tune", "reviews.csv", *SMALL, "--save", "never"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err.splitlines()[-1] == f"interrupted; {INTERRUPTED}"
    assert not (home / "never").exists()


def test_an_interrupt_of_the_process_before_it_does_anything_is_one_sentence_and_status_130() -> None:
    # The signal comes when torch is about to be imported. A job in the background is born deaf to it.
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Interrupt:\n"
        "    def find_spec(name, *rest):\n"
        "        if name == 'torch':\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt)\n"
        "from beft.__main__ import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", script, "tune", "reviews.csv", *SMALL, "--epochs", "100000"]
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    error = done.stderr
    assert done.returncode == 130 and error.strip().startswith("interrupted") and "Traceback" not in error, error
