"""Operators of com.microsoft on sequences that lie one behind the other, and an LSTM that attends
to a memory, beside ONNX Runtime: interpreted, and compiled for any lengths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import InvalidModelError, RunError, UnsupportedError
from tensmith.frontends.onnx import load_model

from .oracle import check, floats, model, node
from .sweeps import Feed, Sweep, differences

MS = "com.microsoft"
Array = np.ndarray
LENGTHS = ([3, 1, 4], [1, 1], [2])


def ms(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> list[onnx.NodeProto]:
    return [node(op, inputs, outputs, domain=MS, **attributes)]


def _bounds(lengths: list[int]) -> Array:
    return np.append(0, np.cumsum(lengths)).astype(np.int32)


def _sweep(
    name: str, part: list[onnx.NodeProto], feeds: list[Feed], outputs: str, **more: Any
) -> Sweep:
    return Sweep(name, part, feeds, outputs, from_shapes=False, domains=[MS], **more)


def ngrams() -> Iterator[Sweep]:
    """Hashes of up to three ids, of i32 that wrap and of i64; with and without what came before."""
    rng = np.random.default_rng(3)
    for dtype in (np.int32, np.int64):
        tables = {
            "m": np.array([7, 123456789, -5], dtype),
            "s": np.array([11, 13, 97, 5], dtype),
            "o": np.array([0, 11, 24, 121], dtype),
            "e": np.array(3, dtype),
        }
        shape = {"max_ngram_size": 3, "n_head_per_ngram": 2, "pad_id": 1}
        ids = [rng.integers(0, 6, (2, n)).astype(dtype) for n in (5, 1, 2)]
        past = rng.integers(0, 6, (2, 2)).astype(dtype)
        plain = [{"x": one} for one in ids]
        yield _sweep(f"ngrams {dtype.__name__}", ms("NGramHashMapping", "x m s", "y z", **shape),
                     plain, "y z", constants={k: tables[k] for k in "ms"})  # fmt: skip
        parts = [
            {"x": one, "p": past, "g": np.sort(rng.integers(0, 2, one.shape), 1).astype(np.int32)}
            for one in ids
        ]
        yield _sweep(f"ngrams behind others {dtype.__name__}",
                     ms("NGramHashMapping", "x m s p o e g", "y z", reset_on_eos=1, **shape),
                     parts, "y z", fixed="p", constants=tables)  # fmt: skip
        for number, lengths in enumerate(LENGTHS):
            tokens, rows = sum(lengths), len(lengths)
            feed = {
                "x": rng.integers(0, 6, tokens).astype(dtype),
                "c": _bounds(lengths),
                "p": rng.integers(0, 6, (rows, 2)).astype(dtype),
                "g": rng.integers(0, 2, tokens).astype(np.int32),
                "h": rng.integers(0, 2, (rows, 2)).astype(np.int32),
                "n": np.array([9, 1, 0][:rows], np.int32),
            }
            yield _sweep(f"ngrams of sequences {dtype.__name__} {number}",
                         ms("VarlenNGramHashMapping", "x m s c p o e g h n", "y z b t",
                            state_update_capacity=2, reset_on_eos=number % 2, **shape),
                         [feed], "y z b t", lengths="x c g n", constants=tables)  # fmt: skip


def convolutions() -> Iterator[Sweep]:
    """Taps side by side and apart, with bias and activation, with the first tokens kept."""
    for apart, taps, kept in ((1, 3, 0), (2, 2, 2)):
        room = (taps - 1) * apart
        feeds = []
        for lengths in LENGTHS:
            rows = len(lengths)
            feed = {"x": floats(sum(lengths), 4), "c": _bounds(lengths)}
            feed["p"] = floats(rows, 4, room, seed=2)
            if kept:
                feed["n"] = np.array([3, 0, 1][:rows], np.int32)
            feeds.append(feed)
        outputs = "y z t" if kept else "y z"
        part = ms("VarlenCausalConvWithState", f"x w c b p{' n' if kept else ''}", outputs,
                  dilation=apart, activation="silu" if apart == 1 else "none",
                  state_update_capacity=kept)  # fmt: skip
        weights = {"w": floats(4, 1, taps, seed=1), "b": floats(4, seed=3)}
        yield _sweep(f"convolution {apart} {taps}", part, feeds, outputs, last="x", channels="p",
                     lengths="c n", constants=weights)  # fmt: skip


def delta_nets() -> Iterator[Sweep]:
    """Every rule, decay by head and by key dimension, gates that are made inside, packed or not."""
    few, many, width, size = 1, 2, 4, 6
    cases = {
        "gated_delta": {
            "gate_activation": "softplus",
            "beta_activation": "sigmoid",
            "qk_l2_norm": 1,
        },
        "gated": {"gate_activation": "sigmoid", "gate_lower_bound": -3.0, "scale": 0.5},
        "delta": {"qk_l2_norm": 1},
        "linear": {},
    }
    for rule, more in cases.items():
        feeds = []
        for lengths in LENGTHS:
            n = sum(lengths)
            feed = {
                "q": floats(n, few, width), "k": floats(n, few, width, seed=1),
                "v": floats(n, many, size, seed=2), "c": _bounds(lengths),
                "h": floats(len(lengths), many, size, width, seed=3),
            }  # fmt: skip
            if "gated" in rule:
                each = (many, width) if rule == "gated" else (many,)
                feed["d"] = -np.abs(floats(n, *each, seed=4))
            if "delta" in rule:
                feed["b"] = np.abs(floats(n, many, seed=5)) * np.float32(0.4)
            feeds.append(feed)
        gates = "a t" if "gate_activation" in more else ""
        names = f"q k v c {'d' if 'gated' in rule else '-'} {'b' if 'delta' in rule else '-'} h"
        part = ms("GatedDeltaNet", f"{names} {gates}", "y z", update_rule=rule, **more)
        yield _sweep(f"delta net {rule}", part, feeds, "y z", last="q k v h d b",
                     channels="q k v h d", lengths="c",
                     constants={"a": floats(many, seed=6), "t": floats(many, seed=7)} if gates
                     else {}, rtol=1e-3, atol=1e-4)  # fmt: skip


def _every_sweep() -> list[Sweep]:
    return [*ngrams(), *convolutions(), *delta_nets(), *attending()]


def test_against_onnx_runtime(tmp_path: Path) -> None:
    wrong = differences(_every_sweep(), tmp_path, [])
    assert not wrong, "\n".join(wrong)


def test_compiled_for_any_lengths(tmp_path: Path) -> None:
    chosen = ("ngrams of sequences int64 0", "convolution 2 2")
    sweeps = [sweep for sweep in _every_sweep() if sweep.name in chosen]
    assert len(sweeps) == len(chosen)
    wrong = differences(sweeps, tmp_path, [2], reference=False)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_all_compiled(tmp_path: Path) -> None:
    wrong = differences(_every_sweep(), tmp_path, [0, 2], reference=False)
    assert not wrong, "\n".join(wrong)


def test_sequences_of_one_length_and_packed_projections() -> None:
    """Two of three steps: by batch and step, and as one projection that the state divides."""
    q, k, v = floats(2, 3, 1, 4), floats(2, 3, 1, 4, seed=1), floats(2, 3, 2, 6, seed=2)
    feed = {"q": q, "k": k, "v": v, "b": np.abs(floats(2, 3, 2, seed=3)),
            "h": floats(2, 2, 6, 4, seed=4)}  # fmt: skip
    part = ms("GatedDeltaNet", "q k v - - b h", "y z", update_rule="delta", qk_l2_norm=1)
    check(model(part, feed, ["y", "z"], domains=[MS]), feed, rtol=1e-3, atol=1e-4)
    rows = [part.reshape(6, -1) for part in (q, k, v)]
    packed = {"q": np.concatenate(rows, 1), "b": feed["b"].reshape(6, 2), "h": feed["h"]}
    part = ms("GatedDeltaNet", "q - - - - b h", "y z", update_rule="delta", qk_l2_norm=1)
    check(model(part, packed, ["y", "z"], domains=[MS]), packed, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bounds", [[0, 3, 2, 4], [1, 2, 3, 4], [0, 1, 2, 3], [0, 2, 2, 4]])
def test_bounds_that_do_not_rise_end_the_run(bounds: list[int]) -> None:
    feed = {"x": floats(4, 2), "c": np.array(bounds, np.int32), "p": floats(3, 2, 1, seed=1)}
    part = ms("VarlenCausalConvWithState", "x w c - p", "y z")
    proto = model(part, feed, ["y", "z"], constants={"w": floats(2, 1, 2)}, domains=[MS])
    with pytest.raises(RunError, match="do not rise"):
        run_graph(load_model(proto), feed)


def attending() -> Iterator[Sweep]:
    """Both directions, with lengths of sequences and of memories, with a layer above."""
    for direction, above, extra in (
        ("forward", 0, ""),
        ("reverse", 3, ""),
        ("bidirectional", 3, "n"),
    ):
        ways, hidden, depth, size = 1 + (direction[0] == "b"), 3, 2, 5
        read = above or depth
        weights = {
            "w": floats(ways, 12, 4 + read, seed=1), "r": floats(ways, 12, hidden, seed=2),
            "b": floats(ways, 24, seed=3), "pe": floats(ways, 9, seed=4),
            "q": floats(ways, hidden, size, seed=5), "m": floats(ways, depth, size, seed=6),
            "v": floats(ways, size, seed=7),
            **({"a": floats(ways, depth + hidden, above, seed=8)} if above else {}),
        }  # fmt: skip
        feeds = [
            {"x": floats(steps, 2, 4), "k": floats(2, places, depth, seed=9),
             "h": floats(ways, 2, hidden, seed=10), "c": floats(ways, 2, hidden, seed=11),
             **({"n": np.array([steps, 1], np.int32), "l": np.array([places, 1], np.int32)}
                if extra else {})}
            for steps, places in ((3, 4), (1, 1), (2, 3))
        ]  # fmt: skip
        names = (
            f"x w r b {extra or '-'} h c pe q m v k {'l' if extra else '-'} {'a' if above else '-'}"
        )
        part = ms("AttnLSTM", names, "y z s", hidden_size=hidden, direction=direction,
                  **({"clip": 0.5} if extra else {}))  # fmt: skip
        yield _sweep(f"attending {direction}", part, feeds, "y z s", fixed="h c n l", last="x k",
                     channels="x", constants=weights, rtol=1e-4, atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("lengths", [[0, 1], [4, -1], [2, 5]])
def test_memories_that_are_empty_or_too_long_end_the_run(
    direction: str, lengths: list[int]
) -> None:
    ways, hidden, depth, size = 1 + (direction[0] == "b"), 3, 2, 5
    weights = {
        "w": floats(ways, 12, 4 + depth, seed=1), "r": floats(ways, 12, hidden, seed=2),
        "q": floats(ways, hidden, size, seed=5), "m": floats(ways, depth, size, seed=6),
        "v": floats(ways, size, seed=7),
    }  # fmt: skip
    feed = {
        "x": floats(3, 2, 4),
        "k": floats(2, 4, depth, seed=9),
        "l": np.array(lengths, np.int32),
    }
    part = ms("AttnLSTM", "x w r - - - - - q m v k l -", "y z s", hidden_size=hidden,
              direction=direction)  # fmt: skip
    graph = load_model(model(part, feed, ["y"], constants=weights, domains=[MS]))
    with pytest.raises(RunError, match="empty or longer than 4 places"):
        run_graph(graph, feed)
    run_graph(graph, {**feed, "l": np.array([4, 1], np.int32)})


def test_numbers_of_heads_that_are_left_open() -> None:
    """The state says how many heads values have; what nothing says is refused."""
    feed = {"q": floats(4, 1, 4), "k": floats(4, 1, 4, seed=1), "v": floats(4, 2, 6, seed=2),
            "c": _bounds([3, 1]), "b": np.abs(floats(4, 2, seed=3)),
            "h": floats(2, 2, 6, 4, seed=4)}  # fmt: skip
    part = ms("GatedDeltaNet", "q k v c - b h", "y z", update_rule="delta", qk_l2_norm=1)
    alone = ms("GatedDeltaNet", "q k v c - b -", "y z", update_rule="delta", qk_l2_norm=1)
    dims = {"v": ["t", "heads", 6]}
    graph = load_model(model(part, feed, ["y", "z"], domains=[MS], dims=dims))
    whole = load_model(model(part, feed, ["y", "z"], domains=[MS]))
    found, want = run_graph(graph, feed), run_graph(whole, feed)
    for name in "yz":
        np.testing.assert_array_equal(found[name], want[name])
    without = {name: array for name, array in feed.items() if name != "h"}
    for open_one in ({"v": ["t", "heads", 6]}, {name: ["t", "heads", 4] for name in "qk"}):
        proto = model(alone, without, ["y", "z"], domains=[MS], dims=open_one)
        with pytest.raises(UnsupportedError, match="heads that only a run knows"):
            load_model(proto)


def test_what_is_refused_says_what_to_give_instead() -> None:
    feed = {"x": floats(4, 2), "c": _bounds([4]), "p": floats(1, 2, 1), "d": floats(4, 2, 2),
            "m": floats(4, 1)}  # fmt: skip
    dynamic = ms("VarlenCausalConvWithState", "x w c - p - d m", "y z")
    packed = ms("GatedDeltaNet", "x", "y z")
    taken = ms("GatedDeltaNet", "x x x c", "y z", state_update_capacity=2)
    for part, message in (
        (dynamic, "change from token to token"),
        (packed, "needs initial_state"),
        (taken, "state_update_capacity 0"),
    ):
        proto = model(part, feed, ["y"], constants={"w": floats(2, 1, 2)}, domains=[MS])
        with pytest.raises((UnsupportedError, InvalidModelError), match=message):
            load_model(proto)
