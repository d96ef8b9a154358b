"""The types that a model declares for its inputs, and what the user pins of their shapes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from ...compiler.errors import InvalidModelError
from ...compiler.ir import Dim, TensorType
from .emitter import Emitter
from .tensors import UnsupportedType, dtype_of


def dim_range(text: str) -> tuple[int, int] | None:
    """The limits that "least..most" stands for, None for other texts."""
    low, dots, high = text.partition("..")
    return (int(low), int(high)) if dots and low.isdigit() and high.isdigit() else None


class DeclaredTypes:
    """Makes the types of inputs; `bounds` has the limits of their symbols."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        self.bounds: dict[str, tuple[int, int]] = {}

    def type_of(self, info: onnx.ValueInfoProto, pinned: Sequence[Dim | str] | None) -> TensorType:
        """The type of a graph or body input; dims are numbers or symbols.

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
            raise UnsupportedType("an input of unknown rank (pin its shape)")
        declared = list(tensor.shape.dim) if tensor.HasField("shape") else None
        if pinned is not None and declared is not None and len(declared) != len(pinned):
            raise InvalidModelError(
                f"shape {list(pinned)} for input '{info.name}' has the wrong rank",
                why=f"the model declares {len(declared)} dimensions",
            )
        dims: list[Dim] = []
        for axis in range(len(pinned if pinned is not None else declared or ())):
            known = declared[axis] if declared is not None else None
            wanted = pinned[axis] if pinned is not None else None
            dims.append(self._dim(known, wanted, f"{info.name}_d{axis}"))
        return TensorType(dtype, tuple(dims))

    def _dim(
        self, declared: onnx.TensorShapeProto.Dimension | None, wanted: Dim | str | None, stem: str
    ) -> Dim:
        """What is wanted, or else declared, or else a symbol called `stem`."""
        limits = dim_range(wanted) if isinstance(wanted, str) else None
        if wanted is not None and limits is None:
            return self.emitter.name_symbol(wanted) if isinstance(wanted, str) else wanted
        which = declared.WhichOneof("value") if declared is not None else None
        if declared is not None and which == "dim_value":
            size = int(declared.dim_value)
            if limits is not None and not limits[0] <= size <= limits[1]:
                raise _empty(stem, limits, f"the model says {size}")
            return size
        name = declared.dim_param if declared is not None and which == "dim_param" else ""
        dim = self.emitter.name_symbol(name or stem)
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
