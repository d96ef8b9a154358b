"""Counters of energy of this machine: RAPL by powercap or perf, hwmon, NVML; and files of meters.

Every reader says why it cannot be read, and what helps. Where none can be, which is so in virtual
machines, energy is modelled (`compiler/economics/power.py`).
"""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from ...compiler.economics.csv_rows import csv_rows, require_columns
from ...compiler.economics.estimate import Estimate, Provenance
from ...compiler.errors import UsageError

SYSTEM = Path("/sys")
IDLE_SECONDS, WORK_SECONDS = 5.0, 10.0
MICRO, MILLI = 1e-6, 1e-3
Clock = Callable[[], float]
Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Unreadable:
    """A source that cannot be read: why, and what helps."""

    source: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.source}: {self.why} ({self.remedy})"


class EnergyCounter(Protocol):
    """Joules since some moment, of something that `source` names; it only grows."""

    source: str

    def joules(self) -> float: ...


class PowercapCounter:
    """All packages of RAPL by powercap, and the memory beside them where it is counted.

    Counters wrap around: what one is below its last reading is its range more. Source: Linux,
    Documentation/power/powercap/powercap.rst.
    """

    def __init__(self, zones: Sequence[Path]) -> None:
        self.source = f"RAPL, {len(zones)} zone(s)"
        self._zones = list(zones)
        self._ranges = [_number(zone / "max_energy_range_uj") for zone in zones]
        self._last = [_number(zone / "energy_uj") for zone in zones]
        self._total = 0.0

    def joules(self) -> float:
        """Since the counter was made."""
        for place, zone in enumerate(self._zones):
            now = _number(zone / "energy_uj")
            grown = now - self._last[place]
            self._total += (grown if grown >= 0 else grown + self._ranges[place]) * MICRO
            self._last[place] = now
        return self._total


def powercap(system: Path = SYSTEM) -> PowercapCounter | Unreadable:
    """RAPL by powercap: packages, and DRAM below them."""
    folder = system / "class/powercap"
    found = sorted(zone for zone in folder.glob("intel-rapl:*") if zone.name.count(":") == 1)
    zones = [zone for zone in found if _text(zone / "name").startswith("package")]
    for zone in list(zones):
        below = sorted(zone.glob(f"{zone.name}:*"))
        zones += [own for own in below if _text(own / "name") == "dram"]
    if not zones:
        return Unreadable(
            "RAPL (powercap)", f"there is nothing in {folder}",
            "virtual machines have none; elsewhere: modprobe intel_rapl_msr",
        )  # fmt: skip
    if (closed := _closed([zone / "energy_uj" for zone in zones])) is not None:
        return Unreadable("RAPL (powercap)", *closed)
    return PowercapCounter(zones)


class HwmonCounter:
    """Power sensors of hwmon, added up, times the time between readings: as good as readings are
    frequent. Source: Linux, Documentation/hwmon/sysfs-interface.rst (`power*_input`, microwatts;
    `energy*_input`, microjoules)."""

    def __init__(self, energies: Sequence[Path], powers: Sequence[Path], clock: Clock) -> None:
        self.source = f"hwmon, {len(energies) or len(powers)} sensor(s)"
        self._energies, self._powers, self._clock = list(energies), list(powers), clock
        self._total, self._at = 0.0, clock()

    def joules(self) -> float:
        """Since some moment."""
        if self._energies:
            return sum(_number(path) for path in self._energies) * MICRO
        now = self._clock()
        self._total += sum(_number(path) for path in self._powers) * MICRO * (now - self._at)
        self._at = now
        return self._total


def hwmon(system: Path = SYSTEM, clock: Clock = time.monotonic) -> HwmonCounter | Unreadable:
    """Energy or power sensors of boards (INA rails of Jetson, AMD's amd_energy)."""
    folder = system / "class/hwmon"
    energies = sorted(folder.glob("hwmon*/energy*_input"))
    powers = sorted(folder.glob("hwmon*/power*_input"))
    if not energies and not powers:
        return Unreadable(
            "hwmon", f"no sensor in {folder} tells energy or power",
            "boards that measure their rails have them; load the driver of the sensor",
        )  # fmt: skip
    if (closed := _closed(energies or powers)) is not None:
        return Unreadable("hwmon", *closed)
    return HwmonCounter(energies, powers, clock)


_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}


class _PerfAttributes(ctypes.Structure):
    """`struct perf_event_attr`, as far as counting takes it (PERF_ATTR_SIZE_VER0)."""

    _fields_ = (
        ("type", ctypes.c_uint32), ("size", ctypes.c_uint32), ("config", ctypes.c_uint64),
        ("period", ctypes.c_uint64), ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64), ("flags", ctypes.c_uint64),
        ("wakeup", ctypes.c_uint32), ("bp_type", ctypes.c_uint32), ("bp_addr", ctypes.c_uint64),
    )  # fmt: skip


class PerfCounter:
    """RAPL's packages by perf events; a counter of 64 bits in the unit that the kernel tells."""

    def __init__(self, descriptors: Sequence[int], scale: float) -> None:
        self.source = f"RAPL by perf, {len(descriptors)} package(s)"
        self._descriptors, self._scale = list(descriptors), scale

    def joules(self) -> float:
        """Since the events were opened."""
        counts = [int.from_bytes(os.read(own, 8), "little") for own in self._descriptors]
        return sum(counts) * self._scale


def perf(system: Path = SYSTEM) -> PerfCounter | Unreadable:
    """The event power/energy-pkg/, one for each package."""
    folder = system / "bus/event_source/devices/power"
    event, mask = _text(folder / "events/energy-pkg"), _text(folder / "cpumask")
    scale, kind = _text(folder / "events/energy-pkg.scale"), _text(folder / "type")
    if not (event and scale and kind):
        return Unreadable(
            "RAPL (perf)", f"there is no event in {folder}",
            "virtual machines have none; elsewhere: modprobe rapl",
        )  # fmt: skip
    number = _PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        return Unreadable("RAPL (perf)", "not on this architecture", "use powercap or hwmon")
    config = int(event.partition("event=")[2], 16)
    library = ctypes.CDLL(None, use_errno=True)
    opened: list[int] = []
    for cpu in (mask or "0").split(","):
        attributes = _PerfAttributes(int(kind), ctypes.sizeof(_PerfAttributes), config)
        found = library.syscall(number, ctypes.byref(attributes), -1, int(cpu), -1, 0)
        if found < 0:
            for own in opened:
                os.close(own)
            return Unreadable(
                "RAPL (perf)", os.strerror(ctypes.get_errno()),
                "run as root, or sysctl kernel.perf_event_paranoid=-1",
            )  # fmt: skip
        opened.append(int(found))
    return PerfCounter(opened, float(scale))


class NvmlCounter:
    """Energy of all GPUs by NVML, in steps of some 100 ms: measure for seconds.

    Source: NVML API reference, nvmlDeviceGetTotalEnergyConsumption (Volta and later, mJ).
    """

    def __init__(self, library: ctypes.CDLL, devices: Sequence[ctypes.c_void_p]) -> None:
        self.source = f"NVML, {len(devices)} GPU(s)"
        self._library, self._devices = library, list(devices)

    def joules(self) -> float:
        """Since the driver was loaded."""
        total = 0.0
        for device in self._devices:
            value = ctypes.c_ulonglong()
            self._library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(value))
            total += value.value * MILLI
        return total


def nvml(name: str = "libnvidia-ml.so.1") -> NvmlCounter | Unreadable:
    """The GPUs' counters, by the library of NVIDIA's driver."""
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        return Unreadable("NVML", str(error), "install NVIDIA's driver, where there is a GPU")
    if code := library.nvmlInit_v2():
        return Unreadable("NVML", f"nvmlInit gave {code}", "see whether nvidia-smi runs")
    count = ctypes.c_uint()
    library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    devices = [ctypes.c_void_p() for _ in range(count.value)]
    for number, device in enumerate(devices):
        library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device))
        value = ctypes.c_ulonglong()
        code = library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(value))
        if code:
            return Unreadable(
                "NVML", f"GPU {number} counts no energy (code {code})", "Volta and later do"
            )
    if not devices:
        return Unreadable("NVML", "there is no GPU", "run it where there is one")
    return NvmlCounter(library, devices)


def counters() -> tuple[list[EnergyCounter], list[Unreadable]]:
    """What of this machine can be read, the most direct first; and what cannot, with the reason.

    RAPL is read once: by powercap, or else by perf.
    """
    found: list[EnergyCounter] = []
    reasons: list[Unreadable] = []

    def take(one: EnergyCounter | Unreadable) -> bool:
        if isinstance(one, Unreadable):
            reasons.append(one)
            return False
        found.append(one)
        return True

    if not take(powercap()):
        take(perf())
    take(hwmon())
    take(nvml())
    return found, reasons


# ---------------------------------------------------------------------- the protocol


@dataclass(frozen=True)
class EnergyReading:
    """What calls took: gross: all of it; net: less what the machine takes idle, before and after.

    J of a call. idle: watts. calls: how many.
    """

    gross: Estimate
    net: Estimate
    idle: Estimate
    calls: int


def measured_energy(
    counter: EnergyCounter, work: Callable[[], int], machine: str, date: str, *,
    clock: Clock = time.monotonic, sleep: Sleep = time.sleep,
) -> EnergyReading:  # fmt: skip
    """Idle, calls, idle again: `work` makes calls for 10 s or more, and tells how many.

    The interval of the net energy is what the two idle readings differ by. Raises UsageError where
    there were no calls.
    """
    before = _watts(counter, clock, sleep)
    begun, first = clock(), counter.joules()
    calls = work()
    spent, seconds = counter.joules() - first, clock() - begun
    after = _watts(counter, clock, sleep)
    if calls < 1:
        raise UsageError("no call was made while energy was measured")
    ends = sorted((spent - watts * seconds) / calls for watts in (before, after))
    method = f"{counter.source}, {calls} calls in {seconds:.1f} s, idle before and after"

    def told(value: float, unit: str, bounds: tuple[float, float] | None) -> Estimate:
        return Estimate(value, unit, Provenance.MEASURED, method, bounds, machine, date)

    return EnergyReading(
        told(spent / calls, "J", None), told(sum(ends) / 2, "J", (ends[0], ends[1])),
        told((before + after) / 2, "W", (min(before, after), max(before, after))), calls,
    )  # fmt: skip


def _watts(counter: EnergyCounter, clock: Clock, sleep: Sleep) -> float:
    begun, first = clock(), counter.joules()
    sleep(IDLE_SECONDS)
    return (counter.joules() - first) / (clock() - begun)


def meter_energy(path: Path, calls: int, machine: str) -> Estimate:
    """J of a call, from the file of an external meter: a CSV with the columns `seconds` and
    `watts`, of nothing but `calls` calls; by the trapezoidal rule.

    Raises UsageError that names the row where time does not go on, or there is no number.
    """
    columns, rows = csv_rows(path, "meter")
    require_columns(columns, ("seconds", "watts"), path, ("seconds", "watts"))
    points = [(row.number("seconds"), row.number("watts")) for row in rows]
    if len(points) < 2 or calls < 1:
        raise UsageError(f"'{path}': two rows and one call are the least", remedy="record longer")
    total = 0.0
    for row, (one, other) in zip(rows[1:], pairwise(points), strict=True):
        if other[0] <= one[0]:
            raise UsageError(f"{row.where}: time does not go on", remedy="sort the rows by seconds")
        total += (other[0] - one[0]) * (one[1] + other[1]) / 2
    method = f"meter '{path.name}', {calls} calls"
    return Estimate(total / calls, "J", Provenance.MEASURED, method, machine=machine)


def _closed(paths: Sequence[Path]) -> tuple[str, str] | None:
    """Why a file cannot be read, and what helps."""
    for path in paths:
        try:
            path.read_text(encoding="ascii")
        except PermissionError:
            return f"{path} may not be read", f"run as root, or chmod a+r {path}"
        except OSError as error:
            return f"{path}: {error.strerror}", "see the kernel's log"
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> float:
    return float(path.read_text(encoding="ascii"))
