"""Pipelines of scikit-learn as `skl2onnx` exports them by default, with strings and maps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn import (
    calibration,
    compose,
    ensemble,
    impute,
    linear_model,
    multiclass,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)

_ROWS = 120
_RNG = np.random.default_rng(3)
_NUMBERS = _RNG.normal(size=(_ROWS, 6)).astype(np.float32)
_FRAME = pd.DataFrame(
    {
        "age": _RNG.normal(size=_ROWS).astype(np.float32),
        "income": _RNG.normal(size=_ROWS).astype(np.float32),
        "color": _RNG.choice(["red", "green", "bleu clair", "\u7d2b"], _ROWS),
        "size": _RNG.choice(["S", "M", "XL"], _ROWS),
    }
)
_TARGETS: dict[str, np.ndarray] = {
    "number": _NUMBERS @ _RNG.normal(size=6) + 1,
    "flag": (_NUMBERS[:, 0] > 0.2).astype(np.int64),
    "words": np.where(_NUMBERS[:, 1] > 0, "yes", "no"),
    "animals": np.array(["cat", "dog", "mouse"])[_RNG.integers(0, 3, _ROWS)],
}
_OPSETS = {"": 18, "ai.onnx.ml": 3}
Case = tuple[str, Any, str]


def _mixed(categories: Any, last: Any) -> Any:
    """Numbers scaled, categories encoded, then a model."""
    numbers = pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler())
    columns = compose.make_column_transformer(
        (numbers, ["age", "income"]), (categories, ["color", "size"])
    )
    return pipeline.make_pipeline(columns, last)


def _cases() -> Iterator[Case]:
    """(name, model, target) of every pipeline."""
    one_hot = preprocessing.OneHotEncoder(handle_unknown="ignore")
    ordinal = preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    for target in ("flag", "words", "animals"):
        yield f"mixed-logistic-{target}", _mixed(one_hot, linear_model.LogisticRegression()), target
        yield f"mixed-forest-{target}", _mixed(ordinal, ensemble.RandomForestClassifier(20)), target
    boosted = ensemble.GradientBoostingClassifier(n_estimators=20)
    classifiers = (
        ensemble.RandomForestClassifier(30, max_depth=6), boosted, svm.SVC(), svm.LinearSVC(),
        svm.SVC(probability=True), tree.DecisionTreeClassifier(), naive_bayes.GaussianNB(),
        neural_network.MLPClassifier((16,), max_iter=40), neighbors.KNeighborsClassifier(3),
        linear_model.SGDClassifier(), ensemble.ExtraTreesClassifier(20, max_depth=5),
        ensemble.AdaBoostClassifier(n_estimators=8), linear_model.Perceptron(),
        multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
        calibration.CalibratedClassifierCV(svm.LinearSVC()),
        ensemble.BaggingClassifier(n_estimators=5), linear_model.RidgeClassifier(),
    )  # fmt: skip
    for number, model in enumerate(classifiers):
        target = ("words", "animals", "flag")[number % 3]
        yield f"{type(model).__name__}-{target}-{number}", model, target
    regressors = (
        linear_model.LinearRegression(), linear_model.Ridge(), linear_model.Lasso(), svm.SVR(),
        tree.DecisionTreeRegressor(), ensemble.RandomForestRegressor(30), svm.LinearSVR(),
        ensemble.GradientBoostingRegressor(n_estimators=30), linear_model.BayesianRidge(),
        neighbors.KNeighborsRegressor(3),
        neural_network.MLPRegressor(hidden_layer_sizes=(16,), max_iter=40),
        ensemble.ExtraTreesRegressor(20), ensemble.IsolationForest(n_estimators=30),
    )  # fmt: skip
    for model in regressors:
        yield type(model).__name__, model, "number"
    for step in (
        preprocessing.MinMaxScaler(), preprocessing.RobustScaler(), preprocessing.Normalizer(),
        preprocessing.PolynomialFeatures(2), preprocessing.KBinsDiscretizer(4, encode="ordinal"),
    ):  # fmt: skip
        model = pipeline.make_pipeline(step, linear_model.LogisticRegression())
        yield f"{type(step).__name__}-logistic", model, "words"


CASES = {name: (model, target) for name, model, target in _cases()}


def export(name: str, path: Path) -> list[dict[str, np.ndarray]]:
    """Fit and write one pipeline; returns the inputs to compare on: one row, and many."""
    model, target = CASES[name]
    mixed = name.startswith("mixed")
    model.fit(_FRAME if mixed else _NUMBERS, _TARGETS[target])
    kinds: list[tuple[str, Any]] = [("x", FloatTensorType([None, _NUMBERS.shape[1]]))]
    if mixed:
        texts = ("color", "size")
        kinds = [
            (n, (StringTensorType if n in texts else FloatTensorType)([None, 1])) for n in _FRAME
        ]
    written = to_onnx(model, initial_types=kinds, target_opset=_OPSETS)
    path.write_bytes(written.SerializeToString())
    if not mixed:
        return [{"x": _NUMBERS[:1]}, {"x": _NUMBERS[:50]}]
    unknown = _FRAME.head(30).assign(color="unheard of")
    return [
        {n: rows[[n]].to_numpy().astype(str if n in texts else np.float32) for n in _FRAME}
        for rows in (_FRAME.head(1), pd.concat([_FRAME.tail(20), unknown]))
    ]
