"""From a kernel to the text of a function that a device runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ....compiler.ir.dims import Dim, Symbol, terms_of
from ....compiler.kernel import expr as ex
from ....compiler.kernel.expr import Buffer
from ....compiler.kernel.kernel import Kernel
from ....compiler.kernel.schedule.tiles import Kind, Tiles
from .attention import emit_attention
from .points import emit_points
from .preamble import with_preamble
from .product import emit_product
from .rows import emit_rows
from .text import Lines
from .types import pointer_type

MULTIPLE = 16  # elements, of strides that let threads load 16 bytes at once
_EMITTERS = {
    Kind.POINTS: emit_points,
    Kind.ROWS: emit_rows,
    Kind.PRODUCT: emit_product,
    Kind.ATTENTION: emit_attention,
}


@dataclass(frozen=True)
class Function:
    """A function in Triton's language.

    source: a module that defines it. params: numbers of the kernel's parameters that it takes, as
    pointers; symbols: of the kernel's, as i64. signature: types of both, in order. aligned: which
    of the pointers are known to be multiples of 16. programs: how many run, in the kernel's
    symbols. exact: whether products and sums are rounded one by one.
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


def parts_of(kernel: Kernel) -> tuple[Kernel, ...]:
    """What of a kernel functions of their own compute: stages that share nothing are apart."""
    apart = not kernel.shared and all(b.local is None for b in _buffers(kernel))
    if len(kernel.stages) == 1 or not apart:
        return (kernel,)
    return tuple(replace(kernel, stages=(stage,)) for stage in kernel.stages)


def functions_of(
    kernel: Kernel,
    tiles: Sequence[Tiles],
    aligned: frozenset[int] = frozenset(),
    index: str = "tl.int32",
) -> tuple[Function, ...]:
    """What runs one behind the other for a call of a kernel.

    tiles: of each of its parts. aligned: numbers of the parameters that every call gives memory at
    a multiple of 16 bytes. index: the type that offsets fit.
    Raises NoDeviceCode for a kernel that no code can be generated for.
    """
    parts = parts_of(kernel)
    names = [f"{kernel.name}_{n}" if len(parts) > 1 else kernel.name for n in range(len(parts))]
    return tuple(
        _function(part, own, name, aligned, index)
        for part, own, name in zip(parts, tiles, names, strict=True)
    )


def _function(
    kernel: Kernel, tiles: Tiles, symbol: str, aligned: frozenset[int], index: str
) -> Function:
    used = {buffer.name for buffer in _buffers(kernel)}
    params = tuple(n for n, buffer in enumerate(kernel.params) if buffer.name in used)
    symbols = kernel.symbols
    names = {name: f"s{number}" for number, name in enumerate(symbols)}
    pointers = {kernel.params[n].name: (f"p{n}", kernel.params[n].dtype) for n in params}
    lines = Lines()
    for name in names.values():
        if index == "tl.int32":
            lines.add(f"{name} = {name}.to({index})")
    emit = partial(_EMITTERS[tiles.kind], lines, kernel, tiles, index, pointers, names)
    strides = [names[name] for name in _strides(kernel)] if tiles.kind is Kind.PRODUCT else []
    if strides:
        whole = " and ".join(f"{name} % {MULTIPLE} == 0" for name in strides)
        with lines.block(f"if {whole}:"):
            for name in strides:
                lines.add(f"{name} = {name} // {MULTIPLE} * {MULTIPLE}")
            emit()
        with lines.block("else:"):
            programs = emit()
    else:
        programs = emit()
    arguments = ", ".join((*(name for name, _ in pointers.values()), *names.values()))
    return Function(
        symbol=symbol,
        source=with_preamble(f"@triton.jit\ndef {symbol}({arguments}):\n{lines}"),
        params=params,
        symbols=symbols,
        signature=(
            *(pointer_type(kernel.params[n].dtype) for n in params),
            *("i64" for _ in names),
        ),
        aligned=tuple(number in aligned for number in params),
        programs=programs,
        tiles=tiles,
        exact=any(
            isinstance(part, ex.Apply) and part.exact
            for stage in kernel.stages
            for expression in stage.expressions()
            for part in ex.unique_parts(expression)
        ),
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


def _buffers(kernel: Kernel) -> Iterator[Buffer]:
    """Buffers that the stages read or write."""
    for stage in kernel.stages:
        for expression in stage.expressions():
            for part in ex.unique_parts(expression):
                if isinstance(part, ex.Load):
                    yield part.buffer
        for store in stage.stores:
            yield store.buffer
