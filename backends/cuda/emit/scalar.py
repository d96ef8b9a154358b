"""Pointwise core operators as Triton expressions, alike for tensors of any shape.

Functions of CUDA's libdevice compute what has no instruction of full accuracy; quotients and roots
of f32 are rounded once (`div_rn`, `sqrt_rn`).
"""

from __future__ import annotations

from collections.abc import Sequence

from ....compiler.ir.ops.packed import DIGITS
from ....compiler.ir.types import DType
from .types import FLOAT_BYTES, HALVES, NoDeviceCode, literal, register_type

COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_BITS = {"and": "&", "or": "|", "xor": "^", "bitand": "&", "bitor": "|", "bitxor": "^"}
_LIBDEVICE = frozenset(
    {"exp", "log", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh"}
    | {"acosh", "atanh", "erf"}
)
# bits of the mantissa, bias, largest finite code, what overflow and NaN become (OCP OFP8 1.0)
_EIGHT_BITS = {
    DType.F8E4M3FN: "3, 7, 0x7E, 0x7F, 0x7F",
    DType.F8E5M2: "2, 15, 0x7B, 0x7C, 0x7E",
}
_PLAIN = {"floor": "tl.floor", "ceil": "tl.ceil", "abs": "tl.abs", "round": "libdevice.rint"}


def apply(op: str, args: Sequence[str], kinds: Sequence[DType], dtype: DType) -> str:
    """The value of an operator on expressions of element types `kinds`.

    Half-precision floats are computed in f32 and rounded. Raises NoDeviceCode for an operator
    without an emission.
    """
    if op == "cast":
        return cast(args[0], kinds[0], dtype)
    if op == "bitcast":
        return f"{args[0]}.to({register_type(dtype)}, bitcast=True)"
    if op == "where":
        return f"tl.where({', '.join(args)})"
    kind = kinds[0]
    if kind in HALVES:
        wide = [cast(arg, kind, DType.F32) for arg in args]
        result = DType.F32 if dtype is kind else dtype
        return cast(f"({apply(op, wide, [DType.F32] * len(args), result)})", result, dtype)
    if op in COMPARISONS:
        return f"{args[0]} {COMPARISONS[op]} {args[1]}"
    if op in ("at_least", "at_most"):
        sign = ">" if op == "at_least" else "<"
        return f"tl.where({args[0]} {sign} {args[1]}, {args[0]}, {args[1]})"
    if op in _BITS:
        return f"{args[0]} {_BITS[op]} {args[1]}"
    if op in DIGITS:
        return f"ts_digit({args[0]}, {args[1]}, {DIGITS[op]})"
    if op in ("dot4", "sdot4", "wdot2"):
        return f"ts_{op}({args[0]}, {args[1]})"
    if kind.is_float:
        return _float(op, args, kind)
    return _integer(op, args, kind)


def _float(op: str, args: Sequence[str], kind: DType) -> str:
    x = args[0]
    single = kind is DType.F32
    if op in ("add", "sub", "mul"):
        return f"{x} {dict(add='+', sub='-', mul='*')[op]} {args[1]}"
    if op in ("div", "quotient"):
        return f"tl.div_rn({x}, {args[1]})" if single else f"{x} / {args[1]}"
    if op in ("max", "min"):
        return f"tl.{op}imum({x}, {args[1]}, propagate_nan=tl.PropagateNan.ALL)"
    if op in _PLAIN:
        return f"{_PLAIN[op]}({x})"
    if op in _LIBDEVICE:
        return f"libdevice.{op}({x})"
    if op in ("pow", "fmod"):
        return f"libdevice.{op}({x}, {args[1]})"
    forms = {
        "neg": f"-{x}",
        "sqrt": f"tl.sqrt_rn({x})" if single else f"tl.sqrt({x})",
        "isnan": f"{x} != {x}",
        "isinf": f'tl.abs({x}) == float("inf")',
        "fma": f"tl.fma({', '.join(args)})",
        "rint": _to_integer(f"libdevice.rint({x})", DType.I32),
        "sign": f"ts_sign({x})",
    }
    if op in forms:
        return forms[op]
    if op == "sigmoid":
        one = literal(1, kind)
        return _float("div", (one, f"({one} + libdevice.exp(-{x}))"), kind)
    if op == "mod":
        return f"ts_float_mod({x}, {args[1]}, libdevice.fmod({x}, {args[1]}))"
    raise NoDeviceCode(f"the operator '{op}' on floats has no device code")


def _integer(op: str, args: Sequence[str], kind: DType) -> str:
    x = args[0]
    if op in ("add", "sub", "mul"):
        return f"{x} {dict(add='+', sub='-', mul='*')[op]} {args[1]}"
    if op in ("max", "min"):
        return f"tl.{op}imum({x}, {args[1]})"
    if op in ("not", "bitnot"):
        return f"{x} == 0" if kind is DType.BOOL else f"~{x}"
    zero = literal(0, kind)
    if op == "neg":
        return f"{zero} - {x}"
    if op == "abs":
        return f"tl.where({x} < 0, {zero} - {x}, {x})" if kind.is_signed else x
    if op == "sign":
        return f"ts_sign({x})"
    signed, bits = kind.is_signed, kind.bits
    if op in ("shl", "shr"):
        return f"ts_{op}({x}, {args[1]}, {bits}, {signed})"
    if op in ("div", "mod", "fmod"):
        return f"ts_integer_{op}({x}, {args[1]}, {signed})"
    if op == "pow":
        return f"ts_integer_pow({x}, {args[1]}, {bits}, {signed})"
    raise NoDeviceCode(f"the operator '{op}' on {kind} has no device code")


def cast(x: str, source: DType, target: DType) -> str:
    """Convert elements: to bool is `!= 0`; float to integer as `llvm/emit/scalar.py` has it."""
    if source is target:
        return x
    if target is DType.BOOL:
        return f"({x} != 0)"
    if source in FLOAT_BYTES:
        name = source.value.removesuffix("fn")
        return cast(f"ts_of_{name}({x})", DType.F16, target)
    if target in FLOAT_BYTES:
        wide = x if source is DType.F32 else cast(x, source, DType.F32)
        return f"ts_to_f8({wide}, {_EIGHT_BITS[target]})"
    if source in HALVES and target is not DType.F32:
        return cast(cast(x, source, DType.F32), DType.F32, target)
    if target in HALVES and source is not DType.F32:
        return cast(cast(x, source, DType.F32), DType.F32, target)
    if source.is_float and not target.is_float:
        return _to_integer(x, target)
    register_type(source)
    return f"({x}).to({register_type(target)})"


def _to_integer(x: str, target: DType) -> str:
    """Towards zero; what does not fit as conversions of x86 have it."""
    if target in (DType.U32, DType.U64):
        return (
            f"ts_to_unsigned({x}, tl.int{target.bits}, {target.bits}).to({register_type(target)})"
        )
    bits = max(32, target.bits)
    whole = f"ts_to_integer({x}, tl.int{bits}, {bits})"
    return whole if target.bits == bits else f"{whole}.to({register_type(target)})"
