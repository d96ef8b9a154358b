"""Linear models, support vectors and feature preparation of ai.onnx.ml against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import InvalidModelError
from tensmith.frontends.onnx import load_model

from .oracle import floats, model, run_ort
from .ort_cases import OrtCase, check_all

ML = "ai.onnx.ml"
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO")


def case(
    name: str,
    op: str,
    *inputs: np.ndarray,
    types: list[int] | None = None,
    version: int = 1,
    rtol: float = 1e-4,
    open_sizes: bool = False,
    **attributes: Any,
) -> OrtCase:
    """One node; its outputs have the given element types. open_sizes: those of inputs are."""
    types = types or [TensorProto.FLOAT]
    outputs = ["l", "y"][2 - len(types) :]
    feeds = {f"x{i}": array for i, array in enumerate(inputs)}
    node = helper.make_node(op, list(feeds), outputs, domain=ML, **attributes)
    dims = {n: [f"{n}_{axis}" for axis in range(a.ndim)] for n, a in feeds.items()}
    dims = dims if open_sizes else None
    proto = model([node], feeds, outputs, types=types, domains=[ML], dims=dims)
    proto.opset_import[1].version = version
    return OrtCase(name, proto, feeds, rtol=rtol)


LABELLED = [TensorProto.INT64, TensorProto.FLOAT]


def linear() -> list[OrtCase]:
    x, weights = floats(6, 4), floats(12, seed=1).tolist()
    intercepts = floats(3, seed=2).tolist()
    cases = [
        case("one target", "LinearRegressor", x, coefficients=weights[:4], intercepts=[0.5]),
        case("no intercept", "LinearRegressor", x, coefficients=weights[:4]),
        case("integers", "LinearClassifier", np.arange(8).reshape(2, 4), coefficients=weights,
             intercepts=intercepts, classlabels_ints=[4, 5, 6], types=LABELLED),
        case("more labels than rows", "LinearClassifier", x, coefficients=weights[:8],
             intercepts=[0.1, -0.2], classlabels_ints=[4, 5, 6], types=LABELLED),
        case("f64", "LinearClassifier", x.astype(np.float64), coefficients=weights,
             intercepts=intercepts, classlabels_ints=[4, 5, 6], types=LABELLED),
    ]  # fmt: skip
    for name in TRANSFORMS:
        options = {"post_transform": name, "types": LABELLED}
        cases += [
            case(f"regressor {name}", "LinearRegressor", x, coefficients=weights, targets=3,
                 intercepts=intercepts, post_transform=name),
            case(f"classes {name}", "LinearClassifier", x, coefficients=weights,
                 intercepts=intercepts, classlabels_ints=[7, 8, 9], **options),
            case(f"binary {name}", "LinearClassifier", x, coefficients=weights[:4],
                 intercepts=[0.1], classlabels_ints=[7, 8], **options),
            case(f"two rows {name}", "LinearClassifier", x, coefficients=weights[:8],
                 intercepts=[0.1, -0.2], classlabels_ints=[7, 8], **options),
        ]  # fmt: skip
    return cases


KERNELS = {"LINEAR": [0.0, 0.0, 0.0], "POLY": [0.5, 1.0, 3.0], "RBF": [0.7, 0.0, 0.0],
           "SIGMOID": [0.3, 0.2, 0.0]}  # fmt: skip


def vectors() -> list[OrtCase]:
    x, supports = floats(7, 4), floats(20, seed=1).tolist()
    cases = []
    plain: dict[str, Any] = {"kernel_type": "LINEAR", "kernel_params": KERNELS["LINEAR"]}
    for kind, parameters in KERNELS.items():
        kernel = {"kernel_type": kind, "kernel_params": parameters}
        options = kernel | {"types": LABELLED}
        cases += [
            case(f"regressor {kind}", "SVMRegressor", x, support_vectors=supports, n_supports=5,
                 coefficients=floats(5, seed=2).tolist(), rho=[0.3], **kernel),
            case(f"outliers {kind}", "SVMRegressor", x, support_vectors=supports, n_supports=5,
                 coefficients=floats(5, seed=2).tolist(), rho=[0.3], one_class=1, **kernel),
            case(f"classes {kind}", "SVMClassifier", x, support_vectors=supports,
                 vectors_per_class=[2, 1, 2], coefficients=floats(10, seed=3).tolist(),
                 rho=[0.1, -0.2, 0.3], classlabels_ints=[3, 4, 5], **options),
            case(f"probabilities {kind}", "SVMClassifier", x, support_vectors=supports,
                 vectors_per_class=[2, 1, 2], coefficients=floats(10, seed=3).tolist(),
                 rho=[0.1, -0.2, 0.3], prob_a=[-1.0, -0.7, -1.2], prob_b=[0.1, 0.0, -0.1],
                 classlabels_ints=[3, 4, 5], **options),
            case(f"two probabilities {kind}", "SVMClassifier", x, support_vectors=supports,
                 vectors_per_class=[2, 3], coefficients=floats(5, seed=4).tolist(), rho=[0.1],
                 prob_a=[-1.0], prob_b=[0.1], classlabels_ints=[3, 4], **options),
            case(f"two classes {kind}", "SVMClassifier", x, support_vectors=supports,
                 vectors_per_class=[2, 3], coefficients=floats(5, seed=4).tolist(), rho=[0.1],
                 classlabels_ints=[3, 4], **options),
        ]  # fmt: skip
    cases.append(
        case("probabilities of many", "SVMClassifier", floats(40, 4, seed=9), types=LABELLED,
             support_vectors=floats(40, seed=6).tolist(), vectors_per_class=[2] * 5,
             coefficients=floats(40, seed=7).tolist(), rho=floats(10, seed=8).tolist(),
             prob_a=[-1.0] * 10, prob_b=[0.1] * 10, classlabels_ints=[1, 2, 3, 5, 8],
             kernel_type="RBF", kernel_params=[0.1, 0.0, 0.0])
    )  # fmt: skip
    for name in TRANSFORMS:
        cases += [
            case(f"linear {count} {name}", "SVMClassifier", x, rho=[0.1], types=LABELLED,
                 coefficients=floats(4 * count, seed=5).tolist(), post_transform=name,
                 classlabels_ints=list(range(2, 2 + count)), **plain)
            for count in (2, 3)
        ]  # fmt: skip
        cases.append(
            case(f"two, {name}", "SVMClassifier", x, support_vectors=supports, types=LABELLED,
                 vectors_per_class=[2, 3], coefficients=floats(5, seed=4).tolist(), rho=[0.1],
                 classlabels_ints=[3, 4], post_transform=name, **plain)
        )  # fmt: skip
    cases.append(
        case("linear regressor", "SVMRegressor", x, coefficients=floats(4).tolist(), rho=[0.2],
             n_supports=0, **plain)
    )  # fmt: skip
    return cases


def features() -> list[OrtCase]:
    x = floats(4, 3)
    whole = np.array([[1, 2, 3], [3, 0, 5]])
    far = np.array([[-3, -2, -1, 3, 4, 39], [40, 41, 64, 7, 1 << 62, -(1 << 63)]])
    holes = np.where(np.abs(x) < 0.4, np.nan, x).astype(np.float32)
    i64, f64 = [TensorProto.INT64], [TensorProto.DOUBLE]
    cases = [
        case("scaler", "Scaler", x, offset=[0.5, 1.0, 0.0], scale=[2.0, 1.0, 0.5]),
        case("scaler of integers", "Scaler", whole, offset=[0.5], scale=[2.0]),
        case("imputer", "Imputer", holes, imputed_value_floats=[1.0, 2.0, 3.0],
             replaced_value_float=float("nan")),
        case("imputer of open columns", "Imputer", holes, imputed_value_floats=[1.0, 2.0, 3.0],
             replaced_value_float=float("nan"), open_sizes=True),
        case("scaler of open columns", "Scaler", x, offset=[0.5, 1.0, 0.0], scale=[2.0, 1.0, 0.5],
             open_sizes=True),
        case("vectorizer of open columns", "FeatureVectorizer", x, floats(4, 2, seed=1),
             inputdimensions=[3, 2], open_sizes=True),
        case("vectorizer that cuts and fills", "FeatureVectorizer", x, floats(4, 2, seed=1),
             inputdimensions=[2, 4], open_sizes=True),
        case("imputer of integers", "Imputer", whole, imputed_value_int64s=[9],
             replaced_value_int64=3, types=i64),
        case("binarizer", "Binarizer", x, threshold=0.2),
        case("one hot", "OneHotEncoder", whole, cats_int64s=[1, 3, 5]),
        case("one hot of floats", "OneHotEncoder", whole.astype(np.float32), cats_int64s=[1, 3]),
        case("extractor", "ArrayFeatureExtractor", x, np.array([2, 0])),
        case("extractor of a row", "ArrayFeatureExtractor", x[0], np.array([[1, 1]])),
        case("vectorizer", "FeatureVectorizer", x, floats(4, 2, seed=1), inputdimensions=[3, 2]),
        case("labels", "LabelEncoder", whole, keys_int64s=[3, 1, 5, 2], version=2,
             values_floats=[0.5, 1.5, 2.5, 3.5], default_float=-7.0),
        case("labels to integers", "LabelEncoder", whole, keys_int64s=[3, 1], version=2,
             values_int64s=[30, 10], types=i64),
        case("near and far labels", "LabelEncoder", far, keys_int64s=[-2, 40, 3, 3, 7, 5],
             version=2, values_int64s=[20, 30, 10, 5, 6, 7], default_int64=8, types=i64),
        case("label tensors", "LabelEncoder", whole, version=4, types=f64,
             keys_tensor=numpy_helper.from_array(np.array([5, 1, 0, 2])),
             values_tensor=numpy_helper.from_array(np.array([0.1, 0.2, 0.3, 0.4])),
             default_tensor=numpy_helper.from_array(np.array([-2.0]))),
    ]  # fmt: skip
    for version in (2, 4):
        cases.append(
            case(f"float keys in opset {version}", "LabelEncoder", holes, version=version,
                 keys_floats=[float("nan"), float(x[0, 2])], values_int64s=[4, 5],
                 default_int64=9, types=i64)
        )  # fmt: skip
    for norm in ("MAX", "L1", "L2"):
        cases.append(case(f"normalizer {norm}", "Normalizer", x, norm=norm))
    return cases


@pytest.mark.parametrize("group", [linear, vectors, features])
def test_operators(group: Any, tmp_path: Path) -> None:
    check_all(group(), tmp_path)


def test_probit_of_one_score() -> None:
    """ONNX Runtime writes one score, and leaves the other as memory was."""
    coefficients = [*(floats(4, seed=1) / 9).tolist(), 0.01]
    item = case("vectors", "SVMClassifier", floats(6, 4), coefficients=coefficients, rho=[0.6],
                support_vectors=floats(20).tolist(), vectors_per_class=[2, 3], types=LABELLED,
                kernel_type="LINEAR", kernel_params=[0.0, 0.0, 0.0], classlabels_ints=[7, 8],
                post_transform="PROBIT")  # fmt: skip
    inputs = dict(item.inputs)
    want, got = run_ort(item.proto, inputs), run_graph(load_model(item.proto), inputs)
    assert got["l"].tolist() == want["l"].tolist()
    assert np.isfinite(want["y"][:, 0]).sum() > 2
    np.testing.assert_allclose(got["y"][:, 0], want["y"][:, 0], rtol=1e-3)
    assert not got["y"][:, 1].any()


def test_scores_of_classes_are_the_tensor_and_the_names_of_its_columns() -> None:
    x = floats(3, 2)
    for labels in ({"classlabels_strings": ["no", "yes"]}, {"classlabels_int64s": [4, 2]}):
        node = helper.make_node("ZipMap", ["x"], ["y"], domain=ML, **labels)
        proto = model([node], {"x": x}, ["y"], domains=[ML])
        proto.graph.output[0].type.sequence_type.elem_type.map_type.key_type = 8
        graph = load_model(proto)
        assert graph.meanings["y"].classes == tuple(next(iter(labels.values())))
        np.testing.assert_array_equal(run_graph(graph, {"x": x})["y"], x)


def test_as_many_classes_as_columns() -> None:
    node = helper.make_node("ZipMap", ["x"], ["y"], domain=ML, classlabels_strings=["no"])
    with pytest.raises(InvalidModelError, match="1 class labels"):
        load_model(model([node], {"x": floats(3, 2)}, ["y"], domains=[ML]))
