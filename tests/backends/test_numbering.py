"""Instructions that a block has already are not emitted again."""

from __future__ import annotations

import pytest
from llvmlite import ir

from tensmith.backends.llvm.emit.builder import F32, I8, I32, I64, POINTER, VOID, Emitter
from tensmith.backends.llvm.emit.constants import undefined
from tensmith.backends.llvm.emit.reduction import lane_mask
from tensmith.compiler.ir import DType


@pytest.fixture
def e() -> Emitter:
    kind = ir.FunctionType(VOID, [I64, I64, F32])
    return Emitter(ir.Module(name="m"), ir.Function(ir.Module(name="m"), kind, "f"))


def test_the_same_computation_is_the_same_instruction(e: Emitter) -> None:
    a, b, x = e.function.args
    assert e.add(a, b) is e.add(a, b)
    assert e.mul(a, 12) is e.mul(12, a)
    assert e.splat(x, 8) is e.splat(x, 8)
    assert e.mod(a, 7) is e.mod(a, 7)
    assert e.b.icmp_signed("<", a, b) is e.b.icmp_signed("<", a, b)


def test_what_differs_in_anything_is_another_one(e: Emitter) -> None:
    a, b, x = e.function.args
    assert e.add(a, b) is not e.sub(a, b)
    assert e.add(a, b) is not e.add(b, a)
    assert e.add(a, 1) is not e.add(a, 2)
    assert e.b.add(a, b) is not e.add(a, b)  # may wrap
    assert e.splat(x, 8) is not e.splat(x, 4)
    assert e.b.icmp_signed("<", a, b) is not e.b.icmp_unsigned("<", a, b)
    assert e.b.trunc(a, I32) is not e.b.trunc(a, ir.IntType(8))


def test_loads_and_other_blocks_are_computed_anew(e: Emitter) -> None:
    a, b, _ = e.function.args
    memory, total = e.local(I64), e.add(a, b)
    assert e.b.load(memory, typ=I64) is not e.b.load(memory, typ=I64)
    with e.when(e.b.icmp_signed("<", a, b)):
        assert e.add(a, b) is not total
    assert e.add(a, b).parent is e.b.block


def test_what_nothing_reads_is_one_word() -> None:
    assert str(undefined(ir.VectorType(F32, 16))) == "<16 x float> undef"


@pytest.mark.parametrize(("live", "masked"), [(1, False), (2, True), (3, True)])
def test_one_lane_is_stored_as_one_element(e: Emitter, live: int, masked: bool) -> None:
    """A masked store of one truncated element writes 4 bytes in LLVM 22."""
    wide = e.splat(e.b.trunc(e.function.args[0], I32), 4)
    narrow = e.b.trunc(wide, ir.VectorType(I8, 4))
    place = e.b.inttoptr(e.function.args[1], POINTER)
    e.store(narrow, place, DType.I8, lane_mask(e, 4, live))
    assert ("masked.store" in str(e.function)) == masked
    assert ("store i8 " in str(e.function)) != masked
