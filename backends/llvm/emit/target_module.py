"""What LLVM's text form has beside llvmlite's: a module that knows its target, and bfloat."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir


class _BFloat(ir.Type):  # type: ignore[misc]  # llvmlite is untyped
    """A bf16 as some instructions take it; elsewhere it is the integer of its bits."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


BFLOAT = _BFloat()


class TargetModule(ir.Module):  # type: ignore[misc]  # llvmlite is untyped
    """A module for a target.

    instructions: those that it has, by name (`Target.instructions`). features: all that code may
    use, by LLVM's names. bare: there is no operating system, and so no threads; addresses have 32
    bits.
    """

    def __init__(
        self,
        name: str,
        triple: str,
        instructions: Sequence[str] = (),
        *,
        features: Sequence[str] = (),
        bare: bool = False,
    ) -> None:
        super().__init__(name=name)
        self.triple = triple
        self.instructions = frozenset(instructions)
        self.features = frozenset(features)
        self.bare = bare


def has_instruction(module: ir.Module, name: str) -> bool:
    """Whether the target of a module has an instruction."""
    return isinstance(module, TargetModule) and name in module.instructions


def has_feature(module: ir.Module, name: str) -> bool:
    """Whether code for the target of a module may use a feature, by LLVM's name."""
    return isinstance(module, TargetModule) and name in module.features


def is_bare(module: ir.Module) -> bool:
    """Whether the target of a module has no operating system, and addresses of 32 bits."""
    return isinstance(module, TargetModule) and module.bare
