"""The types that a model declares for its inputs, and what the user pins of their shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from ....compiler.errors import InvalidModelError, UsageError
from ....compiler.ir import Dim, TensorType, symbol
from ....compiler.ir.dims import substitute, symbols_of
from ..emitter import GraphEmitter
from .tensors import UnsupportedType, dtype_of

UNKNOWN = "?"  # a dim that the caller leaves open, whatever is declared
_NO_NAMES = ("none", "null", "unknown")


def dim_range(text: str) -> tuple[int, int] | None:
    """The limits that "least..most" stands for, None for other texts."""
    low, dots, high = text.partition("..")
    return (int(low), int(high)) if dots and low.isdigit() and high.isdigit() else None


def declared_size(dim: onnx.TensorShapeProto.Dimension | None) -> int | None:
    """The size that a dimension is declared with; None where it is not known (-1 says so, too)."""
    if dim is None or not dim.HasField("dim_value") or dim.dim_value < 0:
        return None
    return int(dim.dim_value)


def contradiction(info: onnx.ValueInfoProto, kind: TensorType) -> str:
    """What is wrong with the declared shape of a value of a type; "" where nothing is.

    ONNX Runtime goes by what operators give, and so does the importer: declared shapes of anything
    but inputs are hints, often of another batch size or of an earlier state of the model.
    """
    tensor = info.type.tensor_type
    if info.type.WhichOneof("value") != "tensor_type" or not tensor.HasField("shape"):
        return ""
    declared = [declared_size(dim) for dim in tensor.shape.dim]
    pairs = zip(kind.shape, declared, strict=False)
    fits = all(not size or not isinstance(dim, int) or dim == size for dim, size in pairs)
    if fits and len(declared) == kind.rank:
        return ""
    text = ", ".join(d.dim_param or str(d.dim_value or "?") for d in tensor.shape.dim)
    return f"'{info.name[:80]}' is {kind}, and not [{text[:80]}]"


def declared_ranks(proto: onnx.GraphProto) -> dict[str, int]:
    """How many dimensions a graph declares for its results and inner values, where it does."""
    tensors = ((i.name, i.type.tensor_type) for i in (*proto.value_info, *proto.output))
    return {name: len(tensor.shape.dim) for name, tensor in tensors if tensor.HasField("shape")}


def check_element_type(info: onnx.ValueInfoProto, kind: TensorType) -> None:
    """Raise InvalidModelError where an output is declared with another element type."""
    tensor = info.type.tensor_type
    if info.type.WhichOneof("value") != "tensor_type" or not tensor.elem_type:
        return
    if dtype_of(tensor.elem_type) is not kind.dtype:
        raise InvalidModelError(f"output '{info.name}' is {kind}, not what the model declares")


class DeclaredTypes:
    """Makes the types of inputs; `bounds` has the limits of their symbols.

    least: what symbols are at least: one is written as that number plus a symbol of its own, so
    that the form of an expression tells more. excess: what those symbols stand for.
    """

    def __init__(self, emitter: GraphEmitter, least: Mapping[str, int]) -> None:
        self.emitter = emitter
        self.bounds: dict[str, tuple[int, int]] = {}
        self.excess: dict[str, Dim] = {}
        self._least = least
        self._raised: dict[str, Dim] = {}

    def type_of(
        self, info: onnx.ValueInfoProto, pinned: Sequence[Dim | str] | None, last: str = ""
    ) -> TensorType:
        """The type of a graph or body input; dims are numbers or symbols.

        last: what the symbol of the last dim is called where nothing names it; "": as all others.
        Raises UnsupportedType for what is no tensor, and InvalidModelError for a malformed type.
        """
        which = info.type.WhichOneof("value")
        if which is None:
            raise InvalidModelError(f"input '{info.name}' has no type")
        if which != "tensor_type":
            raise UnsupportedType(f"a value of kind {which.removesuffix('_type')}")
        tensor = info.type.tensor_type
        dtype = dtype_of(tensor.elem_type)
        if pinned is None and not tensor.HasField("shape"):
            remedy = f"give its dimensions, as --shape {info.name}:?x?"
            raise UnsupportedType(f"an input of unknown rank ({remedy})")
        declared = list(tensor.shape.dim) if tensor.HasField("shape") else None
        if pinned is not None and declared is not None and len(declared) != len(pinned):
            raise InvalidModelError(
                f"shape {list(pinned)} for input '{info.name}' has the wrong rank",
                why=f"the model declares {len(declared)} dimensions",
            )
        dims: list[Dim] = []
        rank = len(pinned if pinned is not None else declared or ())
        for axis in range(rank):
            known = declared[axis] if declared is not None else None
            is_list = dtype.is_integer and len(declared or ()) == 1
            if known is not None and known.dim_value == 0 and not is_list and not known.dim_param:
                known = None
            wanted = pinned[axis] if pinned is not None else None
            stem = last if last and axis == rank - 1 else f"{info.name}_d{axis}"
            dims.append(self._dim(known, wanted, stem))
        return TensorType(dtype, tuple(map(self._written, dims)))

    def _written(self, dim: Dim) -> Dim:
        """The dim by what its symbols have above their least values."""
        for name in sorted(symbols_of(dim) & self._least.keys() - self._raised.keys()):
            above = self.emitter.unnamed_symbol(f"{name}_above")
            self._raised[name] = above + self._least[name]
            self.excess[str(above)] = symbol(name) - self._least[name]
        return substitute(dim, self._raised)

    def type_with_default(
        self,
        info: onnx.ValueInfoProto,
        pinned: Sequence[Dim | str] | None,
        default: TensorType,
        last: str = "",
    ) -> TensorType:
        """The type of an input that has a default value of the given type.

        A dim that is declared as a symbol is one of its own: the default has one size, whatever
        other inputs have. A declared shape that is not the default's counts for nothing. Raises
        InvalidModelError where element types differ, UsageError where what is pinned does.
        """
        tensor = info.type.tensor_type
        if dtype_of(tensor.elem_type) is not default.dtype:
            raise InvalidModelError(f"input '{info.name}' has a default of type {default.dtype}")
        if pinned is None:
            if not tensor.HasField("shape") or contradiction(info, default):
                return default
            sizes = zip(map(declared_size, tensor.shape.dim), default.shape, strict=True)
            pinned = [UNKNOWN if size != own else own for size, own in sizes]
        found = self.type_of(info, pinned, last)
        pairs = zip(found.shape, default.shape, strict=False)
        wrong = any(isinstance(dim, int) and dim != size for dim, size in pairs)
        if wrong or found.rank != default.rank:
            raise UsageError(
                f"--shape makes input '{info.name}' {found}", why=f"its default is {default}"
            )
        return found

    def _dim(
        self, declared: onnx.TensorShapeProto.Dimension | None, wanted: Dim | str | None, stem: str
    ) -> Dim:
        """What is wanted, or else declared, or else a symbol called `stem`."""
        if wanted == UNKNOWN:
            return self.emitter.unnamed_symbol(stem)
        limits = dim_range(wanted) if isinstance(wanted, str) else None
        if wanted is not None and limits is None:
            return self.emitter.name_symbol(wanted) if isinstance(wanted, str) else wanted
        size = declared_size(declared)
        if size is not None:
            if limits is not None and not limits[0] <= size <= limits[1]:
                raise _empty(stem, limits, f"the model says {size}")
            return size
        name = declared.dim_param.strip() if declared is not None else ""
        is_named = any(map(str.isalpha, name)) and name.lower() not in _NO_NAMES
        dim = self.emitter.name_symbol(name) if is_named else self.emitter.unnamed_symbol(stem)
        if limits is not None:
            self._limit(str(dim), limits, stem)
        return dim

    def _limit(self, symbol: str, limits: tuple[int, int], stem: str) -> None:
        """Note limits of a symbol; where it has some already, both hold."""
        before = self.bounds.get(symbol, limits)
        low, high = max(limits[0], before[0]), min(limits[1], before[1])
        if low > high:
            raise _empty(stem, limits, f"'{symbol}' is also to be within {before[0]}..{before[1]}")
        self.bounds[symbol] = (low, high)


def _empty(stem: str, limits: tuple[int, int], why: str) -> InvalidModelError:
    remedy = "correct --shape"
    return InvalidModelError(
        f"no size of {stem} is within {limits[0]}..{limits[1]}", why=why, remedy=remedy
    )
