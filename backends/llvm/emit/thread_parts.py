"""The function through which threads run their part of a kernel."""

from __future__ import annotations

from llvmlite import ir

from ....compiler.kernel.plan.plan import PlannedKernel
from .builder import I8, I64, POINTER, VOID


def part_wrapper(
    kernel: ir.Function, planned: PlannedKernel, pointers: int, symbols: int
) -> ir.Function:
    """`void (void *args, int64_t begin, int64_t end, int64_t thread)` around a kernel."""
    kind = ir.FunctionType(VOID, [POINTER, I64, I64, I64])
    function = ir.Function(kernel.module, kind, f"{planned.symbol}_part")
    function.linkage = "internal"
    b = ir.IRBuilder(function.append_basic_block("entry"))
    args, begin, end, thread = function.args
    values = []
    for position in range(pointers + symbols):
        address = b.gep(args, [ir.Constant(I64, position)], source_etype=I64)
        values.append(b.load(address, typ=POINTER if position < pointers else I64))
    size = planned.kernel.scratch_bytes
    if size:
        address = b.gep(args, [ir.Constant(I64, pointers + symbols)], source_etype=I64)
        base = b.load(address, typ=POINTER)
        own = b.mul(thread, ir.Constant(I64, size))
        values.append(b.gep(base, [own], source_etype=I8))
    b.call(kernel, [*values, begin, end])
    b.ret_void()
    return function
