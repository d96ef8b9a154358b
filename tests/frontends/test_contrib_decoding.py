"""Operators of com.microsoft that decoders are made of, beside ONNX Runtime: steps with a cache,
attention between blocks, rotations by three positions, states of convolutions, warped times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tensmith.compiler.errors import InvalidModelError, UnsupportedError
from tensmith.frontends.onnx import load_model

from .amounts import i64
from .oracle import check, floats, model, node, run_ort
from .sweeps import Feed, Sweep, Wanted, differences

MS = "com.microsoft"
MORE: dict[str, Any] = {"domains": [MS]}
Array = np.ndarray


def ms(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> list[onnx.NodeProto]:
    return [node(op, inputs, outputs, domain=MS, **attributes)]


def steps() -> list[Sweep]:
    """One step of a decoder: behind a cache, and across the keys of an encoder."""
    own = {"q": floats(2, 1, 8), "k": floats(2, 1, 8, seed=1), "v": floats(2, 1, 8, seed=2),
           "pk": floats(2, 2, 6, 4, seed=3), "pv": floats(2, 2, 6, 4, seed=4)}  # fmt: skip
    cached = [{**own, "n": np.array([n], np.int32)} for n in (0, 3, 5)]
    added = [
        {**feed, "a": floats(2, 1, 1, int(feed["n"][0]) + 1, seed=5),
         "m": np.ones((2, int(feed["n"][0]) + 1), np.int32)} for feed in cached
    ]  # fmt: skip
    for feed in added:
        feed["m"][1, 0] = 0
    across = [{"q": floats(2, 1, 8), "k": floats(2, 2, n, 4, seed=1),
               "v": floats(2, 2, n, 4, seed=2)} for n in (5, 1)]  # fmt: skip
    how: dict[str, Any] = {"num_heads": 2, "past_present_share_buffer": 1}
    op = "DecoderMaskedMultiHeadAttention"
    fixed = "q k v pk pv n m a"
    bias = {"b": floats(24, seed=6)}
    outputs = "y pk1 pv1"
    return [
        Sweep("cached", ms(op, "q k v - - pk pv n", outputs, **how), cached, outputs,
              fixed="q k v pk pv n", from_shapes=False, **MORE),
        Sweep("bias", ms(op, "q k v - - pk pv n - - b", outputs, scale=0.3, **how), cached,
              outputs, fixed="q k v pk pv n", from_shapes=False, constants=bias, **MORE),
        Sweep("masks", ms(op, "q k v m a pk pv n", outputs, **how), added, outputs,
              fixed=fixed.replace(" m a", ""), from_shapes=False, **MORE),
        Sweep("across", ms(op, "q k v", num_heads=2), across, channels="q k v", last="q k v",
              **MORE),
    ]  # fmt: skip


def caches() -> list[Sweep]:
    """Some steps that are written into a cache behind those that count."""
    outputs, how = "y pk1 pv1", {"num_heads": 2, "unidirectional": 1}
    feeds = [{"q": floats(2, steps, 8), "k": floats(2, steps, 8, seed=1),
              "v": floats(2, steps, 8, seed=2), "pk": floats(2, 2, 6, 4, seed=3),
              "pv": floats(2, 2, 6, 4, seed=4), "n": np.array([past], np.int32)}
             for steps, past in ((1, 3), (2, 4), (3, 0))]  # fmt: skip
    hidden = [{**feed, "m": np.ones((2, feed["q"].shape[1] + int(feed["n"][0])), np.int32)}
              for feed in feeds]  # fmt: skip
    for feed in hidden:
        feed["m"][0, 0] = 0
    own = {"last": "q k v", "channels": "pk pv", "from_shapes": False, **MORE}
    part = ms("MultiHeadAttention", "q k v - - - pk pv n", outputs, **how)
    masked = ms("MultiHeadAttention", "q k v - m - pk pv n", outputs, num_heads=2)
    return [
        Sweep("caches", part, feeds, outputs, **own),
        Sweep("caches and a mask", masked, hidden, outputs, **own),
    ]


def rotations() -> list[Sweep]:
    angles = floats(9, 8, seed=2)
    tables = {"c": np.cos(angles), "s": np.sin(angles)}
    rng = np.random.default_rng(3)
    flat = [{"x": floats(b, n, 32), "p": rng.integers(0, 9, (3, b, n))}
            for b, n in ((2, 4), (1, 1))]  # fmt: skip
    cubes = [{"x": floats(f["p"].shape[1], 2, f["p"].shape[2], 16), "p": f["p"]} for f in flat]
    return [
        *(
            Sweep(f"three positions {layout} {turns}", ms("MRotaryEmbedding", "x p c s",
                  mrope_section=[4, 2, 2], mrope_layout=layout, interleaved=turns), feeds,
                  last="x", channels="x" if feeds is cubes else "", constants=tables, **MORE)
            for layout, turns, feeds in ((0, 0, cubes), (1, 1, cubes), (1, 0, cubes))
        ),
        Sweep("three positions of a flat input", ms("MRotaryEmbedding", "x p c s",
              num_heads=2, mrope_section=[4, 2, 2]), flat, last="x", constants=tables, **MORE),
        Sweep("a part of each head", ms("MRotaryEmbedding", "x p c s", num_heads=1, scale=0.7,
              mrope_section=[3, 3, 2], rotary_embedding_dim=16), flat, last="x",
              constants=tables, **MORE),
    ]  # fmt: skip


def halves() -> list[Sweep]:
    """In f16, rounded once: what comes of several products, or of an activation behind a sum."""
    f16, angles = np.float16, floats(50, 8, seed=2)
    tables = {"c": np.cos(angles).astype(f16), "s": np.sin(angles).astype(f16)}
    places = np.random.default_rng(3).integers(0, 50, (3, 2, 40))
    turned = {"x": floats(2, 2, 40, 16).astype(f16), "p": places}
    line = {"x": floats(2, 4, 200).astype(f16), "p": floats(2, 4, 2, seed=3).astype(f16)}
    weights = {"w": floats(4, 1, 3, seed=1).astype(f16), "b": floats(4, seed=2).astype(f16)}
    near: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-6, **MORE}  # one place is 5e-4 to 1e-3
    return [
        Sweep("three positions", ms("MRotaryEmbedding", "x p c s", mrope_section=[4, 2, 2]),
              [turned], last="x", channels="x", constants=tables, **near),
        Sweep("convolution", ms("CausalConvWithState", "x w b p", "y z", activation="silu"),
              [line], "y z", fixed="p", channels="x", constants=weights, **near),
        Sweep("scaled", ms("ScaledSiLU", "x", alpha=1.7), [{"x": line["x"]}], **near),
        Sweep("scaled by an input", ms("ScaledSiLU", "x s"), [{"x": line["x"]}],
              constants={"s": np.float32(1.7)}, **near),
    ]  # fmt: skip


def convolutions() -> list[Sweep]:
    def sweep(name: str, apart: int, last: int, past: bool, **options: Any) -> Sweep:
        shape = (2, 2 * apart, 4) if last else (2, 4, 2 * apart)
        feeds = [{"x": floats(*((2, n, 4) if last else (2, 4, n))),
                  **({"p": floats(*shape, seed=3)} if past else {})} for n in (5, 1)]  # fmt: skip
        part = ms("CausalConvWithState", "x w b p" if past else "x w b", "y z", dilation=apart,
                  channels_last=last, **options)  # fmt: skip
        return Sweep(name, part, feeds, "y z", fixed="p", channels="" if last else "x",
                     last="x" if last else "",
                     constants={"w": floats(4, 1, 3, seed=1), "b": floats(4, seed=2)},
                     **MORE)  # fmt: skip

    return [
        sweep("apart", 2, 0, True, activation="silu"),
        sweep("apart from nothing", 3, 0, False),
        sweep("channels last", 1, 1, True),
        sweep("channels last, apart", 2, 1, False, activation="swish"),
    ]


def streams() -> list[Sweep]:
    lines = [{"a": floats(2, n, 3), "z": floats(2, n, 3, seed=1)} for n in (4, 1, 0)]
    many = [{"x": floats(n, 3, 8), "g": floats(n, 3, seed=1), "k": floats(n, 8, seed=2),
             "m": floats(n, 3, 3, seed=3)} for n in (2, 1)]  # fmt: skip
    flat = [{"x": feed["x"].reshape(-1, 24), "g": floats(len(feed["x"]), 24, seed=4)}
            for feed in many]  # fmt: skip
    norm = {"s": floats(24, seed=5)}
    engrams = [{"k": floats(2, n, 3, 8), "q": floats(2, n, 3, 8, seed=6), "v": floats(2, n, 8)}
               for n in (4, 1)]  # fmt: skip
    branches = {name: floats(3, 8, seed=7 + i) for i, name in enumerate("abc")}
    return [
        Sweep("decays", ms("LinearAttentionGate", "a t d z", "y r"), lines, "y r", last="a z",
              constants={"t": floats(3, seed=2), "d": -np.abs(floats(3, seed=3))}, **MORE),
        Sweep("norms of branches", ms("BranchwiseRMSNorm", "x s", num_branches=3),
              [{"x": feed["x"]} for feed in flat], last="x", constants=norm, **MORE),
        Sweep("norms alike", ms("BranchwiseRMSNorm", "x s", epsilon=0.1),
              [{"x": feed["x"]} for feed in many], last="x", channels="x",
              constants={"s": norm["s"][:8]}, **MORE),
        Sweep("norms of small numbers", ms("BranchwiseRMSNorm", "x"),
              [{"x": feed["x"] / 500} for feed in many], last="x", channels="x", **MORE),
        Sweep("engrams", ms("EngramGate", "k q v a b c", "y z", epsilon=0.01), engrams, "y z",
              last="k q v", constants=branches, **MORE),
        Sweep("into a block", ms("HyperConnectionPreMix", "x g", reduction_scale=0.5),
              [{"x": f["x"], "g": f["g"]} for f in many], last="x g", channels="x", **MORE),
        Sweep("into a block, flat", ms("HyperConnectionPreMix", "x g", num_branches=3), flat,
              last="x g", **MORE),
        Sweep("out of a block", ms("HyperConnectionPostMix", "x k g m"), many, last="x k g m",
              channels="x k m", **MORE),
        Sweep("out of a block, apart", ms("HyperConnectionPostMix", "x k g"),
              [{n: f[n] for n in "xkg"} for f in many], last="x k g", channels="x", **MORE),
    ]  # fmt: skip


def routers() -> list[Sweep]:
    logits = [{"x": floats(*shape, 8)} for shape in ((5, 1), (1, 3), (0, 2))]
    ties = [{"x": np.round(floats(6, 1, 8, seed=4))}]
    bias = {"b": floats(8, seed=1)}
    return [
        *(
            Sweep(f"{few} of {groups} groups, {k} experts", ms("MoEGroupRouter", "x b",
                  n_group=groups, topk_group=few, top_k=k, **more), feeds, last="x",
                  constants=bias, **MORE)
            for groups, few, k, feeds, more in (
                (4, 2, 3, logits, {}), (2, 1, 2, logits, {"group_topk": 3}), (1, 1, 4, logits, {}),
                (4, 3, 2, ties, {"router_sentinel": -7.0}),
            )
        ),
        Sweep("all scores", ms("MoEGroupRouter", "x b", "- y z", top_k=2), logits, "y z", last="x",
              constants=bias, **MORE),
    ]  # fmt: skip


def warping() -> list[Sweep]:
    rng = np.random.default_rng(7)
    sizes = ((4, 6), (1, 1), (5, 2), (1, 7), (3, 1))
    real = [{"x": rng.standard_normal(size).astype(np.float32)} for size in sizes]
    ties = [{"x": rng.integers(0, 2, (1, *size)).astype(np.float32)} for size in sizes]
    return [
        Sweep("path", ms("DynamicTimeWarping", "x"), real, **MORE),
        Sweep("path among equals", ms("DynamicTimeWarping", "x"), ties, **MORE),
    ]


@pytest.mark.parametrize(
    "table", [steps, caches, rotations, halves, convolutions, streams, routers, warping]
)
def test_as_in_onnx_runtime(tmp_path: Path, table: Any) -> None:
    wrong = differences(table(), tmp_path, [2], reference=True)
    assert not wrong, "\n".join(wrong)


def test_a_packed_cache_is_written_in_place() -> None:
    """As ONNX Runtime computes it with a cache of the steps that count alone."""
    how: dict[str, Any] = {"num_heads": 2, "unidirectional": 1}
    weights = {"w": floats(8, 24, seed=1), "b": floats(24, seed=2)}
    cache, x = floats(2, 2, 2, 6, 4, seed=3), floats(2, 2, 8)
    grown = {"x": x, "p": np.ascontiguousarray(cache[:, :, :, :3])}
    part = ms("Attention", "x w b - p", "y z", **how)
    want = run_ort(model(part, grown, ["y", "z"], constants=weights, domains=[MS]), grown)
    want["z"] = np.concatenate([want["z"], cache[:, :, :, 5:]], axis=3)
    feed = {"x": x, "p": cache, "n": np.array([3], np.int32)}
    part = ms("Attention", "x w b - p - n", "y z", past_present_share_buffer=1, **how)
    proto = model(part, feed, ["y", "z"], constants=weights, domains=[MS])
    check(proto, feed, expected=want)


def _attended(q: Array, k: Array, v: Array) -> Array:
    """[heads, size] of queries, and keys and values [heads, steps, size]."""
    scores = np.einsum("hd,hsd->hs", q, k) / np.sqrt(q.shape[1])
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return np.einsum("hs,hsd->hd", weights / weights.sum(1, keepdims=True), v)


def test_steps_come_from_the_beams_that_were_kept() -> None:
    """Two rows of three beams: every earlier step is that of the beam it names."""
    rng = np.random.default_rng(5)
    past, beams = 3, rng.integers(0, 3, (2, 3, 5)).astype(np.int32)
    feed = {
        "q": floats(6, 1, 8), "k": floats(6, 1, 8, seed=1), "v": floats(6, 1, 8, seed=2),
        "pk": floats(6, 2, 5, 4, seed=3), "pv": floats(6, 2, 5, 4, seed=4),
        "n": np.array([past], np.int32), "w": np.array([3], np.int32), "i": beams,
    }  # fmt: skip
    right = np.zeros((6, 1, 8), np.float32)
    for row in range(6):
        origin = row // 3 * 3 + beams[row // 3, row % 3, :past]
        keys, values = (
            np.concatenate(
                [
                    feed[cache][origin, :, range(past)].swapaxes(0, 1),
                    feed[new][row].reshape(2, 1, 4),
                ],
                axis=1,
            )
            for cache, new in (("pk", "k"), ("pv", "v"))
        )
        right[row] = _attended(feed["q"][row].reshape(2, 4), keys, values).reshape(1, 8)
    part = ms("DecoderMaskedMultiHeadAttention", "q k v - - pk pv n w i", "y pk1 pv1",
              num_heads=2, past_present_share_buffer=1)  # fmt: skip
    check(model(part, feed, ["y"], domains=[MS]), feed, expected={"y": right})


def _blocks_met(feed: Feed, size: int) -> Wanted:
    """Attention of two heads, each of which has a layout, to blocks of keys; with the caches."""
    layouts = [{(0, 0), (1, 0), (1, 1), (2, 1), (2, 2)}, {(0, 0), (1, 1), (2, 0), (2, 2)}]
    steps, total = feed["q"].shape[1], int(feed["t"][0])
    keys, values = feed["pk"].copy(), feed["pv"].copy()
    out = np.zeros_like(feed["q"])
    for row, length in enumerate(feed["l"]):
        before = 0 if total == steps else int(length) - steps
        keys[row, 0, before : before + steps] = feed["k"][row]
        values[row, 0, before : before + steps] = feed["v"][row]
        for step in range(steps):
            place = before + step
            for head, met in enumerate(layouts):
                seen = [p for p in range(place + 1) if (place // size, p // size) in met]
                query = feed["q"][row, step, head * 8 : head * 8 + 8]
                out[row, step, head * 8 : head * 8 + 8] = _attended(
                    query[None], keys[row, :1, seen][:, 0][None], values[row, :1, seen][:, 0][None]
                )
    return {"y": out, "pk1": keys, "pv1": values}


def test_attention_meets_the_blocks_of_its_layouts(tmp_path: Path) -> None:
    size = 16
    layouts = {"r": np.array([[0, 1, 3, 5], [0, 1, 2, 4]], np.int32),
               "c": np.array([[0, 0, 1, 1, 2], [0, 1, 0, 2, -1]], np.int32)}  # fmt: skip

    def feed(steps: int, total: int, lengths: list[int]) -> Feed:
        return {"q": floats(2, steps, 16), "k": floats(2, steps, 8, seed=1),
                "v": floats(2, steps, 8, seed=2), "pk": floats(2, 1, 48, 8, seed=3),
                "pv": floats(2, 1, 48, 8, seed=4), "t": np.array([total], np.int32),
                "l": np.array(lengths, np.int32)}  # fmt: skip

    feeds = [feed(40, 40, [40, 40]), feed(1, 35, [35, 20]), feed(1, 48, [48, 33])]
    outputs = "y pk1 pv1"
    part = ms("SparseAttention", "q k v pk pv r c t l", outputs, num_heads=2, kv_num_heads=1,
              sparse_block_size=size)  # fmt: skip
    sweep = Sweep("blocks", part, feeds, outputs, constants=layouts, last="q k v pk pv",
                  channels="pk pv", expected=lambda one: _blocks_met(one, size),
                  from_shapes=False, **MORE)  # fmt: skip
    wrong = differences([sweep], tmp_path, [2], reference=True)
    assert not wrong, "\n".join(wrong)


def test_scales_of_decays_may_be_halves() -> None:
    """ONNX Runtime demands f32; models that were converted as a whole have f16 throughout."""
    shapes = {"a": (2, 4, 3), "t": (3,), "d": (3,)}
    feed = {
        name: floats(*shapes[name], seed=seed).astype(np.float16)
        for seed, name in enumerate(shapes)
    }
    a, t, d = (array.astype(np.float32) for array in feed.values())
    proto = model(ms("LinearAttentionGate", "a t d"), feed, ["y"], domains=[MS])
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    right = (d * np.log1p(np.exp(a + t))).astype(np.float16)
    check(proto, feed, expected={"y": right}, rtol=1e-3)


def _refused(part: list[onnx.NodeProto], feed: Feed, message: str) -> None:
    with pytest.raises((UnsupportedError, InvalidModelError), match=message):
        load_model(Sweep("refused", part, [feed], fixed=" ".join(feed), **MORE).proto())


def test_what_is_refused_says_what_to_give_instead() -> None:
    step = {"q": floats(2, 1, 8), "k": floats(2, 1, 8), "v": floats(2, 1, 8),
            "pk": floats(2, 2, 6, 4), "pv": floats(2, 2, 6, 4)}  # fmt: skip
    grown = ms("DecoderMaskedMultiHeadAttention", "q k v - - pk pv", "y a b", num_heads=2)
    _refused(grown, step, "past_present_share_buffer to 1")
    line = {"x": floats(1, 4, 6), "w": floats(4, 1, 3)}
    _refused(ms("CausalConvWithState", "x w", "y z", state_window=2), line, "state_window 0")
    cube = {"x": floats(1, 2, 3, 16), "p": i64(np.zeros((3, 1, 3))), "c": floats(4, 8),
            "s": floats(4, 8)}  # fmt: skip
    turn = ms("MRotaryEmbedding", "x p c s", mrope_section=[4, 2, 1])
    _refused(turn, cube, "does not make 8 angles")
    both = ms("MoEGroupRouter", "x b", "y s w", top_k=2)
    _refused(both, {"x": floats(5, 1, 8), "b": floats(8)}, "use two nodes")
