"""Which kind of machine measures: what the measuring program says of it."""

from __future__ import annotations

import hashlib

from ....compiler.errors import InternalError
from ....compiler.tuning.task import MachineClass

_SEVERAL = "cache"  # begins the names of facts of which there are several


def machine_class(text: str) -> MachineClass:
    """The class of a machine by the lines of `measure machine`.

    Family, model and stepping of the processor, its caches and instructions decide how long kernels
    take; its name, its cores and a hypervisor are told besides. Raises InternalError for no such
    lines.
    """
    facts: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        facts[name] = value.strip()
    if "architecture" not in facts or "features" not in facts:
        raise InternalError("the measuring program says nothing of the machine", why=text[-1000:])
    kind = [facts.get(name, "") for name in ("vendor", "family", "model", "stepping", "midr")]
    caches = [
        f"L{name.removeprefix(_SEVERAL)}:{_size(value)}"
        for name, value in sorted(facts.items())
        if name.startswith(_SEVERAL)
    ]
    features = " ".join(sorted(facts["features"].split()))
    digest = hashlib.sha256(features.encode()).hexdigest()[:8]
    parts = [facts["architecture"], *filter(None, kind), *caches, digest]
    return MachineClass("-".join(part.replace(" ", "_") for part in parts), facts)


def _size(value: str) -> str:
    """Kibibytes of a cache, of "BYTES WAYS"."""
    size = value.split()[0] if value else "0"
    return f"{int(size) >> 10}K" if size.isdigit() else size
