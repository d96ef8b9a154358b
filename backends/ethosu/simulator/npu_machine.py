"""Runs a command stream: operation by operation on whole feature maps."""

from __future__ import annotations

from collections import Counter

import numpy as np

from .block_traffic import BlockTraffic, check_in_place
from .datapath import Datapath
from .dma_transfers import DmaUnit, u55_transfer, u85_transfer
from .driver_payload import DriverPayload, StreamCommand, read_instructions
from .feature_map import Storage
from .hazards import Hazards
from .npu_operation import NpuOperation
from .region_memory import RegionMemory
from .register_file import RegisterFile
from .rescaling import Integers
from .shared_ram import check_block, lay_out
from .u55_registers import U55Reader
from .u85_registers import U85Reader
from .violations import Rule, SimulationError

_OPERATIONS = ("CONV", "DEPTHWISE", "POOL", "ELEMENTWISE", "RESIZE")


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
        reader = U85Reader if self.hardware.product == "u85" else U55Reader
        self.reader: U55Reader | U85Reader = reader(self.hardware, self.registers)
        self.chaining = False  # the operation before hands its results to the next one
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
            if instruction.format.name == "BRANCH":
                at = self._branch(instruction)

    def _execute(self, instruction: StreamCommand) -> None:
        name = instruction.format.name
        self.memory.position = self.registers.position = instruction.position
        if not instruction.format.operation:
            self.registers.set(instruction)
        elif name in _OPERATIONS:
            self._operate(self.reader.operation(instruction))
        elif name == "DMA_START":
            described = u85_transfer if self.hardware.product == "u85" else u55_transfer
            shape, source, target = described(self.registers, self.hardware)
            transfer = self.dma.transfer(instruction.position, shape, source, target)
            self.hazards.start_transfer(transfer)
            self.counts["dma"] += 1
        elif name == "DMA_WAIT":
            self.hazards.wait_for_transfers(instruction.field("count"))
        elif name == "KERNEL_WAIT":
            self.hazards.wait_for_operations(instruction.field("count"))
        elif name not in ("IRQ", "PMU_MASK", "BRANCH"):  # that compute nothing
            raise SimulationError(Rule.NOT_SIMULATED, name, instruction.position)

    def _branch(self, instruction: StreamCommand) -> int:
        """Where a branch leads, as a word of the stream."""
        position, target = instruction.position, instruction.field("target")
        if instruction.field("condition"):
            raise SimulationError(
                Rule.NOT_SIMULATED, "a branch on a result, whose register is not known", position
            )
        if target % 4 or target // 4 not in self.instructions:
            raise SimulationError(Rule.BRANCH, f"to byte {target}, where no command is", position)
        if target // 4 <= position:
            raise SimulationError(Rule.BRANCH, f"back to byte {target}, without end", position)
        return target // 4

    def _operate(self, operation: NpuOperation) -> None:
        check_block(operation, self.hardware)
        table, overwritten = lay_out(operation, self.hardware)
        access = BlockTraffic(operation, self.memory, self.hardware).access(table, overwritten)
        self.hazards.start_operation(access, operation.blockdep, self.chaining)
        self.chaining = operation.ofm.storage is Storage.CHAINED
        check_in_place(operation, access)
        self._use_shared_ram(operation, overwritten.starts, overwritten.ends)
        results = self.datapath.results(operation)
        if results is not None:
            operation.ofm.store(self.memory, results)
        if not self.chaining:
            self.memory.chains.clear()
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
