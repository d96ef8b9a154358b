"""What a run is predicted to need, for named targets, without code being generated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tensmith.backends.cuda.estimate import BUS_LATENCY
from tensmith.backends.cuda.targets import TARGETS
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import Stages
from tensmith.compiler.economics.estimate import Provenance
from tensmith.compiler.errors import UsageError
from tensmith.compiler.kernel.cost.model_cost import SPREAD, RunEstimate
from tensmith.driver.model_build import import_model
from tensmith.driver.preflight import predicted_run
from tensmith.driver.request import CompileRequest

DIGITS = Path(__file__).parents[2] / "examples/digits/digits.onnx"


def _estimate(target: str, batch: int, threads: int = 1) -> RunEstimate:
    request = CompileRequest(target=target, threads=threads)
    backend, known = request.resolve()
    assert backend.estimate is not None
    options = replace(request.options(DIGITS, DIGITS.parent, known), sizes={"batch": batch})
    return backend.estimate(import_model(DIGITS, {}), known, options, Stages())


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4", "aarch64"])
def test_a_model_is_predicted_for_any_cpu(target: str) -> None:
    one, many = _estimate(target, 1), _estimate(target, 64)
    assert one.seconds.kind is Provenance.MODELLED
    assert one.seconds.machine == target
    assert one.seconds.low == pytest.approx(SPREAD[0] * one.seconds.value)
    assert 1e-6 < one.seconds.value < 1e-3
    assert 32 < many.flops / one.flops < 65
    assert 8 < many.seconds.value / one.seconds.value < 80
    assert one.weight_bytes >= 15338 * 4
    assert one.arena_bytes is not None
    assert one.uncounted == ()


def test_threads_share_loops() -> None:
    one, four = _estimate("x86-64-v3", 64), _estimate("x86-64-v3", 64, threads=4)
    assert 0.2 < four.seconds.value / one.seconds.value < 0.9


@pytest.mark.parametrize("target", ["cuda:sm_80", "cuda:sm_90", "cuda:sm_120"])
def test_a_gpu_takes_its_launches_and_the_copies(target: str) -> None:
    one, many = _estimate(target, 1), _estimate(target, 4096)
    assert one.device
    assert one.seconds.kind is Provenance.MODELLED
    assert "no GPU has confirmed it" in one.seconds.method
    assert 3e-5 < one.seconds.value < 2e-4  # a launch is 1 to 3 us, a copy 10
    assert many.flops == pytest.approx(4096 * one.flops, rel=0.01)
    assert 2 < many.seconds.value / one.seconds.value < 400
    assert one.arena_bytes is not None
    assert one.uncounted == ()


def test_a_file_for_several_gpus_takes_no_one_time() -> None:
    with pytest.raises(UsageError, match="several GPUs"):
        _estimate("cuda", 1)


def _stepwise(path: Path, steps: int) -> Path:
    """A scan whose body adds to places one by one, which the host does."""
    vector, sides = [4096], ("s", "v")
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["s", "v"], ["scaled"]),
            helper.make_node("ScatterND", ["scaled", "places", "more"], ["t"], reduction="add"),
        ],
        "body",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, vector) for name in sides],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, vector)],
    )
    constants = {"places": np.array([[3], [5]]), "more": np.ones(2, np.float32)}
    graph = helper.make_graph(
        [helper.make_node("Scan", ["x", "z"], ["y"], body=body, num_scan_inputs=1)], "steps",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, vector),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, [steps, *vector]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, vector)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph), path)
    return path


def test_copies_of_a_loop_count_in_every_round(tmp_path: Path) -> None:
    request = CompileRequest(target="cuda:sm_90")
    few, many = (
        predicted_run(_stepwise(tmp_path / f"{steps}.onnx", steps), request).seconds.value
        for steps in (10, 110)
    )
    # to the host and back: at least two copies in each round
    assert many - few > 100 * 2 * BUS_LATENCY


@pytest.mark.parametrize(
    ("name", "halves", "bandwidth"),
    [
        ("sm_80", 312e12, 1555e9),  # "NVIDIA A100 Tensor Core GPU", 40 GB
        ("sm_86", 125e12, 600e9),  # "NVIDIA A10 Tensor Core GPU"
        ("sm_89", 121e12, 300e9),  # "NVIDIA L4 Tensor Core GPU"
        ("sm_90", 989e12, 3350e9),  # "NVIDIA H100 Tensor Core GPU", SXM
        ("sm_100", 2250e12, 8000e9),  # "NVIDIA Blackwell Architecture", B200
        ("sm_120", 209.5e12, 1792e9),  # "NVIDIA RTX Blackwell GPU Architecture", RTX 5090
    ],
)
def test_rates_and_clocks_make_the_peaks_of_data_sheets(
    name: str, halves: float, bandwidth: float
) -> None:
    target = TARGETS[f"cuda:{name}"]
    peak = 2 * dict(target.rates)["f16"] * target.sms * target.clock
    assert peak == pytest.approx(halves, rel=0.01)
    assert target.bandwidth * target.clock == pytest.approx(bandwidth, rel=0.03)


def test_products_of_halves_are_faster_on_a_gpu(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    weight = numpy_helper.from_array(rng.normal(size=(2048, 2048)).astype(np.float32), "w")
    sides = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [512, 2048]) for name in ("x", "y")
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "product", sides[:1], sides[1:], [weight]
    )
    path = tmp_path / "product.onnx"
    onnx.save(helper.make_model(graph), path)
    exact, half = (
        predicted_run(path, CompileRequest(target="cuda:sm_90", precision=precision)).seconds.value
        for precision in ("fp32", "fp16")
    )
    assert half < exact


def test_interpreters_predict_nothing() -> None:
    backend, _ = resolve_target("reference")
    assert backend.estimate is None
