"""Kernels that are forked have what is given to others, share nothing, and end when they are told to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_notebooks import Make, built

from beft import paths
from beft.reproduce import kernels
from beft.reproduce.__main__ import main
from beft.reproduce.notebooks import read

pytestmark = pytest.mark.skipif(not kernels.may_fork(), reason="kernels are not forked on this machine")

LOOK = """
import os, sys
loaded, log = "torch" in sys.modules, os.environ["BEFT_RUN_LOG"].rsplit("/", 1)[-1]
print(os.getpid(), loaded, log, "left" in globals(), os.getpgid(0) == os.getpid())
left = 1
"""


def test_each_notebook_has_a_process_of_its_own_with_the_libraries_in_it(tmp_path: Path, make: Make) -> None:
    for name in ("a", "b"):
        make(name, [LOOK])
    # In a process of its own: in this one another test may have started the forking with other settings.
    code = (
        "import pathlib, sys; from beft import paths; from beft.reproduce.__main__ import main; "
        f"paths.repository = lambda: pathlib.Path({str(paths.repository())!r}); sys.exit(main(['--profile', 'smoke']))"
    )
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, timeout=300)
    said = [read(built(tmp_path, name)).cells[-1].outputs[0].text.split() for name in ("a", "b")]
    assert said[0][0] != said[1][0], "a process each"
    assert [words[1:] for words in said] == [["True", f"{n}.runs.jsonl", "False", "True"] for n in ("a", "b")]
    for words in said:
        with pytest.raises(ProcessLookupError):
            os.kill(int(words[0]), 0)


def test_a_kernel_that_dies_is_a_failure_and_the_next_one_runs(
    tmp_path: Path, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make("a", ["import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"])
    make("b", ["print('fine')"])
    assert main(["--profile", "smoke"]) == 1
    printed = capsys.readouterr()
    assert [line.split()[-1] for line in printed.out.splitlines()[-2:]] == ["failed", "ok"]
    assert "a: " in printed.err and "died" in printed.err.lower()


@pytest.mark.parametrize("why", ["a GPU", "another system", "libraries with other settings"])
def test_where_forking_is_not_safe_kernels_start_as_usual(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "a GPU":
        monkeypatch.setattr(kernels, "GPUS", (str(tmp_path),))
    elif why == "another system":
        monkeypatch.setattr(sys, "platform", "darwin")
    else:
        monkeypatch.setattr(kernels, "_started_with", {"OMP_NUM_THREADS": "77"})
    assert not kernels.may_fork()
    if why == "a GPU":
        make("a", ["import sys\nprint('torch' in sys.modules)"])
        assert main(["--profile", "smoke"]) == 0
        assert read(built(tmp_path, "a")).cells[-1].outputs[0].text == "False\n"
