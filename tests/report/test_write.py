"""Tables on disk, their captions and the index."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from fake_records import fake_settings, grid, run
from matplotlib import image

from beft.report import write

TABLE = pd.DataFrame({"method": ["b_v"], "seeds": [3]})


def test_missing_values_are_written_as_not_run(tmp_path):
    table = pd.DataFrame({"a": [1, None], "b": [np.nan, "x"]})
    write.save_table(table, fake_settings(tmp_path), "t", "A table.")
    text = pd.read_csv(tmp_path / "figures/t.csv", dtype=str)
    assert text.iloc[1, 0] == "not run" and text.iloc[0, 1] == "not run"
    for ending in ("csv", "md", "tex"):
        assert (tmp_path / f"figures/t.{ending}").read_text(encoding="utf-8").count("not run") == 2


def test_csv_reads_back(tmp_path):
    write.save_table(pd.DataFrame({"n": [2304], "x, y": ["a|b"]}), fake_settings(tmp_path), "t", "c")
    back = pd.read_csv(tmp_path / "figures/t.csv")
    assert list(back.columns) == ["n", "x, y"] and back.iloc[0, 1] == "a|b"


def test_markdown_and_tex_escape_their_own_signs():
    text = write.as_text(pd.DataFrame({"50 %": ["b_v | b_q"]}))
    assert "b_v \\| b_q" in write.markdown(text)
    assert r"50 \%" in write.tex(text, "c", "t") and r"b\_v | b\_q" in write.tex(text, "c", "t")


def test_index_ties_each_table_to_command_and_records(tmp_path):
    s = fake_settings(tmp_path, note="Model tiny-random-bert has random weights.")
    made = grid(seeds=(0,))
    write.save_table(TABLE, s, "b", "Second.", made)
    write.save_table(TABLE, s, "a", "First.", ["k1"])
    write.save_table(TABLE, s, "b", "Second, again.", made)
    index = json.loads((tmp_path / "figures/index.json").read_text(encoding="utf-8"))
    assert [e["name"] for e in index] == ["a", "b"]
    assert index[1]["records"] == sorted(r["key"] for r in made) and index[0]["records"] == ["k1"]
    assert index[1]["caption"] == "Second, again. Model tiny-random-bert has random weights."
    assert index[1]["files"] == ["b.csv", "b.md", "b.tex"] and index[1]["command"] == "make"
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == [
        *("a.csv", "a.md", "a.tex", "b.csv", "b.md", "b.tex", "index.json")
    ]


def test_empty_table_says_not_run(tmp_path):
    write.save_table(pd.DataFrame(columns=["seed", "gap"]), fake_settings(tmp_path), "t", "Gaps.")
    assert pd.read_csv(tmp_path / "figures/t.csv").to_numpy().tolist() == [["not run", "not run"]]


def test_a_table_over_cells_names_generated_text_even_beside_a_real_main_task(tmp_path):
    real, generated = run("b_v", 0), run("b_v", 1)
    generated["data"]["substitute"] = True
    s = fake_settings(tmp_path)
    assert write.full_caption("Numbers.", s, True, [real]) == "Numbers."
    note = "Numbers. (Substitute: some of it is generated micro-world text.)"
    assert write.full_caption("Numbers.", s, True, [real, generated]) == note


def test_the_index_says_what_made_an_entry_and_whether_it_needs_the_folder_of_tasks(tmp_path):
    s, read = fake_settings(tmp_path), run()
    read["data"]["source"] = "data folder, glue/sst2"
    for records, command, measured in (
        ([], "make", True),
        ([run()], "make", False),
        ([read], "BEFT_DATA=FOLDER make", False),
    ):
        write.save_table(TABLE, s, "t", "c", records)
        (entry,) = json.loads((s.figures / "index.json").read_text(encoding="utf-8"))
        assert entry["command"] == command and ("measured" in entry) is measured


def test_display_shows_frames_as_text_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write.display(TABLE, TABLE.head(0))
    out = capsys.readouterr().out
    assert out.count("method") == 2 and "not run" in out and not list(tmp_path.iterdir())


def test_a_notebook_shows_a_figure_or_some_columns_of_a_table_with_the_caption_below(tmp_path, monkeypatch):
    shown = []
    s, fig = fake_settings(tmp_path), plt.figure()  # before pyplot, too, would think that it is in a notebook
    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", lambda *things: shown.append(things))
    write.save_figure(fig, s, "f", "What it shows.")
    wide = pd.DataFrame({"method": ["b_v"], "seeds": [3], "rate": [0.1]})
    write.save_table(wide, s, "t", "Runs.", shown=["seeds", "method", "other"])
    (figure, below), (table, beside) = shown
    assert figure.data == (s.figures / "f.png").read_bytes() and below.data == "**f.** What it shows."
    assert figure.width < image.imread(s.figures / "f.png").shape[1]  # of fewer pixels to the inch than the file
    assert list(table) == ["seeds", "method"] and beside.data == "**t.** Runs. 1 more column in t.md."
    assert pd.read_csv(s.figures / "t.csv").columns.tolist() == ["method", "seeds", "rate"]
    assert json.loads((s.figures / "index.json").read_text(encoding="utf-8"))[1]["caption"] == "Runs."


def test_a_wide_comparison_is_shown_without_what_can_be_spared(capsys):
    names = [
        "model",
        "task",
        "target",
        "comparison",
        "seeds",
        "difference",
        "p",
        "smallest possible p",
        "p, Holm",
        "verdict",
    ]
    write.display(pd.DataFrame([range(10)], columns=names))
    shown = capsys.readouterr().out
    assert "smallest possible p" not in shown and " p " not in shown and "seeds" in shown and "p, Holm" in shown
    write.display(pd.DataFrame([range(8)], columns=names[-8:]))
    assert "smallest possible p" in capsys.readouterr().out


def test_the_caption_says_where_intervals_are_cut(tmp_path):
    def caption(text, of="Mean and 95% Student t interval."):
        write.save_table(pd.DataFrame({"b_v": [text]}), fake_settings(tmp_path), "t", of)
        return json.loads((tmp_path / "figures/index.json").read_text(encoding="utf-8"))[0]["caption"]

    for text in ("69.5 [37.7, 100.0]", "3.0 [0.0, 9.1]", "+0.33 [-1.00, +1.00] over 3 seeds"):
        assert "cut where a score can go no further" in caption(text)
        assert "cut" not in caption(text, "Mean and bootstrap interval.")
    for text in ("69.5 [67.7, 71.0]", "100.0 [100.0, 100.0]", "+3.0 [-120.4, +100.0]", "0.11 [-0.00, 0.22]"):
        assert "cut" not in caption(text)


def test_the_caption_of_a_figure_of_few_seeds_promises_no_interval(tmp_path):
    s = fake_settings(tmp_path)
    five, four, one = ([run(m, seed) for seed in range(n)] for m, n in (("b_q", 5), ("b_v", 4), ("head", 1)))
    few = "Where there are fewer than five seeds, they are drawn without an interval; the tables have it"
    for records, said in (
        (five, ""),
        ([*five, *four], f"{few}."),
        ([*four, *one], f"{few} (of one seed there is none)."),
        ([*five, *one], "Where there is one seed, there is no interval."),
        ([{**r, "settings": r["settings"] | {"patch": r["key"]}, "kind": "debias"} for r in four], f"{few}."),
    ):
        write.save_figure(plt.figure(), s, "f", "Mean and 95% Student t interval.", records)
        (entry,) = json.loads((s.figures / "index.json").read_text(encoding="utf-8"))
        assert entry["caption"] == f"Mean and 95% Student t interval. {said}".rstrip()
        write.save_figure(plt.figure(), s, "f", "Mean and 95% interval over tasks.", records)
        (entry,) = json.loads((s.figures / "index.json").read_text(encoding="utf-8"))
        assert entry["caption"] == "Mean and 95% interval over tasks."


def test_the_caption_says_what_not_learned_means_and_where_the_majority_is_unknown(tmp_path):
    s = fake_settings(tmp_path)
    for majority, score, ends in (
        ("50.0", "60.0", "Scores."),
        ("50.0", "50.0, not learned", "for every row."),
        ("unknown", "60.0", "so nothing is marked there."),
    ):
        write.save_table(pd.DataFrame({"majority": [majority], "b_v": [score]}), s, "t", "Scores.")
        (entry,) = json.loads((s.figures / "index.json").read_text(encoding="utf-8"))
        assert entry["caption"].startswith("Scores.") and entry["caption"].endswith(ends)
