"""Input shapes as users write them: `name:1x3x224x224` and `name:[1,3,224,224]`."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence, Set
from operator import index
from typing import SupportsIndex

from ..compiler.errors import UsageError

DimSpec = int | str
ShapeSpecs = Mapping[str, tuple[DimSpec, ...]]

NOTHING = "none"  # for all dims of an optional input that holds nothing
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_RANGE = re.compile(r"([0-9]{1,18})\.\.([0-9]{1,18})")
_REMEDY = (
    "write name:1x3x224x224 or name:[1,3,224,224]; [batch,3,224,224] makes a dim symbolic, "
    "[?,3,224,224] one of its own, [1..8,3,224,224] bounds a symbolic one"
)
_IN_PYTHON = "give a dict from input to dims: {'x': (1, 3, 'height', '?')}, or {'x': '1x3x?x?'}"


def parse_shape(text: str) -> tuple[str, tuple[DimSpec, ...]]:
    """`name:1x3x224x224`, `name:[1,3,224,224]` or `name:[batch,1..8]` -> (name, dims).

    A dim is a number, the name of a symbol, "?" for a symbol that no other dim shares, or
    "least..most" for one that stays symbolic; -1 is "?". A tensor name may hold colons; the last
    one separates. `name:[]` is a scalar, `name:none` an optional input that holds nothing.
    Raises UsageError for anything else.
    """
    name, separator, dims = text.rpartition(":")
    dims = dims.strip()
    if not separator:
        what = f"--shape {text!r} has no colon between a name and dimensions"
        raise UsageError(what, remedy=_REMEDY)
    if not name.strip():
        raise UsageError(f"--shape {text!r} has no input name", remedy=_REMEDY)
    if dims.startswith("[") and dims.endswith("]"):
        inside = dims[1:-1].strip()
        parts = inside.split(",") if inside else []
    elif dims:
        parts = dims.split("x")
    else:
        raise UsageError(f"--shape {text!r} has no dimensions", remedy=_REMEDY)
    return name.strip(), tuple(_parse_dim(part.strip(), text) for part in parts)


def _parse_dim(part: str, text: str) -> DimSpec:
    if part.isascii() and part.isdigit():
        return int(part)
    if part == "-1":
        return "?"
    if part == "?" or _NAME.fullmatch(part):
        return part
    found = _RANGE.fullmatch(part)
    if found is not None:
        if int(found[1]) > int(found[2]):
            raise UsageError(f"--shape {text!r}: the range {part} is empty", remedy=_REMEDY)
        return part
    raise UsageError(f"--shape {text!r}: {part!r} is not a dimension", remedy=_REMEDY)


def loosened(name: str, dims: Sequence[object], free: Container[int]) -> str:
    """What --shape takes to leave an input's dims as they are, but those on the axes `free`."""
    parts = []
    for axis, dim in enumerate(dims):
        named = isinstance(dim, int) or _NAME.fullmatch(str(dim))
        parts.append(str(dim) if named and axis not in free else "?")
    return f"{name}:[{','.join(parts)}]"


def shape_of(name: str, dims: Sequence[DimSpec] | str | None) -> tuple[DimSpec, ...]:
    """The dims of an input as the Python interface takes them: a sequence, or text of `--shape`.

    None and -1 in a sequence are "?"; None for all of them: an optional input that holds nothing.
    Raises UsageError for anything else.
    """
    if dims is None:
        return (NOTHING,)
    if isinstance(dims, str):
        return parse_shape(f"{name}:{dims}")[1]
    if not isinstance(dims, Iterable) or isinstance(dims, Mapping | Set):
        raise UsageError(f"the shape of '{name}' is {dims!r}", remedy=_IN_PYTHON)
    return tuple(_dim_of(name, dim) for dim in dims)


def _dim_of(name: str, dim: object) -> DimSpec:
    if isinstance(dim, str):
        is_name = any(map(str.isalpha, dim)) and ".." not in dim
        return dim if is_name else _parse_dim(dim.strip(), f"{name}:[{dim}]")
    size = -1 if dim is None else dim
    if isinstance(size, SupportsIndex) and not isinstance(size, bool):
        number = index(size)
        if number >= -1:
            return number if number >= 0 else "?"
    raise UsageError(f"the shape of '{name}' has the dimension {dim!r}", remedy=_IN_PYTHON)


def shapes_of(shapes: object) -> dict[str, tuple[DimSpec, ...]]:
    """Dims by input, as the Python interface takes them; None: none. Raises UsageError."""
    if shapes is not None and not isinstance(shapes, Mapping):
        raise UsageError(f"the shapes are a {type(shapes).__name__}", remedy=_IN_PYTHON)
    return {name: shape_of(name, dims) for name, dims in (shapes or {}).items()}


def parse_shapes(texts: Iterable[str]) -> dict[str, tuple[DimSpec, ...]]:
    """Several of them. Raises UsageError when an input is named twice."""
    shapes: dict[str, tuple[DimSpec, ...]] = {}
    for text in texts:
        name, dims = parse_shape(text)
        if name in shapes:
            raise UsageError(f"--shape names the input '{name}' twice")
        shapes[name] = dims
    return shapes
