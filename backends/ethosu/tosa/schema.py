"""What TOSA 1.0 calls its operators and types, and which attributes they have.

Source: "TOSA 1.0.0 specification" and its FlatBuffers schema, tosa.fbs. The attributes of an
operator are a table of their own, whose number in the union is that of the operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

VERSION = (1, 0, 0)
FILE_IDENTIFIER = b"TOSA"


class Op(IntEnum):
    """Operators."""

    ARGMAX = 1
    AVG_POOL2D = 2
    CONV2D = 3
    DEPTHWISE_CONV2D = 5
    MATMUL = 7
    MAX_POOL2D = 8
    TRANSPOSE_CONV2D = 10
    CLAMP = 11
    ADD = 15
    ARITHMETIC_RIGHT_SHIFT = 16
    BITWISE_AND = 17
    BITWISE_OR = 18
    BITWISE_XOR = 19
    INTDIV = 20
    LOGICAL_AND = 21
    LOGICAL_LEFT_SHIFT = 22
    LOGICAL_RIGHT_SHIFT = 23
    LOGICAL_OR = 24
    LOGICAL_XOR = 25
    MAXIMUM = 26
    MINIMUM = 27
    MUL = 28
    SUB = 30
    TABLE = 31
    ABS = 32
    BITWISE_NOT = 33
    CLZ = 35
    LOGICAL_NOT = 40
    NEGATE = 41
    SELECT = 45
    EQUAL = 46
    GREATER = 47
    GREATER_EQUAL = 48
    REDUCE_ALL = 49
    REDUCE_ANY = 50
    REDUCE_MAX = 51
    REDUCE_MIN = 52
    REDUCE_SUM = 54
    CONCAT = 55
    PAD = 56
    RESHAPE = 57
    REVERSE = 58
    SLICE = 59
    TILE = 60
    TRANSPOSE = 61
    GATHER = 62
    SCATTER = 63
    RESIZE = 64
    CAST = 65
    RESCALE = 66
    CONST = 67
    IDENTITY = 68
    CONST_SHAPE = 75


class ElementType(IntEnum):
    """Element types; SHAPE is that of a list of sizes."""

    BOOL = 1
    INT8 = 3
    INT16 = 4
    INT32 = 5
    INT48 = 6
    SHAPE = 10


class Rounding(IntEnum):
    """How RESCALE rounds: once, half up; or twice, as TFLite does."""

    SINGLE = 1
    DOUBLE = 3


NAN_PROPAGATE = 1  # of minima and maxima, where floats could be; the mode has to be given

# How a field is stored.
INTS, BYTES, INT, UINT, BOOL = "ints", "bytes", "int", "uint", "bool"


@dataclass(frozen=True)
class Field:
    """One attribute. value: where it is the same for every operator of the kind."""

    name: str
    kind: str
    value: Any = None


_NAN = Field("nan_mode", UINT, NAN_PROPAGATE)
_LOCAL_BOUND = Field("local_bound", BOOL, False)
_ACCUMULATE = Field("acc_type", UINT, ElementType.INT32)
_CONV = (
    Field("pad", INTS), Field("stride", INTS), Field("dilation", INTS), _LOCAL_BOUND, _ACCUMULATE,
)  # fmt: skip
_POOL = (Field("kernel", INTS), Field("stride", INTS), Field("pad", INTS))

FIELDS: dict[Op, tuple[Field, ...]] = {
    Op.ARGMAX: (Field("axis", INT), _NAN),
    Op.AVG_POOL2D: (*_POOL, _ACCUMULATE),
    Op.CONV2D: _CONV,
    Op.DEPTHWISE_CONV2D: _CONV,
    Op.MAX_POOL2D: (*_POOL, _NAN),
    Op.TRANSPOSE_CONV2D: (
        Field("out_pad", INTS), Field("stride", INTS), _LOCAL_BOUND, _ACCUMULATE,
    ),
    Op.CLAMP: (Field("min_val", BYTES), Field("max_val", BYTES), _NAN),
    Op.ARITHMETIC_RIGHT_SHIFT: (Field("round", BOOL),),
    Op.MAXIMUM: (_NAN,),
    Op.MINIMUM: (_NAN,),
    Op.REDUCE_ALL: (Field("axis", INT),),
    Op.REDUCE_ANY: (Field("axis", INT),),
    Op.REDUCE_MAX: (Field("axis", INT), _NAN),
    Op.REDUCE_MIN: (Field("axis", INT), _NAN),
    Op.REDUCE_SUM: (Field("axis", INT),),
    Op.CONCAT: (Field("axis", INT),),
    Op.REVERSE: (Field("axis", INT),),
    Op.RESIZE: (Field("mode", UINT),),
    Op.TRANSPOSE: (Field("perms", INTS),),
    Op.RESCALE: (
        Field("scale32", BOOL, True), Field("rounding_mode", UINT), Field("per_channel", BOOL),
        Field("input_unsigned", BOOL, False), Field("output_unsigned", BOOL, False),
    ),
}  # fmt: skip
