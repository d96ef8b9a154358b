"""A backend of a few lines: its plan is C text, so that the driver is tested with real binaries."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from fake_tuning import FakeMeasurer, FakeModel
from onnx import TensorProto, helper

from tensmith.backends.common.link import link
from tensmith.backends.common.running import emulator, runs_here
from tensmith.backends.common.toolchain import CTarget, arch_of, compile_c
from tensmith.backends.llvm.measure import MEASURES
from tensmith.compiler.artifact import Code, CompiledModel, TensorSpec
from tensmith.compiler.backend import Backend, Tuning
from tensmith.compiler.compilation import Compilation, CompileOptions, KernelInfo, Stages
from tensmith.compiler.ir import Graph
from tensmith.compiler.target import CpuTarget

# y[batch, 4] = FACTOR * x[batch, 4]
PLAN = """
#include "plan_abi.h"
int32_t plan(ts_frame *frame);
int32_t plan(ts_frame *frame) {
  int64_t dims[2] = {frame->symbols[0], 4};
  const float *x = frame->inputs[0];
  float *y = ts_rt_output(frame, 0, dims);
  if (!y) return 1;
  BEFORE;
  for (int64_t i = 0; i < dims[0] * 4; i++) y[i] = x[i] * FACTOR;
  return 0;
}
"""


@cache
def _object(source: str, arch: str) -> bytes:
    """A plan compiled once for all tests."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "plan.c")
        path.write_text(source)
        return compile_c([path], CTarget(arch, static=False), path.parent)[0].read_bytes()


def _spec(name: str) -> TensorSpec:
    return TensorSpec(name, "f32", ("batch", 4))


class FakeBackend:
    """Compiles any model to "twice the input"; `factor` and `before` make it wrong."""

    def __init__(self) -> None:
        self.factor = "2.0f"
        self.before = ""
        self.unsupported: dict[str, str] = {}
        self.unavailable: str | None = None
        self.gains = {"conv": 0.8, "matmul": 1.2, "dense": 0.9}
        self.emitter = ""
        self.measurers: list[FakeMeasurer] = []
        self.target = CpuTarget(
            name="native",
            backend="fake",
            triple=f"{platform.machine()}-unknown-linux-gnu",
            cpu="generic",
            tune="generic",
            features=(),
            vector_bits=128,
            vector_registers=16,
            masked=False,
            broadcast_operands=False,
            fma_ports=1,
            l1_bytes=32 << 10,
            l2_bytes=256 << 10,
        )
        self.backend = Backend(
            name="fake",
            targets=("native",),
            parse_target=lambda text: self.target if text == "native" else None,
            supports=lambda node, target: self.unsupported.get(node.op),
            compile=self.compile,
            link=link,
            available=lambda: self.unavailable,
            runs_here=runs_here,
            emulator=emulator,
            measures=MEASURES,
            tuning=Tuning(
                open=lambda graph, target, options, stages, *, machine=None: FakeModel(
                    self.gains, emitter=self.emitter
                ),
                measurer=lambda target, worker: self._measurer(),
                machine=lambda target: FakeMeasurer(self.gains).machine,
            ),
        )

    def _measurer(self) -> FakeMeasurer:
        self.measurers.append(FakeMeasurer(self.gains))
        return self.measurers[-1]

    @property
    def turns(self) -> int:
        """How many were measured."""
        return sum(len(measurer.turns) for measurer in self.measurers)

    def compile(
        self, graph: Graph, target: CpuTarget, options: CompileOptions, stages: Stages
    ) -> Compilation:
        with stages.stage("double"):
            if options.dump_after:
                options.dump_after("double", graph)
        choices = json.dumps(json.dumps(options.choices.by_key, sort_keys=True))
        text = PLAN.replace("FACTOR", self.factor).replace("BEFORE", self.before)
        with stages.stage("codegen"):
            source = f"{text}\nconst char choices[] = {choices};\n"
            data = _object(source, arch_of(target.triple))
        weights = options.work_dir / "weights.bin"
        weights.write_bytes(b"")
        texts = {text: f"; {text}\n" for text in sorted(options.texts)}
        code = Code((("plan", data),), "plan", target.triple, (), texts)
        model = CompiledModel(options.name, (_spec("x"),), (_spec("y"),), ("batch",), code, weights)
        kernels = (KernelInfo("f32_double", ("add",), -1, "rows"),)
        return Compilation(model, kernels, arena_bytes=0, weight_bytes=0)


SaveModel = Callable[[list[onnx.NodeProto], list[int | str]], Path]


@pytest.fixture
def save_model(tmp_path: Path) -> SaveModel:
    """Writes a model x -> nodes -> y, both f32 of the given shape."""

    def save(nodes: list[onnx.NodeProto], shape: list[int | str]) -> Path:
        graph = helper.make_graph(
            nodes,
            "main",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        )
        opsets = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
        return path

    path = tmp_path / "double.onnx"
    return save


@pytest.fixture
def model_path(save_model: SaveModel) -> Path:
    """y = x + x, with a symbolic batch."""
    return save_model([helper.make_node("Add", ["x", "x"], ["y"], name="double")], ["batch", 4])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    """The fake backend in place of all others."""
    from tensmith.compiler import backend as registry

    found = FakeBackend()
    monkeypatch.setattr(registry, "backends", lambda: {"fake": found.backend})
    return found


@pytest.fixture
def batch() -> np.ndarray:
    return np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def tensmith() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The program, in a process of its own."""

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        from tensmith.compiler.knobs import child_environment

        return subprocess.run(
            [sys.executable, "-m", "tensmith", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=child_environment(**settings),
        )

    return run


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs the command line here: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    from tensmith.driver import cli

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
