"""The passes by which a model of quantised tensors becomes one of integers, channels last."""

from __future__ import annotations

from collections.abc import Mapping

from ...compiler.ir.graph import Value
from ...compiler.ir.types import DType
from ...compiler.pass_manager import Fixpoint, Pass
from ...passes.layout.choose_layouts import ChooseLayouts
from ...passes.layout.sink_reshapes import SinkReshapes
from ...passes.pipeline import FOLDED_SCALES, RECOGNISED_NORMS, SIMPLIFY
from ...passes.precision.fixed_point.channel_slopes import ChannelSlopes
from ...passes.precision.fixed_point.integer_arithmetic import IntegerArithmetic
from ...passes.precision.fixed_point.own_widening import OwnWidening
from ...passes.precision.fixed_point.quantise_floats import QuantiseFloats, QuantiseWeights, Range
from ...passes.precision.integer_products import IntegerProducts
from ...passes.precision.kept_bytes import KeptBytes
from ...passes.precision.quantised_movement import QuantisedMovement
from ...passes.simplify.unroll_scans import UnrollScans
from .channel_groups import USUAL_CHANNELS, SplitGroups
from .wide_strides import FoldStrides

SIGNED = KeptBytes(DType.I8)
_QUANTISED = frozenset({"quantize", "dequantize"})  # in such models, what scans hold is of floats
FLOAT_FORM: tuple[Pass | Fixpoint, ...] = (
    UnrollScans(unless=_QUANTISED),
    *RECOGNISED_NORMS,
    *FOLDED_SCALES,
    Fixpoint((ChannelSlopes(), *SIMPLIFY)),
    Fixpoint((SinkReshapes(), *SIMPLIFY)),
)


def integer_passes(
    ranges: Mapping[Value, Range], least_channels: int = USUAL_CHANNELS
) -> tuple[Pass | Fixpoint, ...]:
    """What makes integers of a graph in the form that `FLOAT_FORM` leaves.

    ranges: of values of that graph, as far as they are known. least_channels: see `SplitGroups`.
    """
    return (
        Fixpoint((SIGNED, QuantisedMovement(), *SIMPLIFY)),
        QuantiseFloats(ranges),
        Fixpoint((SIGNED, QuantisedMovement(), *SIMPLIFY)),
        QuantiseWeights(),
        IntegerProducts(),
        Fixpoint((SIGNED, *SIMPLIFY)),
        Fixpoint((IntegerArithmetic(), *SIMPLIFY)),
        ChooseLayouts(channels_first=False, everywhere=True),
        Fixpoint((IntegerArithmetic(), *SIMPLIFY)),
        SplitGroups(least_channels),
        FoldStrides(),
        Fixpoint(SIMPLIFY),
        OwnWidening(),
    )
