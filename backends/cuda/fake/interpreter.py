"""Generated functions run by Triton's interpreter, in numpy, on memory of this process.

The interpreter is chosen when Triton is first imported, for the whole process.
"""

from __future__ import annotations

import importlib.util
import math
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ....compiler.errors import InternalError
from ....compiler.knobs import set_for_libraries
from .program_groups import aligned, mend_groups, run_programs

MOST_EXACT_BYTES = 1024  # products of signed bytes that f32 add up exactly
GROUP_ELEMENTS = 1 << 17  # of the blocks of programs that are interpreted together
_LENGTHS = re.compile(r"tl\.arange\(0, (\d+)\)(\S*)")


@cache
def _interpreter() -> Any:
    """Triton's interpreter, mended. Raises InternalError where Triton is here to compile."""
    if "triton" in sys.modules and not sys.modules["triton"].knobs.runtime.interpret:
        raise InternalError("Triton was imported to compile: it cannot interpret in this process")
    set_for_libraries(TRITON_INTERPRET="1")
    from triton.runtime import interpreter

    _mend_products(interpreter)
    _mend_bfloat_rounding(interpreter)
    _mend_overflow_checks()
    _mend_nested_calls(interpreter)
    mend_groups(interpreter)
    return interpreter


def _mend_products(interpreter: Any) -> None:
    """Have `tl.dot` multiply as tensor cores do.

    Of bf16 it takes the bits for integers (triton#11584), and does not round f32 to tf32, of which
    tensor cores ignore the last 13 bits. Bytes are multiplied as f32, which is exact for as few.
    """
    import triton.language as tl

    builder = interpreter.InterpreterBuilder
    given = builder.create_dot
    tf32 = interpreter._ir.INPUT_PRECISION.TF32

    def wide(operand: Any, precision: Any) -> Any:
        kind, data = operand.dtype.scalar, operand.data
        if kind == tl.bfloat16:
            bits = data.astype(np.uint32) << np.uint32(16)
        elif kind == tl.float32 and precision == tf32:
            bits = data.view(np.uint32) & np.uint32(0xFFFFE000)
        else:
            return operand
        return interpreter.TensorHandle(bits.view(np.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, d: Any, precision: Any, *rest: Any) -> Any:
        if a.dtype.scalar == tl.int8 and a.data.shape[-1] <= MOST_EXACT_BYTES:
            total = np.matmul(a.data.astype(np.float32), b.data.astype(np.float32))
            return interpreter.TensorHandle(total.astype(np.int32) + d.data, d.dtype.scalar)
        return given(self, wide(a, precision), wide(b, precision), d, precision, *rest)

    builder.create_dot = create_dot


def _mend_bfloat_rounding(interpreter: Any) -> None:
    """Have f32 rounded to the nearest bf16, as a GPU does it: the interpreter cuts bits off."""
    import ml_dtypes
    import triton.language as tl

    builder = interpreter.InterpreterBuilder
    given = builder.cast_impl

    def cast_impl(self: Any, source: Any, target: Any) -> Any:
        if (source.dtype.scalar, target.scalar) != (tl.float32, tl.bfloat16):
            return given(self, source, target)
        rounded = source.data.astype(ml_dtypes.bfloat16).view(np.uint16)
        return interpreter.TensorHandle(rounded, tl.bfloat16)

    builder.cast_impl = cast_impl


def _mend_overflow_checks() -> None:
    """Have sums and products of integers checked for overflow only where somebody is told of it.

    The semantics compute every check, and drop its result unless `debug` is on (measured: 60 % of
    the time of a matrix product).
    """
    from triton.language.semantic import TritonSemantic

    given = TritonSemantic.binary_op_sanitize_overflow_impl

    def check(self: Any, left: Any, right: Any, function: Callable[..., Any]) -> None:
        if self.builder.options.debug:
            given(self, left, right, function)

    TritonSemantic.binary_op_sanitize_overflow_impl = check


def _mend_nested_calls(interpreter: Any) -> None:
    """Have the language changed once for functions that kernels call, not in every call.

    A launch changes `triton.language` until it ends. `tl.sum` and others of Triton's own, which
    kernels call, see modules of it that a launch does not change: the first call does, for good.
    """
    import triton.language as tl

    function = interpreter.InterpretedFunction
    given = function.__call__
    changed: set[str] = set()

    def call(self: Any, *arguments: Any, **more: Any) -> Any:
        module = self.fn.__module__
        if module.startswith(tl.__name__) and module not in changed:
            changed.add(module)
            return given(self, *arguments, **more)
        try:
            return self.rewrite()(*arguments, **more)
        except Exception as error:
            raise interpreter.InterpreterError(repr(error)) from error

    function.__call__ = call


def _elementwise(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of numpy as one of tensors, each result rounded to the operands' type."""

    def apply(*operands: Any) -> Any:
        import triton.language as tl

        interpreter = _interpreter()
        arrays = aligned([operand.handle.data for operand in operands])
        dtype = arrays[0].dtype
        with np.errstate(all="ignore"):
            found = np.asarray(function(*(array.astype(np.float64) for array in arrays)))
        first = max(operands, key=lambda operand: (len(operand.shape), operand.handle.data.size))
        scalar = operands[0].type.scalar
        handle = interpreter.TensorHandle(found.astype(dtype), scalar)
        return tl.tensor(handle, first.type)

    return apply


@cache
def _libdevice() -> SimpleNamespace:
    """The functions of libdevice that generated code calls."""
    erf = np.vectorize(math.erf, otypes=[np.float64])
    same = ("exp", "log", "sin", "cos", "tan", "sinh", "cosh", "tanh", "rint", "fmod")
    names = {name: getattr(np, name) for name in same}
    for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh"):
        names["a" + name] = getattr(np, "arc" + name)
    names |= {"erf": erf, "pow": np.power}
    return SimpleNamespace(**{name: _elementwise(f) for name, f in names.items()})


class Program:
    """A generated function, ready to run. signature: types of its arguments, pointers and i64."""

    def __init__(self, source: str, symbol: str, signature: Sequence[str]) -> None:
        _interpreter()
        self._folder = tempfile.TemporaryDirectory(prefix="tensmith-triton-")
        path = Path(self._folder.name, f"{symbol}.py")
        path.write_text(source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(f"tensmith_{symbol}", path)
        if spec is None or spec.loader is None:
            raise InternalError(f"the source of '{symbol}' cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.libdevice = _libdevice()  # type: ignore[attr-defined]
        self._function = getattr(module, symbol)
        self.signature = tuple(signature)
        lengths = sorted(int(length) for length, _ in set(_LENGTHS.findall(source)))
        self._together = max(1, GROUP_ELEMENTS // math.prod(lengths[-2:]))

    def run(self, programs: int, arguments: Sequence[int]) -> None:
        """Run so many programs, in groups. arguments: addresses and numbers."""
        import triton.language as tl

        handle = _interpreter().TensorHandle
        given = []
        for kind, value in zip(self.signature, arguments, strict=True):
            type_ = tl.str_to_ty(kind, None)
            array = np.array([value], np.uint64 if kind.startswith("*") else np.int64)
            given.append(tl.tensor(handle(array, type_), type_))
        with np.errstate(all="ignore"):
            named = dict(zip(self._function.arg_names, given, strict=True))
            run_programs(_interpreter(), self._function, programs, named, self._together)
