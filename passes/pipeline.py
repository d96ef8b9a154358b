"""The standard sequence of target-neutral passes, up to fusion."""

from __future__ import annotations

from ..compiler.decisions import Note, Told
from ..compiler.ir.types import DType
from ..compiler.kernel.schedule.graph_choice import GraphChoice
from ..compiler.pass_manager import Fixpoint, Pass
from ..compiler.target import CpuTarget, Target
from .arithmetic.dead_channels import DeadChannels
from .arithmetic.demand import Demand
from .arithmetic.image_by_image import ImageByImage
from .arithmetic.known_masks import KnownMasks
from .arithmetic.linear_maps import LinearMaps
from .arithmetic.same_for_all import SameForAll
from .arithmetic.strassen import StrassenProducts
from .arithmetic.unshuffled_convs import UnshuffledConvs
from .arithmetic.upsampled_convs import UpsampledConvs
from .arithmetic.zero_blocks import ZeroBlocks
from .arithmetic.zero_taps import ZeroTaps
from .layout.channel_norms import ChannelNorms
from .layout.choose_layouts import ChooseLayouts
from .layout.matmul_form import MatmulForm
from .layout.moved_weights import MovedWeights
from .layout.sink_reshapes import SinkReshapes
from .layout.transposed_conv import TransposedConv
from .patterns.attention_pattern import AttentionPattern
from .patterns.layer_norm_pattern import LayerNormPattern
from .patterns.lift_expands import LiftExpands
from .patterns.split_products import SplitProducts
from .precision.byte_products import ByteProducts
from .precision.byte_tables import ByteTables
from .precision.half import StoreHalves, ToHalf
from .precision.integer_products import IntegerProducts
from .precision.kept_bytes import KeptBytes
from .precision.lower_quantisation import LowerQuantisation
from .precision.packed_tables import PackedTables
from .precision.quantised_movement import QuantisedMovement
from .precision.weight_products import WeightProducts
from .precision.whole_bounds import SATURATES, WholeBounds
from .precision.word_products import WordProducts
from .simplify.canonicalize import Canonicalize
from .simplify.constant_folding import ConstantFolding
from .simplify.cse import CommonSubexpressions
from .simplify.dce import DeadCodeElimination
from .simplify.reciprocal import Reciprocal
from .simplify.scale_folding import ScaleFolding

SIMPLIFY = (Canonicalize(), ConstantFolding(), CommonSubexpressions(), DeadCodeElimination())
RECOGNISED_NORMS = (
    Fixpoint(SIMPLIFY),
    Fixpoint((LiftExpands(), *SIMPLIFY)),
    Fixpoint((Reciprocal(), LayerNormPattern(), *SIMPLIFY)),
)
FOLDED_SCALES = (Fixpoint((ScaleFolding(), *SIMPLIFY)),)
RECOGNISED = (
    *RECOGNISED_NORMS,
    Fixpoint((AttentionPattern(), *SIMPLIFY)),
    *FOLDED_SCALES,
)


USUAL = GraphChoice()


def fewer_operations(told: Told | None = None) -> Fixpoint:
    """Algebra of what is recognised: what nothing needs goes, maps move to where they cost least.

    told: hears of what is saved.
    """
    passes = (
        SameForAll(told),
        DeadChannels(told),
        ZeroTaps(told),
        Demand(told),
        LinearMaps(told),
    )
    return Fixpoint((*passes, *SIMPLIFY))


def half_passes(to_half: ToHalf) -> tuple[Pass | Fixpoint, ...]:
    """What makes a model of floats one of bf16 or f16: the reference of what is compiled then.

    Maps become one while they are floats; what is rounded then is their product.
    """
    stored = Fixpoint((StoreHalves(to_half.dtype), *SIMPLIFY))
    return (*RECOGNISED, fewer_operations(), to_half, stored)


def optimization_passes(
    level: int,
    note: Note | None = None,
    target: Target | None = None,
    choice: GraphChoice = USUAL,
    told: Told | None = None,
    data: DType = DType.U8,
    in_groups: bool = True,
    divide: bool = True,
) -> tuple[Pass | Fixpoint, ...]:
    """The passes for an optimisation level, to be run before fusion.

    note: is told what becomes of products of what is quantised. target: where functions of bytes
    become tables; None: nowhere. choice: what the graph is not to be given. told: hears what
    arithmetic is saved. data: the bytes that products multiply by constant signed ones, U8 or I8;
    in_groups: several steps of a sum at once.
    divide: whether blocks of queries that see few keys, and pictures of a batch, may be kernels of
    their own.
    0: what code generation relies on: constants folded, two spatial axes, channels last.
    1 and up: recognised patterns, folded scales, cancelled transposes, plain matrix products.
    3: fewer operations at the cost of more rounding, on CPUs (Strassen's algorithm).
    """
    if level <= 0:
        return (LowerQuantisation(), Fixpoint(SIMPLIFY), ChooseLayouts(), Fixpoint(SIMPLIFY))
    on_cpu = isinstance(target, CpuTarget)
    floats = not (isinstance(target, CpuTarget) and target.lanes(32) == 1)
    kept, layouts = KeptBytes(data), ChooseLayouts(channels_first=choice.channels_first)
    return (
        WeightProducts(note),
        PackedTables(),
        Fixpoint((kept, QuantisedMovement(), *SIMPLIFY)),
        *((ByteTables(target), Fixpoint(SIMPLIFY)) if target else ()),
        IntegerProducts(note),
        Fixpoint((kept, *SIMPLIFY)),
        ByteProducts(note, data, in_groups, floats),
        *((WordProducts(target),) if in_groups else ()),
        *RECOGNISED,
        fewer_operations(told),
        *((KnownMasks(told), Fixpoint(SIMPLIFY)) if divide else ()),
        UpsampledConvs(target, told),
        UnshuffledConvs(target, told),
        Fixpoint((ChannelNorms(), *SIMPLIFY)),
        *((ImageByImage(target, told), Fixpoint(SIMPLIFY)) if divide else ()),
        layouts,
        TransposedConv(),
        Fixpoint((MovedWeights(), MatmulForm(), SinkReshapes(), *SIMPLIFY)),
        SplitProducts(),
        *((ZeroBlocks(target, told), Fixpoint((SinkReshapes(), *SIMPLIFY))) if on_cpu else ()),
        *((StrassenProducts(told),) if level > 2 and on_cpu else ()),
        LowerQuantisation(),
        Fixpoint(SIMPLIFY),
        *(
            (WholeBounds(), Fixpoint(SIMPLIFY))
            if target and SATURATES in target.instructions
            else ()
        ),
    )
