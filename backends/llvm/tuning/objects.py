"""Machine code of single kernels, each in an object of its own, so that it is the same whatever is
built beside it."""

from __future__ import annotations

from collections.abc import Mapping

from llvmlite import ir

from ....compiler.collector import collector_paused
from ....compiler.kernel.kernel import Kernel
from ....compiler.kernel.plan.plan import PlannedKernel
from ....compiler.target import CpuTarget
from .. import codegen
from ..emit.builder import I64, POINTER, VOID
from ..emit.kernel_function import emit_kernel


def kernel_object(planned: PlannedKernel, sizes: Mapping[str, int], target: CpuTarget) -> bytes:
    """An object with a function `void SYMBOL(void **operands, void *scratch, int64_t begin, int64_t
    end)` around a kernel with these sizes. Raises InternalError where LLVM refuses it."""
    kernel, symbol = planned.kernel, planned.symbol
    with collector_paused():
        module = codegen.new_module("kernel", target)
        function = emit_kernel(
            module, f"{symbol}_kernel", kernel, planned.schedule, planned.aliased
        )
        function.attributes.add("noinline")  # sizes stay arguments, as in a model
        _wrapper(module, function, kernel, sizes, symbol)
        codegen.set_attributes(module, target)
        parsed = codegen.parse(module)
        generator = codegen.target_machine(target, 3)
        codegen.optimise(parsed, generator, 2)
        return bytes(generator.emit_object(parsed))


def _wrapper(
    module: ir.Module, kernel: ir.Function, made: Kernel, sizes: Mapping[str, int], symbol: str
) -> None:
    kind = ir.FunctionType(VOID, [POINTER, POINTER, I64, I64])
    function = ir.Function(module, kind, symbol)
    b = ir.IRBuilder(function.append_basic_block("entry"))
    operands, scratch, begin, end = function.args
    values = []
    for position in range(len(made.params)):
        address = b.gep(operands, [ir.Constant(I64, position)], source_etype=POINTER)
        values.append(b.load(address, typ=POINTER))
    values += [ir.Constant(I64, sizes[name]) for name in made.symbols]
    values += [scratch] if made.scratch_bytes else []
    b.call(kernel, [*values, begin, end])
    b.ret_void()
