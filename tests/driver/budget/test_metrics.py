"""What metrics make of outputs."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from tensmith.compiler.errors import UsageError
from tensmith.driver.budget.metrics import (
    METRICS,
    TABLE,
    identity_of,
    metric_of,
    scores_of,
    usual_metric,
)

SCORES = {"y": np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], np.float32)}
OTHER = {"y": np.array([[0.6, 0.4], [0.8, 0.2], [0.3, 0.7]], np.float32)}


def value(name: str, outputs, exact=None, label=None) -> float:
    metric = TABLE[name]
    return metric.value([metric.record(outputs, exact or outputs, label)])


def test_classes() -> None:
    labels = np.array([1, 0, 0])
    assert value("top1", SCORES, label=labels) == pytest.approx(2 / 3)
    assert value("top1", OTHER, label=labels) == pytest.approx(1 / 3)
    assert value("agreement", OTHER, SCORES) == pytest.approx(2 / 3)
    assert value("agreement", SCORES, SCORES) == 1.0
    chosen = {"label": np.array([1, 0, 1]), "n": np.zeros(1, np.float32)}
    assert value("top1", chosen, label=labels) == pytest.approx(2 / 3)


def test_classes_of_places() -> None:
    image = {"y": np.random.default_rng(0).random((1, 3, 4, 5), np.float32)}
    labels = image["y"].argmax(axis=1)
    assert value("top1", image, label=labels) == 1.0
    labels[0, 0, 0] = (labels[0, 0, 0] + 1) % 3
    assert value("top1", image, label=labels) == pytest.approx(19 / 20)


def test_f1_is_the_mean_over_classes() -> None:
    """Class 0: told once, true twice; class 1: told twice, true once; both hit once."""
    assert value("f1", SCORES, label=[1, 0, 0]) == pytest.approx((2 / 3 + 2 / 3) / 2)
    both = [TABLE["f1"].record(SCORES, SCORES, [1, 0, 0])] * 2
    assert TABLE["f1"].value(both) == pytest.approx(2 / 3)


def test_numbers() -> None:
    outputs = {"y": np.array([[1.0, 2.0]], np.float32)}
    assert value("mae", outputs, label=np.array([2.0, 4.0])) == pytest.approx(1.5)
    assert TABLE["mae"].loss(1.5, 1.0) == 0.5
    assert TABLE["top1"].loss(0.5, 1.0) == 0.5


def test_distances_from_f32() -> None:
    exact = {"a": np.array([[3.0, 4.0]], np.float32), "b": np.ones((1, 4), np.float32)}
    real = {"a": np.array([[4.0, 3.0]], np.float32), "b": np.ones((1, 4), np.float32)}
    assert value("cosine", real, exact) == pytest.approx(24 / 25)  # of the worst output
    assert value("cosine", exact, exact) == 1.0
    assert value("snr", real, exact) == pytest.approx(2 / 25)
    assert value("snr", exact, exact) == 0.0
    zeros = {"a": np.zeros((1, 2), np.float32)}
    assert value("cosine", zeros, zeros) == 1.0


def test_outputs_of_another_shape_are_lost() -> None:
    """A detector that finds more, less, or nothing; where f32 finds nothing, that is right."""
    two = {"y": np.array([[3.0, 4.0], [1.0, 0.0]], np.float32)}
    one, none = {"y": two["y"][:1]}, {"y": two["y"][:0]}
    labels = np.array([1, 0])
    assert [value("agreement", found, two) for found in (two, one, none)] == [1.0, 0.0, 0.0]
    assert [value("top1", found, two, labels) for found in (two, one)] == [1.0, 0.0]
    assert [value("f1", found, two, labels) for found in (two, one)] == [1.0, 0.0]
    assert [value("cosine", found, two) for found in (two, one, none)] == [1.0, 0.0, 0.0]
    assert [value("snr", found, two) for found in (two, one, none)] == [0.0, 1.0, 1.0]
    assert [value("agreement", found, none) for found in (none, two)] == [1.0, 0.0]
    assert [value("cosine", found, none) for found in (none, two)] == [1.0, 0.0]
    assert value("snr", none, none) == 0.0
    snr = TABLE["snr"]
    assert snr.value([snr.record(two, two, None), snr.record(two, none, None)]) == 1.0
    other = {"n": np.ones((1, 2), np.float32)}
    assert value("cosine", {**one, **other}, {**two, **other}) == pytest.approx(1 / 3)
    with pytest.raises(UsageError, match="another shape in lower precision"):
        value("mae", one, two, np.zeros(2))


def test_functions() -> None:
    """They get the outputs and labels of all samples, along the first axis."""

    def error(outputs, labels):
        assert outputs["y"].shape == (6, 2)
        assert labels.tolist() == [1, 0, 0, 1, 0, 0]
        return np.mean(outputs["y"].argmax(1) != labels)

    metric = metric_of(error, "lower")
    assert metric is not None
    assert metric.name == "error"
    records = [metric.record(SCORES, SCORES, np.array([1, 0, 0]))] * 2
    assert metric.value(records) == pytest.approx(1 / 3)
    assert metric.loss(0.4, 0.3) == pytest.approx(0.1)
    ragged = metric_of(lambda outputs, labels: len(outputs["y"]), "higher")
    assert ragged is not None
    two = [ragged.record({"y": np.zeros((1, n))}, {}, None) for n in (2, 3)]
    assert ragged.value(two) == 2.0


@pytest.mark.parametrize("given", [lambda o, y: "good", lambda o, y: np.nan])
def test_functions_that_give_no_number(given) -> None:
    metric = metric_of(given, "higher")
    assert metric is not None
    with pytest.raises(UsageError, match="the metric gave"):
        metric.value([metric.record(SCORES, SCORES, None)])


def test_what_is_taken_where_nothing_is_named() -> None:
    assert usual_metric(np.int64(3), False, 2).name == "top1"
    assert usual_metric(np.float32(3), True, 2).name == "mae"
    assert usual_metric(None, True, 2).name == "agreement"
    assert usual_metric(None, False, 2).name == "cosine"
    assert usual_metric(None, False, 4).name == "snr"
    assert metric_of(None, "higher") is None


def test_refusals() -> None:
    with pytest.raises(UsageError, match="no metric 'top5'") as caught:
        metric_of("top5", "higher")
    assert all(name in caught.value.remedy for name in METRICS)
    with pytest.raises(UsageError, match="direction 'up'"):
        metric_of("top1", "up")
    with pytest.raises(UsageError, match="no output has scores"):
        scores_of({"y": np.zeros((4, 1), np.float32)})
    with pytest.raises(UsageError, match="2 labels, and outputs of 3"):
        value("top1", SCORES, label=[0, 1])
    with pytest.raises(UsageError, match="needs numbers of classes"):
        value("top1", SCORES, label=[0.5, 1.0, 0.0])
    with pytest.raises(UsageError, match="element by element"):
        value("mae", SCORES, label=[1.0])
    with pytest.raises(UsageError, match="no output is of floats"):
        value("cosine", {"y": np.zeros(3, np.int64)})


def test_scores_that_are_no_number_tell_no_class() -> None:
    lost = {"y": np.array([[np.nan, 0.9], [np.nan, np.nan], [0.3, 0.7]], np.float32)}
    zeros = np.array([0, 0, 1])
    exact = {"y": np.eye(2, dtype=np.float32)[zeros]}
    assert value("agreement", lost, exact) == pytest.approx(1 / 3)
    assert value("top1", lost, label=zeros) == pytest.approx(1 / 3)
    places = {"y": np.full((1, 3, 2, 2), np.nan, np.float32)}
    assert value("top1", places, label=np.zeros((2, 2), np.int64)) == 0.0


FACTOR = 1.0


class Stateful:
    def __call__(self, outputs, labels) -> float:
        return 0.0

    def method(self, outputs, labels) -> float:
        return 0.0


def plain(outputs, labels) -> float:
    return float(np.mean([np.abs(array).max() for array in outputs.values()]))


def of_a_global(outputs, labels) -> float:
    return FACTOR


def of_a_global_inside(outputs, labels) -> float:
    return sum([FACTOR for _ in outputs])


def of_another_function(outputs, labels) -> float:
    return plain(outputs, labels)


def with_a_default(outputs, labels, factor=1.0) -> float:
    return factor


def with_a_keyword(outputs, labels, *, factor=1.0) -> float:
    return factor


def test_what_alone_decides_figures_has_an_identity() -> None:
    assert [identity_of(given) for given in (None, "top1")] == ["None", "top1"]
    told = identity_of(plain)
    assert told is not None
    assert "def plain" in told
    assert told.endswith("np: numpy")
    local = 2.0
    two = (lambda outputs, labels: 1.0), (lambda outputs, labels: 2.0)
    others = (
        *two,
        lambda outputs, labels: local,
        Stateful(),
        Stateful().method,
        partial(plain, labels=None),
        of_a_global,
        of_a_global_inside,
        of_another_function,
        with_a_default,
        with_a_keyword,
        np.mean,
    )
    assert [identity_of(given) for given in others] == [None] * len(others)


@pytest.mark.parametrize(
    ("name", "outputs", "label"),
    [("top1", SCORES, np.zeros(2, int)), ("mae", SCORES, np.zeros(5))],
)
def test_labels_of_other_numbers_are_refused_with_a_remedy(name, outputs, label) -> None:
    with pytest.raises(UsageError, match="labels") as caught:
        value(name, outputs, label=label)
    assert caught.value.remedy
