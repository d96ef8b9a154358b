"""What Linux says about the machine that the compiler runs on."""

from __future__ import annotations

from pathlib import Path
from platform import machine

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 10, "M": 20, "G": 30}


def cache_bytes(level: int) -> int:
    """Size of the first core's data cache of a level; 0 where Linux reports none.

    Source: Linux, Documentation/ABI/testing/sysfs-devices-system-cpu.
    """
    for folder in sorted(_CACHES.glob("index*")):
        if _read(folder / "level") == str(level) and _read(folder / "type") != "Instruction":
            text = _read(folder / "size")
            number = text.rstrip("KMG")
            return int(number) << _UNITS.get(text[-1:], 0) if number.isdigit() else 0
    return 0


def processor_name() -> str:
    """What Linux calls the processor; the architecture where it has no name for it."""
    lines = _read(Path("/proc/cpuinfo")).splitlines()
    told = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    return next((v.strip() for k, v in told.items() if k.strip() == "model name"), "") or machine()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
