"""Where the elements of a register tile are: base pointers, steps, and what is looked up.

Addresses that are affine in the reduction axes are split into a base pointer, computed before the
reduction loops, and a step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from llvmlite import ir

from ....compiler.ir.dims import coefficient
from ....compiler.ir.types import DType
from ....compiler.kernel import expr as ex
from ....compiler.kernel.axis_names import panel_base, start_of
from ....compiler.kernel.expr import Expr, Load
from ....compiler.kernel.kernel import Store
from . import scalar
from .access import Lanes, index_value, lane_indices
from .builder import POINTER, Emitter, memory_type
from .indices import Int
from .shape import Access, Address, Guard, Shape, Slot


@dataclass
class TileAddresses(ABC):
    """Addresses in one tile. env: values of axes (tile bases) and symbolic dims."""

    e: Emitter
    shape: Shape
    buffers: Mapping[str, ir.Value]
    env: dict[str, Int]
    inner: tuple[str, ...]  # reduction axes: they change inside the tile
    moved: dict[str, Int] = field(default_factory=dict)  # steps of the inner axes since `prepare`
    addresses: dict[int, Address | None] = field(default_factory=dict)
    keep: list[Expr | Store] = field(default_factory=list)  # ids stay valid while these live
    offsets: dict[object, Int] = field(default_factory=dict)
    dependences: ex.Dependences = field(default_factory=ex.Dependences)
    guard: Guard = field(default_factory=Guard)

    @abstractmethod
    def value(self, expression: Expr, slot: Slot) -> ir.Value:
        """The expression at a slot; scalar when it is the same in all lanes."""

    def depends(self, expression: Expr) -> tuple[bool, bool]:
        """Whether the expression differs between rows, and between vectors."""
        names, accumulates = self.dependences.of(expression)
        row, vector = self.shape.row, self.shape.vector
        return accumulates or row in names, accumulates or vector in names

    def advance(self, axis: str, step: Int) -> None:
        """Be at a step of an inner axis, counted from where the loop over it begins."""
        self.moved[axis] = step
        self.env[axis] = self.e.add(self._first(axis), step)

    def _first(self, axis: str) -> Int:
        """Where the loop over an inner axis begins: 0, but for the blocks of a sum."""
        return self.env.get(start_of(axis), 0)

    def prepare(self, accesses: Iterable[Expr | Store]) -> None:
        """Compute base addresses of stores and affine loads here, before the loops that follow."""
        for access in accesses:
            parts = [access] if isinstance(access, Store) else ex.walk(access)
            for part in parts:
                if isinstance(part, Load | Store) and id(part) not in self.addresses:
                    self.keep.append(part)
                    self.addresses[id(part)] = self.split(part)

    def split(self, access: Load | Store) -> Address | None:
        """The address where it is affine in the tile's and inner axes, or looked up; else None."""
        if any(isinstance(access, Store) or any(self.depends(i)) for i, _ in access.dynamic):
            return None
        base_name = panel_base(self.shape.vector) if self.shape.panel else ""
        moving = [name for name in (self.shape.row, self.shape.vector, base_name) if name]
        names = list(dict.fromkeys([*moving, *self.inner]))
        factors = {name: coefficient(access.offset, name) for name in names}
        if any(factor is None for factor in factors.values()):
            return None
        first = {name: self._first(name) for name in self.inner}
        base = self._element(replace(access, dynamic=()), {**self.env, **first}, (0, 0))
        looked = tuple((i, index_value(self.e, by, self.env)) for i, by in access.dynamic)
        values = {
            name: index_value(self.e, factor, self.env)
            for name, factor in factors.items()
            if factor is not None and factor != 0
        }
        steps = tuple((name, values[name]) for name in self.inner if name in values)
        row, vector = values.get(self.shape.row, 0), values.get(self.shape.vector, 0)
        return Address(base, row, vector, steps, values.get(base_name, 0), looked)

    def reach(self, access: Load | Store, slot: Slot, wide: bool) -> Access:
        """Where a slot's elements are; wide: one for each lane, not one for all."""
        lanes = self.shape.lanes if wide else 1
        address = self.addresses.get(id(access))
        if address is not None and (lanes == 1 or address.vector == 1):
            return Access(self.point(address, access.buffer.dtype, slot), lanes)
        env = self.slot_env(slot)
        runs = self.dependences.runs(access.offset, access.dynamic, self.shape.vector)
        if lanes == 1 or runs:
            return Access(self._element(access, env, slot), lanes)
        return Access(self._elements(access, env, slot), lanes, apart=True)

    def _element(self, access: Load | Store, env: Mapping[str, Int], slot: Slot) -> ir.Value:
        """The address of one element, its indices as the environment says."""
        e = self.e
        offset = index_value(e, access.offset, env)
        for index, stride in access.dynamic:
            moved = scalar.cast(e, self.value(index, slot), index.dtype, e.index_dtype)
            offset = e.add(offset, e.mul(moved, index_value(e, stride, env)))
        return e.pointer(self.buffers[access.buffer.name], offset, access.buffer.dtype)

    def _elements(self, access: Load | Store, env: Mapping[str, Int], slot: Slot) -> ir.Value:
        """One address per lane, for gathers and scatters."""
        e, lanes = self.e, self.shape.lanes
        offsets = lane_indices(e, access.offset, env, Lanes(self.shape.vector, lanes))
        for index, stride in access.dynamic:
            moved = scalar.cast(e, self.value(index, slot), index.dtype, e.index_dtype)
            factor = e.splat(e.as_index(index_value(e, stride, env)), lanes)
            offsets = e.b.add(offsets, e.b.mul(e.splat(moved, lanes), factor))
        base = e.splat(self.buffers[access.buffer.name], lanes)
        pointers = e.b.gep(base, [offsets], source_etype=memory_type(access.buffer.dtype))
        pointers.type = ir.VectorType(POINTER, lanes)
        return pointers

    def point(self, address: Address, dtype: DType, slot: Slot) -> ir.Value:
        """Pointer to the element of a slot at the present inner axes."""
        e, (r, v) = self.e, slot
        offset = self._along_inner(address)
        offset = e.add(offset, self._along_rows(address, r))
        offset = e.add(offset, e.mul(address.vector, v * self.shape.lanes))
        offset = e.add(offset, e.mul(address.panel, self.shape.panel_start(v)))
        return e.pointer(address.base, offset, dtype)

    def _along_inner(self, address: Address) -> Int:
        """How far the inner axes have moved, the same for all slots of a step that a guard, under
        which indices are looked up, admits."""
        key = ("inner", id(address), *(self.guard.key if address.looked else ()))
        if key not in self.offsets:
            offset: Int = 0
            for name, factor in address.steps:
                offset = self.e.add(offset, self.e.mul(self.moved[name], factor))
            for index, factor in address.looked:
                at = scalar.cast(self.e, self.value(index, (0, 0)), index.dtype, self.e.index_dtype)
                offset = self.e.add(offset, self.e.mul(at, factor))
            self.offsets[key] = offset
        return self.offsets[key]

    def _along_rows(self, address: Address, r: int) -> Int:
        if isinstance(address.row, int) or not r:
            return self.e.mul(address.row, r)
        key = ("row", id(address), r)
        if key not in self.offsets:
            self.offsets[key] = self.e.mul(address.row, r)
        return self.offsets[key]

    def slot_env(self, slot: Slot) -> dict[str, Int]:
        """The environment with the axes at a slot (of a vector: at its lane 0)."""
        env = dict(self.env)
        if self.shape.row and slot[0]:
            env[self.shape.row] = self.e.add(env[self.shape.row], slot[0])
        if self.shape.vector and slot[1]:
            step = slot[1] * self.shape.lanes
            env[self.shape.vector] = self.e.add(env[self.shape.vector], step)
            if self.shape.panel:
                name, start = panel_base(self.shape.vector), self.shape.panel_start(slot[1])
                env[name] = self.e.add(env[name], start)
        return env
