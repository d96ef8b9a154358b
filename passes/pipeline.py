"""The standard sequence of target-neutral passes, up to fusion."""

from __future__ import annotations

from ..compiler.pass_manager import Fixpoint, Pass
from .attention import AttentionPattern
from .canonicalize import Canonicalize
from .constant_folding import ConstantFolding
from .cse import CommonSubexpressions
from .dce import DeadCodeElimination
from .layer_norm import LayerNormPattern
from .layout import Layout
from .lift_expands import LiftExpands
from .matmul_form import MatmulForm
from .reciprocal import Reciprocal
from .scale_folding import ScaleFolding
from .sink_reshapes import SinkReshapes
from .split_products import SplitProducts
from .transposed_conv import TransposedConv

SIMPLIFY = (Canonicalize(), ConstantFolding(), CommonSubexpressions(), DeadCodeElimination())


def optimization_passes(level: int) -> tuple[Pass | Fixpoint, ...]:
    """The passes for an optimisation level, to be run before fusion.

    0: what code generation relies on: constants folded, two spatial axes, channels last.
    1 and up: recognised patterns, folded scales, cancelled transposes, plain matrix products.
    """
    if level <= 0:
        return (Fixpoint(SIMPLIFY), Layout(), Fixpoint(SIMPLIFY))
    return (
        Fixpoint(SIMPLIFY),
        Fixpoint((LiftExpands(), *SIMPLIFY)),
        Fixpoint((Reciprocal(), LayerNormPattern(), *SIMPLIFY)),
        Fixpoint((AttentionPattern(), *SIMPLIFY)),
        Fixpoint((ScaleFolding(), *SIMPLIFY)),
        Layout(),
        TransposedConv(),
        Fixpoint((MatmulForm(), SinkReshapes(), *SIMPLIFY)),
        SplitProducts(),
        Fixpoint(SIMPLIFY),
    )
