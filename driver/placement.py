"""Where operators of a model run, for people: command streams, and what is beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .console import Console, human_bytes

MOST_NODES = 16


def show_placement(console: Console, manifest: Mapping[str, Any]) -> None:
    """Print what a manifest says of a processor with command streams; nothing for other targets."""
    npu, cpu = manifest.get("npu"), manifest.get("cpu")
    if not npu or cpu is None:
        return
    rows = [(row["op"], row["name"], row["reason"]) for row in cpu["operators"]]
    if rows:
        console.table("Beside the NPU", ("operator", "node", "reason"), rows, left=3)
    segments = [
        (number, f"{s['cycles']:,}", f"{s['npu_cycles']:,}", f"{s['macs']:,}",
         human_bytes(s["arena_bytes"]), human_bytes(s["weight_bytes"]))
        for number, s in enumerate(npu["segments"])
    ]  # fmt: skip
    unchecked = [(n, s["unchecked"]) for n, s in enumerate(npu["segments"]) if s["unchecked"]]
    columns = ("segment", "cycles", "of arithmetic", "MACs", "arena", "weights")
    console.table(f"Command streams ({npu['origin']})", columns, segments, left=0)
    for number, why in unchecked:
        console.print(f"segment {number} is not checked: the simulator does not have {why}")
    _show_nodes(console, npu)
    memories = [
        (name, *(human_bytes(used[key]) for key in ("peak", "read", "written")))
        for name, used in npu["memories"].items()
    ]
    console.table("Memory", ("memory", "used", "read", "written"), memories)
    whole = npu["operators"] + len(rows)
    console.print(
        f"{npu['operators']} of {whole} operators on the NPU, {npu['share']:.0%} of those that "
        "compute; "
        f"{npu['estimated_cycles']:,} cycles, {npu['origin']}"
    )


def _show_nodes(console: Console, npu: Mapping[str, Any]) -> None:
    """Print what nodes take most of the cycles."""
    every = [
        (node["cycles"], number, node)
        for number, segment in enumerate(npu["segments"])
        for node in segment["nodes"]
    ]
    whole = sum(cycles for cycles, *_ in every)
    most = sorted(every, key=lambda row: -row[0])[:MOST_NODES]
    rows = [
        (node["name"] or "(between nodes)", number, f"{cycles:,}", f"{cycles / whole:.1%}",
         f"{node['macs']:,}")
        for cycles, number, node in most
        if cycles
    ]  # fmt: skip
    if rows:
        title = f"Nodes on the NPU that take most ({npu['origin']})"
        console.table(title, ("node", "segment", "cycles", "share", "MACs"), rows, left=1)
