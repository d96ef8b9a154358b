"""DMA transfers of the simulated Ethos-U, in streams made by hand."""

import numpy as np
import pytest
from npu_streams import assembled

from tensmith.backends.ethosu.simulator import Rule, SimulationError, simulate

U55, U65, U85 = "ethos-u55-128", "ethos-u65-512", "ethos-u85-256"


def test_transfers_of_two_and_three_dimensions():
    """Rows to places with gaps between them, by a U65; from strides to strides, by a U85."""

    def at(name, low):
        return (name, {"low": low, "high": 0})

    source = np.arange(240, dtype=np.uint8)
    target = np.zeros(400, np.uint8)
    plain = ("DMA0_SRC_REGION", {"region": 0})
    start = ("DMA_START", {})
    common = (
        at("DMA0_SRC", 3),
        at("DMA0_DST", 5),
        at("DMA0_LEN", 10),
        ("DMA0_SIZE0", {"value": 4}),
    )
    deep = ("DMA0_SIZE1", {"value": 3})
    into = ("DMA0_DST_REGION", {"region": 1, "stride_mode": 2})
    skips = (at("DMA0_SKIP0", 7), at("DMA0_SKIP1", 60))
    simulate(assembled(U65, plain, into, *common, deep, *skips, start), [source, target])
    wanted = np.zeros_like(target)
    for j in range(3):
        for i in range(4):
            row = source[3 + 10 * (4 * j + i) :][:10]
            wanted[5 + 17 * i + 100 * j :][:10] = row
    np.testing.assert_array_equal(target, wanted)

    with pytest.raises(SimulationError) as caught:
        simulate(assembled(U65, plain, into, *common, deep, skips[0], start), [source, target])
    assert caught.value.rule is Rule.UNSET_REGISTER

    strided = ("DMA0_SRC_REGION", {"region": 0, "stride_mode": 2})
    into = ("DMA0_DST_REGION", {"region": 1})
    steps = (
        at("DMA0_SRC_STRIDE0", 12), at("DMA0_SRC_STRIDE1", 50),
        at("DMA0_DST_STRIDE0", 11), at("DMA0_DST_STRIDE1", 90),
    )  # fmt: skip
    target[:], wanted[:] = 0, 0
    simulate(assembled(U85, strided, into, *common, deep, *steps, start), [source, target])
    for j in range(3):
        for i in range(4):
            wanted[5 + 11 * i + 90 * j :][:10] = source[3 + 12 * i + 50 * j :][:10]
    np.testing.assert_array_equal(target, wanted)


def test_transfers_move_at_the_last_moment():
    """A second transfer that reads what the first writes has to wait for it; one that does not gets
    what was there before, and the regions say so when the stream ends."""

    def copy(source, target):
        return [
            ("DMA0_SRC_REGION", {"region": 0}),
            ("DMA0_DST_REGION", {"region": 0}),
            ("DMA0_SRC", {"low": source}),
            ("DMA0_DST", {"low": target}),
            ("DMA0_LEN", {"low": 16}),
            ("DMA_START", {}),
        ]

    wait = ("DMA_WAIT", {"count": 0})
    memory = np.arange(64, dtype=np.uint8)
    simulate(assembled(U55, *copy(0, 16), wait, *copy(16, 32)), [memory])
    np.testing.assert_array_equal(memory[:48], np.tile(np.arange(16), 3))
    with pytest.raises(SimulationError) as caught:
        simulate(assembled(U55, *copy(0, 16), *copy(16, 32)), [memory])
    assert caught.value.rule is Rule.MISSING_DMA_WAIT
    memory = np.arange(64, dtype=np.uint8)
    with pytest.raises(SimulationError) as caught:  # the first has not moved when the second fails
        simulate(assembled(U85, *copy(0, 16), *copy(32, 64)), [memory])
    assert caught.value.rule is Rule.OUT_OF_BOUNDS
    np.testing.assert_array_equal(memory, np.arange(64))
