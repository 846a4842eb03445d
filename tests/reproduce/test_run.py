"""The strict runner: what papermill lets pass, this refuses; and outputs published without a trace of the machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from beft import paths
from beft.errors import BeftError
from beft.reproduce import publish
from beft.reproduce import run as reproduce
from beft.reproduce.notebooks import incomplete, parameter_names, read

PARAMETERS = 'profile = "embedded"\ncount = None'
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Writes small notebooks into a repository of its own, with outputs elsewhere."""
    repository = tmp_path / "repository"
    (repository / "notebooks").mkdir(parents=True)
    (repository / "notebooks" / "profiles").symlink_to(paths.repository() / "notebooks" / "profiles")
    monkeypatch.setattr(paths, "repository", lambda: repository)
    monkeypatch.setenv("BEFT_HOME", str(tmp_path / "home"))

    def write(name: str, sources: Sequence[str], parameters: str | None = PARAMETERS) -> Path:
        cells = [new_markdown_cell("# Title")]
        if parameters is not None:
            cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        cells += [new_code_cell(source) for source in sources]
        notebook = new_notebook(cells=cells)
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        path = repository / "notebooks" / f"{name}.ipynb"
        nbformat.write(notebook, path)
        return path

    return write


def built(tmp_path: Path, name: str) -> Path:
    return tmp_path / "home" / "build" / "smoke" / f"{name}.ipynb"


INDEX = """
import json, os, pathlib
folder = pathlib.Path(os.environ["BEFT_HOME"]) / "figures" / profile
folder.mkdir(parents=True, exist_ok=True)
entries = [("a", "figure"), ("a", "table"), ("a", "table"), ("b", "figure")]
(folder / "index.json").write_text(json.dumps([{"notebook": n, "kind": k} for n, k in entries]))
for numbers in ({"done": 2, "reused": 1, "failed": 0}, {"done": 1, "reused": 0, "failed": 0}):
    with open(os.environ["BEFT_RUN_LOG"], "a") as log:
        log.write(json.dumps(numbers) + "\\n")
"""


def test_a_run_executes_counts_and_publishes(
    tmp_path: Path, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make(
        "a", [INDEX, "import sys, os\nprint(profile, count, os.environ['HF_HUB_OFFLINE'])", "", "6 * 7"]
    )
    assert reproduce.main(["--profile", "smoke"]) == 0
    row = capsys.readouterr().out.strip().splitlines()[-1].split()
    assert row[0] == "a" and row[2:] == ["1", "2", "3", "/", "1", "/", "0", "ok"]

    before = read(source)
    assert reproduce.main(["publish", "--profile", "smoke"]) == 0
    after = read(source)
    assert [(c.source, c.cell_type, c.id) for c in after.cells] == [
        (c.source, c.cell_type, c.id) for c in before.cells
    ]
    code = [c for c in after.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == [1, 2, 3, None, 4]
    assert code[2].outputs[0].text == "smoke None 1\n"
    assert code[4].outputs[0].execution_count == 4 and code[4].outputs[0].data["text/plain"] == "42"
    assert after.metadata["beft"] == {"outputs_from_profile": "smoke"}
    text = source.read_text()
    assert "papermill" not in text and "start_time" not in text and str(tmp_path) not in text

    # A published notebook runs again and publishes to the same text.
    assert reproduce.main(["--profile", "smoke"]) == 0
    assert reproduce.main(["--publish", "--profile", "smoke"]) == 0
    assert source.read_text() == text


def test_parameters_reach_the_notebooks_that_declare_them(
    tmp_path: Path, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make("a", ["print(count)"])
    make("b", ["print(profile)"], parameters='profile = "embedded"')
    assert reproduce.main(["--profile", "smoke", "-p", "count", "[1, 2]"]) == 0
    assert read(built(tmp_path, "a")).cells[-1].outputs[0].text == "[1, 2]\n"
    assert read(built(tmp_path, "b")).cells[-1].outputs[0].text == "smoke\n"
    assert "b has no parameter count" in capsys.readouterr().out
    with pytest.raises(BeftError, match="was run with count, not with the plain profile"):
        publish.publish("smoke")


def test_a_failing_notebook_does_not_stop_the_next_and_fails_the_command(
    tmp_path: Path, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make("a", ["from beft.errors import BeftError\nraise BeftError('no task named x: give another')", "1"])
    make("b", ["1 / 0"])
    make("c", ["import sys\nsys.exit(0)", "print('later')"])
    make("d", ["print('fine')"])
    assert reproduce.main(["--profile", "smoke"]) == 1
    printed = capsys.readouterr()
    assert [line.split()[-1] for line in printed.out.splitlines()[-4:]] == [
        "failed",
        "failed",
        "failed",
        "ok",
    ]
    lines = printed.err.splitlines()[-3:]
    assert lines[0] == "a: no task named x: give another"
    assert lines[1] == "b: ZeroDivisionError: division by zero (cell [3] of build/smoke/b.ipynb)"
    assert lines[2].startswith("c: cell [3] stopped with SystemExit")
    with pytest.raises(BeftError, match=r"build/smoke/a\.ipynb is not whole"):
        publish.publish("smoke")


def test_failed_runs_fail_the_command() -> None:
    failed = reproduce.Result("a", runs={"done": 3, "reused": 0, "failed": 1})
    assert failed.failed and not reproduce.Result("a", runs={"done": 3, "reused": 0, "failed": 0}).failed
    assert "3 / 0 / 1" in reproduce.summary([failed])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--profile", "smok"], "unknown profile 'smok': did you mean smoke"),
        (["--profile", "smoke", "--only", "aa"], "unknown notebook 'aa': did you mean a"),
        (["--profile", "smoke", "-p", "cuont", "3"], "unknown parameter of a 'cuont': did you mean count"),
        (["--profile", "smoke", "-p", "profile", "laptop"], "profile is given twice"),
        (["publish", "--profile", "smoke"], "build/smoke/a.ipynb does not exist: run"),
        (["publish", "--profile", "smok"], "unknown profile"),
        (["publish", "--profile", "smoke", "-p", "count", "3"], "publish takes no -p"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_runs(
    tmp_path: Path, make: Make, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    make("a", ["1"])
    assert reproduce.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error and error.count("\n") == 1
    assert not (tmp_path / "home").exists()


def test_a_bad_value_for_a_known_notebook_is_refused_before_it_runs(
    tmp_path: Path, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make("02_ranking", ["1"], parameters='profile = "embedded"\nepochs = None')
    assert reproduce.main(["--profile", "smoke", "-p", "epochs", "0"]) == 2
    assert "epochs in the parameters must be a whole number" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("parameters", "says"),
    [(None, "0 cells tagged"), ("count = 3", "no `profile`"), ("profile = ", "not valid Python")],
)
def test_a_notebook_without_a_sound_parameters_cell_is_refused(
    make: Make, parameters: str | None, says: str
) -> None:
    make("a", ["1"], parameters=parameters)
    with pytest.raises(BeftError, match=f"a.ipynb.*{says}|{says}.*a.ipynb"):
        reproduce.reproduce("smoke")


def test_two_parameters_cells_are_refused(make: Make) -> None:
    path = make("a", ["1"])
    notebook = read(path)
    notebook.cells.append(notebook.cells[1].copy())
    nbformat.write(notebook, path)
    with pytest.raises(BeftError, match="2 cells tagged"):
        parameter_names(path)


def executed(*counts: int | None) -> Any:
    return new_notebook(cells=[new_code_cell("1", execution_count=count) for count in counts])


def test_only_cells_run_once_and_in_order_are_complete() -> None:
    assert incomplete(executed(1, 2, 3)) is None
    assert "did not run" in str(incomplete(executed(1, None)))
    assert "in order" in str(incomplete(executed(2, 1)))
    assert "in order" in str(incomplete(executed(1, 3)))


def by_hand(tmp_path: Path, source: Path, *outputs: Any) -> None:
    """What a run of `source` under smoke would have left, with these outputs in its last cell."""
    notebook = read(source)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    for count, cell in enumerate(code, 1):
        cell.execution_count = count
    code[-1].outputs = list(outputs)
    notebook.metadata["papermill"] = {"parameters": {"profile": "smoke"}, "output_path": str(tmp_path)}
    target = built(tmp_path, source.stem)
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)


def test_a_changed_source_is_not_given_the_old_outputs(tmp_path: Path, make: Make) -> None:
    by_hand(tmp_path, make("a", ["1"]))
    changed = make("a", ["2"])
    text = changed.read_text()
    with pytest.raises(
        BeftError, match=r"notebooks/a.ipynb has changed since .* run `python -m beft.reproduce"
    ):
        publish.publish("smoke")
    assert changed.read_text() == text


@pytest.mark.parametrize("place", ["home", "repository", "host"])
@pytest.mark.parametrize("kind", ["stream", "html", "svg"])
def test_an_output_with_a_path_or_name_of_the_machine_is_not_published(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, place: str, kind: str
) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/somebody"))
    monkeypatch.setattr(socket, "gethostname", lambda: "workstation7")
    private = {"home": "/home/somebody", "repository": str(paths.repository()), "host": "workstation7"}[place]
    said = f"<b>written to {private}/x.csv</b>"
    data = {"html": {"text/html": said}, "svg": {"image/svg+xml": said}}
    output = (
        new_output("stream", text=said) if kind == "stream" else new_output("display_data", data=data[kind])
    )
    # The second notebook is fine, and is not published either: all or none.
    sources = [make("a", ["1"]), make("b", ["1"])]
    by_hand(tmp_path, sources[0], output)
    by_hand(tmp_path, sources[1])
    before = [source.read_text() for source in sources]
    with pytest.raises(BeftError, match=f"contains '{private}'"):
        publish.publish("smoke")
    assert [source.read_text() for source in sources] == before


def test_progress_bars_are_not_published_and_warnings_are(tmp_path: Path, make: Make) -> None:
    source = make("a", ["1"])
    pieces = ["\rruns:  50%|#    | 1/2 [00:03<00:03]", "\n", "\x1b[A", "a warning\n"]
    by_hand(tmp_path, source, *(new_output("stream", name="stderr", text=piece) for piece in pieces))
    publish.publish("smoke")
    assert [output.text for output in read(source).cells[-1].outputs] == ["a warning\n"]


def test_words_that_only_begin_like_a_private_path_are_published(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/some"))
    monkeypatch.setattr(socket, "gethostname", lambda: "node")
    source = make("a", ["1"])
    by_hand(tmp_path, source, new_output("stream", text="nodes, /home/somebody, figures/smoke/a.png"))
    assert publish.publish("smoke") == [source]


def test_published_text_is_whole_however_the_kernel_cut_it(make: Make) -> None:
    source = make("a", ["import time\nprint('one', flush=True)\ntime.sleep(0.5)\nprint('two')\n3"])
    reproduce.reproduce("smoke", progress=False)
    publish.publish("smoke")
    outputs = read(source).cells[-1].outputs
    assert [o.output_type for o in outputs] == ["stream", "execute_result"]
    assert outputs[0].text == "one\ntwo\n"


def test_an_interrupt_says_that_the_same_command_resumes_and_leaves_no_kernel(
    tmp_path: Path, make: Make
) -> None:
    started = tmp_path / "started"
    make("a", [f"import os, time\nopen({str(started)!r}, 'w').write(str(os.getpid()))\ntime.sleep(100)"])
    repository = paths.repository()
    code = (
        "import signal, sys, pathlib; from beft.reproduce import run as reproduce; from beft import paths; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a job in the background is born deaf to it
        f"paths.repository = lambda: pathlib.Path({str(repository)!r}); "
        "sys.exit(reproduce.main(['--profile', 'smoke']))"
    )
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not (started.exists() and started.read_text()) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, error
    assert (
        error.strip().splitlines()[-1] == f"interrupted; {reproduce.INTERRUPTED}" and "Traceback" not in error
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def test_the_kernel_is_this_interpreter_whatever_the_user_has_installed(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = tmp_path / "user" / "kernels" / "python3"
    user.mkdir(parents=True)
    spec = {"argv": ["/nonexistent/python", "{connection_file}"], "display_name": "x", "language": "python"}
    (user / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "user"))
    make("a", ["import sys\nprint(sys.executable)"])
    (result,) = reproduce.reproduce("smoke", progress=False)
    assert result.problem is None
    assert read(built(tmp_path, "a")).cells[-1].outputs[0].text.strip() == sys.executable
