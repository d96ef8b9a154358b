"""Products of two rows by two columns on AArch64: SMMLA, USMMLA, BFMMLA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import Job, Setting, compile_graph, run_all
from kernels import fused_nodes, positions, reference, region_inputs, store
from suites.case import BF16, F32, I8, I32, U8, CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.errors import ScheduleError
from tensmith.compiler.ir import DType, Graph
from tensmith.compiler.kernel.forms.form import form_of
from tensmith.compiler.kernel.forms.region import lower_region
from tensmith.compiler.kernel.instruction import INSTRUCTIONS, PAIRS
from tensmith.compiler.kernel.interpret import interpret
from tensmith.compiler.kernel.schedule.choices import Choices
from tensmith.compiler.kernel.schedule.chooser import Constant, CpuChooser, Request
from tensmith.compiler.target import CpuTarget

Array = np.ndarray[Any, Any]
EMULATED = Setting("aarch64:neoverse-v1", 2, emulated=True)
MNEMONICS = {I8: "smmla", U8: "usmmla", BF16: "bfmmla"}
# rows, depth, columns: odd ones, fewer than a vector, one pair of groups and many
SIZES = [(2, 16, 8), (3, 8, 4), (33, 136, 70), (47, 48, 50), (5, 1024, 24), (13, 24, 100)]
# channels, filters, size of the window, stride, size of the image
CONVS = [(8, 24, 3, 1, 7), (16, 32, 3, 2, 9), (32, 20, 1, 1, 6), (8, 16, 5, 1, 11)]


def _operands(c: CaseBuilder, kind: DType, data: tuple[Any, ...], weights: tuple[int, ...]) -> Any:
    if kind is BF16:
        return c.input(*data, dtype=BF16, name="x"), c.weight(*weights, dtype=BF16), F32
    x = c.input(*data, dtype=kind, low=0, high=100, name="x")
    return x, c.weight(*weights, dtype=I8, low=-128, high=128), I32


def product(kind: DType, rows: Any, depth: int, columns: int) -> Graph:
    """Rows, or as many as a run says, times constant columns."""
    c = CaseBuilder("product")
    x, w, accumulate = _operands(c, kind, (rows, depth), (depth, columns))
    c.output(c.op("matmul", x, w, accumulate=accumulate))
    return c.graph()


def conv(kind: DType, channels: int, filters: int, window: int, stride: int, size: int) -> Graph:
    """A convolution whose border is padded."""
    c = CaseBuilder("conv")
    shapes = (1, size, size, channels), (window, window, channels, filters)
    x, w, accumulate = _operands(c, kind, *shapes)
    pads = {} if kind is BF16 else {"pad_value": 9}
    places = {"strides": (stride, stride), "pads": (window // 2,) * 4, "dilations": (1, 1)}
    c.output(c.op("conv", x, w, accumulate=accumulate, layout="NHWC", **places, **pads))
    return c.graph()


def _drawn(kind: DType, shape: tuple[int, ...]) -> Array:
    rng = np.random.default_rng(4)
    if kind is BF16:
        return rng.normal(size=shape).astype(BF16.numpy)
    info = np.iinfo(kind.numpy)
    return rng.integers(info.min, info.max + 1, shape).astype(kind.numpy)


@pytest.mark.parametrize("kind", list(MNEMONICS))
def test_sums_are_those_of_the_reference(kind: DType, tmp_path: Path) -> None:
    if missing := EMULATED.missing():
        pytest.skip(missing)
    jobs = {}
    for sizes in SIZES:
        given = {"x": _drawn(kind, sizes[:2])}
        for rows in (sizes[0], N):
            jobs[f"{rows}x{sizes}"] = Job(product(kind, rows, *sizes[1:]), given)
    for figures in CONVS:
        given = {"x": _drawn(kind, (1, figures[4], figures[4], figures[0]))}
        jobs[f"conv{figures}"] = Job(conv(kind, *figures), given)
    wanted = {name: run_graph(job.graph, job.inputs) for name, job in jobs.items()}
    exact = 1e-4 if kind is BF16 else 0
    for name, got in run_all(jobs, EMULATED, tmp_path).items():
        assert not isinstance(got, Exception), f"{name}: {got}"
        np.testing.assert_allclose(got["y0"], wanted[name]["y0"], exact, exact, err_msg=name)


@pytest.mark.parametrize("kind", list(MNEMONICS))
def test_one_row_goes_by_vectors(kind: DType, tmp_path: Path) -> None:
    for rows, paired in ((1, False), (2, True)):
        folder = tmp_path / str(rows)
        folder.mkdir()
        model = compile_graph(
            product(kind, rows, 64, 32), EMULATED, folder, texts=frozenset({"asm"})
        )
        text = model.code.texts["asm"]
        assert (f"\t{MNEMONICS[kind]}\t" in text) == paired
        assert ("dot\t" in text) != paired


def _request(graph: Graph) -> tuple[Request, dict[str, Array], Any]:
    """The kernel of a graph of one group, its constants, and what it was lowered from."""
    (node,) = fused_nodes(graph)
    region = node.regions[0]
    lowered = lower_region(region, form_of(node))
    params = dict(zip(lowered.inputs, lowered.kernel.params, strict=False))
    pairs = zip(region.inputs, node.inputs, strict=True)
    held = {params[i].name: o.data for i, o in pairs if o.data is not None and i in params}
    constants = {name: Constant(data.size) for name, data in held.items()}
    return Request(lowered.kernel, constants, key="k"), held, (node, lowered, params)


def _target() -> CpuTarget:
    target = resolve_target(EMULATED.target)[1]
    assert isinstance(target, CpuTarget)
    return target


@pytest.mark.parametrize("rows", [2, 7])
def test_columns_lie_where_the_kernel_reads_them(rows: int) -> None:
    request, held, (node, lowered, params) = _request(product(I8, rows, 48, 30))
    made = CpuChooser(_target(), 2)(request)
    (own,) = made.schedule.stages
    assert own.instruction == "smmla"
    ((name, packing),) = made.packings.items()
    assert packing.steps == 2
    region = node.regions[0]
    inputs = region_inputs(region, {}, 0)
    pairs = zip(region.inputs, node.inputs, strict=True)
    inputs |= {i.name: o.data for i, o in pairs if o.data is not None}
    arrays = {params[v].name: store(v.type, {}, inputs[v.name]) for v in lowered.inputs}
    (output,) = made.kernel.params[len(lowered.inputs) :]
    (result,) = lowered.outputs
    arrays[name], arrays[output.name] = packing.apply(held[name]), store(result.type, {})
    data = made.kernel.params[0].name
    arrays[data] = arrays[data].view(np.int32)
    interpret(made.kernel, arrays, {}, {own.tile.vector: own.tile.width})
    (want,) = reference(region, inputs, {})
    np.testing.assert_array_equal(arrays[output.name][positions(result.type, {})], want)


def test_what_cannot_go_in_pairs_is_refused() -> None:
    request, _, _ = _request(product(I8, 8, 12, 32))  # three groups of steps
    chooser = CpuChooser(_target(), 2)
    assert chooser(request).choice.instruction == "sdot"
    given = Choices({"k": {"instruction": "smmla"}})
    with pytest.raises(ScheduleError, match="does not divide into pairs"):
        CpuChooser(_target(), 2, given)(request)


def test_pairs_take_two_groups_of_two_rows() -> None:
    for name in PAIRS:
        assert INSTRUCTIONS[name].gain(_target()) == 2 * INSTRUCTIONS[name].steps
