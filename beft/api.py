"""One call for one's own data: tune a bias, keep the adapter, predict."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bank.export import merge
from .bank.peft_adapter import save_adapter
from .data import sources as data_module
from .models import files as model_files
from .models import loading as models
from .paths import check_folder
from .records.folders import explained
from .study import Result, Run, Study
from .training.classification import predict
from .training.loop import fit


@dataclass
class Tuned:
    """A tuned classifier.

    Attributes:
        model: a plain transformers model, the bias merged and the head in place.
        tokenizer: its tokenizer.
        labels: names of the classes, in the order of the logits; none for a regression.
        result: parameters, epochs and outcome of the run.
    """

    model: Any
    tokenizer: Any
    labels: tuple[str, ...]
    result: Result
    max_length: int

    @property
    def score(self) -> float | None:
        """The task's metric on the validation rows after the last epoch."""
        return self.result.final["validation"]

    def predict(self, texts: Sequence[str | tuple[str, str]]) -> list[str] | list[float]:
        """The most probable label of each text or pair of texts; of a regression, its value."""
        scores = predict(self.model, self.tokenizer, texts, self.max_length)  # (N, C)
        return [self.labels[i] for i in scores.argmax(1)] if self.labels else scores[:, 0].tolist()

    def save(self, folder: str | Path) -> None:
        """Write a plain checkpoint that AutoModelForSequenceClassification loads."""
        check_folder(folder, "folder of the model")
        with explained(f"the folder {folder}"):
            self.model.save_pretrained(str(folder))
            self.tokenizer.save_pretrained(str(folder))


def tune(
    task: str,
    *,
    method: str = "b_v",
    rate: float = 3e-3,
    epochs: int = 8,
    seed: int = 0,
    adapter: str | Path | None = None,
    progress: bool = True,
    **study: Any,
) -> Tuned:
    """Tune one bias term on a file with columns text (or text_a, text_b) and label, or on a task by name.

    Args:
        task: "reviews.csv" (or .tsv, .jsonl, .parquet), or a task's name.
        method: b_v, b_q, b_k, all_biases or head.
        adapter: folder to write the run to as a PEFT adapter.
        study: other fields of `study.Study`, e.g. model="bert-base-cased", regime="low", offline=True; all
            training rows are used unless `regime` says otherwise.

    Raises BeftError: bad input, one sentence with the remedy; a run that diverged.
    """
    fields: dict[str, Any] = {"regime": "all", "task": str(task), "epochs": epochs} | study
    plan = Study(**fields)
    if adapter is not None:
        check_folder(adapter, "adapter folder")
    rows = data_module.load(plan.task, offline=plan.offline)
    loaded = models.load(plan.model, labels=rows.task.outputs, offline=plan.offline)
    run, label = Run(method, seed, rate), f"{method} on {rows.task.name}"
    for epoch in fit(loaded, rows, plan, [run], progress=label if progress else False):
        if epoch.last:
            (result,) = epoch.results
            result.raise_if_lost()
            merged = merge(epoch.bank, 0)
            if adapter is not None:
                with explained(f"the adapter folder {adapter}"):
                    save_adapter(epoch.bank, 0, adapter, model_files.HUB.get(plan.model, plan.model))
    return Tuned(merged, loaded.tokenizer, rows.task.labels, result, plan.max_length)
