"""Benchmarks: statistics are there, peers are compared first, FLOPs come from the manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tensmith.compiler.errors import UsageError, VerificationError
from tensmith.compiler.ir import floordiv, symbol
from tensmith.driver import api
from tensmith.driver.bench import BenchOptions, bench, flops_of, measure_peak, parse_dim
from tensmith.driver.engines import EngineSpec

QUICK = BenchOptions(warmup=1, iterations=10, duration=0.0)


@pytest.fixture
def library(fake, model_path: Path) -> Path:
    return api.compile(model_path).save(model_path.with_suffix(".so"))[0]


def test_alone(library: Path, batch) -> None:
    timing = bench([EngineSpec("tensmith", library)], {"x": batch}, QUICK, flops=12, peak=1e12)[0]
    assert timing.calls == 10
    assert 0 < timing.fastest <= timing.median <= timing.p90 <= timing.p99
    assert timing.flops_per_second == pytest.approx(12 / timing.median)
    assert timing.peak_share == pytest.approx(12 / timing.median / 1e12)


def test_beside_a_peer(library: Path, model_path: Path, batch) -> None:
    pytest.importorskip("onnxruntime")
    specs = [EngineSpec("tensmith", library), EngineSpec("onnxruntime", model_path)]
    ours, theirs = bench(specs, {"x": batch}, QUICK)
    assert theirs.engine == "onnxruntime"
    assert theirs.max_abs == 0
    assert theirs.version
    assert ours.flops_per_second is None


def test_openvino_in_f32(library: Path, model_path: Path) -> None:
    pytest.importorskip("openvino")
    x = np.full((1, 4), 1.00390625 + 2.0**-20, np.float32)
    shapes = {"x": (1, 4)}
    specs = [EngineSpec("tensmith", library), EngineSpec("openvino", model_path, 1, shapes)]
    assert bench(specs, {"x": x}, QUICK)[1].max_abs == 0


def test_disagreement_stops_it(fake, model_path: Path, batch) -> None:
    pytest.importorskip("onnxruntime")
    fake.factor = "3.0f"
    library = api.compile(model_path).save(model_path.with_suffix(".so"))[0]
    specs = [EngineSpec("tensmith", library), EngineSpec("onnxruntime", model_path)]
    with pytest.raises(VerificationError, match="nothing was timed"):
        bench(specs, {"x": batch}, QUICK)


def test_peer_that_cannot_load(library: Path, tmp_path: Path, batch) -> None:
    pytest.importorskip("onnxruntime")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    specs = [EngineSpec("tensmith", library), EngineSpec("onnxruntime", broken)]
    timings = bench(specs, {"x": batch}, QUICK)
    assert timings[0].calls == 10
    assert timings[1].error


def test_flops() -> None:
    assert flops_of({"flops": 7}, {}) == 7
    assert flops_of({"flops": None}, {}) is None
    assert flops_of({"flops": "2*batch*n"}, {"batch": 3, "n": 5}) == 30
    assert flops_of({"flops": "2*steps"}, {"batch": 3}) is None


def test_dims_read_back() -> None:
    n, odd = symbol("n"), symbol("input.1_d0")
    for dim in (n * odd * 4 - n + 3, floordiv(n + 1, 2) * odd, -(n * n)):
        assert parse_dim(str(dim), ["n", "input.1_d0"]) == dim
    for text in ("n +", "m", "n ** 2", "__import__('os')", "n.real"):
        with pytest.raises(UsageError):
            parse_dim(text, ["n"])


def test_peak_is_measured(fake) -> None:
    peak = measure_peak(1)
    assert peak.flops_per_second > 1e9
    assert peak.label == "measured: FMA loop on 128-bit registers, 1 thread"
