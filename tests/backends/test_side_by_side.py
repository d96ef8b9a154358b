"""Chains of vector operations that are kept side by side."""

from __future__ import annotations

import pytest
from llvmlite import ir

from tensmith.backends.llvm.emit.builder import F32, VOID, Emitter


def emitter(triple: str) -> Emitter:
    module = ir.Module(name="m")
    module.triple = triple
    return Emitter(module, ir.Function(module, ir.FunctionType(VOID, []), "f"))


def steps(triple: str, lanes: int, count: int) -> str:
    """The code of one step on a value of `count` vectors."""
    e = emitter(triple)
    value = e.b.load(e.local(ir.VectorType(F32, lanes * count)))
    with e.side_by_side(count):
        assert e.in_step(value).type == value.type
    assert e.in_step(value) is value  # outside nothing is side by side
    return str(e.function)


@pytest.mark.parametrize(
    ("triple", "register"), [("x86_64-pc-linux-gnu", "v"), ("aarch64-linux-gnu", "w")]
)
def test_all_vectors_of_a_step_pass_through_one_instruction(triple: str, register: str) -> None:
    text = steps(triple, 4, 4)
    assert text.count(" asm ") == 1
    assert f'"={register},={register},={register},={register},0,1,2,3"' in text


@pytest.mark.parametrize(
    ("triple", "lanes", "count"),
    [("x86_64-pc-linux-gnu", 8, 1), ("x86_64-pc-linux-gnu", 2, 4), ("riscv64-linux-gnu", 4, 4)],
)
def test_what_is_no_row_of_registers_stays_as_it_is(triple: str, lanes: int, count: int) -> None:
    assert " asm " not in steps(triple, lanes, count)
