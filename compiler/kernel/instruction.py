"""Instructions: what computes several steps of a sum of products at once.

Several neighbouring elements of each operand are read as one element of 32 bits; an operator of the
graph says what becomes of two of them (`dot4`, `dot2`), and each hardware has its own way to
compute that. All ways to compute `dot4`, and `sdot4`, give the same bits, and so does `wdot2` of
the same numbers as words of 16 bits. Those of `dot2` differ as sums of f32 in another order do: a
step rounds twice, each time by up to 2^-24 of the sum so far, and what is smaller than 2^-126
becomes zero.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ..ir.dims import Dim
from ..ir.ops.step_groups import GROUP_PRODUCTS, GroupProduct
from ..ir.types import DType
from ..target import CpuTarget


@dataclass(frozen=True)
class Instruction:
    """One way to add a sum of products to an accumulator.

    op: the operator that it computes. operations: what one costs, in multiply-adds of a vector.

    A target says what an instruction costs there where that is something else (`Target.costs`).
    """

    name: str
    op: str
    operations: float = 1.0

    @property
    def of(self) -> GroupProduct:
        """What it multiplies: the elements of its operands, their number, and those of the sum."""
        return GROUP_PRODUCTS[self.op]

    @property
    def steps(self) -> int:
        """How many products one takes."""
        return self.of.steps

    def gain(self, target: CpuTarget) -> float:
        """How many times as many products it computes as multiply-adds of f32 in the same time."""
        return self.steps / target.cost(self.name, self.operations)


# The first that a target has is taken. madd: the even and the odd bytes as 16-bit numbers, which a
# product of pairs adds up exactly (_mm256_madd_epi16; Intel SDM vol. 2, PMADDWD). maddw: pairs that
# are 16-bit numbers already; vnniw: those, added up by the same instruction (VPDPWSSD).
INSTRUCTIONS: dict[str, Instruction] = {
    item.name: item
    for item in (
        Instruction("amx", "dot4", 0.125),
        Instruction("vnni", "dot4"),
        Instruction("avxvnni", "dot4"),
        Instruction("madd", "dot4", 4.0),
        Instruction("usmmla", "dot4", 0.5),
        Instruction("usdot", "dot4"),
        Instruction("smmla", "sdot4", 0.5),
        Instruction("sdot", "sdot4"),
        Instruction("smlad", "dot4", 4.0),
        Instruction("vmladava", "sdot4", 0.5),
        Instruction("vnniw", "wdot2"),
        Instruction("avxvnniw", "wdot2"),
        Instruction("maddw", "wdot2"),
        Instruction("bytes", "dot4", 8.0),
        Instruction("signed bytes", "sdot4", 8.0),
        Instruction("amxbf16", "dot2", 0.125),
        Instruction("bf16", "dot2"),
        Instruction("bfmmla", "dot2", 0.5),
        Instruction("bfdot", "dot2"),
    )
}
DOTS = frozenset(GROUP_PRODUCTS)
# those that multiply matrices, kept in registers of their own
MATRICES = frozenset({"amx", "amxbf16"})
MATRIX_ROWS, MATRIX_GROUPS, MATRIX_REGISTERS = 16, 16, 8
# those that multiply two rows by two columns, each of two groups, in vectors
PAIRS = frozenset({"smmla", "usmmla", "bfmmla"})
PAIR = 2  # groups of a row or column that they take
BY_LANE = frozenset({"sdot", "usdot", "bfdot"})  # those that take one lane of an operand for all
LANE_STEPS = 4  # groups in a register, whose lanes they take in turn
ACROSS = frozenset({"vmladava"})  # those that add up all lanes into one number
GENERIC = frozenset({"bytes", "signed bytes"})  # those that every target has


def matrix_steps(extent: Dim) -> int:
    """Groups of a sum's innermost axis that one product of matrices takes: a divisor of these."""
    if not isinstance(extent, int):
        return 1
    return next(n for n in range(min(MATRIX_GROUPS, max(extent, 1)), 0, -1) if extent % n == 0)


def without_tiles(instruction: Instruction, available: Iterable[str]) -> Instruction:
    """What computes the same on vectors of one row: where there is too little for matrices, or for
    pairs of rows."""
    names = [name for name in available if name not in MATRICES | PAIRS]
    return best_of(instruction.op, names) or instruction


def best_of(op: str, available: Iterable[str]) -> Instruction | None:
    """The best instruction for an operator of groups, if any."""
    names = GENERIC | set(available)
    found = (item for item in INSTRUCTIONS.values() if item.name in names and item.op == op)
    return next(found, None)


def byte_data(available: Collection[str]) -> DType:
    """The bytes that constant signed ones are best multiplied with: unsigned, unless instructions
    for signed ones alone are among those available."""
    ways = [best_of(op, available) for op in ("dot4", "sdot4")]
    unsigned, signed = (way.operations if way else float("inf") for way in ways)
    return DType.I8 if signed < unsigned else DType.U8


def instruction_for(
    left: DType, right: DType, accumulate: DType, available: Iterable[str]
) -> Instruction | None:
    """The best instruction for products of such elements, if any."""
    wanted = GroupProduct(left, right, accumulate)
    ops = [op for op, product in GROUP_PRODUCTS.items() if product == wanted]
    return best_of(ops[0], available) if ops else None
