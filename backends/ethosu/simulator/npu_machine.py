"""Runs a command stream: operation by operation on whole feature maps."""

from __future__ import annotations

from collections import Counter

import numpy as np

from .block_traffic import BlockTraffic, check_in_place
from .datapath import Datapath
from .dma_transfers import DmaUnit, u55_transfer
from .driver_payload import DriverPayload, StreamCommand, read_instructions
from .hazards import Hazards
from .npu_operation import NpuOperation
from .region_memory import RegionMemory
from .register_file import RegisterFile
from .rescaling import Integers
from .shared_ram import check_block, lay_out
from .u55_registers import U55Reader
from .violations import Rule, SimulationError

_OPERATIONS = ("CONV", "DEPTHWISE", "POOL", "ELEMENTWISE")


class NpuMachine:
    """The state of an NPU: registers, internal memory, what is unfinished."""

    def __init__(self, payload: DriverPayload, memory: RegionMemory) -> None:
        self.hardware, self.memory = payload.hardware, memory
        self.instructions = read_instructions(payload)
        self.registers = RegisterFile()
        self.internal = np.zeros(self.hardware.internal_bytes, np.uint8)
        self.loaded = np.zeros_like(self.internal)
        self.dma = DmaUnit(self.hardware, memory, self.internal, self.loaded)
        self.hazards = Hazards(self.hardware)
        self.reader = U55Reader(self.hardware, self.registers)
        self.datapath = Datapath(self.hardware, memory, self.internal)
        self.counts: Counter[str] = Counter()

    def run(self) -> None:
        """Run the stream to its STOP. Raises SimulationError for the first violation."""
        at = 0
        while True:
            instruction = self.instructions.get(at)
            if instruction is None:
                raise SimulationError(Rule.TRUNCATED, "there is no STOP", at)
            if instruction.format.name == "STOP":
                self.hazards.wait_for_transfers()
                return
            self._execute(instruction)
            at = instruction.following

    def _execute(self, instruction: StreamCommand) -> None:
        name = instruction.format.name
        self.memory.position = self.registers.position = instruction.position
        if not instruction.format.operation:
            self.registers.set(instruction)
        elif name in _OPERATIONS:
            self._operate(self.reader.operation(instruction))
        elif name == "DMA_START":
            shape, source, target = u55_transfer(self.registers, self.hardware)
            transfer = self.dma.transfer(instruction.position, shape, source, target)
            self.hazards.start_transfer(transfer)
            self.counts["dma"] += 1
        elif name == "DMA_WAIT":
            self.hazards.wait_for_transfers(instruction.field("count"))
        elif name == "KERNEL_WAIT":
            self.hazards.wait_for_operations(instruction.field("count"))
        elif name not in ("IRQ", "PMU_MASK"):  # of which results do not depend
            raise SimulationError(Rule.NOT_SIMULATED, name, instruction.position)

    def _operate(self, operation: NpuOperation) -> None:
        check_block(operation, self.hardware)
        table, overwritten = lay_out(operation, self.hardware)
        access = BlockTraffic(operation, self.memory).access(table, overwritten)
        self.hazards.start_operation(access, operation.blockdep)
        check_in_place(operation, access)
        self._use_shared_ram(operation, overwritten.starts, overwritten.ends)
        operation.ofm.store(self.memory, self.datapath.results(operation))
        self.counts[operation.label] += 1

    def _use_shared_ram(self, operation: NpuOperation, starts: Integers, ends: Integers) -> None:
        table = operation.activation.table
        if table and not self.loaded[table.start : table.start + table.size].all():
            raise SimulationError(
                Rule.LUT_NOT_LOADED,
                f"{table.size} bytes at {table.start} of the shared RAM",
                operation.position,
            )
        for start, end in zip(starts, ends, strict=True):
            self.loaded[start:end] = 0
