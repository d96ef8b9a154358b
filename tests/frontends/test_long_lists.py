"""Words and n-grams found in lists of many, and in lists of words of very different lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tensmith.backends.reference import run_graph
from tensmith.frontends.onnx import load_model
from tensmith.frontends.onnx.ops.shared.gram_trie import gram_trie
from tensmith.frontends.onnx.ops.shared.lookups import BISECTED
from tensmith.frontends.onnx.ops.shared.word_hash import word_hash
from tensmith.runtime.meaning import encode

from .oracle import model, node
from .ort_cases import OrtCase, check_all


def test_half_a_million_words_have_slots_of_their_own() -> None:
    """Where two of so many words have the same 32 bits, as some do, they are told apart, too."""
    words = [b"%x" % (number * 2654435761) for number in range(500_000)]
    table = word_hash(words)
    assert len(np.unique(table.found.numbers)) == len(words)
    assert len(table.found.numbers) <= 4 * len(words)
    assert table.ends[-1] == len(table.text) == sum(map(len, words)) + len(words)


def _labels(words: list[str]) -> Any:
    part = node("LabelEncoder", "x", "y", domain="ai.onnx.ml", keys_strings=words,
                values_int64s=list(range(len(words))), default_int64=-1)  # fmt: skip
    given = helper.make_tensor_value_info("x", TensorProto.STRING, ["n"])
    wanted = helper.make_tensor_value_info("y", TensorProto.INT64, ["n"])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    graph = helper.make_graph([part], "g", [given], [wanted])
    return load_model(helper.make_model(graph, opset_imports=opsets, ir_version=9))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("count", [BISECTED, BISECTED + 1, 5000])
def test_numbers_that_lie_far_apart_are_known(dtype: Any, count: int) -> None:
    random = np.random.default_rng(3)
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        ends = np.array([info.min, info.max, -1], dtype)
        numbers = np.unique(random.integers(info.min, info.max, count + 200, dtype=dtype))
    else:
        ends = np.array([0.0, np.inf, -np.inf], dtype)
        numbers = random.standard_normal(count + 200).astype(dtype)
    numbers = random.permutation(np.setdiff1d(numbers, ends))
    keys, others = np.append(ends, numbers[: count - 3]), numbers[count - 3 :]
    tables = [("keys_tensor", keys), ("values_tensor", np.arange(count)),
              ("default_tensor", np.array([-1]))]  # fmt: skip
    part = node("LabelEncoder", "x", "y", domain="ai.onnx.ml",
                **{name: numpy_helper.from_array(table) for name, table in tables})  # fmt: skip
    places = {key: place for place, key in reversed([*enumerate(keys.tolist())])}
    x = random.permutation(np.append(keys, others))
    if x.dtype.kind == "f":
        x = np.append(x, np.array([-0.0, np.nan], dtype))
    proto = model([part], {"x": x}, ["y"], types=[TensorProto.INT64], opset=20)
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 4))
    got = run_graph(load_model(proto), {"x": x})["y"]
    assert got.tolist() == [places.get(number, -1) for number in x.tolist()]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [20, 60])
@pytest.mark.parametrize("zeros", [("tiny",), ("tiny", 0.0), (0.0, "tiny"), ("tiny", "-tiny")])
def test_keys_below_the_normal_numbers_are_zero(
    dtype: Any, count: int, zeros: tuple[Any, ...], tmp_path: Path
) -> None:
    """In compiled code and in the reference, however many keys there are; the first counts."""
    small = np.finfo(dtype).tiny / 8
    named = {"tiny": small, "-tiny": -small}
    first = [named.get(zero, zero) for zero in zeros]
    keys = np.array([*(1 + np.arange(count) * 1.37), *first], dtype)
    x = np.array([1.0, small, 0.0, -0.0, -small, small / 2, 1.5], dtype)
    tables = [("keys_tensor", keys), ("values_tensor", np.arange(len(keys))),
              ("default_tensor", np.array([-1]))]  # fmt: skip
    part = node("LabelEncoder", "x", "y", domain="ai.onnx.ml",
                **{name: numpy_helper.from_array(table) for name, table in tables})  # fmt: skip
    proto = model([part], {"x": x}, ["y"], types=[TensorProto.INT64], opset=20)
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 4))
    wanted = {"y": np.array([0, *[count] * 5, -1])}
    check_all([OrtCase("denormal keys", proto, {"x": x}, expected=wanted)], tmp_path)


def test_a_long_word_does_not_make_the_others_long() -> None:
    long = "x" * 3000
    words = [f"word {number}" for number in range(1000)] + [long, ""]
    graph = _labels(words)
    size = sum(map(len, words)) + len(words)
    constants = [
        value.data
        for inside in graph.walk()
        for value in inside.inputs
        if value is not None and value.data is not None
    ]
    assert max(array.nbytes for array in constants) <= max(size, 8 * 2 * len(words) * 4)
    for strings, want in (
        (["word 7", "", "word 77"], [7, 1001, 77]),
        (["word", "word 1000", "word 99"], [-1, -1, 99]),
        ([long, long + "x", long[1:], "x"], [1000, -1, -1, -1]),
        (["w", "x"], [-1, -1]),
        ([""], [1001]),
    ):
        got = run_graph(graph, {"x": encode(np.array(strings, object))})
        assert got["y"].tolist() == want


@pytest.mark.parametrize("prefix", ["word 1", "x" * 40])
def test_the_beginning_of_a_word_is_not_the_word(prefix: str) -> None:
    """Also where no string of a run is as long as the word that is compared with it."""
    words = [prefix + "y" * (1 + count) for count in range(12)]
    got = run_graph(_labels(words), {"x": encode(np.array([prefix, prefix + "y"], object))})
    assert got["y"].tolist() == [-1, 0]


def test_a_trie_of_many_pairs_and_triples_knows_each() -> None:
    random = np.random.default_rng(5)
    count = 30_000
    pairs = np.unique(random.zipf(1.2, (300_000, 2)) % count + 1, axis=0).astype(np.int64)
    triples = np.unique(random.integers(1, 300, (50_000, 3)), axis=0)
    pools = [(pairs, np.arange(len(pairs))), (triples, np.arange(len(triples)) + len(pairs))]
    none = len(pairs) + len(triples)
    trie = gram_trie(pools, count, none)

    def child(nodes: np.ndarray, words: np.ndarray) -> np.ndarray:
        parts = nodes.astype(np.uint32), words.astype(np.uint32)
        first, second = (line[0] * parts[0] + line[1] * parts[1] for line in trie.factors)
        found = trie.found.numbers_of(first, second)
        same = (trie.parents[found] == nodes) & (trie.words[found] == words) & (found > 0)
        return np.where(same, found + trie.count, 0)

    for grams, columns in pools:
        at = grams[:, 0]
        for place in range(1, grams.shape[1]):
            at = child(at, grams[:, place])
        assert (trie.columns[at] == columns).all()
    absent = child(pairs[:, 0], np.full(len(pairs), count + 1))
    assert (trie.columns[absent] == none).all()
