"""The strict runner: what papermill lets pass, this refuses, and the kernel is this interpreter."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from small_notebooks import Make, built

from beft.errors import BeftError
from beft.reproduce.notebooks import read
from beft.reproduce.run import reproduce


@pytest.mark.parametrize(
    ("parameters", "says"),
    [(None, "0 cells tagged"), ("count = 3", "no `profile`"), ("profile = ", "not valid Python")],
)
def test_a_notebook_without_a_sound_parameters_cell_is_refused(make: Make, parameters: str | None, says: str) -> None:
    make("a", ["1"], parameters=parameters)
    with pytest.raises(BeftError, match=f"a.ipynb.*{says}|{says}.*a.ipynb"):
        reproduce("smoke")


def test_the_kernel_is_this_interpreter_whatever_the_user_has_installed(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = tmp_path / "user" / "kernels" / "python3"
    user.mkdir(parents=True)
    spec = {"argv": ["/nonexistent/python", "{connection_file}"], "display_name": "x", "language": "python"}
    (user / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "user"))
    make("a", ["import sys\nprint(sys.executable)"])
    (result,) = reproduce("smoke", progress=False)
    assert result.failure is None
    assert read(built(tmp_path, "a")).cells[-1].outputs[0].text.strip() == sys.executable
