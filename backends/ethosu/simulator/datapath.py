"""From the memory to the results of an operation: inputs, sums, scales, activation."""

from __future__ import annotations

import numpy as np

from .elementwise_unit import u55_elementwise
from .npu_hardware import NpuHardware
from .npu_operation import NpuOperation, OperationKind, StreamRange
from .output_stage import Array, finish
from .region_memory import Bytes, RegionMemory
from .rescaling import Integers, rescale
from .violations import Rule, SimulationError
from .weight_streams import WeightLayout, Weights, damaged, decoded_weights, read_scales
from .window_sums import convolution, depthwise, input_values, pooled

_SCALE_BYTES = 10  # of a channel


class Datapath:
    """Computes results. macs: products of weights and inputs so far."""

    def __init__(self, hardware: NpuHardware, memory: RegionMemory, internal: Bytes) -> None:
        self.hardware, self.memory, self.internal = hardware, memory, internal
        self.macs = 0

    def results(self, operation: NpuOperation) -> Array:
        """The OFM (height, width, depth) of an operation, in its type."""
        if operation.kind is OperationKind.ELEMENTWISE:
            sums, scaled = u55_elementwise(operation, self.memory)
        elif operation.kind is OperationKind.POOL:
            sums, scaled = pooled(operation, input_values(operation, self.memory))
        else:
            sums, scaled = self._convolved(operation), True
        return finish(
            sums,
            None if scaled else operation.scale,
            operation.ofm.zero_point,
            operation.activation,
            self.internal,
            operation.ofm,
        )

    def _convolved(self, operation: NpuOperation) -> Integers:
        """Sums of products with the bias and the scale of their channel."""
        values = input_values(operation, self.memory)
        weights = self._weights(operation)
        self.macs += operation.ofm.height * operation.ofm.width * weights.size
        alone = operation.kind is OperationKind.DEPTHWISE
        sums = (depthwise if alone else convolution)(operation, values, weights)
        bias, scale, shift = self._scales(operation)
        return rescale(sums + bias, scale, shift, operation.rounding)

    def _weights(self, operation: NpuOperation) -> Weights:
        """Weights (depth, height, width, inputs); core n of several has every n-th channel."""
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
                "depthwise" if alone else "part_kernel" if operation.part_kernel else "depth_first",
            )
            try:
                channels[...] = decoded_weights(self._read(stream, "weights"), layout)
            except ValueError as fault:
                raise damaged(f"weights of core {core}", fault, operation.position) from None
        return weights

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
            table[:, core::cores] = read_scales(self._read(stream, "scales"), count)
        return table[0], table[1], table[2]

    def _read(self, stream: StreamRange, what: str) -> bytes:
        return self.memory.read(stream.region, stream.start, stream.length, what).tobytes()
