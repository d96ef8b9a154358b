"""Tree ensembles: tables of nodes, which the operator `forest` walks, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....compiler.ir import DType, Value, constant
from ..containers import Content
from ..site import NotSupported, Site
from ..table import lowers
from .ml_common import (
    ML,
    class_labels,
    columns,
    floats,
    label_at,
    probit,
    rows,
    transform_name,
)
from .ml_common import transformed as transform
from .ml_forest import Forest, classic_forest, newer_forest

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
    nodes, plain = forest.nodes(x.dtype)
    operands = (nodes, forest.roots.astype(np.int32), *map(np.ascontiguousarray, tables))
    return s.emit(
        "forest",
        [x, *map(constant, operands)],
        columns=columns,
        features=int(forest.feature.max()) + 1,
        reduction=reduction,
        plain=plain,
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
    out = scores_of(s, forest, rows(s, x, dtype), s.text("aggregate_function", "SUM"))
    base = base_values(s, dtype)
    if len(base) == targets:
        out = s.op_("add", out, constant(base))
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
        label, scores = _binary(s, forest, scores, base, labels)
    else:
        if len(base) not in (0, len(labels)):
            raise ValueError(f"{len(base)} base values for {len(labels)} classes")
        shown = scores = s.op_("add", scores, constant(base)) if len(base) else scores
        if not len(base) and not forest.always_present().all():
            present = forest.present.astype(forest.weights.dtype)
            said = walked(s, forest, x, present, "max")
            shown = s.op_("where", s.op_("gt", said, 0.0), scores, -np.inf)
        label = label_at(s, labels, s.emit("argmax", [shown], axis=1, keepdims=False))
        scores = transform(s, scores, transform_name(s))
    return [label, s.cast(scores, DType.F32)]


def _binary(
    s: Site, forest: Forest, scores: Value, base: Array, labels: Array
) -> tuple[Content, Value]:
    """Label and scores of two classes, whose weights may be given for one of them only."""
    name = transform_name(s)
    first, second = s.slice(scores, 1, 0, 1), s.slice(scores, 1, 1, 2)
    said = [bool(forest.present[:, c].any()) for c in range(2)]
    single = not all(said)
    if len(base) == 2 and said[1]:
        second = s.op_("add", first, base[1].item())
        first = s.op_("neg", second)
    elif len(base) == 2:
        first, second = s.op_("add", first, base[0].item()), s.op_("add", second, base[1].item())
    elif len(base) == 1:
        first = s.op_("add", first, base[0].item())
    elif len(base):
        raise ValueError(f"{len(base)} base values for 2 classes")
    decisive = second if said[1] else first
    positive = single and bool((forest.weights >= 0).all())
    chosen = s.op_("gt", decisive, 0.5 if positive else 0.0)
    index = s.reshape(s.cast(chosen, DType.I64), (scores.shape[0],))
    plain = not single and labels.dtype != object  # ONNX Runtime then says 0 and 1
    label = label_at(s, np.array([0, 1], np.int64) if plain else labels, index)
    if said[1] or len(base) == 2:
        zero = s.op_("mul", first, 0.0)  # what no weight is given for stays 0 whatever the base
        shown = (first if said[0] else zero, second if said[1] else zero)
        return label, transform(s, columns(s, *shown), name)
    if name == "PROBIT":
        raise NotSupported("PROBIT of the scores of one class is not defined")
    if name == "LOGISTIC":
        return label, s.op_("sigmoid", columns(s, s.op_("neg", first), first))
    return label, columns(s, s.op_("sub", 1.0 if positive else 0.0, first), first)
