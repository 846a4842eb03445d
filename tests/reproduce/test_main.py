"""The command line: what papermill lets pass, this refuses; one sentence for bad input; the exit status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_notebooks import Make, built

from beft import paths
from beft.errors import BeftError
from beft.reproduce.__main__ import INTERRUPTED, main, summary
from beft.reproduce.notebooks import publish_outputs, read
from beft.reproduce.run import Result

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


def test_a_run_executes_counts_and_publishes(tmp_path: Path, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    source = make("a", [INDEX, "import sys, os\nprint(profile, count, os.environ['HF_HUB_OFFLINE'])", "", "6 * 7"])
    assert main(["--profile", "smoke"]) == 0
    row = capsys.readouterr().out.strip().splitlines()[-1].split()
    assert row[0] == "a" and row[2:] == ["1", "2", "3", "/", "1", "/", "0", "ok"]

    before = read(source)
    assert main(["publish", "--profile", "smoke"]) == 0
    after = read(source)
    assert [(c.source, c.cell_type, c.id) for c in after.cells] == [(c.source, c.cell_type, c.id) for c in before.cells]
    code = [c for c in after.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == [1, 2, 3, None, 4]
    assert code[2].outputs[0].text == "smoke None 1\n"
    assert code[4].outputs[0].execution_count == 4 and code[4].outputs[0].data["text/plain"] == "42"
    assert after.metadata["beft"] == {"outputs_from_profile": "smoke"}
    text = source.read_text()
    assert "papermill" not in text and "start_time" not in text and str(tmp_path) not in text

    # A published notebook runs again and publishes to the same text.
    assert main(["--profile", "smoke"]) == 0
    assert main(["--publish", "--profile", "smoke"]) == 0
    assert source.read_text() == text


def test_parameters_reach_the_notebooks_that_declare_them(
    tmp_path: Path, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make("a", ["print(count)"])
    make("b", ["print(profile)"], parameters='profile = "embedded"')
    assert main(["--profile", "smoke", "-p", "count", "[1, 2]"]) == 0
    assert read(built(tmp_path, "a")).cells[-1].outputs[0].text == "[1, 2]\n"
    assert read(built(tmp_path, "b")).cells[-1].outputs[0].text == "smoke\n"
    assert "b has no parameter count" in capsys.readouterr().out
    with pytest.raises(BeftError, match="was run with count, not with the plain profile"):
        publish_outputs("smoke")


def test_a_failing_notebook_does_not_stop_the_next_and_fails_the_command(
    tmp_path: Path, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make("a", ["from beft.errors import BeftError\nraise BeftError('no task named x: give another')", "1"])
    make("b", ["1 / 0"])
    make("c", ["import sys\nsys.exit(0)", "print('later')"])
    make("d", ["print('fine')"])
    assert main(["--profile", "smoke"]) == 1
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
        publish_outputs("smoke")


def test_failed_runs_fail_the_command() -> None:
    failed = Result("a", runs={"done": 3, "reused": 0, "failed": 1})
    assert failed.failed and not Result("a", runs={"done": 3, "reused": 0, "failed": 0}).failed
    assert "3 / 0 / 1" in summary([failed])


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
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error and error.count("\n") == 1
    assert not (tmp_path / "home").exists()


def test_a_bad_value_for_a_known_notebook_is_refused_before_it_runs(
    tmp_path: Path, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make("02_ranking", ["1"], parameters='profile = "embedded"\nepochs = None')
    assert main(["--profile", "smoke", "-p", "epochs", "0"]) == 2
    assert "epochs in the parameters must be a whole number" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_an_interrupt_says_that_the_same_command_resumes_and_leaves_no_kernel(tmp_path: Path, make: Make) -> None:
    started = tmp_path / "started"
    make("a", [f"import os, time\nopen({str(started)!r}, 'w').write(str(os.getpid()))\ntime.sleep(100)"])
    repository = paths.repository()
    code = (
        "import signal, sys, pathlib; from beft import paths; from beft.reproduce import kernels; "
        "from beft.reproduce.__main__ import main; kernels.LIBRARIES = ('ipykernel.kernelapp',); "  # all a kernel needs
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a job in the background is born deaf to it
        f"paths.repository = lambda: pathlib.Path({str(repository)!r}); "
        "sys.exit(main(['--profile', 'smoke']))"
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
        _, error = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130, error
    assert error.strip().splitlines()[-1] == f"interrupted; {INTERRUPTED}" and "Traceback" not in error
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
