"""Operations of the Ethos-U85 from their registers."""

from __future__ import annotations

from dataclasses import replace

from .driver_payload import StreamCommand
from .feature_map import FeatureMap, Storage
from .npu_operation import (
    Accumulation,
    Activation,
    IntegerScale,
    KernelWindow,
    LookupTable,
    NpuOperation,
    OperationKind,
    ResizeSteps,
    StreamRange,
)
from .register_reader import KINDS, RegisterReader
from .rescaling import ShiftRounding
from .violations import Rule

_POOLS = ("max", "average", "reduce_sum", "sum", "none", "min", "argmax_x", "argmax_y")
_ELEMENTWISE = (
    *("mul", "add", "sub", "min", "max", "lrelu", "abs", "clz", "shr", "shl", "lsr", "div"),
    *("", "", "", "", "eq", "ne", "ge", "gt", *[""] * 13, "and", "or", "xor", "not"),
    *(*[""] * 5, "and_not"),
)
_UNARY = ("lrelu", "abs", "clz", "not")
_RESIZES = ("bilinear", "replicate", "nearest")
_ROUNDINGS = (
    ShiftRounding.DOUBLE,
    ShiftRounding.NATURAL,
    ShiftRounding.DOUBLE_UP,
    ShiftRounding.SYMMETRIC,
    ShiftRounding.TRUNCATE,
    ShiftRounding.FLOOR,
)
_AXES = {0: (0, 1, 2), 1: (1, 0, 2), 2: (0, 2, 1), 3: (1, 2, 0), 6: (2, 0, 1), 7: (2, 1, 0)}
_MICROBLOCKS = ((1, 1), (1, 2), (1, 4), (2, 2), (2, 4), (4, 4))
# By function: bytes of a table, of an index.
_TABLES = {1: (256, 1), 4: (256, 1), 5: (512, 1), 7: (1024, 1), 8: (2048, 2), 9: (2048, 2)}
_HEIGHT, _WIDTH, _DEPTH, _SCALAR = 1, 2, 4, 8  # bits of a broadcast
_DOUBLE_BITS = 31


class U85Reader(RegisterReader):
    """Reads operations of the Ethos-U85."""

    def operation(self, instruction: StreamCommand) -> NpuOperation:
        """The operation that a command starts. Raises SimulationError for what is not legal."""
        get = self.registers
        get.position = instruction.position
        kind = KINDS[instruction.format.name]
        mode = self._mode(kind, instruction)
        shape = self.ofm_shape()
        ofm = self._ofm(shape)
        operation = NpuOperation(
            position=instruction.position,
            kind=kind,
            mode=mode,
            ifm=ofm,
            ofm=ofm,
            window=KernelWindow(),
            upscaling=self.upscaling(kind),
            rounding=_ROUNDINGS[get.field("OFM_SCALE", "rounding")],
            scale=self._ofm_scale(),
            activation=self._activation(ofm),
            block=self.block(),
            blockdep=get.value("BLOCKDEP"),
            accumulation=self._accumulation(),
        )
        if kind is OperationKind.ELEMENTWISE:
            return self._elementwise(operation, shape)
        if kind is OperationKind.RESIZE:
            return self._resize(operation, shape)
        return self._windowed(operation, shape, instruction)

    @staticmethod
    def _mode(kind: OperationKind, instruction: StreamCommand) -> str:
        if kind is OperationKind.POOL:
            return _POOLS[instruction.field("mode")]
        if kind is OperationKind.ELEMENTWISE:
            return _ELEMENTWISE[instruction.field("mode")]
        if kind is OperationKind.RESIZE:
            return _RESIZES[instruction.field("mode")]
        return ""

    def _stored(self, name: str, shape: tuple[int, int, int]) -> FeatureMap:
        """A feature map in memory, or in a chaining buffer, or nowhere."""
        get = self.registers
        storage = get.field(f"{name}_PRECISION", "storage")
        if storage == 1:
            get.fail(Rule.NOT_SIMULATED, f"{name} in tiles of three rows")
        if not storage:
            return self.feature_map(name, shape)
        unused = FeatureMap(
            name,
            get.field(f"{name}_REGION", "region") if storage == Storage.CHAINED.value else 0,
            (0, 0, 0, 0),
            *shape[:1],
            *shape[:1],
            shape[1],
            (0, 0, 0),
            self.element(name),
            bool(get.field(f"{name}_PRECISION", "signed")),
            False,
            self.zero_point(name),
            *shape,
        )
        return replace(unused, storage=Storage(storage))

    def _ofm(self, shape: tuple[int, int, int]) -> FeatureMap:
        get = self.registers
        reverse = get.field("OFM_PRECISION", "reverse")
        return replace(
            self._stored("OFM", shape),
            axes=_AXES[get.field("OFM_PRECISION", "transpose")],
            reversed_axis=reverse - 1 if reverse else None,
        )

    def _windowed(
        self, operation: NpuOperation, shape: tuple[int, int, int], instruction: StreamCommand
    ) -> NpuOperation:
        """A convolution, depthwise convolution or pooling."""
        get, kind = self.registers, operation.kind
        window = self.window()
        depth = get.value("IFM_DEPTH_M1") + 1
        dynamic = kind is OperationKind.CONV and bool(instruction.field("weights_ifm2"))
        if operation.mode == "none":  # of which the IFM takes no part
            if operation.accumulation.source == "reset":
                get.fail(Rule.NOT_SIMULATED, "no pooling of accumulators that are reset")
            ifm = replace(operation.ofm, name="IFM", storage=Storage.NOWHERE)
        else:
            reaches = kind is OperationKind.CONV or operation.mode == "reduce_sum"
            if not reaches and depth != shape[2]:
                get.fail(Rule.GEOMETRY, f"an IFM of depth {depth} for an OFM of {shape[2]}")
            if operation.mode == "reduce_sum" and shape[2] != 1:
                get.fail(Rule.GEOMETRY, f"a sum over the depth for an OFM of depth {shape[2]}")
            height, width = self.reach(shape, window, operation.upscaling)
            ifm = self._stored("IFM", (height, width, depth))
        operation = replace(operation, ifm=ifm, window=window)
        if dynamic:
            if operation.accumulation.source == "ifm2":
                get.fail(Rule.NOT_SIMULATED, "an IFM2 of weights and of accumulators")
            return replace(
                operation, mode="by ifm2", ifm2=self._stored("IFM2", (1, shape[2], depth))
            )
        if operation.accumulation.source == "ifm2":
            operation = replace(operation, ifm2=self._stored("IFM2", shape))
        if not get.field("OFM_PRECISION", "global_scale"):
            operation = replace(operation, scale=None, scales=self._scales())
        if kind is OperationKind.POOL:
            return operation
        return replace(
            operation,
            part_kernel=kind is OperationKind.CONV
            and bool(get.field("KERNEL_STRIDE", "part_kernel")),
            weights=self._weights(),
            fast_weights=bool(get.field("WEIGHT_FORMAT", "fast")),
            sparse_weights=bool(get.field("WEIGHT_FORMAT", "sparse")),
        )

    def _elementwise(self, operation: NpuOperation, shape: tuple[int, int, int]) -> NpuOperation:
        get, mode = self.registers, operation.mode
        ifm, scalar = self._operand("IFM", shape)
        if ifm is None:
            ifm = replace(operation.ofm, storage=Storage.NOWHERE, axes=(0, 1, 2))
            ifm = replace(ifm, element=self.element("IFM"), name="IFM", reversed_axis=None)
        first = self._input_scale("IFM_SCALE")
        if mode in _UNARY:
            second = self._input_scale("IFM2_SCALE") if mode == "lrelu" else None
            return replace(operation, ifm=ifm, first_scalar=scalar, input_scales=(first, second))
        ifm2, second_scalar = self._operand("IFM2", shape)
        if mode == "mul" and ifm.element == 4 and operation.scale is not None:
            # The multiplier takes no part in products of 32 bits: they are shifted only.
            operation = replace(operation, scale=replace(operation.scale, factor=1))
        if scalar is not None and second_scalar is not None:
            get.fail(Rule.REGISTER_VALUE, "both operands are one number")
        scales = (first, self._input_scale("IFM2_SCALE"))
        return replace(
            operation,
            ifm=ifm,
            ifm2=ifm2,
            first_scalar=scalar,
            scalar=second_scalar,
            input_scales=scales,
        )

    def _operand(
        self, name: str, shape: tuple[int, int, int]
    ) -> tuple[FeatureMap | None, int | None]:
        """An operand of an elementwise operation: a feature map, or a number."""
        get = self.registers
        mode = get.field(f"{name}_BROADCAST", "mode")
        if mode == _SCALAR:
            value = get.value("OP_SCALAR")
            if get.field(f"{name}_PRECISION", "signed"):
                value -= (value >> 31) << 32
            return None, value - self.zero_point(name)
        bits = (_HEIGHT, _WIDTH, _DEPTH)
        sizes = [1 if mode & bit else size for bit, size in zip(bits, shape, strict=True)]
        return self._stored(name, (sizes[0], sizes[1], sizes[2])), None

    def _resize(self, operation: NpuOperation, shape: tuple[int, int, int]) -> NpuOperation:
        """A resize: KERNEL_HEIGHT and KERNEL_WIDTH are the sizes of the IFM."""
        get = self.registers
        height, width = (get.value(f"KERNEL_{axis}_M1") + 1 for axis in ("HEIGHT", "WIDTH"))
        if get.value("IFM_DEPTH_M1") + 1 != shape[2]:
            get.fail(Rule.GEOMETRY, "IFM and OFM of other depths")
        steps = []
        for axis in "YX":
            scale = get.value(f"RESIZE_{axis}_SCALE_N_M1") + 1
            whole, part = (get.field(f"RESIZE_{axis}_STEP", f"one_{n}") for n in ("whole", "part"))
            if part >= scale:
                get.fail(Rule.REGISTER_VALUE, f"a step of {part} / {scale}")
            offset = get.signed(f"RESIZE_{axis}_OFFSET", 12)
            steps.append(ResizeSteps(scale, whole * scale + part, offset))
        ifm = self._stored("IFM", (height, width, shape[2]))
        return replace(operation, ifm=ifm, resize=(steps[0], steps[1]))

    def _accumulation(self) -> Accumulation:
        get = self.registers
        height, width = _MICROBLOCKS[get.field("ACC_FORMAT", "microblock")]
        known = [m for m in self.hardware.microblocks if m[:2] == (height, width)]
        if not known:
            get.fail(
                Rule.OFM_BLOCK, f"{self.hardware.name} has no micro-block of {height} x {width}"
            )
        return Accumulation(
            ("acc32", "acc48")[get.field("ACC_FORMAT", "format")],
            ("reset", "keep", "ifm2")[get.field("ACC_FORMAT", "input")],
            not get.field("ACC_FORMAT", "output"),
            known[0],
        )

    def _ofm_scale(self) -> IntegerScale:
        get = self.registers
        factor, shift, first = (
            get.field("OFM_SCALE", name) for name in ("scale", "shift", "double_round")
        )
        rounding = _ROUNDINGS[get.field("OFM_SCALE", "rounding")]
        return IntegerScale(factor, shift, rounding, _DOUBLE_BITS - first)

    def _input_scale(self, register: str) -> IntegerScale:
        get = self.registers
        factor, shift, first = (
            get.field(register, name) for name in ("scale", "shift", "double_round")
        )
        natural = get.field(register, "rounding")
        rounding = ShiftRounding.NATURAL if natural else ShiftRounding.DOUBLE
        return IntegerScale(factor, shift, rounding, _DOUBLE_BITS - first)

    def _activation(self, ofm: FeatureMap) -> Activation:
        get = self.registers
        bits = 8 * ofm.element
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if ofm.signed else (0, (1 << bits) - 1)
        function = get.field("ACTIVATION", "function")
        if function and function not in _TABLES:
            get.fail(Rule.NOT_SIMULATED, "tables of tanh and sigmoid")
        table = None
        if function:
            size, index = _TABLES[function]
            start = get.field("ACTIVATION", "table") * size
            if start + size > self.hardware.internal_bytes:
                get.fail(Rule.SHRAM_LAYOUT, f"a table of {size} bytes at {start}")
            table = LookupTable(start, size, index)
            indices = 8 * index
            low, high = -(1 << indices - 1), (1 << indices - 1) - 1
            if function == 1:
                low, high = 0, 255
        if not get.field("ACTIVATION", "clip_range"):
            bounds = ("ACTIVATION_MIN", "ACTIVATION_MAX")
            least, most = (get.signed(r) if low < 0 else get.value(r) for r in bounds)
            low, high = max(low, least), min(high, most)
        if low > high:
            get.fail(Rule.REGISTER_VALUE, f"results are clipped to {low} .. {high}")
        return Activation(low, high, table)

    def _weights(self) -> tuple[StreamRange, ...]:
        """Streams of all cores; of the fast format there is one."""
        found = self.streams("WEIGHT")
        return found[:1] if self.registers.field("WEIGHT_FORMAT", "fast") else found

    def _scales(self) -> tuple[StreamRange, ...]:
        get = self.registers
        region = get.field("SCALE_REGION", "region")
        return (StreamRange(region, get.address("SCALE_BASE"), get.value("SCALE_LENGTH")),)
