"""Recurrent layers whose weights are bytes: DynamicQuantizeLSTM, and DequantizeLinear before W, R.

With ONNX Runtime they agree nearly to the bit. Its sigmoid and tanh are other polynomials, by 1e-7
of 1: the range of a state, and with it every scale, moves by so much, and where an element of the
state lies as near to the middle between two steps it goes to the other. That is one step of the
state's 255 times one weight in the sums of the next step; the seeds here have few of those.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import needs_native

import tensmith
from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import InvalidModelError
from tensmith.frontends.onnx import load_model

from .oracle import floats, model, node
from .ort_cases import OrtCase, check_all

MS = "com.microsoft"
STEPS, BATCH, SIZE, HIDDEN = 5, 3, 8, 12
NEAR = 2e-6
ONE_STEP = 1e-2  # a weight of 0.5 times a step of 2/255, and what becomes of it
Array = np.ndarray[Any, Any]


def lstm(
    direction: str = "forward",
    *,
    kind: type = np.int8,
    by_column: bool = False,
    lengths: Sequence[int] = (),
    states: bool = False,
    peepholes: bool = False,
    bias: bool = True,
    batch: int = BATCH,
    **attributes: Any,
) -> OrtCase:
    """One DynamicQuantizeLSTM; weights of 7 bits, which saturate on no processor."""
    count = 2 if direction == "bidirectional" else 1
    rng = np.random.default_rng(count)
    low = 64 if kind is np.uint8 else -64
    constants: dict[str, Array] = {
        "w": rng.integers(low, low + 128, (count, SIZE, 4 * HIDDEN)).astype(kind),
        "r": rng.integers(low, low + 128, (count, HIDDEN, 4 * HIDDEN)).astype(kind),
        "b": floats(count, 8 * HIDDEN, seed=2) / 4,
    }
    shape = (count, 4 * HIDDEN) if by_column else (count,)
    zero = 128 if kind is np.uint8 else 0
    for name, seed in (("w", 7), ("r", 8)):
        scale = 0.004 + 0.004 * np.random.default_rng(seed).random(shape)
        constants |= {f"{name}s": scale.astype(np.float32), f"{name}z": np.full(shape, zero, kind)}
    names = ["x", "w", "r", "b" if bias else "-", "-", "-", "-", "-", "ws", "wz", "rs", "rz"]
    if lengths:
        constants["n"], names[4] = np.array(lengths, np.int32), "n"
    if states:
        constants["h0"], names[5] = floats(count, batch, HIDDEN, seed=4) / 2, "h0"
        constants["c0"], names[6] = floats(count, batch, HIDDEN, seed=5), "c0"
    if peepholes:
        constants["p"], names[7] = floats(count, 3 * HIDDEN, seed=6), "p"
    outputs = ["y", "h", "c"]
    made = node(
        "DynamicQuantizeLSTM",
        " ".join(names),
        " ".join(outputs),
        domain=MS,
        hidden_size=HIDDEN,
        direction=direction,
        **attributes,
    )
    x = floats(STEPS, batch, SIZE)
    used = {name: array for name, array in constants.items() if name in names}
    proto = model([made], {"x": x}, outputs, constants=used, opset=14, domains=[MS])
    text = f"{direction} {kind.__name__} {by_column} {lengths} {states} {peepholes} {attributes}"
    text += f" {bias} {batch}"
    return OrtCase(text, proto, {"x": x}, rtol=0, atol=NEAR)


def test_directions_types_and_scales(tmp_path: Path) -> None:
    directions = ("forward", "reverse", "bidirectional")
    kinds = [(np.int8, False), (np.int8, True), (np.uint8, False)]
    cases = [
        lstm(direction, kind=kind, by_column=by_column)
        for direction, (kind, by_column) in product(directions, kinds)
    ]
    check_all(cases, tmp_path)


def test_lengths_states_and_peepholes(tmp_path: Path) -> None:
    cases = [
        lstm(direction, lengths=lengths, states=states, peepholes=peepholes)
        for direction, lengths, (states, peepholes) in product(
            ("forward", "reverse", "bidirectional"),
            ((), (5, 2, 3), (2, 3, 1)),
            ((True, False), (False, True), (True, True)),
        )
    ]
    check_all(cases, tmp_path)


def test_clip_coupled_gates_and_other_activations(tmp_path: Path) -> None:
    cases = [
        lstm(clip=0.5, states=True, peepholes=True),
        lstm(input_forget=1),
        lstm(bias=False),
        lstm(batch=1),
        lstm(activations=["Sigmoid", "Relu", "Tanh"]),
        lstm(activations=["HardSigmoid", "Softsign", "Tanh"], activation_alpha=[0.3],
             activation_beta=[0.4]),
        lstm("bidirectional", activations=["Sigmoid", "Tanh", "Relu", "Sigmoid", "Tanh", "Tanh"]),
    ]  # fmt: skip
    check_all(cases, tmp_path)


@needs_native
def test_products_are_of_bytes(tmp_path: Path) -> None:
    """Compiled, the layer is the one of the reference, and multiplies no floats."""
    case = lstm("bidirectional", states=True)
    artifact = tensmith.compile(case.proto.SerializeToString())
    told = artifact.manifest["contractions"]
    assert {row["precision"] for row in told} == {"int8"}
    assert len(told) >= 1
    got, want = artifact.load()(dict(case.inputs)), run_graph(load_model(case.proto), case.inputs)
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, rtol=0, atol=ONE_STEP)
        assert np.quantile(np.abs(got[name] - array), 0.9) < NEAR


def test_weights_that_do_not_fit_are_refused() -> None:
    case = lstm()
    attributes = {a.name: a for a in case.proto.graph.node[0].attribute}
    attributes["hidden_size"].i = HIDDEN + 1
    with pytest.raises(InvalidModelError, match="does not fit hidden_size 13"):
        load_model(case.proto)


def dequantised(op: str, gates: int, *, by_gate: bool) -> OrtCase:
    """DequantizeLinear of constant bytes in front of W and R: one scale, or one for each row."""
    rng = np.random.default_rng(gates)
    shape = (1, gates * HIDDEN, 1) if by_gate else ()
    constants: dict[str, Array] = {
        "w": rng.integers(-127, 128, (1, gates * HIDDEN, SIZE)).astype(np.int8),
        "r": rng.integers(-127, 128, (1, gates * HIDDEN, HIDDEN)).astype(np.int8),
    }
    nodes = []
    for name in ("w", "r"):
        scale = (0.002 + 0.004 * rng.random(shape[:2] if by_gate else shape)).astype(np.float32)
        constants |= {f"{name}s": scale.reshape(-1) if by_gate else scale}
        array = constants.pop(name)
        flat = array.reshape(array.shape[1:]) if by_gate else array
        constants[name] = flat
        nodes.append(node("DequantizeLinear", f"{name} {name}s", f"{name}f", axis=0))
        if by_gate:
            nodes.append(node("Unsqueeze", f"{name}f first", f"{name}d"))
    constants |= {"first": np.array([0])} if by_gate else {}
    ending = "d" if by_gate else "f"
    nodes.append(node(op, f"x w{ending} r{ending}", "y h", hidden_size=HIDDEN))
    x = floats(STEPS, BATCH, SIZE)
    proto = model(nodes, {"x": x}, ["y", "h"], constants=constants, opset=14)
    return OrtCase(f"{op} {by_gate}", proto, {"x": x})


@pytest.mark.parametrize("by_gate", [False, True])
def test_dequantised_weights(by_gate: bool, tmp_path: Path) -> None:
    check_all(
        [dequantised(op, gates, by_gate=by_gate) for op, gates in (("LSTM", 4), ("GRU", 3))],
        tmp_path,
    )


def test_dequantised_weights_stay_bytes() -> None:
    """What is multiplied is a matrix that a dequantize of bytes makes, cut as the gates are."""
    for op, gates in (("LSTM", 4), ("GRU", 3)):
        for by_gate in (False, True):
            graph = load_model(dequantised(op, gates, by_gate=by_gate).proto)
            rights = [n.inputs[1].producer for n in graph.walk() if n.op == "matmul"]
            assert rights
            for made in rights:
                assert made is not None
                assert made.op == "dequantize"
                assert made.inputs[0].dtype.value == "i8"
                assert made.inputs[0].is_constant
