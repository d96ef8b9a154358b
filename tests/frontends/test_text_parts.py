"""Strings cut into words, in one case, counted: beside ONNX Runtime where it can, and Python."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from compiled import Job, Setting, run_all
from onnx import TensorProto, helper

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import UnsupportedError
from tensmith.compiler.ir.dims import product, symbols_of, terms_of
from tensmith.frontends.onnx import load_model
from tensmith.frontends.onnx.ops.shared import byte_automaton
from tensmith.frontends.onnx.ops.shared.byte_classes import between, tokens_of
from tensmith.frontends.onnx.ops.standard import text_case
from tensmith.runtime.meaning import decode, encode

from .oracle import node, run_ort

MS = "com.microsoft"
STRING = TensorProto.STRING
TEXTS = ["ab c--D\u00e9 f\u00e9-\u00e9 \u00e9", "", "  ", "--", "x ab, c", "a,,b, ", "abab"]
TEXTS += ["\u00e9a\u00e9 a"]
WORDS = [["a", "b", "cc", "a", "b", "cc"], ["", "a", "b", "z", "a", "b"]]
KINDS = [["b", "a"], ["b", "a"], ["a", "\u00e9"]]


def _words(**attributes: Any) -> onnx.NodeProto:
    given = {"mark": 0, "mincharnum": 1, "pad_value": "#pad", **attributes}
    return node("Tokenizer", "x", "y", domain=MS, **given)


def _counts(mode: str) -> onnx.NodeProto:
    return node(
        "TfIdfVectorizer", "x", max_gram_length=2, max_skip_count=1, min_gram_length=1, mode=mode,
        ngram_counts=[0, 3], ngram_indexes=[0, 1, 4, 2, 3], weights=[0.5, 2.0, 3.0, 4.0, 5.0],
        pool_strings=["a", "b", "cc", "a", "b", "b", "a"],
    )  # fmt: skip


MATCHED = [*TEXTS, "a{,2}", "b{,}c", "{,3}", "\\A", "\\z",
           "a_", ",", "12-ab", "123-x", "abc", "a\nc", "\u00e9\u00e9", "\u20ac5", "\U0001f600",
           "aXc", "\x7f"]  # fmt: skip
PATTERNS = ["ab|c.*", "(a|b)*c?", "[^,]+", r"\d{2,3}-\w+", "^a.c$", "\u00e9+", "", ".*", "(?s).*",
            "[\u00e0-\u20ac\\d]+", "a{0}", "x*$", r"[\W\d]*?", r"(?:[a-z]+,?\s*)+",
            "(^a|b$)+.*", "[^a]", "\U0001f600|.", r"\x7f", "(ab){2}", "a{,2}", "(a|b){,}c?",
            r"\{,3}|[{,3}]+", r"\\A|a.*", r"\Aab\w\z", r"a\_|\,",
            r"\\z|x.*", r"[\\z]|\A.\z"]  # fmt: skip
POOL = [f"w{number}" for number in range(20)] + ["\u00e9t\u00e9", "", "a longer word"]
SENTENCES = [["w1", "w2", "w1", "w3", ""], ["w19", "w1", "w2", "w20", "w1"],
             ["\u00e9t\u00e9", "a longer word", "a longer word!", "a longer", "w0"]]  # fmt: skip


def _many_words(**attributes: Any) -> onnx.NodeProto:
    """Single words, pairs and triples."""
    pairs = ["w1", "w2", "w2", "w1", "w1", "w3", "", "w2", "a longer word", "a longer word!"]
    triples = ["w1", "w2", "w1", "w2", "w1", "w3"]
    pool = [*POOL, *pairs, *triples]
    count = len(POOL) + 5 + 2
    given = {"max_gram_length": 3, "min_gram_length": 1, "max_skip_count": 0, "mode": "TF",
             "ngram_indexes": list(range(count))[::-1], **attributes}  # fmt: skip
    counts = [0, len(POOL), len(POOL) + len(pairs)]
    return node("TfIdfVectorizer", "x", ngram_counts=counts, pool_strings=pool, **given)


CASES: dict[str, tuple[onnx.NodeProto, list[Any]]] = {
    "split at spaces": (node("StringSplit", "x", "y n"), TEXTS),
    **{
        f"at most {n}": (node("StringSplit", "x", "y n", maxsplit=n), TEXTS) for n in (0, 1, 2)
    },
    **{
        f"fields of {mark!r}": (node("StringSplit", "x", "y n", delimiter=mark), TEXTS)
        for mark in (",", ", ", "ab", "\u00e9")
    },
    "a field and the rest": (
        node("StringSplit", "x", "y n", delimiter=",", maxsplit=1), TEXTS
    ),
    "nothing to split": (node("StringSplit", "x", "y n"), [""]),
    **{
        f"tokens {expression}": (_words(tokenexp=expression), TEXTS)
        for expression in ("[a-zA-Z0-9_]+", ".", r"\w\w+", "[^ ]+", r"\S+", r"[\w-]+", "[]a-c]+")
    },
    **{
        f"tokens between {marks}": (_words(separators=marks), TEXTS)
        for marks in ([" ", "-"], ["[ -]"], [""], [r"\s", ","])
    },
    "long tokens": (_words(tokenexp=r"\w+", mincharnum=2), TEXTS),
    "long parts": (_words(separators=[" "], mincharnum=3), TEXTS),
    "no token": (_words(tokenexp="[a-z]+"), ["", "-"]),
    **{f"n-grams {mode}": (_counts(mode), WORDS) for mode in ("TF", "IDF", "TFIDF")},
    **{f"matches of {p!r}": (node("RegexFullMatch", "x", pattern=p), MATCHED) for p in PATTERNS},
    **{
        f"hashes {positive}": (
            node("MurmurHash3", "x", domain=MS, seed=seed, positive=positive), MATCHED
        )
        for seed, positive in ((0, 1), (42, 0))
    },
    **{
        f"many n-grams {skip} {least}": (
            _many_words(max_skip_count=skip, min_gram_length=least), SENTENCES
        )
        for skip, least in ((0, 1), (2, 1), (1, 2), (9, 3))
    },
    "kinds": (node("Unique", "x", "y i v c"), KINDS),
    "kinds as they occur": (node("Unique", "x", "y i v c", sorted=0), KINDS),
    "kinds of rows": (node("Unique", "x", "y i v c", axis=0), KINDS),
    "kinds of columns": (node("Unique", "x", "y i v c", axis=1), KINDS),
}  # fmt: skip


def _model(part: onnx.NodeProto, rank: int) -> onnx.ModelProto:
    info = helper.make_tensor_value_info("x", STRING, [f"d{axis}" for axis in range(rank)])
    results = [onnx.ValueInfoProto(name=name) for name in part.output]
    first = {"TfIdfVectorizer": TensorProto.FLOAT, "RegexFullMatch": TensorProto.BOOL}.get(
        part.op_type, STRING
    )
    if part.op_type == "MurmurHash3":
        positive = any(item.name == "positive" and item.i for item in part.attribute)
        first = TensorProto.UINT32 if positive else TensorProto.INT32
    for place, result in enumerate(results):
        result.type.tensor_type.elem_type = TensorProto.INT64 if place else first
    graph = helper.make_graph([part], "g", [info], results)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def _check(name: str, got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    for output, array in want.items():
        found = got[output]
        if array.dtype == object:
            found = decode(found).astype(object)
        assert found.dtype == array.dtype, (name, output)
        assert found.shape == array.shape, (name, output)
        assert found.tolist() == array.tolist(), (name, output)


def test_against_onnx_runtime(tmp_path: Path) -> None:
    setting, jobs, wanted = Setting("native", 2), {}, {}
    for name, (part, strings) in CASES.items():
        given = np.array(strings, object)
        proto = _model(part, given.ndim)
        wanted[name] = run_ort(proto, {"x": given})
        inputs = {"x": encode(given)}
        _check(name, run_graph(load_model(proto), inputs), wanted[name])
        jobs[name] = Job(load_model(proto), inputs)
    if setting.missing():
        pytest.skip(setting.missing())
    for name, got in run_all(jobs, setting, tmp_path).items():
        assert not isinstance(got, Exception), f"{name}: {got}"
        _check(name, got, wanted[name])


@pytest.mark.parametrize(
    "part",
    [_words(tokenexp="[a-z]+"), _words(tokenexp=r"\w\w+"), node("StringSplit", "x", "y n")],
)
def test_memory_grows_with_the_text_not_with_its_square(part: onnx.NodeProto) -> None:
    graph = load_model(_model(part, 1))
    reads = [inside for inside in graph.walk() if inside.op == "read_dims"]
    (parts,) = reads[0].attrs["symbols"]
    (width,) = symbols_of(graph.inputs[0].shape[-1])
    for value in (output for inside in graph.walk() for output in inside.outputs):
        size = product(value.shape)
        assert not {parts, width} <= symbols_of(size), value.name
        for monomial, _ in terms_of(size):
            assert sum(width in atom.symbols for atom in monomial) < 2, value.name


def _normalised(strings: list[Any], **attributes: Any) -> list[Any]:
    part = node("StringNormalizer", "x", **attributes)
    given = np.array(strings, object)
    graph = load_model(_model(part, given.ndim))
    return decode(run_graph(graph, {"x": encode(given)})["y"]).tolist()


def test_letters_of_one_to_three_bytes_change_their_case() -> None:
    """ONNX Runtime needs the system's locale en_US for that, which few machines have."""
    lower = ["abc\u00e9\u0101", "\u0436\u03c9 x\u1e01", "\uff41-\u7684z", ""]
    upper = [text.upper() for text in lower]
    assert _normalised(upper, case_change_action="LOWER") == lower
    assert _normalised(lower, case_change_action="UPPER") == upper
    assert _normalised(upper, case_change_action="NONE") == upper


def test_letters_whose_other_case_has_another_length_stay() -> None:
    letters = ["\u00df\u0131a", "\u0130\u212aA", "\U00010400"]
    assert _normalised(letters, case_change_action="UPPER")[0] == "\u00df\u0131A"
    assert _normalised(letters, case_change_action="LOWER")[1:] == ["\u0130\u212aa", "\U00010400"]


def test_cases_are_of_one_version_of_unicode() -> None:
    """Whatever Python compiles, equal models have equal tables: those of version 14."""
    for lower, count, checksum in ((True, 1148, 3996377639), (False, 1132, 3863334156)):
        table = text_case._cases(lower)
        assert int((table != np.arange(len(table))).sum()) == count
        assert zlib.crc32(table.astype("<i4").tobytes()) == checksum


def test_stop_words_are_left_out() -> None:
    words = ["The", "\u00c9t\u00e9", "fox", "the"]
    stops = {"stopwords": ["the", "\u00e9T\u00e9"], "case_change_action": "UPPER"}
    assert _normalised(words, is_case_sensitive=0, **stops) == ["FOX"]
    assert _normalised(words, is_case_sensitive=1, **stops) == ["THE", "\u00c9T\u00c9", "FOX"]
    assert _normalised([words], is_case_sensitive=0, **stops) == [["FOX"]]


def test_where_all_are_stop_words_an_empty_string_is_left() -> None:
    assert _normalised(["a", "a"], is_case_sensitive=1, stopwords=["a"]) == [""]
    assert _normalised([["a"]], is_case_sensitive=1, stopwords=["a"]) == [[""]]


@pytest.mark.parametrize("expression", [r"[a-z]+", r"\w+", r"[^,\d]+", r"[\d.+-]+", "x+", r"\.+",
    r"[\t-\r]+", r"[+-.]+", r"[ -\]]+", r"[a[]+", r"[!-[]+"])  # fmt: skip
def test_classes_are_those_of_python(expression: str) -> None:
    tokens = tokens_of(expression)
    assert tokens is not None
    for byte in range(1, 128):
        matched = re.fullmatch(expression, chr(byte), re.ASCII) is not None
        assert tokens.members[byte] == matched, (expression, byte)


@pytest.mark.parametrize(
    "expression",
    [
        "ab+", "a|b", "(a)+", "[a-z]*", "[\u00e9]+", "[[:alpha:]]+", r"\bx+", "aa", "",
        r"[ -\x7e]+", r"[a-\d]+", r"[\d-z]+", "[z-a]+", "[a-\u00e9]+",
    ],
)  # fmt: skip
def test_other_expressions_are_refused(expression: str) -> None:
    assert tokens_of(expression) is None


def test_separators_of_several_characters_are_refused() -> None:
    assert between(["--"]) is None
    part = _words(separators=["--"])
    with pytest.raises(UnsupportedError, match="one class"):
        load_model(_model(part, 1))


def test_a_delimiter_that_overlaps_itself_is_refused() -> None:
    part = node("StringSplit", "x", "y n", delimiter="aba")
    with pytest.raises(UnsupportedError, match="overlap"):
        load_model(_model(part, 1))


def test_n_grams_that_are_given_twice_are_refused() -> None:
    part = node("TfIdfVectorizer", "x", pool_strings=["a", "a"], ngram_counts=[0], mode="TF",
                ngram_indexes=[0, 1], min_gram_length=1, max_gram_length=1,
                max_skip_count=0)  # fmt: skip
    with pytest.raises(UnsupportedError, match="twice"):
        load_model(_model(part, 1))


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a)\1",
        r"(?=a)b",
        r"\bab",
        "(?i)ab",
        r"\pL+",
        "[[:alpha:]]",
        "a**",
        "(",
        "a{2000}",
        r"\Z",
        r"[\z]",
        r"\u0041",
        "(?#a)b",
        r"\12",
    ],
)
def test_patterns_that_are_no_automata_are_refused(pattern: str) -> None:
    with pytest.raises(UnsupportedError, match="no automaton"):
        load_model(_model(node("RegexFullMatch", "x", pattern=pattern), 1))


def test_a_pattern_of_too_many_states_names_how_many_there_may_be() -> None:
    for pattern in ("(a|b)*a(a|b){14}", "(a{500}){500}"):
        with pytest.raises(UnsupportedError, match=r"more than \d+ states"):
            load_model(_model(node("RegexFullMatch", "x", pattern=pattern), 1))


@pytest.mark.parametrize("missing", ["module", "code"])
def test_a_parser_that_python_does_not_have_is_named(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "module":
        monkeypatch.setattr(byte_automaton, "parser", None)
    else:
        monkeypatch.setattr(byte_automaton, "sre", object())
    with pytest.raises(UnsupportedError, match=r"parser of Python \d+"):
        load_model(_model(node("RegexFullMatch", "x", pattern="a"), 1))
