"""TOSA files as they are written, against Arm's reader and reference model; Vela's answers."""

import numpy as np
import pytest
from tosa_runs import needs_model, needs_vela, reference_run

from tensmith.backends.ethosu.targets import TARGETS, parse_target
from tensmith.backends.ethosu.tosa.graph import TosaGraph
from tensmith.backends.ethosu.tosa.schema import ElementType, Op
from tensmith.compiler.errors import InternalError, UsageError
from tensmith.compiler.ir.ops.fixed_point import scaled

INT8, INT32 = ElementType.INT8, ElementType.INT32


def _layer(seed: int):
    """(graph of a 1x1 convolution with channel scales, its data, what it gives)"""
    rng = np.random.default_rng(seed)
    x = rng.integers(-128, 128, (1, 4, 5, 8)).astype(np.int8)
    w = rng.integers(-127, 128, (6, 1, 1, 8)).astype(np.int8)
    bias, scale = rng.integers(-500, 500, 6), rng.uniform(1e-3, 4e-3, 6).astype(np.float32)
    graph = TosaGraph(location="layer")
    data = graph.input(x.shape, INT8)
    weights, biases = graph.constant(w, INT8), graph.constant(bias, INT32)
    zeros = [graph.number(3, INT8), graph.number(0, INT8)]
    total = graph.emit(
        Op.CONV2D, [data, weights, biases, *zeros], (1, 4, 5, 6), INT32,
        pad=[0, 0, 0, 0], stride=[1, 1], dilation=[1, 1],
    )  # fmt: skip
    graph.output(graph.reshape(graph.rescale(total, scale, INT8, zero_out=-4), (20, 6)))
    exact = (x.astype(np.int64) - 3) @ w[:, 0, 0].T.astype(np.int64) + bias
    wanted = np.clip(scaled(exact, scale, "single") - 4, -128, 127).astype(np.int8)
    return graph, x, wanted.reshape(20, 6)


@needs_vela
@needs_model
@pytest.mark.parametrize("seed", range(3))
def test_files_compute_what_graphs_say(seed):
    from tensmith.backends.ethosu.tosa.writer import serialised

    graph, x, wanted = _layer(seed)
    (found,) = reference_run(serialised(graph), [x])
    np.testing.assert_array_equal(found, wanted)


@needs_vela
@needs_model
def test_files_name_what_is_in_them():
    from tosa.TosaGraph import TosaGraph as File

    from tensmith.backends.ethosu.tosa.writer import serialised

    graph, *_ = _layer(0)
    root = File.GetRootAs(serialised(graph), 0)
    assert (root.Version()._Major(), root.Version()._Draft()) == (1, False)
    block = root.Regions(0).Blocks(0)
    assert [block.Inputs(0).decode(), block.Outputs(0).decode()] == [
        graph.inputs[0].name, graph.outputs[0].name,
    ]  # fmt: skip
    ops = [block.Operators(n) for n in range(block.OperatorsLength())]
    named = [op.Op() for op in ops if op.Op() not in (Op.CONST, Op.CONST_SHAPE)]
    assert named == [Op.CONV2D, Op.RESCALE, Op.RESHAPE]
    assert ops[-1].Location().Text() == b"layer"
    data = {t.Name(): t for t in (block.Tensors(n) for n in range(block.TensorsLength()))}
    weights = data[graph.operators[0].inputs[1].name.encode()]
    assert list(weights.ShapeAsNumpy()) == [6, 1, 1, 8]
    assert weights.DataLength() == 48


def test_an_output_is_never_an_input_itself():
    graph = TosaGraph()
    x = graph.input((2, 3), INT8)
    graph.output(x)
    graph.output(graph.outputs[0])
    assert [op.op for op in graph.operators] == [Op.IDENTITY, Op.IDENTITY]
    with pytest.raises(InternalError, match="takes the attributes"):
        graph.emit(Op.CONCAT, [x, x], (4, 3), INT8)


@needs_vela
@pytest.mark.parametrize("name", TARGETS)
def test_vela_compiles_for_every_target(name):
    from tensmith.backends.ethosu.tosa.writer import serialised
    from tensmith.backends.ethosu.vela import compiled

    graph, x, wanted = _layer(1)
    stream = compiled(serialised(graph), TARGETS[name])
    assert stream.commands[:4] == b"COP1"
    assert stream.weights
    (data,), (result,) = stream.inputs, stream.outputs
    assert (data.size, result.size) == (x.nbytes, wanted.nbytes)
    assert data.offset + data.size <= stream.scratch_bytes
    assert stream.estimate.cycles >= stream.estimate.npu_cycles > 0
    assert stream.estimate.macs == 4 * 5 * 6 * 8


@needs_vela
def test_memory_of_a_target_is_vela_s(tmp_path):
    from tensmith.backends.ethosu.tosa.writer import serialised
    from tensmith.backends.ethosu.vela import NotCompiled, compiled, own_config

    blob = serialised(_layer(0)[0])
    usual = compiled(blob, TARGETS["ethos-u55-128"])
    slow = parse_target("ethos-u55-128+system-config=Ethos_U55_Deep_Embedded")
    assert compiled(blob, slow).estimate.cycles > usual.estimate.cycles
    alone = compiled(blob, parse_target("ethos-u55-128+memory-mode=Sram_Only+optimise=Size"))
    assert "OffChipFlash" in usual.estimate.memories
    assert "OffChipFlash" not in alone.estimate.memories
    own = tmp_path / "own.ini"
    own.write_text(own_config().replace("Memory_Mode.Shared_Sram", "Memory_Mode.Board"))
    board = parse_target(f"ethos-u55-128+config={own}+memory-mode=Board")
    assert compiled(blob, board).estimate.cycles == usual.estimate.cycles
    with pytest.raises(UsageError, match="no memory mode 'Board'"):
        compiled(blob, parse_target("ethos-u55-128+memory-mode=Board"))
    with pytest.raises(NotCompiled):
        compiled(b"junk", TARGETS["ethos-u55-128"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ethos-u55-512", "there is no 'ethos-u55-512'"),
        ("ethos-u55-128+memory-mode", "says nothing"),
        ("ethos-u55-128+speed=high", "says nothing"),
        ("ethos-u55-128+optimise=Size+optimise=Size", "says nothing"),
        ("ethos-u55-128+optimise=Both", "nothing is optimised for 'Both'"),
        ("ethos-u55-128+arena-cache-size=big", "no number of bytes"),
        ("ethos-u55-128+config=/nowhere/vela.ini", "there is no file"),
    ],
)
def test_targets_that_are_none(text, said):
    with pytest.raises(UsageError, match=said):
        parse_target(text)


def test_other_targets_are_other_backends():
    assert parse_target("aarch64") is None
