"""Outputs published without a trace of the machine, from the sources as they are now, all notebooks or none."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from nbformat.v4 import new_output
from small_notebooks import Make, leave_outputs

from beft import paths
from beft.errors import BeftError
from beft.reproduce.notebooks import publish_outputs, read
from beft.reproduce.run import reproduce


def test_a_changed_source_is_not_given_the_old_outputs(tmp_path: Path, make: Make) -> None:
    leave_outputs(tmp_path, make("a", ["1"]))
    changed = make("a", ["2"])
    text = changed.read_text()
    with pytest.raises(BeftError, match=r"notebooks/a.ipynb has changed since .* run `python -m beft.reproduce"):
        publish_outputs("smoke")
    assert changed.read_text() == text


@pytest.mark.parametrize("place", ["home", "repository", "host"])
@pytest.mark.parametrize("kind", ["stream", "html", "svg"])
def test_an_output_with_a_path_or_name_of_the_machine_is_not_published(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, place: str, kind: str
) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/somebody"))
    monkeypatch.setattr(socket, "gethostname", lambda: "workstation7")
    private = {"home": "/home/somebody", "repository": str(paths.repository()), "host": "workstation7"}[place]
    text = f"<b>written to {private}/x.csv</b>"
    data = {"html": {"text/html": text}, "svg": {"image/svg+xml": text}}
    output = new_output("stream", text=text) if kind == "stream" else new_output("display_data", data=data[kind])
    # The second notebook is fine, and is not published either: all or none.
    sources = [make("a", ["1"]), make("b", ["1"])]
    leave_outputs(tmp_path, sources[0], output)
    leave_outputs(tmp_path, sources[1])
    before = [source.read_text() for source in sources]
    with pytest.raises(BeftError, match=f"contains '{private}'"):
        publish_outputs("smoke")
    assert [source.read_text() for source in sources] == before


def test_progress_bars_are_not_published_and_warnings_are(tmp_path: Path, make: Make) -> None:
    source = make("a", ["1"])
    pieces = ["\rruns:  50%|#    | 1/2 [00:03<00:03]", "\n", "\x1b[A", "a warning\n"]
    leave_outputs(tmp_path, source, *(new_output("stream", name="stderr", text=piece) for piece in pieces))
    publish_outputs("smoke")
    assert [output.text for output in read(source).cells[-1].outputs] == ["a warning\n"]


def test_words_that_only_begin_like_a_private_path_are_published(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/some"))
    monkeypatch.setattr(socket, "gethostname", lambda: "node")
    source = make("a", ["1"])
    leave_outputs(tmp_path, source, new_output("stream", text="nodes, /home/somebody, figures/smoke/a.png"))
    assert publish_outputs("smoke") == [source]


def test_published_text_is_whole_however_the_kernel_cut_it(make: Make) -> None:
    source = make("a", ["import time\nprint('one', flush=True)\ntime.sleep(0.5)\nprint('two')\n3"])
    reproduce("smoke", progress=False)
    publish_outputs("smoke")
    outputs = read(source).cells[-1].outputs
    assert [o.output_type for o in outputs] == ["stream", "execute_result"]
    assert outputs[0].text == "one\ntwo\n"
