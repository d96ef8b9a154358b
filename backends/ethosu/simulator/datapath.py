"""From the memory to the results of an operation: inputs, sums, scales, activation."""

from __future__ import annotations

import numpy as np

from .elementwise_unit import u55_elementwise, u85_elementwise
from .npu_hardware import NpuHardware
from .npu_operation import IntegerScale, NpuOperation, OperationKind, StreamRange
from .output_stage import Array, finish
from .region_memory import Bytes, RegionMemory
from .rescaling import Integers, rescale
from .resizing import resized
from .shared_ram import input_depth
from .u85_weights import U85WeightLayout, read_u85_scales, u85_weights
from .violations import Rule, SimulationError
from .weight_streams import WeightLayout, Weights, damaged, decoded_weights, read_scales
from .window_sums import accumulated, convolution, depthwise, input_values, pooled

_SCALE_BYTES = 10  # of a channel
_MOST_WEIGHTS = 1 << 28  # of one operation


class Datapath:
    """Computes results. macs: products of weights and inputs so far."""

    def __init__(self, hardware: NpuHardware, memory: RegionMemory, internal: Bytes) -> None:
        self.hardware, self.memory, self.internal = hardware, memory, internal
        self.macs = 0
        self.kept: Integers | None = None  # accumulators that no results were made of

    def results(self, operation: NpuOperation) -> Array | None:
        """The OFM (height, width, depth) of an operation, in its type; None if there is none."""
        if not operation.accumulation.output:
            self._check_kept(operation)
        sums, scaled = self._sums(operation)
        if not operation.accumulation.output:
            self.kept = sums
            return None
        scale = None if scaled else operation.scale
        if scale is None and not scaled:
            bias, factor, shift = self._scales(operation)
            sums = rescale(sums + bias, factor, shift, operation.rounding)
        zero_point = operation.ofm.zero_point
        return finish(sums, scale, zero_point, operation.activation, self.internal, operation.ofm)

    @staticmethod
    def _check_kept(operation: NpuOperation) -> None:
        """Accumulators can be kept of one block only."""
        if any(n > most for n, most in zip(operation.ofm.shape, operation.block, strict=True)):
            raise SimulationError(
                Rule.GEOMETRY,
                f"accumulators of {operation.ofm.shape} are kept, a block has {operation.block}",
                operation.position,
            )

    def _sums(self, operation: NpuOperation) -> tuple[Integers, bool]:
        """What accumulators hold, or elementwise units give, and whether it is scaled already."""
        kind = operation.kind
        if kind is OperationKind.ELEMENTWISE:
            unit = u85_elementwise if self.hardware.product == "u85" else u55_elementwise
            return unit(operation, self.memory)
        if kind is OperationKind.RESIZE:
            return resized(operation, self.memory), False
        begin = self._begin(operation)
        if operation.mode == "none":
            return begin, False
        values = input_values(operation, self.memory)
        if kind is OperationKind.POOL:
            divides = self.hardware.product == "u85"  # averages are never left to OFM_SCALE
            sums, scaled = pooled(operation, values, divides)
            scaled = scaled and _is_one(operation.scale)
            return accumulated(operation, sums + begin), scaled
        weights = self._weights(operation)
        self.macs += operation.ofm.height * operation.ofm.width * weights.size
        alone = kind is OperationKind.DEPTHWISE
        sums = (depthwise if alone else convolution)(operation, values, weights)
        return accumulated(operation, sums + begin), False

    def _begin(self, operation: NpuOperation) -> Integers:
        """What accumulators hold before."""
        source, shape = operation.accumulation.source, operation.ofm.shape
        if source == "reset":
            return np.zeros((1, 1, 1), np.int64)
        if source == "ifm2":
            assert operation.ifm2 is not None
            ifm2 = operation.ifm2
            return np.asarray(ifm2.load(self.memory), np.int64) - ifm2.zero_point
        if self.kept is None or self.kept.shape != shape:
            held = "nothing" if self.kept is None else str(self.kept.shape)
            raise SimulationError(
                Rule.CHAIN, f"the accumulators hold {held}, not {shape}", operation.position
            )
        return self.kept

    def _weights(self, operation: NpuOperation) -> Array:
        """Weights (depth, height, width, inputs)."""
        if operation.mode == "by ifm2":
            assert operation.ifm2 is not None
            given = operation.ifm2.load(self.memory).astype(np.int32) - operation.ifm2.zero_point
            return given.reshape(operation.ofm.depth, 1, 1, -1)
        window, ofm = operation.window, operation.ofm
        count = window.height * window.width * operation.ifm.depth * ofm.depth
        if count > _MOST_WEIGHTS:
            raise SimulationError(Rule.NOT_SIMULATED, f"{count} weights", operation.position)
        try:
            if self.hardware.product == "u85":
                return self._u85_weights(operation)
            return self._u55_weights(operation)
        except ValueError as fault:
            raise damaged("weights", fault, operation.position) from None

    def _u55_weights(self, operation: NpuOperation) -> Weights:
        """Core n of several has every n-th channel."""
        alone = operation.kind is OperationKind.DEPTHWISE
        inputs = 1 if alone else operation.ifm.depth
        window, depth, cores = operation.window, operation.ofm.depth, len(operation.weights)
        weights = np.empty((depth, window.height, window.width, inputs), np.int16)
        for core, stream in enumerate(operation.weights):
            channels = weights[core::cores]
            layout = WeightLayout(
                len(channels),
                window.height,
                window.width,
                inputs,
                (window.dilation_y, window.dilation_x),
                (operation.block[2] + cores - 1 - core) // cores,
                self.hardware.weight_microblock,
                operation.ifm.element == 2,
                _order(operation),
            )
            channels[...] = decoded_weights(self._read(stream, "weights"), layout)
        return weights

    def _u85_weights(self, operation: NpuOperation) -> Weights:
        alone = operation.kind is OperationKind.DEPTHWISE
        window, microblock = operation.window, operation.accumulation.microblock[2]
        layout = U85WeightLayout(
            operation.ofm.depth,
            window.height,
            window.width,
            1 if alone else operation.ifm.depth,
            (window.stride_y, window.stride_x),
            (window.dilation_y, window.dilation_x),
            operation.block[2],
            input_depth(operation, self.hardware, operation.block[2]),
            microblock,
            operation.ifm.element == 2,
            _order(operation),
            operation.sparse_weights,
            self.hardware.cores,
            self.hardware.macs,
        )
        streams = tuple(self._read(stream, "weights") for stream in operation.weights)
        return u85_weights(streams, layout, operation.fast_weights)

    def _scales(self, operation: NpuOperation) -> tuple[Integers, Integers, Integers]:
        """Biases, scales and shifts of all channels."""
        depth, cores = operation.ofm.depth, len(operation.scales)
        table = np.empty((3, depth), np.int64)
        for core, stream in enumerate(operation.scales):
            count = len(range(core, depth, cores))
            if stream.length < count * _SCALE_BYTES:
                raise SimulationError(
                    Rule.SCALE_STREAM,
                    f"{stream.length} bytes for {count} channels of core {core}",
                    operation.position,
                )
            data = self._read(stream, "scales")
            if self.hardware.product == "u85":
                wide = operation.accumulation.format == "acc48"
                table[:, core::cores] = read_u85_scales(data, count, wide)
            else:
                table[:, core::cores] = read_scales(data, count)
        return table[0], table[1], table[2]

    def _read(self, stream: StreamRange, what: str) -> bytes:
        return self.memory.read(stream.region, stream.start, stream.length, what).tobytes()


def _order(operation: NpuOperation) -> str:
    if operation.kind is OperationKind.DEPTHWISE:
        return "depthwise"
    return "part_kernel" if operation.part_kernel else "depth_first"


def _is_one(scale: IntegerScale | None) -> bool:
    return scale is None or (scale.factor, scale.shift) == (1, 0)
