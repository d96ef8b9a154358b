"""Where a plan may end early: callbacks that fail, sizes that do not fit, runs that are stopped."""

from __future__ import annotations

from collections.abc import Mapping

from llvmlite import ir

from ....compiler.ir.assumptions import ONE_OR_EQUAL
from ....compiler.ir.dims import Dim
from .access import float_value
from .builder import F64, I8, I32, POINTER, VOID, Emitter
from .indices import Int

MAX_BYTES = 1 << 46  # that a tensor or an arena may have: far from where an i64 overflows
RUNNING = 1  # of runtime/internal.h: a greater state asks for the end of the run


class Guards:
    """Emits checks into a plan function; what fails one goes to the block `failed`.

    stop, max_trips: those fields of the frame, once they are loaded.
    """

    stop: ir.Value
    max_trips: ir.Value

    def __init__(self, e: Emitter, frame: ir.Value, failed: ir.Block) -> None:
        self.e = e
        self.frame = frame
        self.failed = failed
        self._texts: dict[str, ir.Value] = {}
        self._stopped: dict[str, ir.Block] = {}

    def hold(self, condition: ir.Value, name: str = "", *arguments: ir.Value) -> None:
        """Leave the plan unless the condition holds, after a call of the runtime's function `name`
        (if any) with the frame and the arguments."""
        b, wrong = self.e.b, self.failed
        following = b.append_basic_block("next")
        if name:
            wrong = b.append_basic_block("wrong")
        b.cbranch(condition, following, wrong)
        if name:
            b.position_at_end(wrong)
            self.e.call(name, VOID, [self.frame, *arguments])
            b.branch(self.failed)
        b.position_at_end(following)

    def not_null(self, pointer: ir.Value) -> ir.Value:
        """The pointer; the runtime returns NULL after it recorded an error."""
        self.hold(self.e.b.icmp_unsigned("!=", pointer, ir.Constant(POINTER, None)))
        return pointer

    def succeeds(self, name: str, *arguments: ir.Value) -> None:
        """Call a function of the runtime with the frame and the arguments; it returns 0, or another
        number after it recorded an error."""
        status = self.e.call(name, I32, [self.frame, *arguments])
        self.hold(self.e.b.icmp_signed("==", status, ir.Constant(I32, 0)))

    def require(self, relation: str, left: Int, right: Int, text: str) -> None:
        """End the run with an error that says `text` unless `left relation right`."""
        e, a, b = self.e, self.e.as_index(left), self.e.as_index(right)
        holds = e.b.icmp_signed("==" if relation == ONE_OR_EQUAL else relation, a, b)
        if relation == ONE_OR_EQUAL:
            holds = e.b.or_(holds, e.b.icmp_signed("==", a, e.as_index(1)))
        self.hold(holds, "ts_rt_refuse", self.text(text), a, b)

    def fits(self, size: Dim, env: Mapping[str, Int], text: str = "") -> None:
        """End the run if so many bytes or elements are asked for that a number may overflow.

        text: what asks for them.
        """
        if isinstance(size, int):
            return
        about = float_value(self.e, size, env)
        limit = ir.Constant(F64, float(MAX_BYTES))
        self.hold(self.e.b.fcmp_ordered("<=", about, limit), "ts_rt_oversize", self.text(text))

    def proceed(self, rounds: ir.Value | None = None, text: str = "") -> None:
        """End the run if it was cancelled, or if a loop has had `rounds`, as many as it may."""
        b = self.e.b
        state = b.load_atomic(self.stop, "monotonic", 4, typ=I32)
        going = b.icmp_signed("<=", state, ir.Constant(I32, RUNNING))
        if rounds is not None:
            going = b.and_(going, b.icmp_signed("<", rounds, self.max_trips))
        following = b.append_basic_block("next")
        b.cbranch(going, following, self._stop(text))
        b.position_at_end(following)

    def _stop(self, text: str) -> ir.Block:
        """Where the run ends that was cancelled, or whose loop of the name `text` went on."""
        if text not in self._stopped:
            self._stopped[text] = self.e.b.append_basic_block("stopped")
            with self.e.b.goto_block(self._stopped[text]):
                self.e.call("ts_rt_stop", VOID, [self.frame, self.text(text)])
                self.e.b.branch(self.failed)
        return self._stopped[text]

    def text(self, text: str) -> ir.Value:
        """The address of a constant C string."""
        if text not in self._texts:
            data = bytearray(text.encode() + b"\0")
            kind = ir.ArrayType(I8, len(data))
            constant = ir.GlobalVariable(self.e.module, kind, f"text_{len(self._texts)}")
            constant.initializer = ir.Constant(kind, data)
            constant.linkage, constant.global_constant = "internal", True
            constant.type = POINTER  # llvmlite gives it a typed pointer
            self._texts[text] = constant
        return self._texts[text]
