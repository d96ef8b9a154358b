"""From a kernel to the text of a function that a device runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ....compiler.ir.dims import Dim, Symbol, terms_of
from ....compiler.kernel import expr as ex
from ....compiler.kernel.expr import Buffer
from ....compiler.kernel.kernel import Kernel
from ....compiler.kernel.schedule.tiles import Kind, Tiles
from ..attention_kernel import attention_of
from .attention import attention_parts, emit_attention
from .attention_parts import emit_combined
from .normalised_row import emit_row_blocks
from .points import emit_points
from .preamble import with_preamble
from .product import emit_product, product_split
from .rows import row_split
from .split import TOTAL, WORKSPACE, Division, emit_total
from .tensor_maps import SCRATCH
from .text import Lines
from .types import HALVES, pointer_type
from .values import in_64_bits, sizes_of

MULTIPLE = 16  # elements, of strides that let threads load 16 bytes at once
_ALONG = (Kind.POINTS, Kind.ROWS)  # whose threads go along the last axes
_PARAMETER = re.compile(r"\bp\d+\b")
_EMITTERS = {
    Kind.POINTS: emit_points,
    Kind.ROWS: emit_row_blocks,
    Kind.PRODUCT: emit_product,
    Kind.ATTENTION: emit_attention,
}


@dataclass(frozen=True)
class Function:
    """A function in Triton's language.

    source: a module that defines it. params: numbers of the kernel's parameters that it takes, as
    pointers; symbols: of the kernel's, as i64. signature: types of both, in order. aligned: which
    of the pointers are known to be multiples of 16. programs: how many run, in the kernel's
    symbols. exact: whether products and sums are rounded one by one. workspace: bytes of memory
    that the functions of a call share, whose pointer is behind those of the parameters; scratch: so
    many of each program are Triton's own, and the code takes the pointer where it wants it. part:
    the name of what it computes of a kernel, as others do for other architectures, place: its
    number among the parts. alternative: of those that compute it in several ways, of which a GPU
    runs the fastest. architectures: for which it is compiled; none: for all of the target.
    """

    symbol: str
    source: str
    params: tuple[int, ...]
    symbols: tuple[str, ...]
    signature: tuple[str, ...]
    aligned: tuple[bool, ...]
    programs: Dim
    tiles: Tiles
    exact: bool
    workspace: int = 0
    scratch: int = 0
    part: str = ""
    place: int = 0
    alternative: int = 0
    architectures: tuple[int, ...] = ()


def parts_of(kernel: Kernel) -> tuple[Kernel, ...]:
    """What of a kernel functions of their own compute: stages that share nothing are apart, but
    where they may run at the same time."""
    apart = not kernel.shared and all(b.local is None for b in _buffers(kernel))
    if len(kernel.stages) == 1 or not apart or kernel.together:
        return (kernel,)
    return tuple(replace(kernel, stages=(stage,)) for stage in kernel.stages)


def functions_of(
    kernel: Kernel,
    tiles: Sequence[Tiles],
    aligned: frozenset[int] = frozenset(),
    index: str = "tl.int32",
) -> tuple[tuple[Function, ...], ...]:
    """What runs one behind the other for a call of a kernel: functions of each of its parts.

    tiles: of each part. aligned: numbers of the parameters that every call gives memory at
    a multiple of 16 bytes. index: the type that offsets fit.
    Raises NoDeviceCode for a kernel that no code can be generated for.
    """
    parts = parts_of(kernel)
    names = [f"{kernel.name}_{n}" if len(parts) > 1 else kernel.name for n in range(len(parts))]
    return tuple(
        _functions(part, own, name, aligned, index)
        for part, own, name in zip(parts, tiles, names, strict=True)
    )


def _functions(
    kernel: Kernel, tiles: Tiles, symbol: str, aligned: frozenset[int], index: str
) -> tuple[Function, ...]:
    parts, second = _divided(kernel, tiles)
    make = _Maker(kernel, aligned, index, parts)
    first = make.function(symbol, tiles, partial(_EMITTERS[tiles.kind], kernel=kernel, tiles=tiles))
    if second is None:
        return (first,)
    return first, make.function(f"{symbol}_total", TOTAL, second)


def _divided(kernel: Kernel, tiles: Tiles) -> tuple[Division | None, Callable[..., Dim] | None]:
    """How the work of programs is divided, and what emits the function that puts it together."""
    if tiles.kind is Kind.PRODUCT:
        split = product_split(kernel.stages[-1], tiles)
        return split, partial(emit_total, split=split) if split is not None else None
    if tiles.kind is Kind.ROWS and (split := row_split(kernel, tiles)) is not None:
        return split, partial(emit_total, split=split)
    attention = attention_of(kernel) if tiles.kind is Kind.ATTENTION else None
    parts = attention_parts(attention, tiles) if attention else None
    if attention is None or parts is None:
        return None, None
    halves = attention.dots[1].elements in HALVES
    return parts, partial(emit_combined, kernel=kernel, found=parts, halves=halves)


@dataclass(frozen=True)
class _Maker:
    """Makes the functions of a part of a kernel. aligned, index: as of `functions_of`."""

    kernel: Kernel
    aligned: frozenset[int]
    index: str
    parts: Division | None

    def function(self, symbol: str, tiles: Tiles, emit: Callable[..., Dim]) -> Function:
        """The function whose body `emit` adds to lines."""
        params = self.kernel.params
        symbols = self.kernel.symbols
        names = {name: f"s{number}" for number, name in enumerate(symbols)}
        pointers = {buffer.name: (f"p{n}", buffer.dtype) for n, buffer in enumerate(params)}
        if self.parts is not None:
            pointers[WORKSPACE] = "parts", self.parts.dtype
        lines = Lines()
        if self.index == "tl.int32":
            for name in dict.fromkeys(_numbers(self.kernel)):
                lines.add(f"{in_64_bits(names[name])} = {names[name]}")
            for name in names.values():
                lines.add(f"{name} = {name}.to({self.index})")
        emit = partial(emit, lines, index=self.index, pointers=pointers, names=names)
        programs = self._emitted(lines, emit, names, tiles)
        named = set(_PARAMETER.findall(str(lines)))
        taken = [n for n in range(len(params)) if f"p{n}" in named]
        scratch = SCRATCH if tiles.maps else 0
        workspace = self.parts.bytes if self.parts is not None else scratch * tiles.programs
        shared = [(WORKSPACE, self.parts.dtype)] if self.parts is not None else []
        types = [*(params[n].dtype for n in taken), *(dtype for _, dtype in shared)]
        arguments = [*(f"p{n}" for n in taken), *("parts" for _ in shared), *names.values()]
        return Function(
            symbol=symbol,
            source=with_preamble(f"@triton.jit\ndef {symbol}({', '.join(arguments)}):\n{lines}"),
            params=tuple(taken),
            symbols=symbols,
            signature=(*map(pointer_type, types), *("i64" for _ in names)),
            aligned=(*(number in self.aligned for number in taken), *(True for _ in shared)),
            programs=programs,
            tiles=tiles,
            exact=_is_exact(self.kernel),
            workspace=workspace,
            scratch=scratch,
        )

    def _emitted(
        self, lines: Lines, emit: Callable[[], Dim], names: Mapping[str, str], tiles: Tiles
    ) -> Dim:
        """Emit the body, and apart for strides and ends that are multiples of 16."""
        found = {*_strides(self.kernel), *(_ends(self.kernel) if tiles.kind in _ALONG else ())}
        strides = [names[name] for name in sorted(found)]
        if not strides:
            return emit()
        whole = " and ".join(f"{name} % {MULTIPLE} == 0" for name in strides)
        with lines.block(f"if {whole}:"):
            for name in strides:
                lines.add(f"{name} = {name} // {MULTIPLE} * {MULTIPLE}")
            emit()
        with lines.block("else:"):
            return emit()


def _numbers(kernel: Kernel) -> Iterator[str]:
    """Symbols of sizes that elements are computed from, or whether there are any."""
    for stage in kernel.stages:
        bounds = [bound for store in stage.stores for bound in store.bounds]
        for expression in stage.expressions():
            for part in ex.unique_parts(expression):
                if isinstance(part, ex.IndexValue):
                    yield from sizes_of(part.index)
                if isinstance(part, ex.Guarded):
                    bounds += part.bounds
        for bound in bounds:
            for dim in (bound.index, bound.low, bound.high):
                yield from sizes_of(dim)


def _is_exact(kernel: Kernel) -> bool:
    """Whether products and sums are rounded one by one."""
    return any(
        isinstance(part, ex.Apply) and part.exact
        for stage in kernel.stages
        for expression in stage.expressions()
        for part in ex.unique_parts(expression)
    )


def _strides(kernel: Kernel) -> tuple[str, ...]:
    """Symbols by which rows of tensors are apart: where they are multiples of 16, which the code
    then knows, threads load 16 bytes at once."""
    found: dict[str, None] = {}
    for stage in kernel.stages:
        for dim in stage.all_indices():
            for monomial, factor in terms_of(dim):
                names = [atom.name for atom in monomial if isinstance(atom, Symbol)]
                known = [name for name in names if not name.startswith("$")]
                if len(known) < len(names) and factor % MULTIPLE:
                    found.update(dict.fromkeys(known))
    return tuple(found)


def _ends(kernel: Kernel) -> Iterator[str]:
    """Symbols that say where the last axes end, along which threads load neighbours: multiples of
    16 are masked 16 at a time."""
    for stage in kernel.stages:
        for axes in (stage.axes, stage.reduce_axes):
            for monomial, factor in terms_of(axes[-1].extent) if axes else ():
                if factor % MULTIPLE:
                    yield from (atom.name for atom in monomial if isinstance(atom, Symbol))


def _buffers(kernel: Kernel) -> Iterator[Buffer]:
    """Buffers that the stages read or write."""
    for stage in kernel.stages:
        for expression in stage.expressions():
            for part in ex.unique_parts(expression):
                if isinstance(part, ex.Load):
                    yield part.buffer
        for store in stage.stores:
            yield store.buffer
