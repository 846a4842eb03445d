import numpy as np
import pytest

from beft.errors import BeftError
from beft.tasks import TASKS, get_task, score


def test_sst2_has_the_settings_of_the_paper():
    task = get_task("sst2")
    assert task.regimes == {"low": 1000, "medium": 5000, "high": 11000}
    assert (task.rate, task.epochs, task.metric) == (4e-4, 16, "accuracy")
    assert task.labels == ("negative", "positive") and task.text_columns == ("sentence",)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_complete(name):
    task = TASKS[name]
    assert task.name == name and task.source and len(task.labels) >= 2
    assert list(task.regimes) == ["low", "medium", "high"]
    assert list(task.regimes.values()) == sorted(task.regimes.values())


def test_generated_task_says_so():
    assert "generated" in get_task("microworld_sentiment").source


def test_unknown_task_names_the_nearest():
    with pytest.raises(BeftError, match="unknown task 'sst-2': did you mean sst2"):
        get_task("sst-2")


def test_accuracy_is_the_share_of_rows_predicted_right():
    assert score("accuracy", np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])) == 0.75


def test_score_refuses_an_unknown_metric_and_rows_that_do_not_match():
    with pytest.raises(BeftError, match="unknown metric 'acuracy': did you mean accuracy"):
        score("acuracy", np.zeros(2), np.zeros(2))
    with pytest.raises(BeftError, match=r"shape \(3,\) against labels of shape \(2,\)"):
        score("accuracy", np.zeros(2), np.zeros(3))
    with pytest.raises(BeftError, match="at least one row"):
        score("accuracy", np.zeros(0), np.zeros(0))
