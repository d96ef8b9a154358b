"""Operations of the Ethos-U55 and -U65 from their registers."""

from __future__ import annotations

from .driver_payload import StreamCommand
from .feature_map import FeatureMap
from .npu_hardware import LUT_SLOT_BYTES
from .npu_operation import (
    Accumulation,
    Activation,
    IntegerScale,
    KernelWindow,
    LookupTable,
    NpuOperation,
    OperationKind,
    SharedRam,
    Upscaling,
)
from .register_reader import KINDS, RegisterReader
from .rescaling import ShiftRounding
from .violations import Rule

_ROUNDINGS = (ShiftRounding.DOUBLE, ShiftRounding.TRUNCATE, ShiftRounding.NATURAL)
_POOLS = ("max", "average", "reduce_sum")
_ELEMENTWISE = ("mul", "add", "sub", "min", "max", "lrelu", "abs", "clz", "shr", "shl")
_UNARY = ("lrelu", "abs", "clz")
_SCALED = ("mul", "add", "sub", "lrelu", "abs")  # the others take no notice of OFM_SCALE
_CLIP_RANGES = {2: (0, 255), 3: (-128, 127), 5: (-32768, 32767)}
_TABLES = 16  # code of the first lookup table among the activation functions
_IMPLIED_SHIFT = {1: 19, 2: 14}  # of the operand that is not, by bytes of an element


class U55Reader(RegisterReader):
    """Reads operations of these two."""

    def operation(self, instruction: StreamCommand) -> NpuOperation:
        """The operation that a command starts. Raises SimulationError for what is not legal."""
        get = self.registers
        get.position = instruction.position
        kind = KINDS[instruction.format.name]
        mode = self._mode(kind, instruction)
        ofm = self.feature_map("OFM", self.ofm_shape())
        window = KernelWindow() if kind is OperationKind.ELEMENTWISE else self.window()
        upscaling = self.upscaling(kind)
        ifm = self._ifm(kind, mode, ofm, window, upscaling)
        binary = kind is OperationKind.ELEMENTWISE and mode not in _UNARY
        ifm2, scalar = self._ifm2(ofm) if binary else (None, None)
        weighted = kind in (OperationKind.CONV, OperationKind.DEPTHWISE)
        return NpuOperation(
            instruction.position,
            kind,
            mode,
            ifm,
            ofm,
            window,
            upscaling,
            _ROUNDINGS[get.field("OFM_PRECISION", "rounding")],
            self._scale(kind, mode, ifm),
            self._activation(ofm, ifm),
            self.block(),
            get.value("BLOCKDEP"),
            self._accumulation(),
            self._shared_ram(binary and scalar is None),
            kind is OperationKind.CONV and bool(get.field("KERNEL_STRIDE", "part_kernel")),
            ifm2,
            scalar,
            swapped=binary and bool(get.field("IFM2_BROADCAST", "swapped")),
            input_scales=self._input_scales(ifm) if mode in ("add", "sub") else (None, None),
            weights=self.streams("WEIGHT") if weighted else (),
            scales=self.streams("SCALE") if weighted else (),
        )

    @staticmethod
    def _mode(kind: OperationKind, instruction: StreamCommand) -> str:
        if kind is OperationKind.POOL:
            return _POOLS[instruction.field("mode")]
        if kind is OperationKind.ELEMENTWISE:
            return _ELEMENTWISE[instruction.field("mode")]
        return ""

    def _ifm(
        self,
        kind: OperationKind,
        mode: str,
        ofm: FeatureMap,
        window: KernelWindow,
        upscaling: Upscaling,
    ) -> FeatureMap:
        """The IFM, as large as what the windows of all results reach."""
        get = self.registers
        depth = get.value("IFM_DEPTH_M1") + 1
        reaches = kind is OperationKind.CONV or mode == "reduce_sum"
        if not reaches and depth != ofm.depth:
            get.fail(Rule.GEOMETRY, f"an IFM of depth {depth} for an OFM of {ofm.depth}")
        if mode == "reduce_sum" and ofm.depth != 1:
            get.fail(Rule.GEOMETRY, f"a sum over the depth for an OFM of depth {ofm.depth}")
        return self.feature_map("IFM", (*self.reach(ofm.shape, window, upscaling), depth))

    def _ifm2(self, ofm: FeatureMap) -> tuple[FeatureMap | None, int | None]:
        """The second operand: a feature map, or a number."""
        get = self.registers
        if get.field("IFM2_BROADCAST", "scalar"):
            signed = get.field("IFM2_PRECISION", "signed")
            value = get.signed("IFM2_SCALAR") if signed else get.value("IFM2_SCALAR")
            return None, value - self.zero_point("IFM2")
        one = [get.field("IFM2_BROADCAST", axis) for axis in ("height", "width", "depth")]
        sizes = (ofm.height, ofm.width, ofm.depth)
        height, width, depth = (1 if b else n for b, n in zip(one, sizes, strict=True))
        ifm2 = self.feature_map("IFM2", (height, width, depth))
        return ifm2, None

    def _scale(self, kind: OperationKind, mode: str, ifm: FeatureMap) -> IntegerScale | None:
        get = self.registers
        rounding = _ROUNDINGS[get.field("OFM_PRECISION", "rounding")]
        if kind is OperationKind.ELEMENTWISE and mode not in _SCALED:
            return IntegerScale(1, 0, rounding)
        if kind in (OperationKind.CONV, OperationKind.DEPTHWISE):
            if get.field("OFM_PRECISION", "global_scale"):
                get.fail(Rule.NOT_SIMULATED, "one scale for all channels of a convolution")
            return None
        if not get.field("OFM_PRECISION", "global_scale"):
            get.fail(Rule.NOT_SIMULATED, "a scale for each channel without weights")
        factor = get.field("OFM_SCALE", "scale")
        if ifm.element == 4 and kind is OperationKind.ELEMENTWISE:
            factor = 1  # the multiplier takes no part in operations on 32 bits
        return IntegerScale(factor, get.field("OFM_SCALE", "shift"), rounding)

    def _input_scales(self, ifm: FeatureMap) -> tuple[IntegerScale, IntegerScale]:
        """Scales of both operands: 16 bits each, or one of 32 bits and a shift to the left."""
        get = self.registers
        rounding = _ROUNDINGS[get.field("IFM_PRECISION", "rounding")]
        mode = get.field("IFM_PRECISION", "scale_mode")
        factor, shift = (get.field("OPA_SCALE", name) for name in ("scale", "shift"))
        if not mode:
            return (
                IntegerScale(factor & 0xFFFF, 0, rounding),
                IntegerScale(get.field("OPB_SCALE", "scale"), 0, rounding),
            )
        if ifm.element not in _IMPLIED_SHIFT:
            get.fail(Rule.NOT_SIMULATED, "a scaled operand of 32 bits")
        other = IntegerScale(1 << _IMPLIED_SHIFT[ifm.element], 0, rounding)
        scaled = IntegerScale(factor, shift, rounding)
        return (scaled, other) if mode == 1 else (other, scaled)

    def _activation(self, ofm: FeatureMap, ifm: FeatureMap) -> Activation:
        get = self.registers
        bits = 8 * ofm.element
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if ofm.signed else (0, (1 << bits) - 1)
        clip = get.field("ACTIVATION", "clip_range")
        if clip:
            low, high = _CLIP_RANGES[clip]
        if clip or ofm.element < 4:
            signed = low < 0
            bounds = ("ACTIVATION_MIN", "ACTIVATION_MAX")
            least, most = (get.signed(r) if signed else get.value(r) for r in bounds)
            low, high = max(low, least), min(high, most)
        if low > high:
            get.fail(Rule.REGISTER_VALUE, f"results are clipped to {low} .. {high}")
        function = get.field("ACTIVATION", "function")
        if not function:
            return Activation(low, high)
        if function < _TABLES:
            get.fail(
                Rule.NOT_SIMULATED,
                "the built-in tanh and sigmoid, whose last bits are not documented; a compiler "
                "that makes them lookup tables can be simulated",
            )
        return Activation(low, high, self._table(function - _TABLES, ofm, ifm))

    def _table(self, slot: int, ofm: FeatureMap, ifm: FeatureMap) -> LookupTable:
        index = 1 if ofm.element == 4 else ofm.element
        size = {1: 256 * ofm.element, 2: 2048}[index]
        start = self.hardware.lut_start + slot * LUT_SLOT_BYTES
        if start + size > self.hardware.internal_bytes:
            self.registers.fail(
                Rule.SHRAM_LAYOUT, f"a table of {size} bytes in slot {slot} leaves the shared RAM"
            )
        return LookupTable(start, size, index)

    def _shared_ram(self, two_inputs: bool) -> SharedRam:
        get = self.registers
        return SharedRam(
            get.value("IFM_IB_END"),
            get.value("IFM2_IB_START") if two_inputs else 0,
            get.value("AB_START"),
        )

    def _accumulation(self) -> Accumulation:
        get = self.registers
        format = get.field("ACC_FORMAT", "format")
        if format == 2:
            get.fail(Rule.NOT_SIMULATED, "accumulators of 16-bit floats")
        return Accumulation(("acc32", "acc40")[format], "reset", True, self.hardware.ofm_microblock)
