"""What the accelerators have: multipliers, blocks, shared RAM, queues.

Source: the architecture descriptions of ethos-u-vela 5.2 (regor's ArchEthosU55, -U65 and -U85).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from .violations import Rule, SimulationError

BANK_BYTES = 1024
LUT_BANKS = 2  # at the end of the shared RAM
LUT_SLOT_BYTES = 256


@dataclass(frozen=True)
class BankGranules:
    """How many banks at a time buffers take: inputs of up to 16 and of 32 bits, accumulators."""

    ifm: int
    ifm32: int
    acc32: int
    acc40: int


@dataclass(frozen=True)
class NpuHardware:
    """One configuration of an Ethos-U.

    product: u55, u65 or u85; macs: multiplications in a cycle, of all cores. ofm_microblock:
    height, width, depth; weight_microblock: depths of OFM and IFM that weights are ordered by.
    banks: of the shared RAM, in KiB; granules: how many banks buffers are made of. The queues say
    how many transfers and operations may be unfinished. Of the Ethos-U85: the micro-blocks of the
    OFM that there are, and bytes for accumulators.
    """

    name: str
    product: str
    macs: int
    config_word: int
    ofm_microblock: tuple[int, int, int]
    weight_microblock: tuple[int, int]
    cores: int = 1
    banks: int = 0
    granules: BankGranules = BankGranules(1, 1, 1, 1)
    dma_queue: int = 1
    kernel_queue: int = 2
    largest_block: tuple[int, int, int] = (32, 64, 128)
    microblocks: tuple[tuple[int, int, int], ...] = ()
    accumulator_bytes: int = 0

    @property
    def lut_start(self) -> int:
        """Where lookup tables begin in the internal memory, in bytes."""
        return (self.banks - LUT_BANKS) * BANK_BYTES if self.banks else 0

    @property
    def internal_bytes(self) -> int:
        """Internal memory that DMA transfers can reach."""
        return (self.banks or LUT_BANKS) * BANK_BYTES


_LARGE = BankGranules(8, 16, 16, 20)


def _u55(macs: int, ublock: tuple[int, int, int], banks: int, g: BankGranules) -> NpuHardware:
    config = macs.bit_length() - 1 | banks << 8
    return NpuHardware(
        f"ethos-u55-{macs}",
        "u55",
        macs,
        config,
        ublock,
        (ublock[2], 8),
        banks=banks,
        granules=g,
    )


def _u65(cores: int) -> NpuHardware:
    config = 1 << 28 | 7 + cores | 48 * cores << 8
    return NpuHardware(
        f"ethos-u65-{256 * cores}",
        "u65",
        256 * cores,
        config,
        (2, 2, 8),
        (8, 8),
        cores=cores,
        banks=48,
        granules=_LARGE,
        dma_queue=2,
    )


def _u85(
    macs: int,
    cores: int,
    ports: int,
    memory: int,
    *microblocks: tuple[int, int, int],
) -> NpuHardware:
    """ports: bits of the config word that say how many buses there are."""
    config = 2 << 28 | (cores.bit_length() - 1) << 12 | ports << 8 | 1 << 4 | macs.bit_length() - 1
    return NpuHardware(
        f"ethos-u85-{macs}",
        "u85",
        macs,
        config,
        (1, 1, 16),
        (0, 0),
        cores=cores,
        dma_queue=4,
        largest_block=(128, 128, 1024),
        microblocks=microblocks,
        accumulator_bytes=memory,
    )


_ALL = (
    _u55(32, (1, 1, 4), 16, BankGranules(2, 4, 4, 4)),
    _u55(64, (1, 1, 8), 16, BankGranules(2, 4, 4, 8)),
    _u55(128, (1, 2, 8), 24, BankGranules(4, 8, 8, 12)),
    _u55(256, (2, 2, 8), 48, _LARGE),
    _u65(1),
    _u65(2),
    _u85(128, 1, 1, 8192, (1, 2, 8), (1, 1, 16)),
    _u85(256, 1, 1, 16384, (1, 2, 16), (1, 4, 8), (2, 2, 8)),
    _u85(512, 2, 1, 32768, (2, 2, 16), (1, 4, 16)),
    _u85(1024, 4, 5, 65536, (2, 2, 32), (1, 4, 32), (2, 4, 16)),
    _u85(2048, 4, 6, 131072, (2, 2, 64), (1, 4, 64), (4, 4, 16)),
)
HARDWARE = MappingProxyType({hardware.name: hardware for hardware in _ALL})


def hardware_of(config_word: int, id_word: int) -> NpuHardware:
    """The accelerator that the words of a payload name. Raises SimulationError for another one."""
    product = {0: "u55", 1: "u65", 2: "u85"}.get(config_word >> 28)
    if product is None:
        raise SimulationError(Rule.CONFIG, f"config word {config_word:#010x} names no product")
    version = (id_word >> 28, id_word >> 20 & 0xFF)
    expected = (2, 0) if product == "u85" else (1, 0)
    if version != expected:
        found, known = (".".join(map(str, numbers)) for numbers in (version, expected))
        raise SimulationError(
            Rule.ARCHITECTURE, f"made for version {found}, the {product} has {known}"
        )
    for hardware in _ALL:
        if hardware.config_word == config_word:
            return hardware
    raise SimulationError(
        Rule.CONFIG, f"config word {config_word:#010x} is none of " + ", ".join(HARDWARE)
    )
