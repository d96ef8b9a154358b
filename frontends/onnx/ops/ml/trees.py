"""Tree ensembles: tables of nodes, which the operator `forest` walks, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .....compiler.ir import DType, Value, constant
from ...containers import Content
from ...site import Site
from ...table import lowers
from ..shared.forest_attributes import Forest, classic_forest, newer_forest
from ..shared.scores import (
    ML,
    class_labels,
    columns,
    floats,
    label_at,
    probit,
    rows,
    transform_name,
)
from ..shared.scores import transformed as transform

Array = np.ndarray[Any, Any]


def scores_of(s: Site, forest: Forest, x: Value, function: str) -> Value:
    """What the trees say together about rows of x: [N, targets].

    function: SUM, AVERAGE, MIN or MAX; a target for which nothing is said is 0.
    """
    if function not in ("SUM", "AVERAGE", "MIN", "MAX"):
        raise ValueError(f"aggregate_function '{function}' does not exist")
    if function == "AVERAGE":
        total = scores_of(s, forest, x, "SUM")
        return s.op_("div", total, float(len(forest.roots)))
    if function == "SUM":
        return walked(s, forest, x, forest.weights, "sum")
    nothing = np.inf if function == "MIN" else -np.inf
    weights = np.where(forest.present, forest.weights, forest.weights.dtype.type(nothing))
    best = walked(s, forest, x, weights, function.lower())
    return s.op_("where", s.op_("isinf", best), 0.0, best)


def walked(s: Site, forest: Forest, x: Value, weights: Array, reduction: str) -> Value:
    """Weights [leaves, targets] of the leaves that rows of x reach, reduced over the trees."""
    depth = len(list(forest.levels())) - 1
    if depth < 0:
        raise ValueError("there are no trees")
    if forest.feature.min() < 0 or (
        isinstance(x.shape[1], int) and forest.feature.max() >= x.shape[1]
    ):
        raise ValueError(f"a tree asks for a feature that {x.type} does not have")
    columns = weights.shape[1]
    tables = [weights]
    if columns > 1 and (forest.present.sum(1) <= 1).all():
        own = forest.present.argmax(1)
        tables = [weights[np.arange(len(own)), own][:, None], own.astype(np.int32)]
    nodes, tests = forest.nodes(x.dtype)
    roots = np.arange(len(forest.roots), dtype=np.int32)
    operands = (nodes, roots, *map(np.ascontiguousarray, tables))
    return s.emit(
        "forest",
        [x, *map(constant, operands)],
        columns=columns,
        features=int(forest.feature.max()) + 1,
        reduction=reduction,
        tests=tests,
    )


def _number_type(s: Site, x: Value) -> DType:
    """What thresholds and scores are computed in."""
    return DType.F64 if x.dtype is DType.F64 else DType.F32


def base_values(s: Site, dtype: DType) -> Array:
    """The attribute base_values, possibly empty."""
    return floats(s, "base_values").astype(dtype.numpy)


@lowers("TreeEnsembleRegressor", domain=ML)
def tree_regressor(s: Site) -> Value:
    x = s.input(0)
    dtype = _number_type(s, x)
    targets = s.integer("n_targets", 1)
    forest = classic_forest(s, "target", targets, dtype)
    x = rows(s, x, dtype)
    out = scores_of(s, forest, x, s.text("aggregate_function", "SUM"))
    base = base_values(s, dtype)
    if len(base) == targets:
        shifted = s.op_("add", out, constant(base))
        if targets > 1 and not forest.always_present().all():  # what nothing is said of stays 0
            shifted = s.op_("where", _said(s, forest, x), shifted, out)
        out = shifted
    elif len(base):
        raise ValueError(f"{len(base)} base values for {targets} targets")
    return s.cast(_finished(s, out, transform_name(s)), DType.F32)


def _finished(s: Site, out: Value, name: str) -> Value:
    """Post transform of a regression; a single target is only changed by PROBIT."""
    if out.shape[1] == 1:
        return probit(s, out) if name == "PROBIT" else out
    return transform(s, out, name)


@lowers("TreeEnsemble", domain=ML)
def tree_ensemble(s: Site) -> Value:
    x, number = s.input(0), s.integer("aggregate_function", 1)
    if not 0 <= number < 4:
        raise ValueError(f"aggregate_function {number} does not exist")
    forest = newer_forest(s, s.integer("n_targets", 1))
    if forest.weights.dtype != forest.threshold.dtype or x.dtype.numpy != forest.weights.dtype:
        raise ValueError("the input, splits and weights differ in their element type")
    out = scores_of(s, forest, rows(s, x, x.dtype), ("AVERAGE", "SUM", "MIN", "MAX")[number])
    return _finished(s, out, transform_name(s))


@lowers("TreeEnsembleClassifier", domain=ML)
def tree_classifier(s: Site) -> Sequence[Content]:
    labels = class_labels(s, "classlabels_int64s")
    x = s.input(0)
    dtype = _number_type(s, x)
    forest = classic_forest(s, "class", len(labels), dtype)
    x = rows(s, x, dtype)
    base = base_values(s, dtype)
    scores = scores_of(s, forest, x, "SUM")
    if len(labels) == 2:
        return _binary(s, _Two(forest, x, scores, base), labels)
    if len(base) not in (0, len(labels)):
        raise ValueError(f"{len(base)} base values for {len(labels)} classes")
    if len(labels) == 1:
        return _unary(s, s.op_("add", scores, constant(base)) if len(base) else scores, labels)
    shown = scores = s.op_("add", scores, constant(base)) if len(base) else scores
    if not len(base) and not forest.always_present().all():
        shown = s.op_("where", _said(s, forest, x), scores, -np.inf)
    label = label_at(s, labels, s.emit("argmax", [shown], axis=1, keepdims=False))
    return [label, s.cast(transform(s, scores, transform_name(s)), DType.F32)]


def _unary(s: Site, scores: Value, labels: Array) -> Sequence[Content]:
    """Label and score of the only class: ONNX Runtime says 1 where the score is positive."""
    if labels.dtype == object:
        index = s.expand(s.scalar(0, DType.I64), (scores.shape[0],))
        label = label_at(s, labels, index)
    else:
        label = s.reshape(s.cast(s.op_("gt", scores, 0.0), DType.I64), (scores.shape[0],))
    return [label, s.cast(_finished(s, scores, transform_name(s)), DType.F32)]


def _said(s: Site, forest: Forest, x: Value) -> Value:
    """[N, targets]: whether a row gets some weight for a target."""
    present = forest.present.astype(forest.weights.dtype)
    return s.op_("gt", walked(s, forest, x, present, "max"), 0.0)


@dataclass(frozen=True)
class _Two:
    """An ensemble of two classes: its sums [N, 2] over rows of x, and its base values."""

    forest: Forest
    x: Value
    scores: Value
    base: Array

    @property
    def used(self) -> list[bool]:
        """Whether any leaf has a weight for a class."""
        return [bool(column.any()) for column in self.forest.present.T]

    @property
    def positive(self) -> bool:
        """Whether the scores are probabilities of one class."""
        return sum(self.used) == 1 and bool((self.forest.weights >= 0).all())


def _binary(s: Site, two: _Two, labels: Array) -> Sequence[Content]:
    """Label and scores of two classes.

    A row whose leaves say nothing of the second class has one score, and is treated in another way
    than one that has both; what nothing is said of has the score 0, whatever its base value.
    """
    if len(two.base) > 2:
        raise ValueError(f"{len(two.base)} base values for 2 classes")
    always, used = two.forest.always_present(), two.used
    known = all(a or not u for a, u in zip(always, used, strict=True))
    table = None if known else _said(s, two.forest, two.x)
    first, second = (
        bool(used[c]) if table is None or always[c] == used[c] else s.slice(table, 1, c, c + 1)
        for c in range(2)
    )
    decisive, scores = _one_score(s, two, first)
    if second is True:
        decisive, scores = _two_scores(s, two, first)
    elif isinstance(second, Value):
        pair = _two_scores(s, two, first)
        decisive = s.op_("where", second, pair[0], decisive)
        scores = s.op_("where", second, pair[1], scores)
    chosen = s.op_("gt", decisive, 0.5 if two.positive else 0.0)
    index = s.reshape(s.cast(chosen, DType.I64), (scores.shape[0],))
    plain = sum(used) != 1 and labels.dtype != object  # ONNX Runtime then says 0 and 1
    label = label_at(s, np.array([0, 1], np.int64) if plain else labels, index)
    return [label, s.cast(scores, DType.F32)]


def _if(s: Site, said: Value | bool, score: Value) -> Value:
    """A score [N, 1] where it is said, otherwise 0."""
    if isinstance(said, bool):
        return score if said else _zero(s, score)
    return s.op_("where", said, score, 0.0)


def _zero(s: Site, like: Value) -> Value:
    return s.expand(s.scalar(0.0, like.dtype), like.shape)


def _two_scores(s: Site, two: _Two, said: Value | bool) -> tuple[Value, Value]:
    """What decides [N, 1], and the scores [N, 2], of rows with a weight for the second class.

    said: which rows, [N, 1], have one for the first class.
    """
    first, second = s.slice(two.scores, 1, 0, 1), s.slice(two.scores, 1, 1, 2)
    if len(two.base) == 2:
        second = s.op_("add", first, two.base[1].item())
        first = s.op_("neg", second)
    elif len(two.base) == 1:
        first = s.op_("add", first, two.base[0].item())
    return second, transform(s, columns(s, _if(s, said, first), second), transform_name(s))


def _one_score(s: Site, two: _Two, said: Value | bool) -> tuple[Value, Value]:
    """What decides [N, 1], and the scores [N, 2], of rows without one for the second class.

    said: which rows, [N, 1], have a weight for the first class. Where ONNX Runtime leaves the
    second score undefined it is 0.
    """
    score, name = s.slice(two.scores, 1, 0, 1), transform_name(s)
    if len(two.base):
        score = s.op_("add", score, two.base[0].item())
    score = _if(s, said, score)
    zero = _zero(s, score)
    if len(two.base) == 2:
        return score, transform(s, columns(s, score, zero), name)
    if name == "PROBIT":
        return score, columns(s, probit(s, score), zero)
    if len(two.base) == 1 and sum(two.used) != 1:
        return score, columns(s, score, zero)
    pair = columns(s, s.op_("neg", score), score)
    if name == "LOGISTIC":
        return score, s.op_("sigmoid", pair)
    if two.positive:
        return score, columns(s, s.op_("sub", 1.0, score), score)
    return score, pair
