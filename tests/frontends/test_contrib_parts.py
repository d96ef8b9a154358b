"""Operators of com.microsoft on parts of pictures and on tokens, beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tensmith.compiler.errors import InvalidModelError, UnsupportedError
from tensmith.frontends.onnx import load_model

from .amounts import i64
from .oracle import check, floats, model, node
from .sweeps import Feed, Sweep, Wanted, differences

MS = "com.microsoft"
MORE: dict[str, Any] = {"domains": [MS]}


def ms(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> list[onnx.NodeProto]:
    return [node(op, inputs, outputs, domain=MS, **attributes)]


def pictures() -> list[Sweep]:
    regions = np.array(
        [[0, 0, 1, 1], [0.1, 0.2, 0.7, 0.9], [-0.2, 0.5, 1.2, 0.4], [0.5, 0.5, 0.5, 0.5]],
        np.float32,
    )
    crops = [
        {"x": floats(2, 3, h, w), "r": regions[:n], "b": np.array([1, 0, 0, 1], np.int32)[:n],
         "c": np.array(size, np.int32)}
        for h, w, n, size in ((5, 6, 4, (3, 4)), (1, 1, 4, (2, 2)), (5, 6, 0, (3, 3)),
                              (4, 7, 4, (1, 1)), (4, 7, 3, (1, 5)))
    ]  # fmt: skip
    below = np.nextafter(np.float32(0.5), np.float32(0))  # plus 0.5 it would be 1
    crops.append({"x": floats(1, 3, 2, 2), "r": np.full((1, 4), below, np.float32),
                  "b": np.zeros(1, np.int32), "c": np.array([1, 1], np.int32)})  # fmt: skip
    spread = [
        {"x": floats(1, 2, 4, 5), "w": floats(2, 3, 3, 3, seed=1), "p": i64(p), "b": floats(3)}
        for p in ((0, 0, 0, 0), (1, 0, 0, 1), (1, 1, 1, 1))
    ]
    signals = [{"x": floats(2, n, 3)} for n in (5, 7, 3)]
    masks = [(np.arange(30) % 7 != k).astype(np.int32).reshape(1, 1, 5, 6) for k in (0, 3)]
    masks.append(np.zeros((1, 1, 5, 6), np.int32))
    masked = [{"x": floats(2, 3, 5, 6), "m": m} for m in masks]
    open_ = np.random.default_rng(4).integers(0, 8, (1, 1, 20, 21)).astype(bool).astype(np.int32)
    large = floats(1, 2, 20, 21)
    large[0, 0, 3, 2:5], large[0, 1, 7, 9:11] = -np.inf, np.inf
    lines = [{"x": floats(2, 3, 8), "m": (np.arange(8) != k).astype(np.int32).reshape(1, 1, 8)}
             for k in (0, 4, 9)]  # fmt: skip
    return [
        *(
            Sweep(f"crops {mode}", ms("CropAndResize", "x r b c", mode=mode,
                  extrapolation_value=0.5), crops, lengths="b", **MORE)
            for mode in ("bilinear", "nearest")
        ),
        Sweep("pads that are read", ms("ConvTransposeWithDynamicPads", "x w p b", strides=[2, 1],
              output_padding=[1, 0]), spread, fixed="w b", channels="x", **MORE),
        *(
            Sweep(f"windows {dim} {size} {step}", ms("UnfoldTensor", "x", dim=dim, size=size,
                  step=step), signals, **MORE)
            for dim, size, step in ((1, 3, 2), (1, 1, 1), (-2, 2, 3))
        ),
        Sweep("masked", ms("MaxpoolWithMask", "x m", kernel_shape=[3, 2], strides=[2, 1],
              pads=[1, 0, 1, 1]), masked, fixed="m", **MORE),
        Sweep("masked by large windows", ms("MaxpoolWithMask", "x m", kernel_shape=[13, 15],
              strides=[1, 2]), [{"x": large, "m": open_}], fixed="m", **MORE),
        Sweep("masked line", ms("MaxpoolWithMask", "x m", kernel_shape=[3]), lines,
              fixed="m", **MORE),
    ]  # fmt: skip


def tokens() -> list[Sweep]:
    rows = [[1, 2, 3, 1, 2], [4, 4, 4, 4, 4], [0, 1, 0, 1, 0]]
    lines = [{"i": i64([row[:n] for row in rows]), "s": floats(3, 6)} for n in (5, 3, 1)]
    wild = np.full((3, 6), np.nan, np.float32)
    wild[:, 5], wild[1, 0] = np.inf, -np.inf
    lines.append({"i": i64(rows), "s": wild})
    source = i64([1, 2, 3, 2, 3, 4, 5])
    found = []
    for current, start, predicted in (
        ([1], 0, [1, 2, 3, 2, 3, 4, 5, 9]), ([7, 8], 4, [3, 4, 9, 9]), ([2, 3], 7, [4]),
        ([1, 2], 2, [9, 9, 9, 9, 9, 9]),
    ):  # fmt: skip
        found.append({"a": source, "c": i64(current), "s": i64([start]), "p": i64(predicted)})
    words = np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0], [2, 1, 2, 1, 2]], np.int32)
    embedded = [{"w": words, "f": floats(4, 1, 2, 3), "b": floats(4, seed=1),
                 "t": floats(6, 3, seed=2)}]  # fmt: skip
    numbers: list[np.ndarray] = [
        np.array([0, 1, -1, 2**31 - 1], np.int32), np.array([0, 7, 2**32 - 1], np.uint32),
        np.array([0, 1, -5, 2**40], np.int64), floats(5), floats(3).astype(np.float64),
    ]  # fmt: skip
    return [
        *(
            Sweep(f"repeats of {size}", ms("NGramRepeatBlock", "i s", ngram_size=size), lines,
                  last="s", **MORE)
            for size in (1, 2, 3)
        ),
        *(
            Sweep(f"agreement {least} {most}", ms("BifurcationDetector", "a c s p", "y z",
                  min_ngram_size=least, max_ngram_size=most), found, "y z",
                  lengths="a c p", fixed="s", from_shapes=False, **MORE)
            for least, most in ((1, 3), (2, 2))
        ),
        Sweep("no prediction", ms("BifurcationDetector", "a c s", "y z", min_ngram_size=1,
              max_ngram_size=2), [{k: v for k, v in feed.items() if k != "p"} for feed in found],
              "y z", lengths="a c", fixed="s", from_shapes=False, **MORE),
        Sweep("words", ms("WordConvEmbedding", "w f b t"), embedded, fixed="f b t", **MORE),
        *(
            Sweep(f"hashes of {x.dtype} {positive}", ms("MurmurHash3", "x", positive=positive,
                  seed=seed), [{"x": x}], lengths="x", from_shapes=False, **MORE)
            for x in numbers for positive, seed in ((1, 0), (0, 77))
        ),
    ]  # fmt: skip


_WEIGHT = floats(5, 1)


def _projected(feed: Feed) -> Wanted:
    """What the operator is said to compute: ONNX Runtime has it for bf16 alone."""
    gate = 1 / (1 + np.exp(-(feed["g"] @ _WEIGHT)))
    return {"y": feed["x"] + feed["z"] * gate}


def gates() -> list[Sweep]:
    rows = [{"x": floats(n, 3, 8), "z": floats(n, 3, 8, seed=1)} for n in (2, 1, 0)]
    single = [{**feed, "g": floats(feed["x"].shape[0], 3, 1, seed=2)} for feed in rows]
    projected = [{**feed, "g": floats(feed["x"].shape[0], 3, 5, seed=2)} for feed in rows]
    return [
        Sweep("scaled", ms("ScaledSiLU", "x", alpha=0.7), [{"x": f["x"]} for f in rows], **MORE),
        Sweep("scaled by an input", ms("ScaledSiLU", "x s"), [{"x": f["x"]} for f in rows],
              constants={"s": np.float32(1.7)}, **MORE),
        Sweep("gates", ms("GatedAdd", "x z g"), single, last="x z g", **MORE),
        Sweep("projected gates", ms("GatedAdd", "x z g w"), projected, last="x z g",
              constants={"w": _WEIGHT}, expected=_projected, **MORE),
        *(
            Sweep(f"gated norm {activation} {size}", ms("GatedRMSNorm", "x s z",
                  activation=activation, epsilon=0.01), rows, last="x z",
                  constants={"s": floats(size, seed=3)}, **MORE)
            for activation, size in (("silu", 8), ("swish", 4), ("sigmoid", 2))
        ),
    ]  # fmt: skip


@pytest.mark.parametrize("table", [pictures, tokens, gates])
def test_as_in_onnx_runtime(tmp_path: Path, table: Any) -> None:
    wrong = differences(table(), tmp_path, [], reference=True)
    assert not wrong, "\n".join(wrong)


def test_masks_of_several_channels_are_refused() -> None:
    feed = {"x": floats(1, 2, 4), "m": np.ones((1, 2, 4), np.int32)}
    made = Sweep("masks", ms("MaxpoolWithMask", "x m", kernel_shape=[2]), [feed], fixed="m", **MORE)
    with pytest.raises(UnsupportedError, match="one mask"):
        load_model(made.proto())


@pytest.mark.parametrize(("turned", "alpha"), [(0, 1.0), (1, 0.5)])
def test_a_sparse_matrix_times_a_dense_one(turned: int, alpha: float) -> None:
    """A sparse initialiser, which the product takes as it is."""
    dense = np.zeros((3, 3), np.float32)
    dense[[0, 1, 2], [2, 0, 1]] = 1.5, -2.0, 4.0
    part = node("SparseToDenseMatMul", "w x", domain=MS, transA=turned, alpha=alpha)
    feed = {"x": floats(3, 4)}
    proto = model([part], feed, ["y"], dims={"x": [3, "n"]}, domains=[MS])
    places = np.flatnonzero(dense)
    sparse = proto.graph.sparse_initializer.add(dims=[3, 3])
    sparse.values.CopyFrom(onnx.numpy_helper.from_array(dense.reshape(-1)[places], "w"))
    sparse.indices.CopyFrom(onnx.numpy_helper.from_array(places, "w_places"))
    check(proto, feed, expected={"y": alpha * (dense.T if turned else dense) @ feed["x"]})


def test_masked_pools_grow_with_the_logarithm_of_the_window() -> None:
    def nodes(size: int) -> int:
        feed = {"x": floats(1, 1, 70, 70), "m": np.ones((1, 1, 70, 70), np.int32)}
        part = ms("MaxpoolWithMask", "x m", kernel_shape=[size, size])
        return sum(
            1 for _ in load_model(Sweep("masks", part, [feed], fixed="m", **MORE).proto()).walk()
        )

    assert nodes(64) - nodes(32) == nodes(32) - nodes(16) < 20


def _refused(part: list[onnx.NodeProto], feed: Feed, message: str) -> None:
    with pytest.raises((UnsupportedError, InvalidModelError), match=message):
        load_model(Sweep("refused", part, [feed], fixed=" ".join(feed), **MORE).proto())


def test_what_is_refused_says_what_to_give_instead() -> None:
    pool = {"x": floats(1, 2, 4), "m": np.ones((1, 1, 4), np.int32)}
    dilated = ms("MaxpoolWithMask", "x m", kernel_shape=[2], dilations=[2])
    _refused(dilated, pool, "give dilations of 1")
    norm = {"x": floats(2, 8), "s": floats(3), "z": floats(2, 8)}
    _refused(ms("GatedRMSNorm", "x s z"), norm, "give a scale")
    spread = {"x": floats(1, 2, 4, 5), "w": floats(2, 3, 3, 3)}
    part = ms("ConvTransposeWithDynamicPads", "x w p")
    made = Sweep(
        "refused", part, [spread], fixed="x w", constants={"p": i64([0, -1, 0, 0])}, **MORE
    )
    with pytest.raises(InvalidModelError, match="negative: give 0"):
        load_model(made.proto())
