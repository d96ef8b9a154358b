"""Linear models and support vector machines of ai.onnx.ml."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .....compiler.errors import InternalError
from .....compiler.ir import DType, Graph, TensorType, Value, constant
from ...containers import Content
from ...site import NotSupported, Site
from ...table import lowers
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
_ROUNDS = 100  # of the iteration for class probabilities, as in ONNX Runtime


def _product(s: Site, x: Value, weights: Array) -> Value:
    """x times the transpose of constant rows [M, features]: [N, M]."""
    return s.emit("matmul", [x, constant(np.ascontiguousarray(weights.T))])


def _matrix(values: Array, count: int, x: Value, what: str) -> Array:
    """A flat attribute as rows, one per target, that fit x."""
    if count < 1 or not len(values) or len(values) % count:
        raise ValueError(f"{len(values)} {what} do not make {count} rows")
    matrix = values.reshape(count, -1)
    if isinstance(x.shape[1], int) and matrix.shape[1] != x.shape[1]:
        raise ValueError(f"{what} of {matrix.shape[1]} features for the input {x.type}")
    return matrix


@lowers("LinearRegressor", domain=ML)
def linear_regressor(s: Site) -> Value:
    x, targets = rows(s, s.input(0)), s.integer("targets", 1)
    out = _product(s, x, _matrix(floats(s, "coefficients"), targets, x, "coefficients"))
    intercepts = floats(s, "intercepts")
    if len(intercepts) == targets:
        out = s.op_("add", out, constant(intercepts))
    elif len(intercepts):
        raise ValueError(f"{len(intercepts)} intercepts for {targets} targets")
    name = transform_name(s)
    if targets == 1:
        return probit(s, out) if name == "PROBIT" else out
    return transform(s, out, name)


def _second_class(s: Site, score: Value, name: str) -> Value:
    """Scores of two classes from the score [N, 1] of the second one."""
    if name == "LOGISTIC":
        return s.op_("sigmoid", columns(s, s.op_("neg", score), score))
    if name == "PROBIT":  # ONNX Runtime leaves the second one as memory was
        return columns(s, probit(s, score), s.expand(s.scalar(0.0, score.dtype), score.shape))
    return columns(s, s.op_("sub", 1.0, score), score)


def _flag_label(s: Site, chosen: Value, labels: Array) -> Content:
    """One of two labels by a truth value [N, 1]."""
    index = s.reshape(s.cast(chosen, DType.I64), (chosen.shape[0],))
    return label_at(s, labels if len(labels) == 2 else np.array([0, 1], np.int64), index)


@lowers("LinearClassifier", domain=ML)
def linear_classifier(s: Site) -> Sequence[Content]:
    labels, intercepts = class_labels(s, "classlabels_ints"), floats(s, "intercepts")
    if not len(intercepts):
        raise NotSupported("it has no intercepts, which tell the number of its classes")
    x, name = rows(s, s.input(0)), transform_name(s)
    weights = _matrix(floats(s, "coefficients"), len(intercepts), x, "coefficients")
    scores = s.op_("add", _product(s, x, weights), constant(intercepts))
    if len(intercepts) == 1:
        label = _flag_label(s, s.op_("gt", scores, 0.0), labels)
        if len(labels) == 2:
            return [label, _second_class(s, scores, name)]
        return [label, probit(s, scores) if name == "PROBIT" else scores]
    if len(labels) < len(intercepts):
        raise ValueError(f"{len(labels)} labels for {len(intercepts)} classes")
    label = label_at(s, labels, s.emit("argmax", [scores], axis=1, keepdims=False))
    return [label, transform(s, scores, name)]


# ---------------------------------------------------------------------- support vectors


def _kernel(s: Site, x: Value, vectors: Array, kind: str) -> Value:
    """The kernel function between rows of x and vectors [M, features]: [N, M]."""
    parameters = floats(s, "kernel_params")
    gamma, coef0, degree = (*parameters.tolist(), 0.0, 0.0, 0.0)[:3]
    if kind == "RBF":
        # the squared distance as a sum over features: a difference of products would cancel
        spread = s.op_("sub", s.reshape(x, (x.shape[0], 1, x.shape[1])), constant(vectors[None]))
        distance = s.reduce("sum", s.op_("mul", spread, spread), [2], False)
        return s.op_("exp", s.op_("mul", distance, -gamma))
    dot = _product(s, x, vectors)
    if kind == "LINEAR":
        return dot
    inner = s.op_("add", s.op_("mul", dot, gamma), coef0)
    if kind == "SIGMOID":
        return s.op_("tanh", inner)
    if kind != "POLY":
        raise ValueError(f"kernel_type '{kind}' does not exist")
    if degree in (1.0, 2.0, 3.0):
        out = inner
        for _ in range(int(degree) - 1):
            out = s.op_("mul", out, inner)
        return out
    return s.op_("pow", inner, degree)


@lowers("SVMRegressor", domain=ML)
def svm_regressor(s: Site) -> Value:
    x, supports = rows(s, s.input(0)), s.integer("n_supports", 0)
    coefficients, rho = floats(s, "coefficients"), floats(s, "rho")
    if not len(rho):
        raise ValueError("rho is missing")
    if supports > 0:
        vectors = _matrix(floats(s, "support_vectors"), supports, x, "support vectors")
        if len(coefficients) != supports:
            raise ValueError(f"{len(coefficients)} coefficients for {supports} support vectors")
        kernel = _kernel(s, x, vectors, s.text("kernel_type", "LINEAR"))
        out = _product(s, kernel, coefficients[None])
    else:
        out = _product(s, x, _matrix(coefficients, 1, x, "coefficients"))
    out = s.op_("add", out, rho[0].item())
    if s.integer("one_class", 0):
        return s.op_("where", s.op_("gt", out, 0.0), 1.0, s.op_("sub", s.op_("mul", out, 0.0), 1.0))
    return out


@lowers("SVMClassifier", domain=ML)
def svm_classifier(s: Site) -> Sequence[Content]:
    labels, counts = class_labels(s, "classlabels_ints"), s.ints("vectors_per_class", [])
    x, name = rows(s, s.input(0)), transform_name(s)
    coefficients, rho = floats(s, "coefficients"), floats(s, "rho")
    classes, total = len(labels), sum(counts)
    if classes < 2 or not len(rho):
        raise ValueError("it has fewer than two classes, or no rho")
    if not total:  # linear: one row of coefficients per class
        matrix = _matrix(coefficients, classes, x, "coefficients")
        scores = s.op_("add", _product(s, x, matrix), rho[0].item())
        return [_linear_label(s, scores, coefficients, labels), transform(s, scores, name)]
    if len(counts) != classes or min(counts) < 0:
        raise ValueError(f"{len(counts)} counts of support vectors for {classes} classes")
    vectors = _matrix(floats(s, "support_vectors"), total, x, "support vectors")
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    if len(coefficients) < (classes - 1) * total or len(rho) < len(pairs):
        raise ValueError("it has too few coefficients or entries of rho")
    weights = _pair_weights(coefficients[: (classes - 1) * total].reshape(-1, total), counts, pairs)
    kernel = _kernel(s, x, vectors, s.text("kernel_type", "LINEAR"))
    scores = s.op_("add", _product(s, kernel, weights), constant(rho[: len(pairs)]))
    label = _voted(s, scores, pairs, labels)
    if len(floats(s, "prob_a")):
        return [label, transform(s, _probabilities(s, scores, pairs, classes), name)]
    if classes > 2:
        return [label, transform(s, scores, name)]
    if name == "NONE":
        return [label, columns(s, s.op_("neg", scores), scores)]
    return [label, _second_class(s, scores, name)]


def _linear_label(s: Site, scores: Value, coefficients: Array, labels: Array) -> Content:
    best = s.emit("argmax", [scores], axis=1, keepdims=False)
    if len(labels) != 2:
        return label_at(s, labels, best)
    positive = bool((coefficients >= 0).all())
    largest = s.reduce("max", scores, [1], False)
    sure = s.op_("ge", largest, 0.5) if positive else s.op_("gt", largest, 0.0)
    return label_at(s, labels, s.op_("where", sure, 1, best))


def _pair_weights(
    coefficients: Array, counts: Sequence[int], pairs: Sequence[tuple[int, int]]
) -> Array:
    """What each support vector contributes to the score of each pair: [pairs, vectors].

    Row j - 1 of the coefficients [classes - 1, vectors] holds, for vectors of a class i < j, those
    of the pair (i, j); row i, for vectors of class j, those of the same pair (libsvm's order).
    """
    ends = np.cumsum([0, *counts])
    weights = np.zeros((len(pairs), int(ends[-1])), np.float32)
    for row, (i, j) in enumerate(pairs):
        weights[row, ends[i] : ends[i + 1]] = coefficients[j - 1, ends[i] : ends[i + 1]]
        weights[row, ends[j] : ends[j + 1]] = coefficients[i, ends[j] : ends[j + 1]]
    return weights


def _voted(s: Site, scores: Value, pairs: Sequence[tuple[int, int]], labels: Array) -> Content:
    """The label of the class that wins most pairs."""
    wins = np.zeros((len(labels), len(pairs)), np.float32)
    losses = np.zeros((len(labels), len(pairs)), np.float32)
    for pair, (i, j) in enumerate(pairs):
        wins[i, pair] = losses[j, pair] = 1
    first = s.cast(s.op_("gt", scores, 0.0), DType.F32)
    votes = s.op_("add", _product(s, first, wins - losses), constant(losses.sum(1)))
    return label_at(s, labels, s.emit("argmax", [votes], axis=1, keepdims=False))


def _probabilities(s: Site, scores: Value, pairs: Sequence[tuple[int, int]], classes: int) -> Value:
    """Class probabilities [N, classes] that fit those of the pairs best.

    The iteration of Wu, Lin and Weng, "Probability estimates for multi-class classification by
    pairwise coupling" (2004), algorithm 2, as libsvm runs it; a loop ends when all rows are done.
    """
    a, b = floats(s, "prob_a"), floats(s, "prob_b")
    if len(a) < len(pairs) or len(b) < len(pairs):
        raise ValueError(f"{len(a)} and {len(b)} probability coefficients for {len(pairs)} pairs")
    line = s.op_("add", s.op_("mul", scores, constant(a[: len(pairs)])), constant(b[: len(pairs)]))
    first = s.op_("min", s.op_("max", s.op_("sigmoid", s.op_("neg", line)), 1e-7), 1 - 1e-7)
    wins: list[list[Value | None]] = [[None] * classes for _ in range(classes)]
    for number, (i, j) in enumerate(pairs):
        part = s.slice(first, 1, number, number + 1)
        wins[i][j], wins[j][i] = part, s.op_("sub", 1.0, part)
    entries = [_entry(s, wins, i, j) for i in range(classes) for j in range(classes)]
    q = s.reshape(s.emit("concat", entries, axis=1), (scores.shape[0], classes, classes))
    start = s.expand(s.scalar(1.0 / classes, DType.F32), (scores.shape[0], classes))
    parameters = [
        Value(TensorType(DType.I64, ())),
        Value(TensorType(DType.BOOL, ())),
        Value(start.type),
    ]
    s.emitter.enter()
    after, going = map(s.emitter.real, _round(s, q, parameters[2], classes))
    nodes, _ = s.emitter.leave()
    region = Graph(parameters, [going, after], nodes, "coupling")
    limits = [s.scalar(_ROUNDS, DType.I64), s.scalar(True, DType.BOOL)]
    return s.emitter.emit_node("loop", [*limits, start], {"bound": ()}, regions=[region])[0]


def _entry(s: Site, wins: list[list[Value | None]], i: int, j: int) -> Value:
    """Entry (i, j) of the quadratic form whose smallest value is sought: [N, 1]."""
    if i != j:
        return s.op_("neg", s.op_("mul", _some(wins[j][i]), _some(wins[i][j])))
    others = [_some(wins[k][i]) for k in range(len(wins)) if k != i]
    total = s.op_("mul", others[0], others[0])
    for value in others[1:]:
        total = s.op_("add", total, s.op_("mul", value, value))
    return total


def _some(value: Value | None) -> Value:
    if value is None:
        raise InternalError("a pair of classes has no score")
    return value


def _round(s: Site, q: Value, p: Value, classes: int) -> tuple[Value, Value]:
    """One update of every probability in turn, and whether any row had not converged before; rows
    that have stay as they are."""
    rows_ = p.shape[0]
    before = p
    products = s.reduce("sum", s.op_("mul", q, s.reshape(p, (rows_, 1, classes))), [2], False)
    whole = s.reduce("sum", s.op_("mul", p, products), [1])
    error = s.reduce("max", s.op_("abs", s.op_("sub", products, whole)), [1])
    open_ = s.op_("ge", error, 0.005 / classes)
    for i in range(classes):
        row = s.take(q, 1, i)
        own, product = s.slice(row, 1, i, i + 1), s.slice(products, 1, i, i + 1)
        step = s.op_("div", s.op_("sub", whole, product), own)
        scale = s.op_("add", step, 1.0)
        unit = constant((np.arange(classes) == i).astype(np.float32)[None])
        p = s.op_("div", s.op_("add", p, s.op_("mul", step, unit)), scale)
        twice = s.op_("add", s.op_("mul", step, own), s.op_("mul", product, 2.0))
        whole = s.op_("add", whole, s.op_("mul", step, twice))
        whole = s.op_("div", s.op_("div", whole, scale), scale)
        products = s.op_("div", s.op_("add", products, s.op_("mul", step, row)), scale)
    going = s.cast(s.reduce("max", s.cast(open_, DType.U8), [0, 1], False), DType.BOOL)
    return s.op_("where", open_, p, before), going
