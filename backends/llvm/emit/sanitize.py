"""Checks of every access of a kernel at run time, where a compilation asks for them.

A kernel then gets two more arguments behind its buffers: the frame, and a table of the size and the
name of what each buffer lies in. An access outside goes to memory that nobody reads, and ends the
run behind the kernel. Prefetches need no check: they may name any address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llvmlite import ir

from ....compiler.errors import InternalError
from ....compiler.ir.dims import Dim
from ....compiler.kernel.plan.plan import Place, Plan, bytes_of
from ..access_checks import Checks
from .builder import I8, I32, I64, POINTER, Emitter
from .indices import Int

EXTENT = ir.LiteralStructType([I64, POINTER])  # ts_extent of runtime/plan_abi.h
MOST_LANES = 64
EXTRA = (POINTER, POINTER)  # the arguments: the frame, and a ts_extent for every buffer


def text(module: ir.Module, content: str) -> ir.Value:
    """The address of a constant C string."""
    return _constant(
        module, ir.ArrayType(I8, len(data := content.encode() + b"\0")), bytearray(data)
    )


def _constant(module: ir.Module, kind: ir.Type, value: object) -> ir.Value:
    constant = ir.GlobalVariable(module, kind, module.get_unique_name("extent"))
    constant.initializer = ir.Constant(kind, value)
    constant.linkage, constant.global_constant = "internal", True
    constant.type = POINTER  # llvmlite gives it a typed pointer
    return constant


@dataclass(frozen=True)
class _Region:
    base: ir.Value
    extent: ir.Value


class Sanitizer(Checks):
    """Emits the checks of one kernel.

    frame, table: the function's extra arguments. dummy: memory that may always be touched.
    """

    watching = True

    def __init__(self, e: Emitter, kernel: str, frame: ir.Value, dummy: ir.Value) -> None:
        self.e, self.frame, self.dummy = e, frame, dummy
        self.kernel = text(e.module, kernel)
        self.regions: dict[str, _Region] = {}

    def add_arguments(
        self, names: Sequence[str], bases: Sequence[ir.Value], table: ir.Value
    ) -> None:
        """The kernel's buffers, whose sizes the plan says."""
        for number, (name, base) in enumerate(zip(names, bases, strict=True)):
            extent = self.e.b.gep(table, [self.e.as_index(number)], source_etype=EXTENT)
            self.regions[name] = _Region(base, extent)

    def add_local(self, name: str, base: ir.Value, size: int) -> None:
        """Memory of the kernel's own."""
        label = text(self.e.module, f"{name} (local)")
        fields = [ir.Constant(I64, size), label]
        self.regions[name] = _Region(base, _constant(self.e.module, EXTENT, fields))

    def together(
        self, buffer: str, pointer: ir.Value, size: int, lanes: int, mask: ir.Value | None
    ) -> ir.Value:
        """The address of `lanes` neighbours of `size` bytes each, or the dummy's."""
        e = self.e
        if lanes > MOST_LANES:
            raise InternalError(f"an access of {lanes} lanes cannot be checked")
        if mask is None:
            live: ir.Value = ir.Constant(I64, (1 << lanes) - 1)
        elif lanes == 1:
            live = e.b.zext(mask, I64)
        else:
            bits = e.b.bitcast(mask, ir.IntType(lanes))
            live = bits if lanes == MOST_LANES else e.b.zext(bits, I64)
        region = self.regions[buffer]
        arguments = [
            self.frame, self.kernel, region.extent, region.base, pointer, e.as_index(size), live,
            self.dummy,
        ]  # fmt: skip
        return e.call("ts_rt_checked", POINTER, arguments)

    def apart(self, buffer: str, pointers: ir.Value, size: int, mask: ir.Value | None) -> ir.Value:
        """A vector of addresses, those outside replaced by the dummy's."""
        e, lanes = self.e, pointers.type.count
        for lane in range(lanes):
            at = ir.Constant(I32, lane)
            live = None if mask is None else e.b.extract_element(mask, at)
            pointer = e.b.extract_element(pointers, at)
            pointer.type = POINTER
            pointers = e.b.insert_element(
                pointers, self.together(buffer, pointer, size, 1, live), at
            )
            pointers.type = ir.VectorType(POINTER, lanes)
        return pointers


def extent_of(plan: Plan, place: Place) -> tuple[Dim | None, str]:
    """(bytes from a place to the end of what it lies in, its name); of the heap, whose blocks may
    be larger than they were asked to be, no size."""
    if place.kind == "heap":
        return None, f"heap tensor {place.number}"
    if place.kind == "weights":
        weight = plan.weights[place.number]
        size: Dim = weight.size
        name = weight.value.name or f"constant {place.number}"
    elif place.kind == "arena":
        size, name = plan.arena[place.number].size, plan.arena[place.number].name
    else:
        values = plan.inputs if place.kind == "input" else plan.outputs
        value = values[place.number]
        size, name = bytes_of(value.dtype, value.type.elements), value.name
    return size - place.offset, name


def store_extents(e: Emitter, sizes: Sequence[tuple[Int, str]]) -> ir.Value:
    """A table of ts_extent in the plan's memory."""
    table = e.local(EXTENT, len(sizes) + 1, align=8)
    for number, (size, name) in enumerate(sizes):
        for place, value in enumerate((e.as_index(size), text(e.module, name))):
            where = [e.as_index(number), ir.Constant(I32, place)]
            e.b.store(value, e.b.gep(table, where, source_etype=EXTENT))
    return table
