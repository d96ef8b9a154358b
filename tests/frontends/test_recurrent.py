"""LSTM, GRU and RNN against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .oracle import check, floats, model, node
from .ort_cases import OrtCase, check_all

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STEPS, BATCH, SIZE, HIDDEN = 5, 2, 3, 4


def _case(
    op: str,
    *,
    direction: str = "forward",
    steps: int = STEPS,
    lengths: Sequence[int] = (),
    states: bool = False,
    peepholes: bool = False,
    dynamic: bool = False,
    **attributes: object,
) -> OrtCase:
    count = 2 if direction == "bidirectional" else 1
    gates = GATES[op]
    x = floats(steps, BATCH, SIZE)
    constants = {
        "w": floats(count, gates * HIDDEN, SIZE, seed=1),
        "r": floats(count, gates * HIDDEN, HIDDEN, seed=2),
        "b": floats(count, 2 * gates * HIDDEN, seed=3),
    }
    names = ["x", "w", "r", "b", "-", "-"]
    outputs = ["y", "h"]
    if lengths:
        constants["n"], names[4] = np.array(lengths, np.int32), "n"
    if states:
        constants["h0"], names[5] = floats(count, BATCH, HIDDEN, seed=4), "h0"
    if op == "LSTM":
        names += ["-", "-"]
        outputs.append("c")
        if states:
            constants["c0"], names[6] = floats(count, BATCH, HIDDEN, seed=5), "c0"
        if peepholes:
            constants["p"], names[7] = floats(count, 3 * HIDDEN, seed=6), "p"
    proto = model(
        [
            node(
                op,
                " ".join(names),
                " ".join(outputs),
                hidden_size=HIDDEN,
                direction=direction,
                **attributes,
            )
        ],
        {"x": x},
        outputs,
        constants=constants,
        opset=14,
        dims={"x": ["t", "n", SIZE]} if dynamic else None,
    )
    return OrtCase(f"{op} {direction} {steps} {lengths} {dynamic}", proto, {"x": x})


def _check(op: str, **options: Any) -> None:
    case = _case(op, **options)
    check(case.proto, dict(case.inputs))


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [(), (STEPS, 2), (0, 3), (0, 0)])
def test_directions_and_lengths(op: str, direction: str, lengths: Sequence[int]) -> None:
    _check(op, direction=direction, lengths=lengths, states=True)


def test_without_steps(tmp_path: Path) -> None:
    """Last states are zeros then, not the given ones.

    ONNX Runtime does not survive it in a GRU, and leaves the last cells of an LSTM as they lie in
    memory.
    """
    cases = [
        _case(op, direction=direction, steps=0, states=True, dynamic=dynamic)
        for op, direction in product(("LSTM", "RNN"), ("forward", "bidirectional"))
        for dynamic in (False, True)
    ]
    for number, case in enumerate(cases[:4]):
        last = np.zeros((1 + (number > 1), BATCH, HIDDEN), np.float32)
        nothing = np.zeros((0, len(last), BATCH, HIDDEN), np.float32)
        cases[number] = replace(case, expected={"y": nothing, "h": last, "c": last})
    cases += [_case(op, lengths=(0, 3), states=True, dynamic=True) for op in GATES]
    cases.append(_case("GRU", steps=1, lengths=(1, 0), states=True))
    check_all(cases, tmp_path)


@pytest.mark.parametrize("op", GATES)
def test_dynamic_shapes_without_states(op: str) -> None:
    _check(op, dynamic=True)


@pytest.mark.parametrize("op", GATES)
def test_one_step_needs_no_scan(op: str) -> None:
    _check(op, steps=1, states=True)


def test_softplus_of_large_gates() -> None:
    """The gate itself, where its exponential exceeds f32; ONNX Runtime's is infinite there."""
    x = np.float32([[[-200, 88, 89, 1000]]])
    constants = {"w": np.eye(4, dtype=np.float32)[None], "r": np.zeros((1, 4, 4), np.float32)}
    made = node("RNN", "x w r", "y", hidden_size=4, activations=["Softplus"])
    proto = model([made], {"x": x}, ["y"], constants=constants)
    wanted = np.logaddexp(0, x.astype(np.float64)).astype(np.float32)
    check(proto, {"x": x}, expected={"y": wanted[None]})


def test_peepholes_clip_and_coupled_gates() -> None:
    _check("LSTM", peepholes=True, states=True, clip=0.5)
    _check("LSTM", input_forget=1)


def test_linear_before_reset() -> None:
    _check("GRU", linear_before_reset=1, direction="bidirectional")


def test_other_activations() -> None:
    _check(
        "LSTM",
        activations=["HardSigmoid", "Softsign", "Relu"],
        activation_alpha=[0.3],
        activation_beta=[0.4],
    )
    _check("RNN", activations=["LeakyRelu"], activation_alpha=[0.2])


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_softplus_of_large_numbers_is_no_infinity(op: str) -> None:
    """log(1 + exp(x)) is x there; ONNX Runtime's exp overflows above 88.7, and gives infinities."""
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    activations = {
        "RNN": ["Softplus"],
        "GRU": ["Sigmoid", "Softplus"],
        "LSTM": ["Sigmoid", "Softplus", "Relu"],
    }
    x = np.array([[[1.0]], [[-1.0]]], np.float32)
    # the gates of a GRU and an LSTM are open halfway: products with the input are in the last alone
    weights = np.zeros((1, gates, 1), np.float32)
    weights[0, -1] = 200.0
    proto = model(
        [node(op, "x w r", "y", hidden_size=1, activations=activations[op])],
        {"x": x},
        ["y"],
        constants={"w": weights, "r": np.zeros((1, gates, 1), np.float32)},
        opset=14,
    )
    new = np.logaddexp(0, 200.0 * x.reshape(-1).astype(np.float64))
    state, states = 0.0, []
    for value in new:
        state = {"RNN": value, "GRU": (value + state) / 2, "LSTM": (value + state) / 2}[op]
        states.append(state / 2 if op == "LSTM" else state)
    want = np.array(states, np.float32).reshape(2, 1, 1, 1)
    check(proto, {"x": x}, expected={"y": want})


def test_batch_first_layout() -> None:
    """The same numbers as with the step axis first."""
    x = floats(BATCH, STEPS, SIZE)
    constants = {
        "w": floats(1, 4 * HIDDEN, SIZE, seed=1),
        "r": floats(1, 4 * HIDDEN, HIDDEN, seed=2),
    }
    names = "y h c"

    def build(layout: int, data: np.ndarray) -> dict[str, np.ndarray]:
        from tensmith.backends.reference import run_graph
        from tensmith.frontends.onnx import load_model

        proto = model(
            [node("LSTM", "x w r", names, hidden_size=HIDDEN, layout=layout)],
            {"x": data},
            names.split(),
            constants=constants,
            opset=14,
        )
        return run_graph(load_model(proto), {"x": data})

    first, other = build(0, x.transpose(1, 0, 2)), build(1, x)
    np.testing.assert_allclose(other["y"], first["y"].transpose(2, 0, 1, 3), rtol=1e-6)
    np.testing.assert_allclose(other["c"], first["c"].transpose(1, 0, 2), rtol=1e-6)


def test_reverse_sequence() -> None:
    x = floats(4, 3, 2)
    proto = model(
        [node("ReverseSequence", "x n", time_axis=0, batch_axis=1)],
        {"x": x},
        ["y"],
        constants={"n": np.int64([4, 1, 3])},
    )
    check(proto, {"x": x})
