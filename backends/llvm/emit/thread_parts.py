"""The functions through which threads run a kernel: of those that run a part, and of a call."""

from __future__ import annotations

from llvmlite import ir

from ....compiler.kernel.plan.plan import PlannedKernel
from .builder import I8, I64, POINTER, VOID, Emitter


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


def divided_call(
    kernel: ir.Function, planned: PlannedKernel, pointers: int, symbols: int
) -> ir.Function:
    """`void (ts_frame *, int64_t threads, ..., int64_t count)` around a kernel: its iterations are
    the calling thread's, or shared among the threads.

    What lies between are the kernel's arguments but the first and the last iteration. Plans call it
    in many places, which would each be several times as long.
    """
    module = kernel.module
    own = [argument.type for argument in kernel.args[:-2]]
    kind = ir.FunctionType(VOID, [POINTER, I64, *own, I64])
    function = ir.Function(module, kind, f"{planned.symbol}_call")
    function.linkage = "internal"
    function.attributes.add("noinline")
    e = Emitter(module, function)
    body = function.append_basic_block("body")
    e.b.branch(body)
    e.b.position_at_end(body)
    frame, threads, *values, count = function.args
    alone = e.b.icmp_signed("==", threads, e.as_index(1))
    with e.b.if_else(alone) as (then, otherwise):
        with then:
            e.b.call(kernel, [*values, e.as_index(0), count])
        with otherwise:
            args = e.local(I64, len(values), align=8)
            for position, value in enumerate(values):
                e.b.store(value, e.b.gep(args, [e.as_index(position)], source_etype=I64))
            part = part_wrapper(kernel, planned, pointers, symbols)
            e.call("ts_rt_parallel", VOID, [frame, part, args, count])
    e.b.ret_void()
    return function
