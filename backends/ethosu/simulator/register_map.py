"""Commands and registers of command streams: codes, fields and legal values, as data.

Sources: the register descriptions of the Ethos-U55 and -U65, and of the -U85, that the package
ethos-u-vela 5.2 carries. A line is a command: kind, code (hexadecimal), name, and fields as
`name:bit:width`, with `=values` where the hardware does not know all (`a-b` are ranges). `op` does
something, `set` sets a register; those with a second word are `op+` and `set+`, and its bits count
from 16. ADDRESS is a number of 40 bits whose high part lies in the first word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

_ADDRESS = "low:16:32 high:0:8"
_SHARED = """
op 000 STOP mask:0:16
op 001 IRQ mask:0:16
op 003 DEPTHWISE
op 010 DMA_START
op 013 PMU_MASK enable:0:1
set 100 IFM_PAD_TOP value:0:7
set 101 IFM_PAD_LEFT value:0:7
set 102 IFM_PAD_RIGHT value:0:8
set 103 IFM_PAD_BOTTOM value:0:8
set 104 IFM_DEPTH_M1 value:0:16
set 107 IFM_UPSCALE mode:0:2=0-2
set 109 IFM_ZERO_POINT value:0:16
set 10A IFM_WIDTH0_M1 value:0:16
set 10B IFM_HEIGHT0_M1 value:0:16
set 10C IFM_HEIGHT1_M1 value:0:16
set 10F IFM_REGION region:0:3
set 111 OFM_WIDTH_M1 value:0:16
set 112 OFM_HEIGHT_M1 value:0:16
set 113 OFM_DEPTH_M1 value:0:16
set 118 OFM_ZERO_POINT value:0:16
set 11A OFM_WIDTH0_M1 value:0:16
set 11B OFM_HEIGHT0_M1 value:0:16
set 11C OFM_HEIGHT1_M1 value:0:16
set 11F OFM_REGION region:0:3
set 120 KERNEL_WIDTH_M1 value:0:16
set 121 KERNEL_HEIGHT_M1 value:0:16
set 122 KERNEL_STRIDE x:0:1 y:1:1 part_kernel:2:1 dilation_x:3:1 dilation_y:4:1 \
decomposition:5:1 x_high:6:1 y_high:9:1
set 126 ACTIVATION_MIN value:0:16
set 127 ACTIVATION_MAX value:0:16
set 128 WEIGHT_REGION region:0:3
set 129 SCALE_REGION region:0:3
set 132 DMA0_SIZE0 value:0:16
set 133 DMA0_SIZE1 value:0:16
set 189 IFM2_ZERO_POINT value:0:16
set 18A IFM2_WIDTH0_M1 value:0:16
set 18B IFM2_HEIGHT0_M1 value:0:16
set 18C IFM2_HEIGHT1_M1 value:0:16
set 18F IFM2_REGION region:0:3
set+ 000 IFM_BASE0 ADDRESS
set+ 001 IFM_BASE1 ADDRESS
set+ 002 IFM_BASE2 ADDRESS
set+ 003 IFM_BASE3 ADDRESS
set+ 004 IFM_STRIDE_X ADDRESS
set+ 005 IFM_STRIDE_Y ADDRESS
set+ 006 IFM_STRIDE_C ADDRESS
set+ 010 OFM_BASE0 ADDRESS
set+ 011 OFM_BASE1 ADDRESS
set+ 012 OFM_BASE2 ADDRESS
set+ 013 OFM_BASE3 ADDRESS
set+ 014 OFM_STRIDE_X ADDRESS
set+ 015 OFM_STRIDE_Y ADDRESS
set+ 016 OFM_STRIDE_C ADDRESS
set+ 020 WEIGHT_BASE ADDRESS
set+ 021 WEIGHT_LENGTH value:16:32
set+ 022 SCALE_BASE ADDRESS
set+ 023 SCALE_LENGTH value:16:20
set+ 030 DMA0_SRC ADDRESS
set+ 031 DMA0_DST ADDRESS
set+ 032 DMA0_LEN ADDRESS
set+ 080 IFM2_BASE0 ADDRESS
set+ 081 IFM2_BASE1 ADDRESS
set+ 082 IFM2_BASE2 ADDRESS
set+ 083 IFM2_BASE3 ADDRESS
set+ 084 IFM2_STRIDE_X ADDRESS
set+ 085 IFM2_STRIDE_Y ADDRESS
set+ 086 IFM2_STRIDE_C ADDRESS
set+ 090 WEIGHT1_BASE ADDRESS
set+ 091 WEIGHT1_LENGTH value:16:32
"""
_U55 = """
op 002 CONV
op 005 POOL mode:0:3=0-2
op 006 ELEMENTWISE mode:0:6=0-9
op 011 DMA_WAIT count:0:1
op 012 KERNEL_WAIT count:0:2
set 105 IFM_PRECISION signed:0:1 precision:2:2=0-2 format:6:2=0,1 scale_mode:8:2=0-2 \
rounding:14:2=0-2
set 10D IFM_IB_END value:0:6
set 114 OFM_PRECISION signed:0:1 precision:1:2=0-2 format:6:2=0,1 global_scale:8:1 \
rounding:14:2=0-2
set 115 OFM_BLK_WIDTH_M1 value:0:6
set 116 OFM_BLK_HEIGHT_M1 value:0:5
set 117 OFM_BLK_DEPTH_M1 value:0:7
set 124 ACC_FORMAT format:0:2=0-2
set 125 ACTIVATION function:0:5=0,3,4,16-23 clip_range:12:3=0,2,3,5
set 12D AB_START value:0:6
set 12F BLOCKDEP value:0:2
set 130 DMA0_SRC_REGION region:0:3 internal:8:1 stride_mode:9:2=0-2
set 131 DMA0_DST_REGION region:0:3 internal:8:1 stride_mode:9:2=0-2
set 180 IFM2_BROADCAST height:0:1 width:1:1 depth:2:1 swapped:6:1 scalar:7:1
set 181 IFM2_SCALAR value:0:16
set 185 IFM2_PRECISION signed:0:1 precision:2:2=0-2 format:6:2=0,1
set 18D IFM2_IB_START value:0:6
set+ 024 OFM_SCALE shift:0:6 scale:16:32
set+ 025 OPA_SCALE shift:0:6 scale:16:32
set+ 026 OPB_SCALE scale:16:16
"""
_U65 = """
set 123 PARALLEL_MODE mode:0:1
set+ 033 DMA0_SKIP0 ADDRESS
set+ 034 DMA0_SKIP1 ADDRESS
set+ 092 SCALE1_BASE ADDRESS
set+ 093 SCALE1_LENGTH value:16:20
"""
_U85 = """
op 002 CONV weights_ifm2:0:1
op 005 POOL mode:0:3
op 006 ELEMENTWISE mode:0:6=0-11,16-19,33-36,42
op 007 RESIZE mode:0:2=0-2
op 011 DMA_WAIT count:0:2
op 012 KERNEL_WAIT count:0:1
op+ 100 BRANCH condition:0:1 target:16:32
set 105 IFM_PRECISION signed:0:1 precision:2:2 format:6:2=0,1 storage:14:2
set 108 IFM_BROADCAST mode:0:4=0-8
set 114 OFM_PRECISION signed:0:1 precision:1:2 format:6:2=0,1 global_scale:8:1 reverse:9:2 \
transpose:11:3=0-3,6,7 storage:14:2
set 115 OFM_BLK_WIDTH_M1 value:0:7
set 116 OFM_BLK_HEIGHT_M1 value:0:7
set 117 OFM_BLK_DEPTH_M1 value:0:10
set 124 ACC_FORMAT format:0:2=0,1 input:4:2=0-2 output:6:1 microblock:8:3=0-5
set 125 ACTIVATION function:0:5=0,1,4,5,7-11 table:5:3 clip_range:12:1
set 12A RESIZE_X_SCALE_N_M1 value:0:11
set 12B RESIZE_Y_SCALE_N_M1 value:0:11
set 12C RESIZE_X_OFFSET value:0:12
set 12D RESIZE_Y_OFFSET value:0:12
set 12E WEIGHT_FORMAT fast:0:1 sparse:4:1
set 12F BLOCKDEP value:0:3
set 130 DMA0_SRC_REGION region:0:3 internal:8:1 stride_mode:9:2=0-2 indexed:11:1
set 131 DMA0_DST_REGION region:0:3 internal:8:1 indexed:11:1
set 134 DMA0_IDX_REGION region:0:3
set 180 IFM2_BROADCAST mode:0:4=0-8
set 185 IFM2_PRECISION signed:0:1 precision:2:2 format:6:2=0,1 storage:14:2
set+ 024 OFM_SCALE shift:0:6 double_round:6:5 rounding:13:3=0-5 scale:16:31
set+ 025 IFM_SCALE shift:0:6 double_round:6:5 rounding:13:1 scale:16:31
set+ 026 IFM2_SCALE shift:0:6 double_round:6:5 rounding:13:1 scale:16:31
set+ 027 OP_SCALAR value:16:32
set+ 096 RESIZE_X_STEP one_whole:0:4 block_whole:4:11 one_part:16:11 block_part:32:11
set+ 097 RESIZE_Y_STEP one_whole:0:4 block_whole:4:11 one_part:16:11 block_part:32:11
set+ 033 DMA0_SRC_STRIDE0 ADDRESS
set+ 034 DMA0_SRC_STRIDE1 ADDRESS
set+ 035 DMA0_DST_STRIDE0 ADDRESS
set+ 036 DMA0_DST_STRIDE1 ADDRESS
set+ 037 DMA0_IDX ADDRESS
set+ 038 DMA0_IDX_MAX value:16:31
set+ 039 DMA0_IDX_SKIP1 ADDRESS
set+ 092 WEIGHT2_BASE ADDRESS
set+ 093 WEIGHT2_LENGTH value:16:32
set+ 094 WEIGHT3_BASE ADDRESS
set+ 095 WEIGHT3_LENGTH value:16:32
"""


@dataclass(frozen=True)
class RegisterField:
    """Bits of a command; legal: the values that the hardware knows, None for all."""

    bit: int
    width: int
    legal: frozenset[int] | None = None

    def of(self, value: int) -> int:
        """This field of the value of a command."""
        return value >> self.bit & (1 << self.width) - 1


@dataclass(frozen=True)
class CommandFormat:
    """A command of the stream. operation: it does something, others set the register `name`.

    second_word: the command has two words; mask: the bits of its value that mean something.
    """

    name: str
    operation: bool
    second_word: bool
    fields: Mapping[str, RegisterField]
    mask: int


CommandMap = Mapping[tuple[bool, int], CommandFormat]  # by second_word and code


@cache
def command_map(product: str) -> CommandMap:
    """All commands of a product: u55, u65 or u85."""
    tables = {"u55": (_SHARED, _U55), "u65": (_SHARED, _U55, _U65), "u85": (_SHARED, _U85)}
    lines = "".join(tables[product]).splitlines()
    return dict(_parsed(line) for line in lines if line)


def _parsed(line: str) -> tuple[tuple[bool, int], CommandFormat]:
    kind, code, name, *texts = line.replace("ADDRESS", _ADDRESS).split()
    fields = {}
    for text in texts:
        layout, _, legal = text.partition("=")
        field, bit, width = layout.split(":")
        fields[field] = RegisterField(int(bit), int(width), _values(legal) if legal else None)
    mask = sum((1 << field.width) - 1 << field.bit for field in fields.values())
    second = kind.endswith("+")
    command = CommandFormat(name, kind.startswith("op"), second, fields, mask)
    return (second, int(code, 16)), command


def _values(text: str) -> frozenset[int]:
    legal: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        legal.update(range(int(first), int(last or first) + 1))
    return frozenset(legal)
