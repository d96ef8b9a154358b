"""What the script for GPUs does where torch is: with one that has the memory of no GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cuda_models import SM_80, Gpu
from cuda_runs import needs_triton

from tensmith.backends.cuda.fake.install import install
from tensmith.benchmarks import gpu, gpu_peers, gpu_stages
from tensmith.benchmarks.gpu_index import GpuBuild
from tensmith.benchmarks.gpu_stages import GpuStages, stages_of

CALL_MS = 3.0


class _Event:
    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        pass

    def elapsed_time(self, end: _Event) -> float:
        assert end is not self
        return CALL_MS * gpu_peers.CALLS


class _Graph:
    def replay(self) -> str:
        return "replayed"


def torch_like(**more: Any) -> SimpleNamespace:
    """As much of torch as the script asks for. more: of torch.cuda."""
    cuda = SimpleNamespace(
        Event=_Event, CUDAGraph=_Graph, graph=lambda _: nullcontext(),
        Stream=lambda: SimpleNamespace(cuda_stream=0), stream=lambda _: nullcontext(),
        synchronize=lambda: None,
    )  # fmt: skip
    vars(cuda).update(more)
    backends = SimpleNamespace(
        cuda=SimpleNamespace(matmul=SimpleNamespace()), cudnn=SimpleNamespace()
    )
    return SimpleNamespace(cuda=cuda, backends=backends, no_grad=nullcontext)


@pytest.fixture
def few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WARM_CALLS", "CALLS", "ROUNDS"):
        monkeypatch.setattr(gpu_peers, name, 2)


@pytest.fixture
def device() -> Iterator[Gpu]:
    driver = install()
    driver.be(80, SM_80)
    found = Gpu(driver)
    yield found
    found.close()


def stages_with(torch: Any, folder: Path) -> GpuStages:
    stages = GpuStages(folder, dry=False)
    vars(stages)["torch"] = torch, ""
    return stages


@needs_triton
@pytest.mark.usefixtures("few_calls")
def test_models_are_timed_on_tensors_of_the_gpu(tmp_path: Path, device: Gpu) -> None:
    """In torch's stream, by its events; what a call takes to come back is told beside it."""
    gpu.dry_builds(tmp_path)
    torch = torch_like(Stream=lambda: SimpleNamespace(cuda_stream=device.stream.value))
    moved: list[Any] = []

    def from_numpy(array: Any) -> Any:
        moved.append(device.tensor(array))
        return SimpleNamespace(cuda=lambda: moved[-1])

    torch.from_numpy = from_numpy
    stages = stages_with(torch, tmp_path)
    build = next(build for build in stages.builds if build.kind == "gemm")
    found = stages.run(f"time.{build.name}")
    assert found["seconds"] == CALL_MS / 1e3
    assert found["tflops"] == build.flops / found["seconds"] / 1e12
    assert found["issue_s"] > 0
    x, y = moved
    assert set(x.streams) == set(y.streams) == {device.stream.value}


def a_model(precision: str = "fp16", name: str = "m") -> GpuBuild:
    return GpuBuild(f"{name}-{precision}", "model", precision, 1, "", "", "", model=name)


def test_torch_compiles_every_build_anew_and_for_its_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts compilations of a function, and runs it as it is behind some."""
    told: list[Any] = []
    torch = torch_like()
    torch._dynamo = SimpleNamespace(reset=lambda: told.append("reset"))

    def compile_(module: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        told.append(options)
        return module

    torch.compile = compile_
    monkeypatch.setattr(gpu_peers, "_network", lambda *_: (lambda x: x + 1, {"x": 1}))
    call, notes = gpu_peers.peer_call(torch, Path(), a_model(), "compiled")
    assert call() == 2
    assert not notes
    assert told == ["reset", {"mode": "max-autotune", "dynamic": False}]


@pytest.mark.usefixtures("few_calls")
def test_what_cannot_be_captured_is_timed_as_it_is() -> None:
    call, notes = gpu_peers._captured(torch_like(), lambda: "called")
    assert (call(), notes) == ("replayed", {"graph": True})

    def refused(_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    call, notes = gpu_peers._captured(torch_like(graph=refused), lambda: "called")
    assert call() == "called"
    assert notes["graph"] is False
    assert "not permitted" in notes["why"]


def test_a_missing_package_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is not made anew for it."""

    def network(*_: Any) -> Any:
        raise ModuleNotFoundError("No module named 'transformers'")

    monkeypatch.setattr(gpu_peers, "_network", network)
    monkeypatch.setattr(GpuStages, "builds", [a_model()])
    found = stages_with(torch_like(), tmp_path).run("eager.m-fp16")
    assert found == {"skipped": "No module named 'transformers'"}


def test_all_models_of_a_precision_come_first() -> None:
    builds = [a_model(p, name) for name in "ab" for p in ("tf32", "fp32", "fp16")]
    names = [stage.name for stage in stages_of(builds) if stage.kind == "compiled"]
    assert names == [f"compiled.{n}-{p}" for p in gpu_stages.ORDER for n in "ab"]
