"""Models that are called with many amounts and sizes, each call compared with ONNX Runtime.

What ONNX Runtime refuses has to be refused, by the import or by the run, with an error that is a
message; what it takes has to give the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from calls import Calls, Result, call_all
from compiled import Setting

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import InternalError, TensmithError
from tensmith.frontends.onnx import load_model
from tensmith.runtime.loader import ModuleError

from .oracle import model, node

Array = np.ndarray
Feed = Mapping[str, Array]
Wanted = Mapping[str, Array] | str  # or why it is to be refused
SHIFT = 40  # lengths of inputs that stand for amounts are greater by so much


@dataclass(frozen=True)
class Sweep:
    """A model and what it is called with.

    Sizes are symbols but those of integer vectors. fixed: inputs all of whose sizes are numbers.
    channels, last: inputs for whose axis 1, or last one, that holds. lengths: integer vectors of
    any length. from_shapes: whether amounts may be computed from shapes, too. domains: of the
    nodes, beside the standard one. expected: stands in for ONNX Runtime. answered: calls (by
    number) that ONNX Runtime refuses, gets wrong or does not survive, and what is right.
    """

    name: str
    nodes: Sequence[onnx.NodeProto]
    feeds: Sequence[Feed]
    outputs: str = "y"
    constants: Mapping[str, Array] = field(default_factory=dict)
    fixed: str = ""
    channels: str = ""
    last: str = ""
    lengths: str = ""
    from_shapes: bool = True
    opset: int = 19
    domains: Sequence[str] = ()
    expected: Callable[[Feed], Wanted] | None = None
    answered: Mapping[int, Wanted] = field(default_factory=dict)
    rtol: float = 1e-4
    atol: float = 1e-5

    def proto(self) -> onnx.ModelProto:
        """The model."""
        first = self.feeds[0]
        dims = {name: self.declared(name, array) for name, array in first.items()}
        proto = model(
            self.nodes,
            dict(first),
            self.outputs.split(),
            constants=dict(self.constants),
            opset=self.opset,
            dims=dims,
            domains=self.domains,
        )
        for output in proto.graph.output:
            output.ClearField("type")  # ONNX Runtime infers it
        return proto

    def declared(self, name: str, array: Array) -> list[int | str]:
        """The sizes of an input as the model has them: numbers and names."""
        vector = array.dtype.kind in "iu" and array.ndim == 1 and name not in self.lengths.split()
        if vector or name in self.fixed.split():
            return list(array.shape)
        dims: list[int | str] = [f"{name}{axis}" for axis in range(array.ndim)]
        if name in self.channels.split():
            dims[1] = array.shape[1]
        if name in self.last.split():
            dims[-1] = array.shape[-1]
        return dims


def of_shapes(sweep: Sweep) -> Sweep | None:
    """The same where small integer vectors are computed from the shapes of other inputs."""
    first = sweep.feeds[0]
    names = [n for n, a in first.items() if a.dtype == np.int64 and a.ndim < 2 and 0 < a.size < 20]
    kept = [
        number
        for number, feed in enumerate(sweep.feeds)
        if all(
            np.abs(feed[n] * 1.0).max() < SHIFT and feed[n].shape == first[n].shape for n in names
        )
    ]
    if not names or not kept or not sweep.from_shapes:
        return None
    nodes: list[onnx.NodeProto] = []
    constants = {**sweep.constants, "shift": np.int64(SHIFT)}
    for name in names:
        parts = [f"{name}_{i}" for i in range(first[name].size)]
        nodes += [node("Shape", part, f"{part}_n") for part in parts]
        joined = " ".join(f"{part}_n" for part in parts)
        nodes.append(node("Concat", joined, f"{name}_all", axis=0))
        nodes.append(node("Sub", f"{name}_all shift", f"{name}_v"))
        nodes.append(node("Reshape", f"{name}_v {name}_shape", name))
        constants[f"{name}_shape"] = np.int64(first[name].shape)
    feeds = []
    for feed in (sweep.feeds[number] for number in kept):
        made = {n: a for n, a in feed.items() if n not in names}
        for name in names:
            for i, amount in enumerate(feed[name].reshape(-1)):
                made[f"{name}_{i}"] = np.zeros(int(amount) + SHIFT, np.bool_)
        feeds.append(made)
    answered = {kept.index(n): want for n, want in sweep.answered.items() if n in kept}
    return replace(
        sweep, nodes=[*nodes, *sweep.nodes], feeds=feeds, constants=constants, answered=answered
    )


def of_slices(sweep: Sweep) -> Sweep:
    """The same where inputs are cut, to sizes that only the run knows, from larger ones."""
    axes: dict[str, list[int]] = {}
    for name, array in sweep.feeds[0].items():
        open_ = [i for i, dim in enumerate(sweep.declared(name, array)) if isinstance(dim, str)]
        if open_ and array.dtype.kind == "f":
            axes[name] = open_
    nodes, constants = [], dict(sweep.constants)
    for name, cut in axes.items():
        nodes.append(node("Slice", f"{name}_wide {name}_from {name}_to {name}_axes", name))
        constants[f"{name}_from"] = np.zeros(len(cut), np.int64)
        constants[f"{name}_axes"] = np.array(cut, np.int64)
    feeds = []
    for feed in sweep.feeds:
        made = {n: a for n, a in feed.items() if n not in axes}
        for name, cut in axes.items():
            array = feed[name]
            made[f"{name}_wide"] = np.pad(array, [(0, int(i in cut)) for i in range(array.ndim)])
            made[f"{name}_to"] = np.array([array.shape[axis] for axis in cut], np.int64)
        feeds.append(made)
    wide = {
        field: " ".join(f"{n}_wide" if n in axes else n for n in getattr(sweep, field).split())
        for field in ("channels", "last")
    }
    return replace(sweep, nodes=[*nodes, *sweep.nodes], feeds=feeds, constants=constants, **wide)


@functools.cache
def _ort() -> ModuleType:
    return pytest.importorskip("onnxruntime", reason="onnxruntime is the oracle of this test")


def wanted(sweep: Sweep) -> list[Wanted]:
    """What every call has to give."""
    if sweep.expected is not None:
        return [sweep.expected(feed) for feed in sweep.feeds]
    ort = _ort()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        sweep.proto().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    found: list[Wanted] = []
    for number, feed in enumerate(sweep.feeds):
        if number in sweep.answered:
            found.append(sweep.answered[number])
            continue
        try:
            found.append(dict(zip(names, session.run(names, dict(feed)), strict=True)))
        except Exception as error:
            found.append(str(error))
    return found


def difference(sweep: Sweep, got: Result, want: Wanted) -> str:
    """What is wrong with the result of a call; "" if nothing is."""
    if isinstance(got, Exception):
        refusal = isinstance(got, (ModuleError, TensmithError))
        if not refusal or isinstance(got, InternalError):
            return f"{type(got).__name__}: {got}"[:400]
        return "" if isinstance(want, str) else f"refused: {got}"[:400]
    if isinstance(want, str):
        return f"gives {[np.asarray(a).shape for a in got.values()]}, refused there: {want[-150:]}"
    for name, right in want.items():
        array = np.asarray(got[name])
        if array.dtype != right.dtype or array.shape != right.shape:
            return f"{name} is {array.dtype}{array.shape}, not {right.dtype}{right.shape}"
        a, b = array.astype(np.float64), right.astype(np.float64)
        if not np.allclose(a, b, sweep.rtol, sweep.atol, equal_nan=True):
            return f"{name} is {a.reshape(-1)[:8]}, not {b.reshape(-1)[:8]}"
    return ""


def differences(
    sweeps: Sequence[Sweep], folder: Path, levels: Sequence[int], reference: bool = True
) -> list[str]:
    """What is wrong, a line for every call that is: interpreted, and compiled at the levels."""
    names = [sweep.name for sweep in sweeps]
    assert len(set(names)) == len(names), "two sweeps have one name"
    wrong: list[str] = []
    right = {sweep.name: wanted(sweep) for sweep in sweeps}

    def judge(sweep: Sweep, number: int, got: Result, how: str) -> None:
        fault = difference(sweep, got, right[sweep.name][number])
        if fault:
            given = {n: _brief(a) for n, a in sweep.feeds[number].items()}
            wrong.append(f"{sweep.name}[{number}] {how} {given}: {fault}")

    for sweep in sweeps if reference else ():
        for number, got in enumerate(_interpreted(sweep)):
            judge(sweep, number, got, "interpreted")
    for level in levels:
        setting = Setting("native", level)
        if setting.missing():
            continue
        jobs, found = {}, {}
        for sweep in sweeps:
            try:
                jobs[sweep.name] = Calls(load_model(sweep.proto()), sweep.feeds)
            except Exception as error:
                found[sweep.name] = [error] * len(sweep.feeds)
        own = folder / f"level{level}"
        own.mkdir()
        found |= call_all(jobs, setting, own)
        for sweep in sweeps:
            for number, got in enumerate(found[sweep.name]):
                judge(sweep, number, got, f"-O{level}")
    return wrong


def _interpreted(sweep: Sweep) -> list[Result]:
    results: list[Result] = []
    try:
        graph = load_model(sweep.proto())
    except Exception as error:
        return [error] * len(sweep.feeds)
    for feed in sweep.feeds:
        try:
            results.append(dict(run_graph(graph, dict(feed))))
        except Exception as error:
            results.append(error)
    return results


def _brief(array: Array) -> object:
    small = array.dtype.kind in "iu" and array.ndim < 2 and array.size < 12
    return array.tolist() if small else array.shape
