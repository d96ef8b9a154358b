"""One operation of the NPU, with all that its registers say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .byte_ranges import ByteRanges
from .feature_map import FeatureMap
from .rescaling import ShiftRounding


class OperationKind(Enum):
    """The units of the NPU that operations use."""

    CONV = "conv"
    DEPTHWISE = "depthwise"
    POOL = "pool"
    ELEMENTWISE = "elementwise"
    RESIZE = "resize"


@dataclass(frozen=True)
class KernelWindow:
    """What a kernel reads: sizes without dilation, strides, dilations and padding, in elements."""

    height: int = 1
    width: int = 1
    stride_y: int = 1
    stride_x: int = 1
    dilation_y: int = 1
    dilation_x: int = 1
    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    @property
    def dilated_height(self) -> int:
        return (self.height - 1) * self.dilation_y + 1

    @property
    def dilated_width(self) -> int:
        return (self.width - 1) * self.dilation_x + 1

    @property
    def padded(self) -> bool:
        return bool(self.top or self.left or self.bottom or self.right)


class Upscaling(Enum):
    """How an IFM is made twice as high and wide while it is read."""

    NONE = 0
    NEAREST = 1
    ZEROS = 2


@dataclass(frozen=True)
class IntegerScale:
    """value * factor / 2**shift. first_bits: that double rounding drops first."""

    factor: int
    shift: int
    rounding: ShiftRounding
    first_bits: int = 31


@dataclass(frozen=True)
class LookupTable:
    """A table in the internal memory: `size` bytes from `start`, by elements of `index` bytes."""

    start: int
    size: int
    index: int


@dataclass(frozen=True)
class Activation:
    """What is done to scaled results: the zero point is added, they are clipped, looked up."""

    low: int
    high: int
    table: LookupTable | None = None


@dataclass(frozen=True)
class StreamRange:
    """Bytes that an operation reads from on end to end: weights, or biases with scales."""

    region: int
    start: int
    length: int


@dataclass(frozen=True)
class SharedRam:
    """Where buffers lie in the shared RAM, in banks."""

    input_end: int
    input2_start: int
    accumulators: int


@dataclass(frozen=True)
class Accumulation:
    """Accumulators. format: acc32, acc40 or acc48; source: what they begin with, reset (zero), keep
    (what they hold) or ifm2; output: whether they become results. microblock: height, width and
    depth of what is computed in a cycle."""

    format: str
    source: str
    output: bool
    microblock: tuple[int, int, int]


@dataclass(frozen=True)
class ResizeSteps:
    """Along one axis: result i is at (i * step + offset) / scale of the input."""

    scale: int
    step: int
    offset: int


@dataclass(frozen=True)
class NpuOperation:
    """An operation as the registers describe it.

    position: its word in the stream. ifm2: of binary operations that read one; scalar: what they
    have instead. swapped: the second operand comes first. rounding: of results; scale: theirs, None
    where each channel has its own; input_scales: of the first and second operand, where they have
    one. block: height, width and depth of what is computed at a time. first_scalar: what is there
    instead of the IFM. fast_weights, sparse_weights: how they are coded. resize: along y and x.
    """

    position: int
    kind: OperationKind
    mode: str
    ifm: FeatureMap
    ofm: FeatureMap
    window: KernelWindow
    upscaling: Upscaling
    rounding: ShiftRounding
    scale: IntegerScale | None
    activation: Activation
    block: tuple[int, int, int]
    blockdep: int
    accumulation: Accumulation
    shared_ram: SharedRam | None = None
    part_kernel: bool = False
    ifm2: FeatureMap | None = None
    scalar: int | None = None
    first_scalar: int | None = None
    swapped: bool = False
    input_scales: tuple[IntegerScale | None, IntegerScale | None] = (None, None)
    weights: tuple[StreamRange, ...] = ()
    scales: tuple[StreamRange, ...] = ()
    fast_weights: bool = False
    sparse_weights: bool = False
    resize: tuple[ResizeSteps, ResizeSteps] | None = None

    @property
    def label(self) -> str:
        """Its name in reports."""
        return f"{self.kind.value} {self.mode}".strip()

    @property
    def input_maps(self) -> tuple[FeatureMap, ...]:
        return (self.ifm,) if self.ifm2 is None else (self.ifm, self.ifm2)


@dataclass(frozen=True)
class Footprint:
    """What an operation or a transfer touches, as addresses of the host and of the shared RAM."""

    position: int
    what: str
    reads: ByteRanges
    writes: ByteRanges
    internal_reads: ByteRanges
    internal_writes: ByteRanges
