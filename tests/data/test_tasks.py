import numpy as np
import pytest

from beft.data.tasks import METRICS, RATED, TASKS, get_task, majority_score, score
from beft.errors import BeftError


def test_sst2_has_the_settings_of_the_paper():
    task = get_task("sst2")
    assert task.regimes == {"low": 1000, "medium": 5000, "high": 11000}
    assert (task.rate, task.metric) == (4e-4, "accuracy")
    assert [task.epochs_for(m)[0] for m in ("bert-base-cased", "google-bert/bert-large-cased", "roberta-base")] == [
        16,
        30,
        30,
    ]
    assert task.labels == ("negative", "positive") and task.text_columns == ("sentence",)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_complete(name):
    task = TASKS[name]
    assert task.name == name and task.source and task.epochs and 1 <= len(task.text_columns) <= 2
    assert (task.regression and task.outputs == 1) or len(task.labels) == task.outputs >= 2
    assert set(task.metrics) <= set(METRICS)
    assert list(task.regimes) == (["low"] if task.suite == "super_glue" else ["low", "medium", "high"])
    assert list(task.regimes.values()) == sorted(task.regimes.values())


def test_generated_tasks_say_so():
    generated = [task for name, task in TASKS.items() if name.startswith("microworld_")]
    assert len(generated) == 5 and all("generated" in task.source for task in generated)


def test_tasks_of_rated_sentences_say_that_their_settings_are_not_the_papers():
    rated = [task for task in TASKS.values() if task.suite == "rated_sentences"]
    assert len(rated) == 5 and {task.source for task in rated} == {RATED}
    assert [task.name for task in rated if task.regression] == ["film_rating"]


@pytest.mark.parametrize(
    ("name", "regimes", "rate", "epochs", "metrics"),
    [
        ("rte", [300, 900, 1200], 1e-3, 30, ("accuracy",)),
        ("qqp", [1000, 5000, 9000], 4e-4, 30, ("accuracy", "f1")),
        ("qnli", [1000, 5000, 9000], 1e-4, 30, ("accuracy",)),
        ("mnli", [1000, 5000, 9000], 1e-4, 30, ("accuracy",)),
        ("cola", [1710, 3420, 4275], 7e-4, 16, ("matthews",)),
        ("mrpc", [367, 1191, 1835], 7e-4, 60, ("accuracy", "f1")),
        ("stsb", [287, 1150, 2300], 1e-4, 60, ("spearman", "pearson")),
        ("cb", [250], 1e-3, 60, ("macro_f1",)),
        ("wic", [1000], 1e-3, 16, ("accuracy",)),
    ],
)
def test_encoder_tasks_have_the_settings_of_the_paper(name, regimes, rate, epochs, metrics):
    task = get_task(name)
    assert (list(task.regimes.values()), task.rate, task.metrics) == (regimes, rate, metrics)
    assert task.epochs_for("bert-base-cased") == (epochs, task.source)


def test_epochs_that_the_paper_lacks_are_those_of_bert_base_and_say_so():
    assert get_task("cola").epochs_for("roberta-base") == (
        16,
        "that of bert-base-cased: there is none for roberta-base",
    )
    assert get_task("wic").epochs_for("FacebookAI/roberta-base")[0] == 30


def test_unknown_task_names_the_nearest():
    with pytest.raises(BeftError, match="unknown task 'sst-2': did you mean sst2"):
        get_task("sst-2")


def test_accuracy_is_the_share_of_rows_predicted_right():
    assert score("accuracy", np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])) == 0.75


@pytest.mark.parametrize(
    ("metric", "labels", "predictions", "value"),
    [
        # 2 true positives, 1 false positive, 1 false negative, 1 true negative
        ("f1", [1, 1, 1, 0, 0], [1, 1, 0, 1, 0], 2 / 3),
        ("macro_f1", [1, 1, 1, 0, 0], [1, 1, 0, 1, 0], (2 / 3 + 1 / 2) / 2),
        ("macro_f1", [0, 1, 2], [0, 1, 1], (1 + 2 / 3 + 0) / 3),
        ("matthews", [1, 1, 1, 0, 0], [1, 1, 0, 1, 0], (2 * 1 - 1 * 1) / (3 * 3 * 2 * 2) ** 0.5),
        ("matthews", [0, 1], [1, 1], 0.0),
        ("spearman", [0.0, 1.0, 2.0, 5.0], [0.1, 0.2, 7.0, 0.3], 1 - 6 * 2 / (4 * 15)),
        ("pearson", [0.0, 1.0, 2.0], [1.0, 3.0, 5.0], 1.0),
    ],
)
def test_metrics_on_hand_worked_vectors(metric, labels, predictions, value):
    assert score(metric, np.array(labels), np.array(predictions)) == pytest.approx(value)


@pytest.mark.parametrize("metric", ["spearman", "pearson"])
def test_correlation_of_a_constant_is_not_a_number_and_warns_of_nothing(metric, recwarn):
    assert np.isnan(score(metric, np.array([0.0, 1.0, 2.0]), np.ones(3)))
    assert np.isnan(score(metric, np.array([0.0]), np.ones(1)))
    assert not recwarn.list


def test_score_refuses_an_unknown_metric_and_rows_that_do_not_match():
    with pytest.raises(BeftError, match="unknown metric 'acuracy': did you mean accuracy"):
        score("acuracy", np.zeros(2), np.zeros(2))
    with pytest.raises(BeftError, match=r"shape \(3,\) against labels of shape \(2,\)"):
        score("accuracy", np.zeros(2), np.zeros(3))
    with pytest.raises(BeftError, match="at least one row"):
        score("accuracy", np.zeros(0), np.zeros(0))


@pytest.mark.parametrize(
    ("metric", "labels", "value"),
    [
        ("accuracy", [0, 1, 1, 1], 0.75),
        ("f1", [0, 1, 1, 1], 2 * 3 / (2 * 3 + 1)),  # every row predicted 1: 3 true and 1 false positive
        ("f1", [0, 0, 0, 1], 0.0),  # the class that counts is never predicted
        ("macro_f1", [0, 0, 1, 2], (2 * 2 / (2 * 2 + 2) + 0 + 0) / 3),
        ("matthews", [0, 1, 1, 1], 0.0),
        ("spearman", [0.0, 1.5, 5.0], 0.0),
        ("pearson", [0.0, 1.5, 5.0], 0.0),
    ],
)
def test_the_most_frequent_class_for_every_row_has_a_score(metric, labels, value):
    assert majority_score(metric, np.array(labels)) == pytest.approx(value)
