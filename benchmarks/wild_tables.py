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
    cluster,
    compose,
    decomposition,
    discriminant_analysis,
    ensemble,
    feature_extraction,
    feature_selection,
    gaussian_process,
    impute,
    linear_model,
    mixture,
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
_WORDS = ["good", "bad", "Film", "not", "very", "caf\u00e9", "the", "plot", "was", "well-made"]
_TEXTS = np.array([" ".join(_RNG.choice(_WORDS, _RNG.integers(2, 9))) for _ in range(_ROWS)])
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


def _classifiers() -> Iterator[Case]:
    """Models of classes."""
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
        ensemble.HistGradientBoostingClassifier(max_iter=20), svm.NuSVC(),
        svm.NuSVC(probability=True), discriminant_analysis.LinearDiscriminantAnalysis(),
        discriminant_analysis.QuadraticDiscriminantAnalysis(), naive_bayes.BernoulliNB(),
        calibration.CalibratedClassifierCV(tree.DecisionTreeClassifier(), method="isotonic"),
        ensemble.StackingClassifier([("a", linear_model.LogisticRegression()),
                                     ("b", tree.DecisionTreeClassifier(max_depth=3))]),
        ensemble.VotingClassifier([("a", linear_model.LogisticRegression()),
                                   ("b", naive_bayes.GaussianNB())], voting="soft"),
        ensemble.VotingClassifier([("a", linear_model.LogisticRegression()),
                                   ("b", linear_model.Perceptron())]),
        multiclass.OneVsOneClassifier(svm.LinearSVC()), linear_model.LogisticRegressionCV(),
        neighbors.RadiusNeighborsClassifier(9.0),
    )  # fmt: skip
    for number, model in enumerate(classifiers):
        target = ("words", "animals", "flag")[number % 3]
        yield f"{type(model).__name__}-{target}-{number}", model, target
    for model in (linear_model.LogisticRegression(), ensemble.RandomForestClassifier(10), boosted):
        yield f"{type(model).__name__}-tensors", model, "animals"


def _regressors() -> Iterator[Case]:
    """Models of numbers, of densities and of outliers."""
    regressors = (
        linear_model.LinearRegression(), linear_model.Ridge(), linear_model.Lasso(), svm.SVR(),
        tree.DecisionTreeRegressor(), ensemble.RandomForestRegressor(30), svm.LinearSVR(),
        ensemble.GradientBoostingRegressor(n_estimators=30), linear_model.BayesianRidge(),
        neighbors.KNeighborsRegressor(3),
        neural_network.MLPRegressor(hidden_layer_sizes=(16,), max_iter=40),
        ensemble.ExtraTreesRegressor(20), ensemble.IsolationForest(n_estimators=30),
        ensemble.HistGradientBoostingRegressor(max_iter=20), svm.NuSVR(), svm.OneClassSVM(),
        gaussian_process.GaussianProcessRegressor(gaussian_process.kernels.RBF(), alpha=0.1),
        neighbors.LocalOutlierFactor(novelty=True), linear_model.LassoLars(),
        linear_model.HuberRegressor(), linear_model.SGDOneClassSVM(),
        mixture.GaussianMixture(3, random_state=0), cluster.KMeans(4, random_state=0),
        ensemble.StackingRegressor([("a", linear_model.Ridge()),
                                    ("b", tree.DecisionTreeRegressor(max_depth=3))]),
        ensemble.BaggingRegressor(n_estimators=5), ensemble.AdaBoostRegressor(n_estimators=5),
    )  # fmt: skip
    for model in regressors:
        yield type(model).__name__, model, "number"


def _prepared() -> Iterator[Case]:
    """Steps before a linear model, on numbers and on texts."""
    for step in (
        preprocessing.MinMaxScaler(), preprocessing.RobustScaler(), preprocessing.Normalizer(),
        preprocessing.PolynomialFeatures(2), preprocessing.KBinsDiscretizer(4, encode="ordinal"),
        preprocessing.KBinsDiscretizer(4, encode="onehot-dense"), preprocessing.PowerTransformer(),
        preprocessing.MaxAbsScaler(), preprocessing.Binarizer(), decomposition.PCA(3),
        decomposition.TruncatedSVD(3), decomposition.KernelPCA(3), impute.KNNImputer(),
        feature_selection.SelectKBest(k=3), preprocessing.QuantileTransformer(n_quantiles=20),
    ):  # fmt: skip
        model = pipeline.make_pipeline(step, linear_model.LogisticRegression())
        yield f"{type(step).__name__}-logistic{getattr(step, 'encode', '')}", model, "words"
    for reader in (
        feature_extraction.text.TfidfVectorizer(lowercase=False),
        feature_extraction.text.CountVectorizer(lowercase=False),
        feature_extraction.text.TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, lowercase=False
        ),
    ):  # lowercase: ONNX Runtime has locales only where the system has them
        name = f"text-{type(reader).__name__}-{reader.ngram_range[1]}"
        yield name, pipeline.make_pipeline(reader, linear_model.LogisticRegression()), "words"


CASES = {
    name: (model, target)
    for kind in (_classifiers, _regressors, _prepared)
    for name, model, target in kind()
}


def _rows(name: str) -> tuple[Any, list[tuple[str, Any]], list[dict[str, np.ndarray]]]:
    """What a pipeline is fitted to, the types of its inputs, and the inputs to compare on."""
    if name.startswith("text"):
        wanted = [{"x": _TEXTS[:1, None]}, {"x": _TEXTS[20:60, None]}]
        return _TEXTS, [("x", StringTensorType([None, 1]))], wanted
    if not name.startswith("mixed"):
        kinds = [("x", FloatTensorType([None, _NUMBERS.shape[1]]))]
        return _NUMBERS, kinds, [{"x": _NUMBERS[:1]}, {"x": _NUMBERS[:50]}]
    texts = ("color", "size")
    unknown = _FRAME.head(30).assign(color="unheard of")
    return (
        _FRAME,
        [(n, (StringTensorType if n in texts else FloatTensorType)([None, 1])) for n in _FRAME],
        [
            {n: rows[[n]].to_numpy().astype(str if n in texts else np.float32) for n in _FRAME}
            for rows in (_FRAME.head(1), pd.concat([_FRAME.tail(20), unknown]))
        ],
    )


def export(name: str, path: Path) -> list[dict[str, np.ndarray]]:
    """Fit and write one pipeline; returns the inputs to compare on: one row, and many."""
    model, target = CASES[name]
    rows, kinds, wanted = _rows(name)
    model.fit(rows, _TARGETS[target])
    options = {id(model): {"zipmap": False}} if name.endswith("-tensors") else None
    written = to_onnx(model, initial_types=kinds, target_opset=_OPSETS, options=options)
    path.write_bytes(written.SerializeToString())
    return wanted
