"""What operations of every Ethos-U have in common in their registers."""

from __future__ import annotations

from .feature_map import FeatureMap
from .npu_hardware import NpuHardware
from .npu_operation import KernelWindow, OperationKind, StreamRange, Upscaling
from .register_file import RegisterFile
from .violations import Rule

ELEMENTS = (1, 2, 4, 8)  # bytes, by the code of a precision
KINDS = {
    "CONV": OperationKind.CONV,
    "DEPTHWISE": OperationKind.DEPTHWISE,
    "POOL": OperationKind.POOL,
    "ELEMENTWISE": OperationKind.ELEMENTWISE,
    "RESIZE": OperationKind.RESIZE,
}


class RegisterReader:
    """Reads operations off the registers."""

    def __init__(self, hardware: NpuHardware, registers: RegisterFile) -> None:
        self.hardware, self.registers = hardware, registers

    def upscaling(self, kind: OperationKind) -> Upscaling:
        """How the IFM is made larger; elementwise operations and resizes do not."""
        found = Upscaling(self.registers.field("IFM_UPSCALE", "mode"))
        if found is not Upscaling.NONE and kind in (
            OperationKind.ELEMENTWISE,
            OperationKind.RESIZE,
        ):
            self.registers.fail(Rule.NOT_SIMULATED, f"an IFM of {kind.value} that is upscaled")
        return found

    def window(self) -> KernelWindow:
        """The kernel with its strides, dilations and padding."""
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

    def feature_map(self, name: str, shape: tuple[int, int, int]) -> FeatureMap:
        """IFM, IFM2 or OFM of a height, width and depth."""
        get, register = self.registers, f"{name}_PRECISION"
        signed = bool(get.field(register, "signed"))
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
            self.element(name),
            signed,
            bool(get.field(register, "format")),
            self.zero_point(name),
            *shape,
        )

    def element(self, name: str) -> int:
        """Bytes of an element of a feature map."""
        return ELEMENTS[self.registers.field(f"{name}_PRECISION", "precision")]

    def zero_point(self, name: str) -> int:
        """What stands for 0 in a feature map."""
        get, register = self.registers, f"{name}_ZERO_POINT"
        signed = get.field(f"{name}_PRECISION", "signed")
        return get.signed(register) if signed else get.value(register)

    def ofm_shape(self) -> tuple[int, int, int]:
        """Height, width and depth of the OFM."""
        sizes = [self.registers.value(f"OFM_{a}_M1") + 1 for a in ("HEIGHT", "WIDTH", "DEPTH")]
        return sizes[0], sizes[1], sizes[2]

    def reach(
        self, shape: tuple[int, int, int], window: KernelWindow, upscaling: Upscaling
    ) -> tuple[int, int]:
        """Height and width of the IFM that all windows of an OFM reach."""
        height = (shape[0] - 1) * window.stride_y + window.dilated_height
        width = (shape[1] - 1) * window.stride_x + window.dilated_width
        height -= window.top + window.bottom
        width -= window.left + window.right
        if upscaling is not Upscaling.NONE:
            height, width = -(-height // 2), -(-width // 2)
        if height < 1 or width < 1:
            self.registers.fail(
                Rule.GEOMETRY, f"windows that reach {height} x {width} elements of the IFM"
            )
        return height, width

    def block(self) -> tuple[int, int, int]:
        """Height, width and depth of the OFM that are computed at a time."""
        sizes = [self.registers.value(f"OFM_BLK_{a}_M1") + 1 for a in ("HEIGHT", "WIDTH", "DEPTH")]
        return sizes[0], sizes[1], sizes[2]

    def streams(self, name: str) -> tuple[StreamRange, ...]:
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
