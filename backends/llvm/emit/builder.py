"""A thin layer over llvmlite's IR builder: integers that fold, loops, vectors, masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from llvmlite import ir

from ....compiler.ir.types import DType
from ..access_checks import Checks
from .constants import Splat, is_first_lane, lanes_from, undefined
from .indices import IndexArithmetic, Int
from .mve import MveBuilder
from .numbering import NumberingBuilder
from .sizes import SizeHolder
from .target_module import has_instruction

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
F32, F64, VOID = ir.FloatType(), ir.DoubleType(), ir.VoidType()
POINTER = ir.PointerType()

CONTRACT = ("contract",)

REGISTER_CLASSES = {"x86_64": "v", "aarch64": "w"}  # of vectors, in constraints of assembly
MIN_REGISTER_BYTES = 16  # less is no vector register's content


_TYPES: dict[DType, ir.Type] = {
    DType.F64: F64,
    DType.F32: F32,
    DType.F16: ir.HalfType(),
    DType.BOOL: I1,
}


def scalar_type(dtype: DType) -> ir.Type:
    """LLVM type of an element in a register: a bool is an i1, a bf16 the integer of its bits."""
    return _TYPES.get(dtype) or ir.IntType(dtype.bits)


def literal(value: float | int | bool, dtype: DType) -> float | int:
    """The value as LLVM writes it in a constant of `scalar_type(dtype)`."""
    if dtype is DType.BF16:
        return int(np.array(value, dtype.numpy).view(np.uint16))
    return int(value) if dtype is DType.BOOL else value


def memory_type(dtype: DType) -> ir.Type:
    """LLVM type of an element in memory (a bool is a byte)."""
    return I8 if dtype is DType.BOOL else scalar_type(dtype)


def is_vector(value: ir.Value) -> bool:
    """Whether the value is a vector."""
    return isinstance(value.type, ir.VectorType)


def shaped(type_: ir.Type, like: ir.Value) -> ir.Type:
    """`type_` with the vector length of `like`."""
    return ir.VectorType(type_, like.type.count) if is_vector(like) else type_


def intrinsic_suffix(type_: ir.Type) -> str:
    """How LLVM mangles a type in an intrinsic's name."""
    if isinstance(type_, ir.VectorType):
        return f"v{type_.count}{intrinsic_suffix(type_.element)}"
    if isinstance(type_, ir.PointerType):
        return "p0"
    if isinstance(type_, ir.IntType):
        return f"i{type_.width}"
    return {"float": "f32", "double": "f64", "half": "f16"}[str(type_)]


class Emitter(IndexArithmetic, SizeHolder):
    """Appends instructions to one function.

    index_bits: width of indices, sizes and loop counters that a run computes, 64 or 32.
    """

    def __init__(self, module: ir.Module, function: ir.Function, index_bits: int = 64) -> None:
        super().__init__()
        self.module = module
        self.function = function
        self.index_type = ir.IntType(index_bits)
        self.index_dtype = DType.I64 if index_bits == 64 else DType.I32
        entry = function.append_basic_block("entry")
        self.b = (MveBuilder if has_instruction(module, "mve") else NumberingBuilder)(entry)
        self.entry = self.b.block
        self.checks = Checks()
        self.abreast = 1  # vectors that a value is made of, which are computed side by side

    # vectors -------------------------------------------------------------------------------

    def splat(self, value: ir.Value, lanes: int) -> ir.Value:
        """A scalar repeated in every lane; a vector is returned as it is."""
        if is_vector(value) or lanes == 1:
            return value
        vector = ir.VectorType(value.type, lanes)
        if isinstance(value, ir.Constant) and not isinstance(value.type, ir.PointerType):
            return Splat(vector, value.constant)
        first = self.b.insert_element(undefined(vector), value, ir.Constant(I32, 0))
        zeros = Splat(ir.VectorType(I32, lanes), 0)
        return self.b.shuffle_vector(first, undefined(vector), zeros)

    def joined(self, values: Sequence[ir.Value]) -> ir.Value:
        """Vectors end to end; as many as a power of two."""
        while len(values) > 1:
            values = [self._pair(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
        return values[0]

    def _pair(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.b.shuffle_vector(a, b, lanes_from(0, 2 * a.type.count, I32))

    def parts(self, vector: ir.Value, count: int) -> list[ir.Value]:
        """A vector cut into so many of equal length."""
        if count == 1:
            return [vector]
        lanes = vector.type.count // count
        nothing = undefined(vector.type)
        return [
            self.b.shuffle_vector(vector, nothing, lanes_from(k * lanes, lanes, I32))
            for k in range(count)
        ]

    def in_step(self, value: ir.Value) -> ir.Value:
        """The same value, of whose `abreast` vectors none is computed on before all are there.

        Chains of operations stay side by side: LLVM would put one after the other, which saves
        registers, and the processor then waits for every single operation. An empty piece of
        assembly takes and gives all vectors.
        """
        register = REGISTER_CLASSES.get(str(self.module.triple).partition("-")[0])
        if self.abreast == 1 or register is None:
            return value
        vectors = self.parts(value, self.abreast)
        kind = vectors[0].type
        if kind.count * 4 < MIN_REGISTER_BYTES:  # of f32, as all that is computed abreast
            return value
        constraints = [f"={register}"] * self.abreast + [str(k) for k in range(self.abreast)]
        function = ir.FunctionType(
            ir.LiteralStructType([kind] * self.abreast), [kind] * self.abreast
        )
        together = self.b.asm(function, "", ",".join(constraints), vectors, False)
        return self.joined([self.b.extract_value(together, k) for k in range(self.abreast)])

    @contextmanager
    def side_by_side(self, count: int) -> Iterator[None]:
        """Within, values are made of so many vectors that are computed side by side."""
        self.abreast = count
        try:
            yield
        finally:
            self.abreast = 1

    def keep_order(self) -> None:
        """No load from memory moves across this place: an empty piece of assembly that may write.

        Loads that LLVM moves up need registers, and where these are scarce it spills accumulators.
        """
        self.b.asm(ir.FunctionType(VOID, []), "", "~{memory}", [], True)

    def lane_numbers(self, lanes: int) -> ir.Value:
        """<0, 1, 2, ...> as indices."""
        return lanes_from(0, lanes, self.index_type)

    def constant(self, value: Any, type_: ir.Type) -> ir.Constant:
        """A constant; a vector type gets it in every lane."""
        if isinstance(type_, ir.VectorType):
            return Splat(type_, value)
        return ir.Constant(type_, value)

    def call(self, name: str, result: ir.Type, args: Sequence[ir.Value], **more: Any) -> ir.Value:
        """Call an intrinsic or an external function, declaring it when new."""
        function = self.module.globals.get(name)
        if function is None:
            kind = ir.FunctionType(result, [arg.type for arg in args])
            function = ir.Function(self.module, kind, name)
        return self.b.call(function, args, **more)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a * b + c with one rounding."""
        return self.call(f"llvm.fma.{intrinsic_suffix(c.type)}", c.type, [a, b, c])

    # memory --------------------------------------------------------------------------------

    def pointer(self, base: ir.Value, offset: Int, dtype: DType) -> ir.Value:
        """Address of element `offset`."""
        if isinstance(offset, int) and offset == 0:
            return base
        return self.b.gep(
            base, [self.as_index(offset)], inbounds=True, source_etype=memory_type(dtype)
        )

    def load(
        self,
        pointer: ir.Value,
        dtype: DType,
        lanes: int = 1,
        mask: ir.Value | None = None,
        buffer: str = "",
    ) -> ir.Value:
        """Load one element or `lanes` contiguous ones of a buffer; masked-off lanes are zero."""
        pointer = self.checks.together(buffer, pointer, dtype.bytes, lanes, mask)
        element = memory_type(dtype)
        type_ = element if lanes == 1 else ir.VectorType(element, lanes)
        if mask is None:
            value = self.b.load(pointer, align=dtype.bytes, typ=type_)
        else:
            name = f"llvm.masked.load.{intrinsic_suffix(type_)}.p0"
            value = self.call(name, type_, [pointer, mask, self.constant(None, type_)])
        return self._from_memory(value, dtype)

    def prefetch(self, pointer: ir.Value, offset: Int = 0, level: int = 1) -> None:
        """Fetch the cache line that lies `offset` bytes behind a pointer; it need not be valid.

        level: of the cache that it comes to, 1 or 2.
        """
        if offset != 0:
            pointer = self.b.gep(pointer, [self.as_index(offset)], source_etype=I8)
        read, locality, data = (ir.Constant(I32, n) for n in (0, 4 - level, 1))
        self.call("llvm.prefetch.p0", VOID, [pointer, read, locality, data])

    def gather(
        self, pointers: ir.Value, dtype: DType, mask: ir.Value | None, buffer: str = ""
    ) -> ir.Value:
        """Load one element per lane from a vector of addresses in a buffer."""
        lanes = pointers.type.count
        pointers = self.checks.apart(buffer, pointers, dtype.bytes, mask)
        type_ = ir.VectorType(memory_type(dtype), lanes)
        name = f"llvm.masked.gather.{intrinsic_suffix(type_)}.v{lanes}p0"
        live = mask if mask is not None else self.constant(1, ir.VectorType(I1, lanes))
        value = self.call(name, type_, [pointers, live, self.constant(None, type_)])
        return self._from_memory(value, dtype)

    def store(
        self,
        value: ir.Value,
        pointer: ir.Value,
        dtype: DType,
        mask: ir.Value | None = None,
        buffer: str = "",
    ) -> None:
        """Store an element or a vector of contiguous elements of a buffer."""
        stored = self._to_memory(value, dtype)
        if is_first_lane(mask):  # LLVM 22 stores more than that of elements that it truncates
            stored, mask = self.b.extract_element(stored, ir.Constant(I32, 0)), None
        lanes = stored.type.count if is_vector(stored) else 1
        pointer = self.checks.together(buffer, pointer, dtype.bytes, lanes, mask)
        if mask is None:
            self.b.store(stored, pointer, align=dtype.bytes)
        else:
            name = f"llvm.masked.store.{intrinsic_suffix(stored.type)}.p0"
            self.call(name, VOID, [stored, pointer, mask])

    def scatter(
        self,
        value: ir.Value,
        pointers: ir.Value,
        dtype: DType,
        mask: ir.Value | None,
        buffer: str = "",
    ) -> None:
        """Store one element per lane to a vector of addresses in a buffer."""
        stored = self._to_memory(value, dtype)
        pointers = self.checks.apart(buffer, pointers, dtype.bytes, mask)
        lanes = pointers.type.count
        live = mask if mask is not None else self.constant(1, ir.VectorType(I1, lanes))
        name = f"llvm.masked.scatter.{intrinsic_suffix(stored.type)}.v{lanes}p0"
        self.call(name, VOID, [stored, pointers, live])

    def _from_memory(self, value: ir.Value, dtype: DType) -> ir.Value:
        if dtype is not DType.BOOL:
            return value
        return self.b.icmp_unsigned("!=", value, self.constant(0, value.type))

    def _to_memory(self, value: ir.Value, dtype: DType) -> ir.Value:
        return self.b.zext(value, shaped(I8, value)) if dtype is DType.BOOL else value

    def local(self, type_: ir.Type, count: int = 1, align: int = 64) -> ir.Value:
        """Stack memory, reserved once in the function's entry block."""
        with self.b.goto_block(self.entry):
            if self.entry.is_terminated:
                self.b.position_before(self.entry.terminator)
            slot = self.b.alloca(type_, size=ir.Constant(I64, count))
            slot.align = align
            slot.type = POINTER  # llvmlite gives it a typed pointer
        return slot

    # control flow --------------------------------------------------------------------------

    def loop(
        self,
        start: Int,
        end: Int,
        step: int,
        carried: Sequence[ir.Value],
        body: Callable[[Int, list[ir.Value]], Sequence[ir.Value]],
        *,
        nonempty: bool = False,
    ) -> list[ir.Value]:
        """for i in range(start, end, step), carrying values; returns the last ones.

        A loop of no or one known step is not emitted as a loop. `nonempty` promises a step.
        """
        if isinstance(start, int) and isinstance(end, int):
            if end <= start:
                return list(carried)
            if end - start <= step:
                return list(body(start, list(carried)))
            nonempty = True
        header = self.b.block
        block = self.function.append_basic_block("loop")
        after = self.function.append_basic_block("after")
        if nonempty:
            self.b.branch(block)
        else:
            enter = self.b.icmp_signed("<", self.as_index(start), self.as_index(end))
            self.b.cbranch(enter, block, after)
        self.b.position_at_end(block)
        index = self.b.phi(self.index_type)
        index.add_incoming(self.as_index(start), header)
        phis = [self.b.phi(value.type) for value in carried]
        for phi, value in zip(phis, carried, strict=True):
            phi.add_incoming(value, header)
        results = list(body(index, list(phis)))
        following = self.b.add(index, self.as_index(step), flags=("nsw",))
        latch = self.b.block
        again = self.b.icmp_signed("<", following, self.as_index(end))
        self.b.cbranch(again, block, after)
        index.add_incoming(following, latch)
        for phi, value in zip(phis, results, strict=True):
            phi.add_incoming(value, latch)
        self.b.position_at_end(after)
        if nonempty:
            return results
        finals = []
        for first, last in zip(carried, results, strict=True):
            final = self.b.phi(first.type)
            final.add_incoming(first, header)
            final.add_incoming(last, latch)
            finals.append(final)
        return finals

    @contextmanager
    def when(self, condition: ir.Value) -> Any:
        """Emit the body so that it only runs where the scalar condition holds."""
        with self.b.if_then(condition):
            yield
