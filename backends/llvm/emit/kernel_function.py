"""Emission of a kernel as one function.

Signature: (pointer of every buffer..., what `sanitize.py` adds, every symbolic dim..., pointer to
scratch memory where the kernel needs it, begin, end); the last two select a range of the parallel
loops' iterations, so that threads can share a call. Dims and iterations are as wide as addresses.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from ....compiler.kernel.kernel import Axis, Kernel
from ....compiler.kernel.schedule.partition import outer_loops
from ....compiler.kernel.schedule.schedule import Schedule
from .access import index_value
from .builder import I8, POINTER, VOID, Emitter, memory_type
from .indices import Int
from .matrices import release, set_up
from .sanitize import EXTRA, Sanitizer
from .stage import StageEmitter
from .target_module import is_bare

DUMMY_BYTES = 512  # covers the widest vector load


def index_bits(module: ir.Module) -> int:
    """Width of the numbers that kernels count and index with."""
    return 32 if is_bare(module) else 64


def declare_kernel(
    module: ir.Module,
    name: str,
    kernel: Kernel,
    aliased: frozenset[str] = frozenset(),
    sanitize: bool = False,
) -> ir.Function:
    """The function's declaration. aliased: parameters that some call gives the same memory."""
    extra = EXTRA if sanitize else ()
    scratch = [POINTER] if kernel.scratch_bytes else []
    index = ir.IntType(index_bits(module))
    symbols = [index] * len(kernel.symbols)
    arguments = [*([POINTER] * len(kernel.params)), *extra, *symbols, *scratch, index, index]
    function = ir.Function(module, ir.FunctionType(VOID, arguments), name)
    for argument, buffer in zip(function.args, kernel.params, strict=False):
        argument.name = buffer.name
        written = buffer in kernel.params[len(kernel.params) - kernel.outputs :]
        if (written or aliased) and buffer.name not in aliased:
            argument.add_attribute("noalias")
    return function


def parallel_count(e: Emitter, kernel: Kernel, schedule: Schedule, env: dict[str, Int]) -> Int:
    """How many iterations `begin..end` ranges over, for given symbolic dims."""
    count: Int = 1
    for name, tile in outer_loops(kernel, schedule):
        extent = index_value(e, _axis(kernel, name).extent, env)
        count = e.mul(count, e.floordiv(e.add(extent, tile - 1), tile))
    return count


def _axis(kernel: Kernel, name: str) -> Axis:
    return next(axis for axis in kernel.stages[0].axes if axis.name == name)


def emit_kernel(
    module: ir.Module,
    name: str,
    kernel: Kernel,
    schedule: Schedule,
    aliased: frozenset[str] = frozenset(),
    sanitize: bool = False,
) -> ir.Function:
    """Define the kernel's function in the module. sanitize: with checks of every access."""
    function = declare_kernel(module, name, kernel, aliased, sanitize)
    e = Emitter(module, function, index_bits(module))
    count = len(kernel.params) + (len(EXTRA) if sanitize else 0)
    buffers = {b.name: a for b, a in zip(kernel.params, function.args, strict=False)}
    env: dict[str, Int] = dict(zip(kernel.symbols, function.args[count:], strict=False))
    e.hold(env)
    begin, end = function.args[-2:]
    dummy = e.local(I8, DUMMY_BYTES)
    if sanitize:
        frame, table = function.args[count - len(EXTRA) : count]
        e.checks = Sanitizer(e, name, frame, dummy)
        e.checks.add_arguments(list(buffers), list(buffers.values()), table)
    for stage in kernel.stages:
        for store in stage.stores:
            buffer = store.buffer
            if buffer.local is None or (
                buffer.name in buffers and buffer.name not in kernel.scratch
            ):
                continue
            if buffer.name in kernel.scratch:
                at = e.as_index(kernel.scratch[buffer.name])
                where = e.b.gep(function.args[-3], [at], source_etype=I8)
            else:
                where = e.local(memory_type(buffer.dtype), buffer.local)
            buffers[buffer.name] = where
            e.checks.add_local(buffer.name, where, buffer.local * buffer.dtype.bytes)
    outer = outer_loops(kernel, schedule)
    multiplies = set_up(e, kernel, schedule)

    def share(bound: dict[str, Int]) -> None:
        def iteration(index: Int, _: list[ir.Value]) -> Sequence[ir.Value]:
            inside = _decode(e, kernel, outer, bound, index)
            _emit_stages(e, kernel, schedule, buffers, dummy, inside)
            return ()

        e.loop(begin, end, 1, [], iteration)

    if schedule.ahead:
        stage, own = kernel.stages[0], schedule.stages[0]
        StageEmitter(e, stage, own, buffers, dummy).loops(own.order[: schedule.ahead], env, share)
    else:
        share(env)
    if multiplies:
        release(e)
    e.b.ret_void()
    return function


def _decode(
    e: Emitter, kernel: Kernel, outer: list[tuple[str, int]], env: dict[str, Int], index: Int
) -> dict[str, Int]:
    """The environment with the shared loops' axes at iteration `index`."""
    bound = dict(env)
    rest: Int = index
    for position, (name, tile) in reversed(list(enumerate(outer))):
        extent = index_value(e, _axis(kernel, name).extent, env)
        tiles = e.floordiv(e.add(extent, tile - 1), tile)
        if position == 0:
            bound[name] = e.mul(rest, tile)
            break
        last = e.b.urem(e.as_index(rest), e.as_index(tiles))
        bound[name] = e.mul(last, tile)
        rest = e.b.udiv(e.as_index(rest), e.as_index(tiles))
    return bound


def _emit_stages(
    e: Emitter,
    kernel: Kernel,
    schedule: Schedule,
    buffers: dict[str, ir.Value],
    dummy: ir.Value,
    env: dict[str, Int],
) -> None:
    shared = [axis.name for axis in kernel.stages[0].axes[: kernel.shared]]
    for stage, own in zip(kernel.stages, schedule.stages, strict=True):
        # the shared axes go by each stage's own names
        names = {axis.name: env[name] for axis, name in zip(stage.axes, shared, strict=False)}
        done = 0 if kernel.shared else schedule.ahead + schedule.parallel
        StageEmitter(e, stage, own, buffers, dummy).loops(own.order[done:], {**env, **names})
