"""Inference engines behind one interface. All compute in f32, but for those that say otherwise.

`server.py` imports this file by its bare name, so it has no relative imports.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Feed = dict[str, np.ndarray]


class Skip(Exception):
    """The engine cannot run this model here; the message says why."""


class Engine(ABC):
    """One engine with at most one model loaded.

    module: what has to be importable. precision: of the arithmetic. threads: number of threads to
    use, the calling one included. sample: inputs of the model, to calibrate with.
    """

    module: str
    precision = "fp32"
    sample: Feed | None = None

    def __init__(self, threads: int) -> None:
        self.threads = threads

    @abstractmethod
    def compile(self, model: Path) -> None:
        """Translate the model; what an engine does before the model can be loaded."""

    def load(self) -> None:
        """Load what `compile` produced, where that is a step of its own."""
        return

    def files(self) -> list[Path]:
        """What `compile` wrote to disk, sorted."""
        return []

    def prepare(self, feed: Feed) -> Any:
        """Inputs in the form that `run` takes without copying."""
        return feed

    @abstractmethod
    def run(self, prepared: Any) -> Any:
        """One inference: what is timed."""

    def arrays(self, result: Any) -> list[np.ndarray]:
        """The outputs of `run` in model order."""
        return [np.array(item) for item in result]

    def version(self) -> str:
        return str(importlib.import_module(self.module).__version__)


class Tensmith(Engine):
    """idle: what threads do between calls."""

    module = "tensmith"
    idle = "spin"

    def compile(self, model: Path) -> None:
        import tensmith

        self.folder = tempfile.TemporaryDirectory(prefix="tensmith-bench-")
        self.path = Path(self.folder.name) / "model.so"
        artifact = tensmith.compile(
            str(model),
            target="native",
            threads=self.threads,
            precision=self.precision,
            calibration=self.sample if self.precision == "int8" else None,
            force_precision=True,
        )
        artifact.save(str(self.path))

    def load(self) -> None:
        import tensmith

        self.loaded = tensmith.load(str(self.path), threads=self.threads, idle=self.idle)

    def files(self) -> list[Path]:
        return sorted(path for path in Path(self.folder.name).rglob("*") if path.is_file())

    def run(self, prepared: Feed) -> Any:
        return self.loaded(prepared)

    def arrays(self, result: Any) -> list[np.ndarray]:
        return [np.array(item) for item in result.values()]


class TensmithParked(Tensmith):
    idle = "park"


class TensmithBf16(Tensmith):
    precision = "bf16"


class TensmithInt8(Tensmith):
    """Calibrated with the inputs that are timed."""

    precision = "int8"


class OnnxRuntime(Engine):
    """spinning: whether threads spin between calls; None: as by default."""

    module = "onnxruntime"
    spinning: bool | None = None

    def compile(self, model: Path) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        if self.spinning is not None:
            options.add_session_config_entry(
                "session.intra_op.allow_spinning", str(int(self.spinning))
            )
        self.session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def run(self, prepared: Feed) -> Any:
        return self.session.run(None, prepared)


class OnnxRuntimeParked(OnnxRuntime):
    spinning = False


HINTS = {"fp32": "f32", "bf16": "bf16"}  # OpenVINO's default is bf16 where the CPU has it


class OpenVino(Engine):
    module = "openvino"

    def compile(self, model: Path) -> None:
        import openvino

        properties = {
            "INFERENCE_PRECISION_HINT": HINTS[self.precision],
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # the process is pinned already
        }
        self.model = openvino.Core().compile_model(str(model), "CPU", properties)
        self.request = self.model.create_infer_request()

    def run(self, prepared: Feed) -> Any:
        return self.request.infer(prepared, share_inputs=True, share_outputs=True)

    def arrays(self, result: Any) -> list[np.ndarray]:
        return [np.array(result[port]) for port in self.model.outputs]

    def version(self) -> str:
        return super().version().split("-")[0]


class OpenVinoBf16(OpenVino):
    precision = "bf16"


def input_names(model: Path) -> list[str]:
    """Names of the inputs that are not initialisers, in model order."""
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    return [value.name for value in graph.input if value.name not in constants]


class Tvm(Engine):
    """TVM with its default pipeline, not tuned."""

    module = "tvm"

    def compile(self, model: Path) -> None:
        os.environ["TVM_NUM_THREADS"] = str(self.threads)
        import onnx
        import tvm
        from tvm import relax
        from tvm.relax.frontend.onnx import from_onnx

        self.names = input_names(model)
        target = {"kind": "llvm", "mcpu": tvm.target.codegen.llvm_get_system_cpu()}
        module = from_onnx(onnx.load(model), keep_params_in_input=False)
        executable = tvm.compile(module, target=tvm.target.Target(target))
        self.machine = relax.VirtualMachine(executable, tvm.cpu())

    def prepare(self, feed: Feed) -> Any:
        import tvm

        return [tvm.runtime.tensor(feed[name]) for name in self.names]

    def run(self, prepared: Any) -> Any:
        return self.machine["main"](*prepared)

    def arrays(self, result: Any) -> list[np.ndarray]:
        items = [result] if hasattr(result, "numpy") else list(result)
        return [item.numpy() for item in items]


class Iree(Engine):
    """IREE's llvm-cpu backend for the host."""

    module = "iree.runtime"

    def compile(self, model: Path) -> None:
        from iree.compiler import compile_file

        self.names = input_names(model)
        self.folder = tempfile.TemporaryDirectory(prefix="iree-bench-")
        imported = Path(self.folder.name) / "model.mlir"
        self.path = Path(self.folder.name) / "model.vmfb"
        importer = [sys.executable, "-m", "iree.compiler.tools.import_onnx", str(model)]
        result = subprocess.run(
            [*importer, "-o", str(imported), "--opset-version", "18"],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise RuntimeError(result.stderr[-500:])
        compile_file(
            str(imported),
            input_type="onnx",
            target_backends=["llvm-cpu"],
            output_file=str(self.path),
            extra_args=["--iree-llvmcpu-target-cpu=host"],
        )

    def load(self) -> None:
        from iree import runtime

        driver = "local-sync"
        if self.threads > 1:
            driver = "local-task"
            runtime.flags.parse_flags(f"--task_topology_max_group_count={self.threads}")
        loaded = runtime.load_vm_flatbuffer_file(str(self.path), driver=driver)
        names = loaded.vm_module.function_names
        (entry,) = [n for n in names if n != "__init" and not n.endswith("$async")]
        self.entry = loaded[entry]
        self.device = runtime.get_device(driver)

    def prepare(self, feed: Feed) -> Any:
        from iree import runtime

        return [runtime.asdevicearray(self.device, feed[name]) for name in self.names]

    def run(self, prepared: Any) -> Any:
        return self.entry(*prepared)

    def arrays(self, result: Any) -> list[np.ndarray]:
        items = result if isinstance(result, tuple | list) else [result]
        return [np.array(item.to_host()) for item in items]

    def version(self) -> str:
        from importlib.metadata import version

        return version("iree-base-compiler")


class TorchCompile(Engine):
    """torch.compile (inductor, frozen weights) of the module that a zoo model was exported from."""

    module = "torch"

    def compile(self, model: Path) -> None:
        import torch

        sys.path.append(str(Path(__file__).parents[1]))
        zoo = importlib.import_module("benchmarks.zoo")
        name = model.parent.name
        if name not in zoo.known() or model.parent != zoo.ZOO / name:
            raise Skip("torch.compile needs the torch module: zoo models only")
        torch.set_num_threads(self.threads)
        torch._inductor.config.freezing = True
        self.spec = zoo.build(name)
        self.compiled: Any = torch.compile(self.spec.module)
        with torch.no_grad():
            self.compiled(**self.spec.samples[0])

    def prepare(self, feed: Feed) -> Any:
        import torch

        tensors = (torch.from_numpy(feed[name]) for name in self.spec.names)
        return _like(self.spec.samples[0], tensors)

    def run(self, prepared: Any) -> Any:
        import torch

        with torch.no_grad():
            return self.compiled(**prepared)

    def arrays(self, result: Any) -> list[np.ndarray]:
        items = result if isinstance(result, tuple) else (result,)
        return [item.numpy().copy() for item in items]


def _like(value: Any, leaves: Iterator[Any]) -> Any:
    """`value` with the leaves of its dictionaries and lists replaced in order."""
    if isinstance(value, dict):
        return {key: _like(item, leaves) for key, item in value.items()}
    if isinstance(value, list):
        return [_like(item, leaves) for item in value]
    return next(leaves)


ENGINES: dict[str, type[Engine]] = {
    "tensmith": Tensmith,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "tvm": Tvm,
    "iree": Iree,
    "torch": TorchCompile,
    "tensmith-parked": TensmithParked,
    "onnxruntime-parked": OnnxRuntimeParked,
    "tensmith-bf16": TensmithBf16,
    "tensmith-int8": TensmithInt8,
    "openvino-bf16": OpenVinoBf16,
}


def in_precision(engine: str, precision: str) -> str:
    """The engine of a name in a precision; "" where there is none."""
    name = engine if precision == "fp32" else f"{engine}-{precision}"
    return name if name in ENGINES else ""
