"""Runs programs of `bare/firmware.c` in an emulator (stdlib and numpy only)."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .device_pipes import Device, DeviceError, run_beside

Array = NDArray[Any]
SECTION = b".tensmith"
_DEFAULT = 0xFFFFFFFF  # instead of bytes: an input is left out
_ELF = struct.Struct("<16sHHIIIIIHHHHHH")
_SECTION_HEADER = struct.Struct("<10I")


class FirmwareError(RuntimeError):
    """A program that is none of Tensmith's, or that ended before all its runs had."""


@dataclass(frozen=True)
class FirmwareRun:
    """What became of one run.

    outputs: in model order; none where status is not 0. ticks: of SysTick. arena_bytes,
    stack_bytes: that it took. message: what is wrong.
    """

    status: int
    outputs: tuple[Array, ...]
    ticks: int
    arena_bytes: int
    stack_bytes: int
    message: str


def descriptions(program: Path) -> list[dict[str, Any]]:
    """The manifests of the models in a program. Raises FirmwareError where there are none."""
    image = program.read_bytes()
    if len(image) >= _ELF.size and image[:5] == b"\x7fELF\x01":
        header = _ELF.unpack_from(image)
        at, count, names = header[6], header[12], header[13]
        sections = [_SECTION_HEADER.unpack_from(image, at + 40 * i) for i in range(count)]
        strings = sections[names][4] if count else 0
        for section in sections:
            name = image[strings + section[0] : image.find(b"\0", strings + section[0])]
            if name == SECTION:
                found: list[dict[str, Any]] = json.loads(
                    image[section[4] : section[4] + section[5]]
                )
                return found
    raise FirmwareError(f"'{program}' is no program of Tensmith for an emulator")


def run_firmware(
    command: Sequence[str],
    program: Path,
    calls: Sequence[tuple[int, Mapping[str, Array]]],
    dtypes: Mapping[str, np.dtype[Any]],
    folder: Path,
    device: Device | None = None,
) -> list[FirmwareRun]:
    """Runs of the models of a program by number, each on inputs by name, in one start of it.

    command: the emulator, to which the program's name is added. dtypes: of numpy, by the names that
    manifests have. folder: for files of the run. device: runs what the program hands to one that
    the emulator has not.
    Raises FirmwareError when the program ends early, or the device refuses what it is handed; the
    runs before are lost.
    """
    models = descriptions(program)
    requests = b"".join(_request(number, models[number], inputs) for number, inputs in calls)
    (folder / "inputs.bin").write_bytes(requests)
    _start([*command, str(program.resolve())], folder, device)
    reader = _Reader((folder / "outputs.bin").read_bytes())
    return [reader.run(models[number], dtypes) for number, _ in calls]


def _start(command: Sequence[str], folder: Path, device: Device | None) -> None:
    """Run a program to its end. Raises FirmwareError for one other than by success."""
    if device is None:
        result = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
        )  # fmt: skip
        status, said = result.returncode, result.stdout
    else:
        try:
            status, said = run_beside(command, folder, device)
        except DeviceError as error:
            raise FirmwareError(str(error)) from error
    if status:
        raise FirmwareError(f"exit status {status}: {said.strip()[-500:]}")


def symbols_of(model: Mapping[str, Any], inputs: Mapping[str, Array]) -> list[int]:
    """The symbolic dimensions that inputs bind, in the model's order."""
    bound: dict[str, int] = {}
    for spec in model["inputs"]:
        sizes = inputs[spec["name"]].shape if spec["name"] in inputs else spec["default"]
        bound.update((d, s) for d, s in zip(spec["dims"], sizes, strict=True) if isinstance(d, str))
    return [bound[name] for name in model["symbols"]]


def _request(number: int, model: Mapping[str, Any], inputs: Mapping[str, Array]) -> bytes:
    symbols = symbols_of(model, inputs)
    parts = [struct.pack(f"<i{len(symbols)}q", number, *symbols)]
    for spec in model["inputs"]:
        array = inputs.get(spec["name"])
        if array is None:
            parts.append(struct.pack("<I", _DEFAULT))
            continue
        data = np.ascontiguousarray(array).tobytes()
        parts += [struct.pack("<I", len(data)), data]
    return b"".join(parts)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def numbers(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return found

    def bytes(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def run(self, model: Mapping[str, Any], dtypes: Mapping[str, np.dtype[Any]]) -> FirmwareRun:
        status, ticks, arena, stack, length = self.numbers("<iQIII")
        message = self.bytes(length).decode(errors="replace")
        outputs = []
        for spec in model["outputs"] if not status else ():
            shape = self.numbers(f"<{len(spec['dims'])}q")
            (size,) = self.numbers("<I")
            array = np.frombuffer(self.bytes(size), dtypes[spec["dtype"]])
            outputs.append(array.reshape(shape))
        return FirmwareRun(status, tuple(outputs), ticks, arena, stack, message)
