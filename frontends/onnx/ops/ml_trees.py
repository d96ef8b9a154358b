"""Tree ensembles as code without branches.

All trees of all rows go down one level at a time: a node number picks feature, threshold and the
pair of children from constant arrays; leaves are their own children, so that trees of different
depths end together. What is read at the leaves is then summed over the trees.
"""

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
    pick,
    probit,
    rows,
    transform_name,
)
from .ml_common import transformed as transform
from .ml_forest import EQ, Forest, classic_forest, newer_forest

Array = np.ndarray[Any, Any]
MAX_DEPTH = 512


def reached(s: Site, forest: Forest, x: Value) -> Value:
    """The leaf of every tree for every row of x: entries of `weights`, [N, trees]."""
    depth = len(list(forest.levels())) - 1
    if depth < 0:
        raise ValueError("there are no trees")
    if depth > MAX_DEPTH:
        raise NotSupported(f"a tree is {depth} levels deep", f"limit trees to {MAX_DEPTH} levels")
    if forest.feature.min() < 0 or (
        isinstance(x.shape[1], int) and forest.feature.max() >= x.shape[1]
    ):
        raise ValueError(f"a tree asks for a feature that {x.type} does not have")
    forest.normalise()
    state = constant(forest.roots.astype(np.int32).reshape(1, -1))
    for _ in range(depth):
        state = _descend(s, forest, x, state)
    leaf = pick(s, np.maximum(forest.leaf, 0).astype(np.int32), state)
    return s.expand(leaf, (x.shape[0], len(forest.roots)))


def _descend(s: Site, forest: Forest, x: Value, state: Value) -> Value:
    feature = pick(s, forest.feature.astype(np.int32), state)
    threshold = pick(s, forest.threshold.astype(x.dtype.numpy), state)
    if feature.is_constant:  # the roots are the same for all rows
        value = s.emit("gather", [x, s.reshape(feature, (len(forest.roots),))], axis=1)
    else:
        value = s.emit("gather_elements", [x, feature], axis=1)
    goes = s.op_("le", value, threshold)
    if (forest.mode == EQ).any():
        exact = pick(s, forest.mode == EQ, state)
        same = s.op_("and", exact, s.op_("eq", value, threshold))
        goes = s.op_("or", same, s.op_("and", s.op_("not", exact), goes))
    if forest.missing.any():
        tracked = pick(s, forest.missing, state)
        goes = s.op_("or", goes, s.op_("and", s.op_("isnan", value), tracked))
    at = s.op_("add", s.op_("mul", state, 2), s.cast(goes, DType.I32))
    return pick(s, forest.children.astype(np.int32).reshape(-1), at)


def gathered(s: Site, table: Array, leaf: Value) -> Value:
    """Rows of a table [leaves, targets] at the leaves [N, trees]: [N, trees, targets]."""
    return s.emit("gather", [constant(np.ascontiguousarray(table)), leaf], axis=0)


def aggregate(s: Site, forest: Forest, leaf: Value, function: str) -> Value:
    """What the trees say together: [N, targets]."""
    dtype = forest.weights.dtype
    if function in ("SUM", "AVERAGE"):
        own = _one_target(forest)
        if own is not None:
            total = _summed_apart(s, forest, leaf, own)
        else:
            total = s.reduce("sum", gathered(s, forest.weights, leaf), [1], False)
        return s.op_("div", total, float(len(forest.roots))) if function == "AVERAGE" else total
    if function not in ("MIN", "MAX"):
        raise ValueError(f"aggregate_function '{function}' does not exist")
    nothing = dtype.type(np.inf if function == "MIN" else -np.inf)
    values = gathered(s, np.where(forest.present, forest.weights, nothing), leaf)
    best = s.reduce(function.lower(), values, [1], False)
    return s.op_("where", s.op_("isinf", best), 0.0, best)


def _one_target(forest: Forest) -> Array | None:
    """The only target of every tree where each tree has one, else None."""
    speaks = np.zeros((len(forest.roots), forest.weights.shape[1]), bool)
    tree, node = np.arange(len(forest.roots)), forest.roots
    while node.size:
        leaf = forest.leaf[node]
        ends = leaf >= 0
        np.logical_or.at(speaks, tree[ends], forest.present[leaf[ends]])
        tree, node = np.repeat(tree[~ends], 2), forest.children[node[~ends]].reshape(-1)
        tree, node = np.unique(np.stack([tree, node]), axis=1)
    return speaks.argmax(1) if (speaks.sum(1) <= 1).all() else None


def _summed_apart(s: Site, forest: Forest, leaf: Value, own: Array) -> Value:
    """One number per tree, summed over the trees of each target."""
    targets = forest.weights.shape[1]
    values = pick(s, forest.weights.sum(1, dtype=forest.weights.dtype), leaf)
    if targets == 1:
        return s.reduce("sum", values, [1])
    shares = np.bincount(own, minlength=targets)
    if (shares == shares[0]).all() and (own == np.tile(np.arange(targets), shares[0])).all():
        split = s.reshape(values, (values.shape[0], int(shares[0]), targets))
        return s.reduce("sum", split, [1], False)
    parts = []
    for target in range(targets):
        mine = constant(np.flatnonzero(own == target).astype(np.int64))
        if not mine.type.elements:
            parts.append(s.expand(s.scalar(0.0, values.dtype), (values.shape[0], 1)))
        else:
            parts.append(s.reduce("sum", s.emit("gather", [values, mine], axis=1), [1]))
    return s.emit("concat", parts, axis=1)


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
    leaf = reached(s, forest, rows(s, x, dtype))
    out = aggregate(s, forest, leaf, s.text("aggregate_function", "SUM"))
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
    leaf = reached(s, forest, rows(s, x, x.dtype))
    out = aggregate(s, forest, leaf, ("AVERAGE", "SUM", "MIN", "MAX")[number])
    return _finished(s, out, transform_name(s))


@lowers("TreeEnsembleClassifier", domain=ML)
def tree_classifier(s: Site) -> Sequence[Content]:
    labels = class_labels(s, "classlabels_int64s")
    x = s.input(0)
    dtype = _number_type(s, x)
    forest = classic_forest(s, "class", len(labels), dtype)
    leaf = reached(s, forest, rows(s, x, dtype))
    base = base_values(s, dtype)
    scores = aggregate(s, forest, leaf, "SUM")
    if len(labels) == 2:
        label, scores = _binary(s, forest, scores, base, labels)
    else:
        if len(base) not in (0, len(labels)):
            raise ValueError(f"{len(base)} base values for {len(labels)} classes")
        shown = scores = s.op_("add", scores, constant(base)) if len(base) else scores
        if not len(base) and not forest.present.all():
            said = s.reduce("max", gathered(s, forest.present.astype(np.int32), leaf), [1], False)
            shown = s.op_("where", s.op_("gt", said, 0), scores, -np.inf)
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
