"""What can run a model, each behind the same call: our artifact, our reference, and peers.

Every engine is opened in a process of its own (`worker.py`), so that none disturbs another.
"""

from __future__ import annotations

import importlib
import json
import subprocess
from collections.abc import Callable, Container, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler.errors import RunError, UsageError
from ..compiler.ir import Graph, Meaning
from ..compiler.ir.types import DType
from ..compiler.scratch import temporary_folder
from ..runtime.device_pipes import Device
from ..runtime.firmware import FirmwareError, descriptions, run_firmware
from ..runtime.meaning import decode, encode
from .roundings import nudge
from .shapes import DimSpec
from .tensor_files import read_file, write_npz

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
Run = Callable[[Arrays], dict[str, Array]]


@dataclass(frozen=True)
class EngineSpec:
    """Which engine, for which file.

    kind: "tensmith" (path is a shared library), "program" (an executable of ours, run by the
    command `emulator` unless that is empty), "firmware" (one without an operating system),
    "reference", "onnx" (the standard's own evaluator), "onnxruntime"
    or "openvino" (path is an ONNX model). shapes: as for `frontends.onnx.load`. plain: ONNX Runtime
    computes operator by operator, without optimising. precision, target: of the graph that the
    reference evaluates, see `halves.py`. nudged: whether the reference moves every float by some
    units in its last place (`roundings.py`). stand_in: the target whose hardware the engine's
    process has to do without, "": none; of firmware, whose emulator lacks it. ranges: of values of
    floats, by which the graph that the reference evaluates becomes one of integers, where its
    precision is int8 and its target computes in these alone (`Backend.integers`), with choices by
    key that it is compiled with.
    """

    kind: str
    path: Path
    threads: int = 1
    shapes: Mapping[str, tuple[DimSpec, ...]] = field(default_factory=dict)
    emulator: tuple[str, ...] = ()
    plain: bool = False
    precision: str = "fp32"
    target: str = "native"
    nudged: bool = False
    stand_in: str = ""
    ranges: tuple[tuple[float, float], ...] = ()
    choices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class CrashError(RunError):
    """The engine died instead of answering."""


_PROGRAM_ERRORS = (1, 2, 3)  # exit codes of runtime/main.c: the run, the arguments, the CPU


def open_engine(spec: EngineSpec) -> Run:
    """Load the model. Raises UsageError for an unknown engine or one that is not installed."""
    opener = _OPENERS.get(spec.kind)
    if opener is None:
        raise UsageError(f"unknown engine '{spec.kind}'", remedy=f"engines: {', '.join(_OPENERS)}")
    return opener(spec)


def engine_version(kind: str) -> str:
    """Version of the library behind an engine."""
    from .._version import __version__

    return str(_peer(kind).__version__).partition("-")[0] if kind in PEERS else __version__


def _peer(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"{name} is not installed", why=str(error), remedy="pip install 'tensmith[bench]'"
        ) from None


def _tensmith(spec: EngineSpec) -> Run:
    from ..compiler.backend import resolve_target
    from ..runtime.loader import load

    if spec.stand_in:
        backend, target = resolve_target(spec.stand_in)
        assert backend.stand_in is not None
        backend.stand_in(target)
    return load(spec.path, threads=spec.threads)


def _program(spec: EngineSpec) -> Run:
    """A program that `--emit exe` made; tensors travel in files."""
    command = [*spec.emulator, str(spec.path)]

    def call(*arguments: str) -> str:
        result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        if result.returncode in _PROGRAM_ERRORS:
            raise RunError(result.stderr.strip().removeprefix("error: "))
        if result.returncode:
            raise CrashError(f"exit status {result.returncode}: {result.stderr[-500:]}")
        return result.stdout

    manifest = json.loads(call("--info", "--json"))["manifest"]
    outputs = [output["name"] for output in manifest["outputs"]]
    given, got = (strings_of(manifest[side]) for side in ("inputs", "outputs"))

    def run(inputs: Arrays) -> dict[str, Array]:
        with temporary_folder("tensmith-program-") as folder:
            source = Path(folder, "inputs.npz")
            write_npz(source, as_bytes(inputs, given))
            files = {name: Path(folder, f"{index}.npy") for index, name in enumerate(outputs)}
            wanted = [
                word for name, file in files.items() for word in ("--output", f"{name}={file}")
            ]
            call("--quiet", "--threads", str(spec.threads), "--input", str(source), *wanted)
            return as_strings({n: read_file(file)[""] for n, file in files.items()}, got)

    return run


def _firmware(spec: EngineSpec) -> Run:
    """A program that `--emit elf` made; every call starts the emulator."""
    try:
        (model,) = descriptions(spec.path)
    except FirmwareError as error:
        raise UsageError(str(error)) from None
    names = [output["name"] for output in model["outputs"]]
    given, got = (strings_of(model[side]) for side in ("inputs", "outputs"))
    dtypes = {dtype.value: dtype.numpy for dtype in DType}
    device = _device_of(spec.stand_in) if spec.stand_in else None

    def run(inputs: Arrays) -> dict[str, Array]:
        with temporary_folder("tensmith-firmware-") as folder:
            calls = [(0, as_bytes(inputs, given))]
            try:
                (done,) = run_firmware(
                    spec.emulator, spec.path, calls, dtypes, Path(folder), device
                )
            except FirmwareError as error:
                raise CrashError(str(error)) from None
        if done.status:
            raise RunError(done.message, code=done.status)
        return as_strings(dict(zip(names, done.outputs, strict=True)), got)

    return run


def _device_of(name: str) -> Device | None:
    """What runs the device code of a target beside its emulator."""
    from ..compiler.backend import resolve_target

    backend, target = resolve_target(name)
    emulator = backend.emulator(target)
    return emulator.device if emulator else None


def _reference(spec: EngineSpec) -> Run:
    """The backend of this name; it evaluates the graph as it was imported, or what a lower
    precision makes of it."""
    from ..compiler.backend import backend_of
    from ..frontends.onnx import load
    from .request import FP32

    evaluate = backend_of(spec.kind).evaluate
    assert evaluate is not None
    graph = load(spec.path, shapes=dict(spec.shapes))
    if spec.precision != FP32:
        _lower_precision(graph, spec)
    texts = {name for name, meaning in graph.meanings.items() if meaning.strings}
    observe = nudge(seed=1) if spec.nudged else None
    return lambda inputs: as_strings(evaluate(graph, as_bytes(inputs, texts), observe), texts)


def _lower_precision(graph: Graph, spec: EngineSpec) -> None:
    """Rewrite an imported graph into what is compiled of it in a precision other than fp32."""
    from ..compiler.backend import resolve_target
    from .halves import InPrecision
    from .request import INT8

    backend, target = resolve_target(spec.target)
    InPrecision(spec.precision, target).rewrite(graph)
    if spec.precision == INT8 and backend.integers is not None:
        values = backend.integers.observed(graph, target)
        ranges = dict(zip(values, spec.ranges, strict=True)) if spec.ranges else {}
        backend.integers.rewrite(graph, target, ranges)
        backend.integers.decide(graph, target, spec.choices)


def strings_of(specs: Iterable[Mapping[str, Any]]) -> set[str]:
    """Names of the inputs or outputs of a manifest that are strings."""
    return {str(spec["name"]) for spec in specs if spec.get("strings")}


def as_bytes(arrays: Arrays, names: Set[str]) -> dict[str, Array]:
    """Arrays as a compiled graph takes them: strings as their bytes."""
    return {name: encode(a) if name in names else a for name, a in arrays.items()}


def as_strings(arrays: Arrays, names: Set[str]) -> dict[str, Array]:
    """Arrays as engines exchange them: strings in numpy's string type."""
    return {name: decode(a) if name in names else a for name, a in arrays.items()}


def onnxruntime_session(spec: EngineSpec) -> Any:
    """All graph optimisations or none, `threads` intra-op threads, sequential execution."""
    ort = _peer("onnxruntime")
    options = ort.SessionOptions()
    if spec.plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = spec.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(spec.path), options, providers=["CPUExecutionProvider"])


def _onnxruntime(spec: EngineSpec) -> Run:
    """Inputs and results are converted to and from what ONNX Runtime has for strings and maps."""
    session = onnxruntime_session(spec)
    names = [output.name for output in session.get_outputs()]
    texts = {item.name for item in session.get_inputs() if item.type == "tensor(string)"}
    lists = [item.name for item in session.get_inputs() if "seq(" in item.type]
    types = [item.type for item in (*session.get_inputs(), *session.get_outputs())]
    meanings = _meanings(spec) if any("map(" in kind for kind in types) else {}
    maps = {item.name for item in session.get_inputs() if item.type.startswith("map(")}
    fixed = {i.name for i in session.get_inputs() if i.shape and isinstance(i.shape[0], int)}

    def run(inputs: Arrays) -> dict[str, Array]:
        given = {name: a.astype(object) if name in texts else a for name, a in inputs.items()}
        results = zip(names, session.run(names, _gathered(given, lists)), strict=True)
        found = {name: _array(result, _classes(meanings, name)) for name, result in results}
        return _apart(found)

    keys = {name: _classes(meanings, name) for name in maps}
    return _map_by_map(run, keys, fixed) if maps else run


def _meanings(spec: EngineSpec) -> dict[str, Meaning]:
    from ..frontends.onnx import load

    return load(spec.path, shapes=dict(spec.shapes)).meanings


def _classes(meanings: Mapping[str, Meaning], name: str) -> tuple[int | str, ...]:
    return meanings[name].classes if name in meanings else ()


def _map_by_map(
    run: Callable[[Mapping[str, Any]], dict[str, Array]],
    keys: Mapping[str, tuple[int | str, ...]],
    fixed: Container[str],
) -> Run:
    """An engine that takes one map in a call, for matrices that have a row for each of them; the
    results are put together along their first axis. Without rows they are those of a map of
    zeros, cut to none.

    keys: of the inputs that are maps; without any, the columns are numbered. fixed: the inputs
    that are the same in all calls: whose first size the model says. Others that have as many rows
    as there are maps have one for each.
    """

    def is_by_row(name: str, array: Array, rows: int) -> bool:
        return name in keys or (name not in fixed and array.shape[:1] == (rows,))

    def of_row(name: str, array: Array, row: int, rows: int) -> Any:
        if name in keys:
            labels = keys[name] or range(array.shape[1])
            return dict(zip(labels, array[row].tolist(), strict=True))
        return array[row : row + 1] if is_by_row(name, array, rows) else array

    def run_rows(inputs: Arrays) -> dict[str, Array]:
        rows = max(len(inputs[name]) for name in keys)
        if not rows:
            one = {
                name: np.zeros((1, *a.shape[1:]), a.dtype) if is_by_row(name, a, 0) else a
                for name, a in inputs.items()
            }
            return {name: result[:0] for name, result in run_rows(one).items()}
        found = [
            run({name: of_row(name, array, row, rows) for name, array in inputs.items()})
            for row in range(rows)
        ]
        return {name: np.concatenate([each[name] for each in found]) for name in found[0]}

    return run_rows


def _gathered(arrays: Arrays, lists: Iterable[str]) -> dict[str, Any]:
    """Inputs as a peer takes them: where x is a sequence, x_0, x_1, ... as one list."""
    given: dict[str, Any] = dict(arrays)
    for name in lists:
        parts = takewhile(lambda part: part in given, (f"{name}_{i}" for i in count()))
        given[name] = [given.pop(part) for part in list(parts)]
    return given


def _apart(results: Mapping[str, Any]) -> dict[str, Array]:
    """Outputs as ours are called: the elements of a sequence x are x_0, x_1, ..."""
    arrays: dict[str, Array] = {}
    for name, result in results.items():
        parts = result if isinstance(result, list) else None
        arrays |= (
            {name: result} if parts is None else {f"{name}_{i}": a for i, a in enumerate(parts)}
        )
    return arrays


def _array(result: Any, classes: Sequence[int | str]) -> Any:
    """A result of a peer as an array (of strings, or of the values of maps), or a list of them."""
    if classes:
        rows = [[row[label] for label in classes] for row in result]
        return np.array(rows, np.float32).reshape(len(rows), len(classes))
    if isinstance(result, list):
        return [_array(part, ()) for part in result]
    array = np.asarray(result)
    return array.astype(str) if array.dtype == object else array


def _onnx(spec: EngineSpec) -> Run:
    from ..frontends.onnx.evaluator import evaluator

    evaluate, lists = evaluator(spec.path)

    def run(inputs: Arrays) -> dict[str, Array]:
        results = evaluate(_gathered(inputs, lists))
        return _apart({name: _array(result, ()) for name, result in results.items()})

    return run


def _openvino(spec: EngineSpec) -> Run:
    """Latency hint and f32 inference: left alone, the CPU plugin computes in bf16 where it can."""
    ov = _peer("openvino")
    core = ov.Core()
    model = core.read_model(str(spec.path))
    if spec.shapes:
        model.reshape({name: _partial(ov, dims) for name, dims in spec.shapes.items()})
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": spec.threads,
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    names = [_name(port, index) for index, port in enumerate(model.outputs)]

    def run(inputs: Arrays) -> dict[str, Array]:
        request.infer(dict(inputs), share_inputs=True)
        results = (request.get_output_tensor(index).data for index in range(len(names)))
        return dict(zip(names, results, strict=True))

    return run


def _partial(ov: Any, dims: tuple[DimSpec, ...]) -> Any:
    return ov.PartialShape([dim if isinstance(dim, int) else -1 for dim in dims])


def _name(port: Any, index: int) -> str:
    return str(port.get_any_name()) if port.get_names() else f"output_{index}"


_OPENERS: dict[str, Callable[[EngineSpec], Run]] = {
    "tensmith": _tensmith,
    "program": _program,
    "firmware": _firmware,
    "reference": _reference,
    "onnx": _onnx,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
PEERS = ("onnxruntime", "openvino")
