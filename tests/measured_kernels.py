"""Kernels whose times were measured, as the cost model sees them.

`python -m measured_kernels` (in tests/, on a machine of the target) measures them anew: each kernel
by itself on one core, as `tensmith inspect --roofline` does, the median of its calls in half a
second; of some also choices that the heuristic did not make.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

from suites.case import CaseBuilder

from tensmith.backends.llvm import pipeline
from tensmith.backends.llvm.measure import profile_cpu
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.ir import Graph, Value
from tensmith.compiler.kernel.cost.cost import kernel_cost
from tensmith.compiler.kernel.cost.machine import assumed_machine
from tensmith.compiler.kernel.forms.channel_blocks import in_channel_blocks
from tensmith.compiler.kernel.plan.sites import sites_of
from tensmith.compiler.kernel.schedule.choice import Choice
from tensmith.compiler.kernel.schedule.choices import Choices
from tensmith.compiler.kernel.schedule.chooser import Chosen, CpuChooser, Request
from tensmith.compiler.kernel.schedule.space import choices
from tensmith.compiler.profile import ProfileOptions
from tensmith.compiler.scratch import temporary_folder

FILE = Path(__file__).parent / "compiler/kernel/measured_kernels.json"
TARGET = resolve_target("x86-64-v4")[1]
MACHINE = assumed_machine(TARGET)
SECONDS = 0.5
VARIANTS, LOOKED_AT = 3, 2000  # other choices that are measured; of how many they are drawn
Build = Callable[[CaseBuilder], Value]
ByKey = Mapping[str, Mapping[str, Any]]


def _product(rows: int, depth: int, columns: int) -> Build:
    return lambda c: c.op("matmul", c.input(rows, depth), c.weight(depth, columns))


def _layer(rows: int, depth: int, columns: int) -> Build:
    def build(c: CaseBuilder) -> Value:
        product = c.op("matmul", c.input(rows, depth), c.weight(depth, columns))
        return c.op("max", c.op("add", product, c.weight(columns)), c.scalar(0))

    return build


def _conv(channels: int, filters: int, side: int, size: int, stride: int = 1) -> Build:
    def build(c: CaseBuilder) -> Value:
        window = {"strides": (stride,) * 2, "dilations": (1, 1), "pads": (size // 2,) * 4}
        weight = c.weight(filters, channels, size, size)
        return c.op("conv", c.input(1, channels, side, side), weight, **window)

    return build


def _depthwise(channels: int, side: int) -> Build:
    def build(c: CaseBuilder) -> Value:
        window = {"strides": (1, 1), "dilations": (1, 1), "pads": (1,) * 4, "groups": channels}
        return c.op("conv", c.input(1, channels, side, side), c.weight(channels, 1, 3, 3), **window)

    return build


def _pool(channels: int, side: int) -> Build:
    window = {"strides": (2, 2), "dilations": (1, 1), "pads": (0,) * 4, "kernel": (3, 3)}
    return lambda c: c.op("max_pool", c.input(1, channels, side, side), **window)


def _softmax(*shape: int, axis: int) -> Build:
    return lambda c: c.op("softmax", c.input(*shape), axis=axis)


def _norm(rows: int, width: int) -> Build:
    return lambda c: c.op(
        "layer_norm", c.input(rows, width), c.weight(width), c.weight(width), axis=1, epsilon=1e-5
    )


def _sum(*shape: int, axis: int) -> Build:
    return lambda c: c.op("reduce_sum", c.input(*shape), axes=(axis,), keepdims=False)


def _transpose(*shape: int, perm: tuple[int, ...]) -> Build:
    return lambda c: c.op("transpose", c.input(*shape), perm=perm)


def _pointwise(op: str, *shape: int) -> Build:
    return lambda c: c.op(op, c.op("add", c.input(*shape), c.input(*shape)))


BUILDS: dict[str, Build] = {
    "product_row": _product(1, 512, 512),
    "product_row_large": _product(1, 2048, 2048),
    "product_small": _product(24, 48, 40),
    "product_square": _product(256, 256, 256),
    "product_large": _product(384, 512, 768),
    "product_deep": _product(16, 3000, 48),
    "layer": _layer(128, 200, 100),
    "conv_1x1": _conv(64, 128, 28, 1),
    "conv_3x3": _conv(32, 32, 28, 3),
    "conv_few_channels": _conv(3, 32, 64, 3, 2),
    "conv_5x5": _conv(16, 24, 32, 5),
    "depthwise": _depthwise(96, 28),
    "depthwise_small": _depthwise(256, 7),
    "pool": _pool(64, 56),
    "softmax_rows": _softmax(200, 128, axis=1),
    "softmax_columns": _softmax(64, 300, axis=0),
    "norm": _norm(128, 768),
    "sum_rows": _sum(500, 400, axis=1),
    "sum_columns": _sum(500, 400, axis=0),
    "transpose": _transpose(512, 384, perm=(1, 0)),
    "transpose_heads": _transpose(64, 12, 64, perm=(1, 0, 2)),
    "tanh": _pointwise("tanh", 100, 1000),
    "exp_small": _pointwise("exp", 2000),
    "neg_large": _pointwise("neg", 2000, 1000),
}
VARIED = ("product_square", "product_row", "conv_3x3", "depthwise", "softmax_rows", "sum_columns")


@dataclass(frozen=True)
class Measured:
    """The kernels of one graph with choices by key, and the microseconds of each."""

    graph: str
    choices: ByKey
    microseconds: Mapping[str, float]

    def predictions(self) -> dict[str, float]:
        """Predicted seconds by key, of the kernels that the choices still name."""
        options = CompileOptions("m", Path(), choices=Choices(self.choices))
        plan = pipeline.make_plan(graph_of(self.graph), TARGET, options, Stages())
        found = {}
        for site in sites_of(plan, {}):
            planned = plan.kernels[site.number]
            cost = kernel_cost(
                planned.kernel, planned.schedule, TARGET, MACHINE, dict(site.sizes or ()),
                constants=site.constants, constant_bytes=plan.weight_bytes,
            )  # fmt: skip
            found.update(dict.fromkeys(planned.keys, cost.seconds))
        return found


def graph_of(name: str) -> Graph:
    """A new copy of a graph."""
    c = CaseBuilder(name)
    c.output(BUILDS[name](c))
    return c.graph()


def load() -> list[Measured]:
    """What was measured."""
    return [Measured(**entry) for entry in json.loads(FILE.read_text())["kernels"]]


def _variants(name: str, key: str) -> Iterator[Mapping[str, Any]]:
    """Some legal choices of a kernel that are not the heuristic's, always the same."""
    found: list[Choice] = []

    class Recorder(CpuChooser):
        def __call__(self, request: Request) -> Chosen:
            chosen = super().__call__(request)
            if request.key == key:
                made = chosen.choice
                kernel = in_channel_blocks(request.kernel, made.channels)
                for choice in islice(choices(kernel, self.target), 1, LOOKED_AT):
                    found.append(replace(choice, form=made.form, channels=made.channels))
            return chosen

    with patch.object(pipeline, "CpuChooser", Recorder):
        pipeline.make_plan(graph_of(name), TARGET, CompileOptions("m", Path()), Stages())
    drawn = random.Random(name).sample(found, min(VARIANTS, len(found)))
    yield from (choice.to_json() for choice in drawn)


def _measure(name: str, given: ByKey) -> Measured:
    with temporary_folder("measured-") as folder:
        options = CompileOptions("m", Path(folder), choices=Choices(given))
        wanted = ProfileOptions({}, MACHINE, SECONDS)
        profile = profile_cpu(graph_of(name), TARGET, options, Stages(), wanted)
    kernels = {k.kernel.keys[0]: k for k in profile.kernels if k.kernel.keys and k.seconds}
    kernels = {key: kernel for key, kernel in kernels.items() if not given or key in given}
    return Measured(
        name,
        {key: kernel.kernel.choice for key, kernel in kernels.items()},
        {key: round((kernel.seconds or 0) * 1e6, 3) for key, kernel in kernels.items()},
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    told = dict(line.replace("\t", "").split(": ", 1) for line in lines if ": " in line)
    return f"{told['model name']}, family {told['cpu family']}, model {told['model']}"


def main() -> None:
    """Measure all kernels and write the file."""
    made: list[Measured] = []
    for name in BUILDS:
        made.append(_measure(name, {}))
        if name in VARIED:
            longest = max(made[-1].microseconds, key=made[-1].microseconds.__getitem__)
            made += [_measure(name, {longest: choice}) for choice in _variants(name, longest)]
        print(name, [list(entry.microseconds.values()) for entry in made if entry.graph == name])
    method = "one kernel by itself on one core; median of calls"
    told = {"processor": _processor(), "target": TARGET.name, "method": method}
    head = "".join(f" {json.dumps(key)}: {json.dumps(text)},\n" for key, text in told.items())
    lines = ",\n  ".join(json.dumps(vars(entry)) for entry in made)
    FILE.write_text(f'{{\n{head} "kernels": [\n  {lines}\n ]\n}}\n')


if __name__ == "__main__":
    main()
