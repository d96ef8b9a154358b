"""Counting n-grams against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensmith.compiler.errors import InvalidModelError
from tensmith.frontends.onnx import load_model

from .oracle import check, model, node
from .ort_cases import OrtCase, check_all

POOL = [2, 3, 5, 4, 5, 6, 7, 8, 6, 7, 8, 2, 3, 2]  # three words, four pairs, one triple
POOLED: dict[str, Any] = {
    "pool_int64s": POOL,
    "ngram_counts": [0, 3, 11],
    "ngram_indexes": [0, 7, 2, 3, 9, 4, 6, 1],
    "min_gram_length": 1,
    "max_gram_length": 3,
    "max_skip_count": 0,
    "mode": "TF",
}
WORDS = np.array([[1, 2, 3, 2, 3, 5], [4, 5, 6, 7, 8, 2], [0, 0, 0, 0, 0, 0]], np.int64)
WEIGHTS = [0.5, 2.0, 3.0, 1.0, 7.0, 0.0, -1.0, 4.0]


def case(name: str, x: np.ndarray, **attributes: Any) -> OrtCase:
    vectoriser = node("TfIdfVectorizer", "x", **{**POOLED, **attributes})
    return OrtCase(name, model([vectoriser], {"x": x}, ["y"]), {"x": x})


def test_against_onnx_runtime(tmp_path: Path) -> None:
    cases = [
        case("words of 32 bits", WORDS.astype(np.int32)),
        case("a vector", WORDS[0]),
        case("pairs only", WORDS, min_gram_length=2, max_gram_length=2),
        case("no triples", WORDS, max_gram_length=2),
        case("fewer words than an n-gram has", WORDS[:, :2]),
        case("no word at all", WORDS[:, :0]),
    ]
    dense = [0, 7, 2, 3, 5, 4, 6, 1]
    for mode in ("TF", "IDF", "TFIDF"):
        for skip in (0, 1, 5):
            cases.append(case(f"{mode} {skip}", WORDS, mode=mode, max_skip_count=skip))
        cases.append(
            case(f"{mode} weighted", WORDS, mode=mode, weights=WEIGHTS, ngram_indexes=dense)
        )
    check_all(cases, tmp_path)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 6])
def test_any_number_of_words(count: int) -> None:
    vectoriser = node("TfIdfVectorizer", "x", **{**POOLED, "max_skip_count": 2})
    x = WORDS[:, :count]
    check(model([vectoriser], {"x": WORDS}, ["y"], dims={"x": ["rows", "words"]}), {"x": x})


@pytest.mark.parametrize(
    "attributes", [{"mode": "XY"}, {"ngram_counts": [0, 3, 10]}, {"ngram_indexes": [0, 1]}]
)
def test_attributes_that_contradict_each_other(attributes: dict[str, Any]) -> None:
    proto = model([node("TfIdfVectorizer", "x", **{**POOLED, **attributes})], {"x": WORDS}, ["y"])
    with pytest.raises(InvalidModelError):
        load_model(proto)
