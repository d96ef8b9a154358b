"""The transforms of Winograd's algorithm, made from interpolation points.

F(m, r) computes m outputs of an FIR filter with r taps by a = m + r - 1 products: values of two
polynomials at a points are multiplied, and the product is interpolated (S. Winograd, "Arithmetic
complexity of computations", 1980; for convolutions A. Lavin and S. Gray, arXiv:1509.09308). The
points are 0, pairs p and -p, and infinity: what a pair shares is computed once. Three points are
0, 1 and infinity. A filter with stride 2 is the sum of two with stride 1, of every second tap each,
that read every second input (D. Huang et al., "DWM: a decomposable Winograd method for convolution
acceleration", arXiv:2002.00552): of 3 taps, F(m, 2) and m products by the one in the middle.

Of whole numbers all is exact where the filter's values are multiplied by what makes them whole, and
so is what becomes of inputs and products: by 2 at the points 0, 1, -1 and infinity, by 24 at these,
2 and -2. Along each axis results are so many times what they should be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product as cartesian
from typing import Any

import numpy as np

from ...ir.dims import Dim, ceildiv
from ...ir.ops.step_groups import GROUP, GROUP_PRODUCTS
from ..expr import Apply, Const, Expr
from .step_groups import GroupRows

Line = Sequence[Expr]
Combine = Callable[[Line], list[Expr]]
Grid = np.ndarray[Any, Any]  # of expressions

PAIRS = (1.0, 2.0, 0.5)  # in the order in which they are taken; errors grow with their number
WORDS = GROUP_PRODUCTS["wdot2"]
MAX_POINTS = {1: 8, 2: 6}  # along an axis, by the number of axes: errors grow with both
# of a tile of 3 taps at stride 2; with 3 yolo-neck takes as long on one Zen 5 core, and 10 % longer
# to compile
STRIDED_OUTPUTS = (2,)
LARGEST = 255  # of bytes that words were, by size
LARGEST_WEIGHT = 128


@dataclass(frozen=True)
class Tiling:
    """How one spatial axis is cut: m outputs at a time of a filter with so many taps.

    dilation: between the taps, and so between the outputs of a tile. stride: between the inputs
    that neighbouring outputs begin with.
    """

    m: int
    taps: int
    dilation: int = 1
    stride: int = 1

    @property
    def points(self) -> int:
        """a: values of an input tile, and products."""
        return self.stride * (self.m - 1) + self.taps

    @property
    def phases(self) -> tuple[Tiling, ...]:
        """Those with stride 1 whose results are added: each has every `stride`-th tap, from another
        one on."""
        firsts = range(min(self.stride, self.taps))
        return tuple(Tiling(self.m, len(range(n, self.taps, self.stride))) for n in firsts)

    def tiles(self, extent: Dim) -> Dim:
        """Tiles that cover an axis of the output."""
        return ceildiv(extent, self.m * self.dilation) * self.dilation

    def covered(self, extent: Dim) -> Dim:
        """Outputs that these tiles have, at least the extent."""
        return self.tiles(extent) * self.m

    def most_beyond(self, extent: Dim) -> int:
        """How many more outputs these tiles have than the extent, at most."""
        beyond = self.covered(extent) - extent
        return beyond if isinstance(beyond, int) else self.m * self.dilation - 1


def tilings_of(
    window: Sequence[int], dilations: Sequence[int], strides: Sequence[int]
) -> list[tuple[Tiling, ...]]:
    """All for a window: equal ones along axes with as many taps."""
    axes = list(zip(window, dilations, strides, strict=True))
    most = MAX_POINTS.get(sum(taps > 1 for taps in window), 0)
    if not most or any(dilation > 1 and stride > 1 for _, dilation, stride in axes):
        return []
    sides = {(taps, stride): _outputs(taps, stride, most) for taps, _, stride in axes}
    found = []
    for chosen in cartesian(*sides.values()):
        m = dict(zip(sides, chosen, strict=True))
        found.append(
            tuple(
                Tiling(m[taps, stride], taps, dilation if taps > 1 else 1, stride)
                for taps, dilation, stride in axes
            )
        )
    return found


def _outputs(taps: int, stride: int, most: int) -> Sequence[int]:
    """Of how many outputs a tile may be along an axis. most: points of a tile at stride 1."""
    if stride == 1:
        return [m for m in range(2, most + 2 - taps) if (m + taps) % 2] if taps > 1 else [1]
    return STRIDED_OUTPUTS if (taps, stride) == (3, 2) else ()


@dataclass(frozen=True)
class Whole:
    """What makes the transforms of an axis those of whole numbers.

    factor: of the filter's values, and so of the results. last: how many times less those at
    infinity are multiplied by, which would be the largest; their products are multiplied by it.
    """

    factor: int
    last: int = 1


WHOLE = {1: Whole(1), 4: Whole(2), 6: Whole(24, 2)}  # by the number of points


def whole_filter_matrix(tiling: Tiling) -> np.ndarray[Any, Any]:
    """`filter_matrix` of whole numbers, as f64."""
    whole = WHOLE[tiling.points]
    matrix = whole.factor * filter_matrix(tiling)
    matrix[-1] /= whole.last
    return np.asarray(np.rint(matrix))


def whole_factor(tilings: Sequence[Tiling]) -> tuple[int, int]:
    """(n, k): results of whole transforms are n * 2^k times what they should be, n being odd."""
    factor = math.prod(WHOLE[tiling.points].factor for tiling in tilings)
    twos = (factor & -factor).bit_length() - 1
    return factor >> twos, twos


def words_hold(tilings: Sequence[Tiling]) -> bool:
    """Whether there are whole transforms, and 16 bits hold what becomes of bytes in them: of
    weights, and of inputs."""
    if any(tiling.points not in WHOLE for tiling in tilings):
        return False
    weights, inputs = LARGEST_WEIGHT, LARGEST
    for tiling in tilings:
        weights *= int(np.abs(whole_filter_matrix(tiling)).sum(1).max())
        pairs = PAIRS[: tiling.points // 2 - 1]
        inputs *= int(math.prod(1 + p * p for p in pairs))  # of the alternating products below
    return max(weights, inputs) < 1 << 15


@dataclass(frozen=True)
class FilterTransform:
    """Weights [taps..., C, O] become [groups, points..., C, O/groups], computed in float64.

    channels: C. words: of whole numbers of 16 bits, which bytes were: as many times the values as
    `WHOLE` says, neighbouring ones of C as one element, so that C/2 is instead of C.
    """

    tilings: tuple[Tiling, ...]
    channels: int
    groups: int = 1
    words: bool = False

    @property
    def rows(self) -> int:
        """Rows of the matrix [groups * points * C, O/groups]."""
        rows = math.prod(t.points for t in self.tilings) * self.channels * self.groups
        return rows // WORDS.steps if self.words else rows

    @property
    def element_bytes(self) -> int:
        """Of one element; 0: as many as the constant's have."""
        return GROUP.bytes if self.words else 0

    def columns(self, shape: tuple[int, ...]) -> int:
        """Columns of the matrix; shape: of the constant."""
        return shape[-1] // self.groups

    def apply(self, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The transformed weights, [groups * points * C, O/groups], rounded once."""
        outer = np.ones((1, 1))
        for tiling in self.tilings:
            matrix = whole_filter_matrix if self.words else filter_matrix
            outer = np.kron(outer, matrix(tiling))
        wide = (outer @ data.reshape(outer.shape[1], -1).astype(np.float64)).astype(data.dtype)
        grouped = wide.reshape(len(outer) * self.channels, self.groups, -1).transpose(1, 0, 2)
        if self.words:
            return GroupRows(WORDS.steps, grouped.shape[-1]).apply(grouped)
        return grouped.reshape(self.rows, -1)


def _finite_points(points: int) -> list[float]:
    """All points but infinity: 0, p, -p, ..., or 0 and 1."""
    if points == 3:
        return [0.0, 1.0]
    return [0.0] + [sign * p for p in PAIRS[: points // 2 - 1] for sign in (1, -1)]


def filter_matrix(tiling: Tiling) -> np.ndarray[Any, Any]:
    """[points, taps]: the filter's polynomial at every point, over the products of distances; of
    phases one behind the other."""
    if tiling.taps == 1:
        return np.ones((tiling.m, 1))
    if tiling.stride > 1:
        matrix = np.zeros((tiling.points, tiling.taps))
        row = 0
        for first, phase in enumerate(tiling.phases):
            matrix[row : row + phase.points, first :: tiling.stride] = filter_matrix(phase)
            row += phase.points
        return matrix
    finite = _finite_points(tiling.points)
    rows = [
        [p**k / math.prod(p - q for q in finite if q != p) for k in range(tiling.taps)]
        for p in finite
    ]
    return np.array([*rows, [0.0] * (tiling.taps - 1) + [1.0]])


def _products(squares: Sequence[float]) -> list[float]:
    """Coefficients, lowest first, of the product of (y - s) over the squares s."""
    coefficients = np.array([1.0])
    for square in squares:
        coefficients = np.convolve(coefficients, [-square, 1.0])
    return [float(c) for c in coefficients]


def input_transform(tiling: Tiling) -> Combine:
    """Values of an input tile to one per point."""
    pairs = PAIRS[: tiling.points // 2 - 1]
    if tiling.stride > 1:
        return _by_phases(tiling)

    def combine(d: Line) -> list[Expr]:
        if tiling.taps == 1:
            return list(d)
        if tiling.points == 3:
            return [_sub(d[1], d[0]), d[1], _sub(d[2], d[1])]
        whole = _products([p * p for p in pairs])
        results = [_sum([(c, d[2 * k]) for k, c in enumerate(whole)])]
        for p in pairs:
            others = _products([q * q for q in pairs if q != p])
            even = _sum([(c, d[2 * k + 2]) for k, c in enumerate(others)])
            odd = _scaled(p, _sum([(c, d[2 * k + 1]) for k, c in enumerate(others)]))
            results += [_add(even, odd), _sub(even, odd)]
        return [*results, _sum([(c, d[2 * k + 1]) for k, c in enumerate(whole)])]

    return combine


def output_transform(tiling: Tiling, *, whole: bool = False) -> Combine:
    """Products at the points to the outputs of a tile. whole: of `whole_filter_matrix`."""
    pairs = PAIRS[: tiling.points // 2 - 1]
    at_infinity = float(WHOLE[tiling.points].last) if whole else 1.0
    if tiling.stride > 1:
        return _of_phases(tiling)

    def combine(products: Line) -> list[Expr]:
        if tiling.taps == 1:
            return list(products)
        if tiling.points == 3:
            return [_add(products[0], products[1]), _add(products[1], products[2])]
        at = {p: products[2 * n + 1 : 2 * n + 3] for n, p in enumerate(pairs)}
        both = ({p: _add(*at[p]) for p in pairs}, {p: _sub(*at[p]) for p in pairs})
        results = []
        for i in range(tiling.m):
            terms = [(p**i, both[i % 2][p]) for p in pairs]
            first = [(1.0, products[0])] if i == 0 else []
            last = [(at_infinity, products[-1])] if i == tiling.m - 1 else []
            results.append(_sum([*first, *terms, *last]))
        return results

    return combine


def _by_phases(tiling: Tiling) -> Combine:
    """`input_transform` of every phase of a tiling, one behind the other."""
    parts = [input_transform(phase) for phase in tiling.phases]

    def combine(d: Line) -> list[Expr]:
        lines = (part(d[first :: tiling.stride]) for first, part in enumerate(parts))
        return [value for line in lines for value in line]

    return combine


def _of_phases(tiling: Tiling) -> Combine:
    """`output_transform` of every phase of a tiling, added up."""
    parts = [(phase.points, output_transform(phase)) for phase in tiling.phases]

    def combine(products: Line) -> list[Expr]:
        lines, first = [], 0
        for points, part in parts:
            lines.append(part(products[first : first + points]))
            first += points
        return [reduce(_add, terms) for terms in zip(*lines, strict=True)]

    return combine


def transform(combines: Sequence[Combine], grid: Grid) -> Grid:
    """A transform along each axis of a grid of expressions, one axis after the other."""
    for axis, combine in enumerate(combines):
        lines = np.moveaxis(grid, axis, -1)
        done = [combine(list(lines[at])) for at in np.ndindex(lines.shape[:-1])]
        result = np.empty((len(done), len(done[0])), object)
        for row, line in zip(result, done, strict=True):
            row[:] = line
        grid = np.moveaxis(result.reshape(*lines.shape[:-1], -1), -1, axis)
    return grid


def _add(a: Expr, b: Expr) -> Expr:
    return Apply("add", (a, b), a.dtype)


def _sub(a: Expr, b: Expr) -> Expr:
    return Apply("sub", (a, b), a.dtype)


def _scaled(factor: float, a: Expr) -> Expr:
    if factor == 1:
        return a
    number = Const(factor if a.dtype.is_float else int(factor), a.dtype)
    return Apply("mul", (a, number), a.dtype)


def _sum(terms: Sequence[tuple[float, Expr]]) -> Expr:
    """The sum of factors times expressions; those with a positive factor come first."""
    first, *rest = sorted(terms, key=lambda term: term[0] < 0)
    total = _scaled(*first)
    for factor, part in rest:
        total = (_add if factor > 0 else _sub)(total, _scaled(abs(factor), part))
    return total
