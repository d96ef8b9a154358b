"""Fit what tuning expects of candidates to times that were measured.

    python -m benchmarks.tuning_prior                              # from the samples as they are
    python -m benchmarks.tuning_prior --records tuned.db --models resnet50,vit-small

With records, the first turn of every batch of their sessions joins `tuning_samples.json`: by
kernel, the features of each candidate less the base's, and the logarithm of its time as a share of
the base's in that turn. The models are those of the sessions, as features are made of kernels. Then
the weights are fitted (ridge regression), and judged on kernels that were left out, one by one.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from tensmith.backends.llvm.tuning.features import FEATURES
from tensmith.backends.llvm.tuning.prior import FILE
from tensmith.compiler.tuning.exchange import in_lines
from tensmith.compiler.tuning.history import RACE
from tensmith.compiler.tuning.records import Records
from tensmith.compiler.tuning.task import BASE, Tunable

from .cases import find_cases
from .provenance import revision

SAMPLES = Path(__file__).with_name("tuning_samples.json")
PENALTY = 30.0  # of the ridge, in units of standardised features
DIGITS = 4
Rows = list[list[float]]  # features less the base's, then the logarithm of the ratio

_FIRST_TURNS = """
SELECT sample.turn, sample.position, sample.lower_quartile AS seconds, choice.json
FROM sample JOIN turn ON turn.id = sample.turn JOIN batch ON batch.id = turn.batch
JOIN trial ON trial.batch = batch.id AND trial.position = sample.position
JOIN choice ON choice.id = trial.choice JOIN task ON task.id = batch.task
WHERE task.key = ? AND batch.number > 0 AND turn.kind = ? AND turn.number = 0
ORDER BY sample.turn, sample.place"""


def samples_of(tunable: Tunable, records: Records) -> dict[str, Rows]:
    """What records hold of the tasks of a model, by task and machine class."""
    found: dict[str, Rows] = {}
    for task in tunable.tasks:
        rows = records.rows(_FIRST_TURNS, task.key, RACE)
        bases: dict[int, list[float]] = {}
        for row in rows:
            if row["position"] == BASE:
                bases.setdefault(row["turn"], []).append(row["seconds"])
        origin = np.array(tunable.base(task).features)
        for row in rows:
            if row["position"] == BASE:
                continue
            own = tunable.candidate(task, json.loads(row["json"]))
            ratio = row["seconds"] / float(np.mean(bases[row["turn"]]))
            values = [*(np.array(own.features) - origin), float(np.log(ratio))]
            found.setdefault(task.key, []).append([round(value, DIGITS) for value in values])
    return found


def fitted(samples: dict[str, Rows]) -> np.ndarray:
    """The weights."""
    rows = np.array([row for own in samples.values() for row in own])
    left, values = rows[:, :-1], rows[:, -1]
    scale = left.std(axis=0)
    scale[scale == 0] = 1.0
    left = left / scale
    normal = left.T @ left + PENALTY * np.eye(left.shape[1])
    return np.linalg.solve(normal, left.T @ values) / scale


def ranks(values: np.ndarray) -> np.ndarray:
    """Of numbers among each other; equal ones share the mean of theirs."""
    return (values[:, None] > values).sum(1) + (values[:, None] == values).sum(1) / 2


def judged(samples: dict[str, Rows]) -> list[float]:
    """Rank correlations of expectation and measurement, of kernels left out of the fit."""
    found = []
    for key, rows in samples.items():
        own = np.array(rows)
        if len(own) >= 8 and len(samples) > 1:
            weights = fitted({other: its for other, its in samples.items() if other != key})
            expected = ranks(own[:, :-1] @ weights)
            found.append(float(np.corrcoef(expected, ranks(own[:, -1]))[0, 1]))
    return found


def opened(model: Path, target: str, folder: Path) -> Tunable:
    """A model as tuning sees it."""
    from tensmith.compiler.backend import resolve_target
    from tensmith.compiler.compilation import CompileOptions, Stages
    from tensmith.driver.model_build import import_model
    from tensmith.driver.samples import Sampler

    backend, resolved = resolve_target(target)
    assert backend.tuning is not None
    graph = import_model(model, {})
    options = CompileOptions("model", folder, sizes=Sampler(graph).usual_sizes)
    return backend.tuning.open(graph, resolved, options, Stages())


def main(
    records: Annotated[Path | None, typer.Option(help="Records to take samples from.")] = None,
    models: Annotated[str, typer.Option(help="Of the sessions in them; commas between.")] = "",
    target: Annotated[str, typer.Option(help="Of the sessions.")] = "native",
) -> None:
    """Take samples, fit, judge, and write the weights."""
    data: dict[str, Any] = {"features": list(FEATURES), "samples": {}}
    if SAMPLES.exists():
        known = json.loads(SAMPLES.read_text(encoding="utf-8"))
        data = known if known["features"] == data["features"] else data
    if records is not None:
        with tempfile.TemporaryDirectory() as scratch, Records(records, write=False) as file:
            for case in find_cases(models.split(","), Path(scratch)):
                data["samples"] |= samples_of(opened(case.model, target, Path(scratch)), file)
        SAMPLES.write_text(f"{in_lines(data)}\n", encoding="utf-8")
    samples = data["samples"]
    found, count = judged(samples), sum(map(len, samples.values()))
    print(f"{count} samples of {len(samples)} kernels; of those left out, rank correlation")
    print(f"{np.mean(found):.2f} (worst {min(found):.2f}, best {max(found):.2f})")
    weights = dict(zip(FEATURES, np.round(fitted(samples), DIGITS).tolist(), strict=True))
    told = {"samples": count, "kernels": len(samples), "revision": revision(), "weights": weights}
    FILE.write_text(f"{json.dumps(told, indent=2)}\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
