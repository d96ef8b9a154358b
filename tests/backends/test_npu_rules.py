"""Streams that are broken on purpose: each is refused, by the name of the rule that it breaks."""

import struct

import numpy as np
import pytest
from npu_graphs import CASES, INT8, INT16, INT32, SHAPE, U85_CASES, graph_of, inputs_of
from npu_nets import RandomNet
from tosa_runs import needs_vela

from tensmith.backends.ethosu.simulator import Rule, SimulationError, simulate
from tensmith.backends.ethosu.tosa.schema import Op
from tensmith.compiler.errors import UsageError

pytestmark = needs_vela
U55, U65, U85 = "ethos-u55-128", "ethos-u65-512", "ethos-u85-256"


def _stream(case, target=U55):
    from npu_streams import stream_of

    from tensmith.backends.ethosu.tosa.writer import serialised

    graph = graph_of({**CASES, **U85_CASES}[case] if isinstance(case, str) else case)
    return stream_of(serialised(graph), target), inputs_of(graph, 1)


def _refusal(case, edit, target=U55, inputs=None):
    """The error for a stream after a change."""
    from npu_streams import StreamEditor, memory_for

    stream, given = _stream(case, target)
    editor = StreamEditor(stream)
    memory = memory_for(stream, given if inputs is None else inputs)
    simulate(editor.payload(), {n: array.copy() for n, array in memory.items()})
    words = edit(editor)
    with pytest.raises(SimulationError) as caught:
        simulate(editor.payload(words), memory)
    return caught.value


def _setting(name, which=0, **fields):
    return lambda editor: editor.set(name, which, **fields)


def _adding(name, amount, field="low", which=0):
    def edit(editor):
        editor.set(name, which, **{field: editor.get(name, field, which) + amount})

    return edit


def _without(name, which=0):
    return lambda editor: editor.remove(name, which)


def _word(place, change):
    def edit(editor):
        words = editor.words
        words[place] = change(words[place])
        return words

    return edit


def _ofm_on_ifm(editor):
    editor.set("OFM_REGION", region=editor.get("IFM_REGION", "region"))
    editor.set("OFM_BASE0", low=editor.get("IFM_BASE0", "low"))


def _wide_table(graph, _):
    values = graph.constant(np.arange(-256, 257) * 90, INT16)
    graph.output(graph.emit(Op.TABLE, [graph.input(SHAPE, INT16), values], SHAPE, INT32))


def _from_the_middle(editor):
    editor.set("WEIGHT_BASE", low=editor.get("WEIGHT_BASE", "low") + 1600)
    editor.set("WEIGHT_LENGTH", value=editor.get("WEIGHT_LENGTH") - 1600)


BROKEN = [
    (Rule.TRUNCATED, "conv 1x1", _without("STOP")),
    (Rule.TRUNCATED, "conv 1x1", lambda editor: [*editor.words[:-1], 0x4000]),
    (Rule.OPCODE, "conv 1x1", lambda editor: [0x3F, *editor.words]),
    (Rule.OPCODE, "conv 1x1", lambda editor: [0x123, *editor.words]),
    (Rule.RESERVED_BITS, "conv 1x1", _word(0, lambda word: word | 1 << 11)),
    (Rule.RESERVED_BITS, "conv 1x1", _word(0, lambda word: word | 1 << 30)),
    (Rule.REGISTER_VALUE, "conv 1x1", _setting("IFM_PRECISION", precision=3)),
    (Rule.REGISTER_VALUE, "conv 1x1", _setting("IFM_UPSCALE", mode=3)),
    (Rule.REGISTER_VALUE, "clamp", _setting("ACTIVATION_MIN", value=100)),
    (Rule.REGISTER_VALUE, "table of 8 bits", _setting("DMA0_LEN", low=0)),
    (Rule.REGISTER_VALUE, "table of 8 bits", _setting("DMA0_DST_REGION", stride_mode=1)),
    (Rule.UNSET_REGISTER, "conv 1x1", _without("KERNEL_STRIDE")),
    (Rule.UNSET_REGISTER, "add", _without("IFM2_BASE0")),
    (Rule.UNSET_REGISTER, "conv 1x1", _without("BLOCKDEP")),
    (Rule.NOT_SIMULATED, "conv 1x1", _setting("ACTIVATION", function=4)),
    (Rule.NOT_SIMULATED, "conv 1x1", _setting("ACC_FORMAT", format=2)),
    (Rule.NOT_SIMULATED, "conv 1x1", _setting("OFM_PRECISION", global_scale=1)),
    (Rule.NOT_SIMULATED, "max pool", _setting("OFM_PRECISION", global_scale=0)),
    (Rule.REGION, "conv 1x1", _setting("IFM_REGION", region=5)),
    (Rule.REGION, "conv 1x1", _setting("WEIGHT_REGION", region=6)),
    (Rule.READ_ONLY, "conv of many channels", _setting("OFM_REGION", region=0)),
    (Rule.OUT_OF_BOUNDS, "conv 1x1", _adding("IFM_BASE0", 1 << 20)),
    (Rule.OUT_OF_BOUNDS, "conv 1x1", _setting("OFM_BASE0", low=(1 << 32) - 16)),
    (Rule.OUT_OF_BOUNDS, "conv 1x1", _adding("OFM_HEIGHT_M1", 30, "value")),
    (Rule.OUT_OF_BOUNDS, "conv 1x1", _adding("IFM_STRIDE_Y", 1 << 16)),
    (Rule.OUT_OF_BOUNDS, "conv 1x1", _setting("WEIGHT_LENGTH", value=1 << 20)),
    (Rule.OUT_OF_BOUNDS, "conv 1x1", _adding("SCALE_BASE", 1 << 20)),
    (Rule.OUT_OF_BOUNDS, "table of 8 bits", _adding("DMA0_SRC", 16)),
    (Rule.OUT_OF_BOUNDS, "table of 8 bits", _adding("DMA0_DST", 2048)),
    (Rule.ALIGNMENT, "add of 16 bits", _adding("OFM_BASE0", 1)),
    (Rule.ALIGNMENT, "add of 16 bits", _adding("IFM2_STRIDE_Y", 1)),
    (Rule.ALIGNMENT, "conv 1x1", _adding("WEIGHT_BASE", 8)),
    (Rule.ALIGNMENT, "conv 1x1", _adding("SCALE_LENGTH", -4, "value")),
    (Rule.ALIGNMENT, "table of 8 bits", _adding("DMA0_SRC", 8)),
    (Rule.ALIGNMENT, "table of 8 bits", _adding("DMA0_LEN", -8)),
    (Rule.GEOMETRY, "depthwise", _adding("IFM_DEPTH_M1", -8, "value")),
    (Rule.GEOMETRY, "add", _adding("IFM_DEPTH_M1", -8, "value")),
    (Rule.GEOMETRY, "conv 1x1", _setting("IFM_PAD_TOP", value=127)),
    (Rule.GEOMETRY, "conv dilation 2", _setting("KERNEL_HEIGHT_M1", value=3)),
    (Rule.GEOMETRY, "matmul", _setting("OFM_DEPTH_M1", which=1, value=1)),
    (Rule.OFM_BLOCK, "conv 1x1", _setting("OFM_BLK_WIDTH_M1", value=2)),
    (Rule.OFM_BLOCK, "conv 1x1", _setting("OFM_BLK_DEPTH_M1", value=11)),
    (Rule.SHRAM_LAYOUT, "conv 1x1", _setting("IFM_IB_END", value=3)),
    (Rule.SHRAM_LAYOUT, "conv 1x1", _setting("IFM_IB_END", value=20)),
    (Rule.SHRAM_LAYOUT, "conv 1x1", _setting("AB_START", value=21)),
    (Rule.SHRAM_LAYOUT, "conv 1x1", _setting("OFM_BLK_HEIGHT_M1", value=31)),
    (Rule.SHRAM_LAYOUT, "add", _setting("IFM2_IB_START", value=3)),
    (Rule.SHRAM_LAYOUT, "add", _setting("IFM2_IB_START", value=21)),
    (Rule.SHRAM_LAYOUT, "table of 16 bits", _setting("ACTIVATION", function=17)),
    (Rule.LUT_NOT_LOADED, "table of 8 bits", _without("DMA_START")),
    (Rule.LUT_NOT_LOADED, "table of 8 bits", _setting("ACTIVATION", function=18)),
    (Rule.LUT_NOT_LOADED, "conv and table", _adding("DMA0_DST", 256)),
    (Rule.WEIGHT_STREAM, "conv of many channels", _adding("WEIGHT_LENGTH", -64, "value")),
    (Rule.WEIGHT_STREAM, "conv of many channels", _from_the_middle),
    (Rule.WEIGHT_STREAM, "conv of many channels", _setting("OFM_BLK_DEPTH_M1", value=7)),
    (Rule.WEIGHT_STREAM, "conv 1x1", _adding("IFM_DEPTH_M1", -8, "value")),
    (Rule.SCALE_STREAM, "conv 1x1", _setting("SCALE_LENGTH", value=16)),
    (Rule.MISSING_DMA_WAIT, "table of 8 bits", _without("DMA_WAIT")),
    (Rule.MISSING_DMA_WAIT, "three tables", _without("DMA_WAIT", 1)),
    (Rule.MISSING_KERNEL_WAIT, _wide_table, _without("KERNEL_WAIT")),
    (Rule.MISSING_KERNEL_WAIT, _wide_table, _setting("KERNEL_WAIT", count=1)),
    (Rule.BLOCKDEP, "residual", _setting("BLOCKDEP", value=1)),
    (Rule.BLOCKDEP, "residual", _setting("BLOCKDEP", which=2, value=3)),
    (Rule.OFM_BLOCK, "conv 1x1", _setting("ACC_FORMAT", microblock=5), U85),
    (Rule.OFM_BLOCK, "conv 1x1", _setting("OFM_BLK_WIDTH_M1", value=2), U85),
    (Rule.SHRAM_LAYOUT, "conv 1x1", _setting("OFM_BLK_HEIGHT_M1", value=127), U85),
    (Rule.SHRAM_LAYOUT, "depthwise", _setting("OFM_BLK_HEIGHT_M1", value=127), U85),
    (Rule.SHRAM_LAYOUT, "table of 16 bits", _setting("ACTIVATION", table=1), U85),
    (Rule.REGISTER_VALUE, "conv 1x1", _setting("ACTIVATION", function=6), U85),
    (Rule.NOT_SIMULATED, "conv 1x1", _setting("ACTIVATION", function=11), U85),
    (Rule.NOT_SIMULATED, "conv 1x1", _setting("IFM_PRECISION", storage=1), U85),
    (Rule.CHAIN, "chain", _setting("OFM_REGION", which=0, region=3), U85),
    (Rule.CHAIN, "chain", _setting("IFM_PRECISION", which=1, signed=0), U85),
    (Rule.CHAIN, "conv 1x1", _setting("ACC_FORMAT", input=1), U85),
    (Rule.WEIGHT_STREAM, "conv of any values", _adding("WEIGHT_LENGTH", -16, "value"), U85),
    (Rule.WEIGHT_STREAM, "conv of any values", _setting("WEIGHT_FORMAT", fast=0), U85),
    (Rule.WEIGHT_STREAM, "conv of many channels", _setting("WEIGHT_FORMAT", fast=1), U85),
    (Rule.SCALE_STREAM, "conv 1x1", _setting("SCALE_LENGTH", value=16), U85),
    (Rule.GEOMETRY, "resize bilinear", _setting("IFM_DEPTH_M1", value=7), U85),
    (Rule.REGISTER_VALUE, "resize bilinear", _setting("RESIZE_X_STEP", one_part=9), U85),
    (Rule.OUT_OF_BOUNDS, "gather", _setting("DMA0_IDX_MAX", value=3), U85),
    (Rule.OUT_OF_BOUNDS, "gather", _adding("DMA0_IDX", 1 << 16), U85),
    (Rule.LUT_NOT_LOADED, "table of 8 bits", _setting("ACTIVATION", table=3), U85),
    (Rule.MISSING_DMA_WAIT, "table of 8 bits", _without("DMA_WAIT"), U85),
    (Rule.BLOCKDEP, "residual", _setting("BLOCKDEP", value=1), U85),
    (Rule.BRANCH, "conv 1x1", lambda editor: [*editor.words[:-1], 0x4100, 0], U85),
    (Rule.BRANCH, "conv 1x1", lambda editor: [*editor.words[:-1], 0x4100, 1 << 20], U85),
    (Rule.BRANCH, "conv 1x1", lambda editor: [0x4100, 14, *editor.words], U85),
    (Rule.NOT_SIMULATED, "conv 1x1", lambda editor: [0x14100, 8, *editor.words], U85),
    (Rule.OVERLAP, "depthwise", _ofm_on_ifm),
    (Rule.OVERLAP, "transpose to channels first", _ofm_on_ifm),
]


def test_every_rule_is_broken_here():
    named = {entry[0] for entry in BROKEN}
    others = {Rule.PAYLOAD, Rule.CONFIG, Rule.ARCHITECTURE, Rule.ACCUMULATOR_OVERFLOW}
    assert named | others == set(Rule)


@pytest.mark.parametrize(
    ("rule", "case", "edit", "target"),
    [(*entry, U55)[:4] for entry in BROKEN],
    ids=[f"{n}-{entry[0].name}" for n, entry in enumerate(BROKEN)],
)
def test_broken_streams_are_refused_by_name(rule, case, edit, target):
    error = _refusal(case, edit, target)
    assert error.rule is rule, str(error)
    assert error.position is not None
    assert str(error).startswith(f"{rule.name}: ")


def test_sums_that_the_accumulators_do_not_hold():
    from npu_streams import memory_for

    def make(graph, _):
        x = graph.rescale(graph.input(SHAPE, INT8), 2.0**24, INT32)
        total = graph.emit(Op.REDUCE_SUM, [x], (*SHAPE[:3], 1), INT32, axis=3)
        graph.output(graph.rescale(total, 2.0**-24, INT8))

    stream, _ = _stream(make)
    simulate(stream.commands, memory_for(stream, [np.full(SHAPE, 3, np.int8)]))
    with pytest.raises(SimulationError) as caught:
        simulate(stream.commands, memory_for(stream, [np.full(SHAPE, 99, np.int8)]))
    assert caught.value.rule is Rule.ACCUMULATOR_OVERFLOW


def _changed(payload, word, value):
    words = list(struct.unpack(f"<{len(payload) // 4}I", payload))
    words[word] = value
    return struct.pack(f"<{len(words)}I", *words)


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        (Rule.PAYLOAD, lambda payload: b"COP2" + payload[4:]),
        (Rule.PAYLOAD, lambda payload: payload[:-2]),
        (Rule.PAYLOAD, lambda payload: payload[:-4]),
        (Rule.PAYLOAD, lambda payload: payload + bytes(4)),
        (Rule.PAYLOAD, lambda payload: payload[:12]),
        (Rule.PAYLOAD, lambda payload: payload[:28]),
        (Rule.PAYLOAD, lambda payload: _changed(payload, 4, 7)),
        (Rule.PAYLOAD, lambda payload: payload[:16] + payload[20:]),
        (Rule.PAYLOAD, lambda payload: b"COP1" + 3 * struct.pack("<I", 5) + payload[16:]),
        (Rule.CONFIG, lambda payload: _changed(payload, 2, 0x1809)),
        (Rule.CONFIG, lambda payload: _changed(payload, 2, 0x50001807)),
        (Rule.ARCHITECTURE, lambda payload: _changed(payload, 3, 0x20007000)),
    ],
)
def test_payloads_that_are_none(rule, change):
    from npu_streams import memory_for

    stream, inputs = _stream("conv 1x1")
    memory = memory_for(stream, inputs)
    with pytest.raises(SimulationError) as caught:
        simulate(change(stream.commands), memory)
    assert (caught.value.rule, caught.value.position) == (rule, None)
    with pytest.raises(SimulationError, match="made for ethos-u55-128, run on ethos-u55-256"):
        simulate(stream.commands, memory, "ethos-u55-256")
    assert simulate(stream.commands, memory, U55).operations == {"conv": 1}


def test_regions_that_are_no_buffers():
    from npu_streams import memory_for

    stream, inputs = _stream("conv 1x1")
    memory = memory_for(stream, inputs)
    with pytest.raises(UsageError, match="regions are 0 to 7"):
        simulate(stream.commands, {**memory, 8: bytearray(4)})
    with pytest.raises(UsageError, match="not contiguous"):
        simulate(stream.commands, {**memory, 1: np.zeros((9, 9), np.uint8)[:, :4]})
    simulate(stream.commands, [memory[0], bytearray(memory[1])])  # by their order
    with pytest.raises(SimulationError) as caught:
        simulate(stream.commands, [memory[0], bytes(memory[1])])
    assert caught.value.rule is Rule.READ_ONLY


@pytest.mark.parametrize("target", ["ethos-u55-64", f"{U65}+arena-cache-size=20000", U85])
@pytest.mark.parametrize("wait", ["DMA_WAIT", "KERNEL_WAIT"])
def test_no_wait_may_be_missing(target, wait):
    """Without any one of the waits the simulator refuses the stream: in these nets none is
    superfluous."""
    from npu_streams import StreamEditor, memory_for

    from tensmith.backends.ethosu.targets import parse_target
    from tensmith.backends.ethosu.tosa.writer import serialised
    from tensmith.backends.ethosu.vela import compiled

    found = 0
    for seed in range(3):
        graph = RandomNet(seed, 20, 7).graph
        stream = compiled(serialised(graph), parse_target(target))
        memory = memory_for(stream, inputs_of(graph, 0))
        for which in range(len(StreamEditor(stream).places(wait))):
            editor = StreamEditor(stream)
            editor.remove(wait, which)
            with pytest.raises(SimulationError) as caught:
                simulate(editor.payload(), memory)
            assert caught.value.rule is Rule[f"MISSING_{wait}"]
            found += 1
    assert found > 2


def _damaged(editor, rng):
    """Words of a stream with a bit changed, a field of any value, or a word missing."""
    kind = rng.integers(3)
    command = editor.commands[rng.integers(len(editor.commands))]
    if kind == 0 and command[0].fields:
        place = command[0].fields[rng.choice(list(command[0].fields))]
        mask = ((1 << place.width) - 1) << place.bit
        number = int(rng.choice([0, 1, mask >> place.bit, rng.integers(1 << min(place.width, 62))]))
        command[1] = command[1] & ~mask | number << place.bit
    words = editor.words
    if kind == 1:
        words[rng.integers(len(words))] ^= 1 << int(rng.integers(32))
    elif kind == 2:
        del words[rng.integers(len(words))]
    return words


@pytest.mark.parametrize("target", [U55, U65, U85])
def test_no_damage_is_worse_than_a_refusal(target):
    """Streams with faults of any kind run or are refused: nothing else happens."""
    from npu_streams import StreamEditor, memory_for

    rng = np.random.default_rng(6)
    refused = 0
    for case in ("residual", "table of 16 bits", "matmul", "depthwise", "argmax", "chain"):
        stream, inputs = _stream(case, target)
        for _ in range(25):
            words = _damaged(StreamEditor(stream), rng)
            try:
                simulate(StreamEditor(stream).payload(words), memory_for(stream, inputs))
            except SimulationError:
                refused += 1
    assert 30 < refused < 150


def test_damaged_weights_never_pass_as_others_of_another_number():
    """Whatever bits of a stream change, it is decoded to as many weights or refused."""
    from tensmith.backends.ethosu.simulator.weight_streams import decode

    stream, _ = _stream("conv of many channels")
    rng = np.random.default_rng(3)
    data = np.frombuffer(stream.weights, np.uint8)[1520:]
    refused = 0
    for _ in range(300):
        broken = data.copy()
        broken[rng.integers(len(data), size=2)] ^= np.uint8(1 << rng.integers(8))
        try:
            assert len(decode(broken.tobytes(), 1 << 18)) <= 1 << 18
        except ValueError:
            refused += 1
    assert refused > 100
