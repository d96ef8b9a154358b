"""Operations of the Ethos-U55 and -U65 from their registers."""

from __future__ import annotations

from .driver_payload import StreamCommand
from .feature_map import FeatureMap
from .npu_hardware import LUT_SLOT_BYTES, NpuHardware
from .npu_operation import (
    Activation,
    IntegerScale,
    KernelWindow,
    LookupTable,
    NpuOperation,
    OperationKind,
    SharedRam,
    StreamRange,
    Upscaling,
)
from .register_file import RegisterFile
from .rescaling import ShiftRounding
from .violations import Rule

_ELEMENTS = (1, 2, 4)  # bytes, by the code of a precision
_ROUNDINGS = (ShiftRounding.DOUBLE, ShiftRounding.TRUNCATE, ShiftRounding.NATURAL)
_POOLS = ("max", "average", "reduce_sum")
_ELEMENTWISE = ("mul", "add", "sub", "min", "max", "lrelu", "abs", "clz", "shr", "shl")
_UNARY = ("lrelu", "abs", "clz")
_SCALED = ("mul", "add", "sub", "lrelu", "abs")  # the others take no notice of OFM_SCALE
_CLIP_RANGES = {2: (0, 255), 3: (-128, 127), 5: (-32768, 32767)}
_TABLES = 16  # code of the first lookup table among the activation functions
_KINDS = {
    "CONV": OperationKind.CONV,
    "DEPTHWISE": OperationKind.DEPTHWISE,
    "POOL": OperationKind.POOL,
    "ELEMENTWISE": OperationKind.ELEMENTWISE,
}
_OTHER_OPERAND = {1: 0, 2: 1}  # by scale mode: which operand is scaled by 32 bits
_IMPLIED_SHIFT = {1: 19, 2: 14}  # of the operand that is not, by bytes of an element


class U55Reader:
    """Reads operations off the registers."""

    def __init__(self, hardware: NpuHardware, registers: RegisterFile) -> None:
        self.hardware, self.registers = hardware, registers

    def operation(self, instruction: StreamCommand) -> NpuOperation:
        """The operation that a command starts. Raises SimulationError for what is not legal."""
        get = self.registers
        get.position = instruction.position
        kind = _KINDS[instruction.format.name]
        mode = self._mode(kind, instruction)
        ofm = self._ofm()
        window = KernelWindow() if kind is OperationKind.ELEMENTWISE else self._window()
        upscaling = Upscaling(get.field("IFM_UPSCALE", "mode"))
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
            self._block(),
            get.value("BLOCKDEP"),
            self._shared_ram(binary and scalar is None),
            kind is OperationKind.CONV and bool(get.field("KERNEL_STRIDE", "part_kernel")),
            ifm2,
            scalar,
            binary and bool(get.field("IFM2_BROADCAST", "swapped")),
            self._input_scales(ifm) if mode in ("add", "sub") else (None, None),
            self._streams("WEIGHT") if weighted else (),
            self._streams("SCALE") if weighted else (),
        )

    @staticmethod
    def _mode(kind: OperationKind, instruction: StreamCommand) -> str:
        if kind is OperationKind.POOL:
            return _POOLS[instruction.field("mode")]
        if kind is OperationKind.ELEMENTWISE:
            return _ELEMENTWISE[instruction.field("mode")]
        return ""

    def _window(self) -> KernelWindow:
        get = self.registers
        dilations = [1 + get.field("KERNEL_STRIDE", f"dilation_{axis}") for axis in "yx"]
        if get.field("KERNEL_STRIDE", "decomposition"):
            get.fail(Rule.NOT_SIMULATED, "kernels in parts of 4 x 4")
        strides = [
            1 + get.field("KERNEL_STRIDE", axis) + 2 * get.field("KERNEL_STRIDE", f"{axis}_high")
            for axis in "yx"
        ]
        sizes = []
        for axis, dilation in zip(("HEIGHT", "WIDTH"), dilations, strict=True):
            extent = get.value(f"KERNEL_{axis}_M1")
            if extent % dilation:
                get.fail(Rule.GEOMETRY, f"a kernel of {extent + 1} with dilation {dilation}")
            sizes.append(extent // dilation + 1)
        pads = [get.value(f"IFM_PAD_{side}") for side in ("TOP", "LEFT", "BOTTOM", "RIGHT")]
        return KernelWindow(*sizes, *strides, *dilations, *pads)

    def _map(self, name: str, register: str, bits: str, shape: tuple[int, int, int]) -> FeatureMap:
        """A feature map of a shape; register: what gives its type, whose precision is at bits."""
        get = self.registers
        signed = bool(get.field(register, "signed"))
        zero = f"{name}_ZERO_POINT"
        return FeatureMap(
            name,
            get.field(f"{name}_REGION", "region"),
            (
                get.address(f"{name}_BASE0"),
                get.address(f"{name}_BASE1"),
                get.address(f"{name}_BASE2"),
                get.address(f"{name}_BASE3"),
            ),
            get.value(f"{name}_HEIGHT0_M1") + 1,
            get.value(f"{name}_HEIGHT1_M1") + 1,
            get.value(f"{name}_WIDTH0_M1") + 1,
            (
                get.stride(f"{name}_STRIDE_Y"),
                get.stride(f"{name}_STRIDE_X"),
                get.stride(f"{name}_STRIDE_C"),
            ),
            _ELEMENTS[get.field(register, bits)],
            signed,
            bool(get.field(register, "format")),
            get.signed(zero) if signed else get.value(zero),
            *shape,
        )

    def _ofm(self) -> FeatureMap:
        get = self.registers
        height, width, depth = (get.value(f"OFM_{a}_M1") + 1 for a in ("HEIGHT", "WIDTH", "DEPTH"))
        return self._map("OFM", "OFM_PRECISION", "precision", (height, width, depth))

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
        height = (ofm.height - 1) * window.stride_y + window.dilated_height
        width = (ofm.width - 1) * window.stride_x + window.dilated_width
        height -= window.top + window.bottom
        width -= window.left + window.right
        if upscaling is not Upscaling.NONE:
            height, width = -(-height // 2), -(-width // 2)
        if height < 1 or width < 1:
            get.fail(Rule.GEOMETRY, f"windows that reach {height} x {width} elements of the IFM")
        return self._map("IFM", "IFM_PRECISION", "precision", (height, width, depth))

    def _ifm2(self, ofm: FeatureMap) -> tuple[FeatureMap | None, int | None]:
        """The second operand: a feature map, or a number."""
        get = self.registers
        signed = get.field("IFM2_PRECISION", "signed")
        zero = get.signed("IFM2_ZERO_POINT") if signed else get.value("IFM2_ZERO_POINT")
        if get.field("IFM2_BROADCAST", "scalar"):
            value = get.signed("IFM2_SCALAR") if signed else get.value("IFM2_SCALAR")
            return None, value - zero
        one = [get.field("IFM2_BROADCAST", axis) for axis in ("height", "width", "depth")]
        sizes = (ofm.height, ofm.width, ofm.depth)
        height, width, depth = (1 if b else n for b, n in zip(one, sizes, strict=True))
        ifm2 = self._map("IFM2", "IFM2_PRECISION", "precision", (height, width, depth))
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

    def _block(self) -> tuple[int, int, int]:
        sizes = [self.registers.value(f"OFM_BLK_{a}_M1") + 1 for a in ("HEIGHT", "WIDTH", "DEPTH")]
        return sizes[0], sizes[1], sizes[2]

    def _shared_ram(self, two_inputs: bool) -> SharedRam:
        get = self.registers
        accumulator = get.field("ACC_FORMAT", "format")
        if accumulator == 2:
            get.fail(Rule.NOT_SIMULATED, "accumulators of 16-bit floats")
        return SharedRam(
            get.value("IFM_IB_END"),
            get.value("IFM2_IB_START") if two_inputs else 0,
            get.value("AB_START"),
            ("acc32", "acc40")[accumulator],
        )

    def _streams(self, name: str) -> tuple[StreamRange, ...]:
        """Weights or scales, one for each core."""
        get = self.registers
        region = get.field(f"{name}_REGION", "region")
        found = []
        for core in range(self.hardware.cores):
            number = str(core or "")
            length = get.value(f"{name}{number}_LENGTH")
            start = get.address(f"{name}{number}_BASE") if length else 0
            found.append(StreamRange(region, start, length))
        return tuple(found)
