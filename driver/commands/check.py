"""`tensmith check`: what a target cannot take, every node of it, without generating code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..options import NPU, Json, Model, with_compilation

if TYPE_CHECKING:
    from ..request import CompileRequest


@with_compilation("target", *NPU, "shape")
def command(
    model: Model,
    *,
    request: CompileRequest,
    json: Json = False,
) -> None:
    """Say whether a target can compile a model; list every node that it cannot, and why.

    Also: sizes that only a run knows, where precision may be lost, and, of models that are not too
    large, kernels predicted to be slow for what they do. No code is generated.
    """
    from ...compiler.errors import UnsupportedError
    from ..argument_checks import check_file
    from ..console import Console
    from ..placement import show_placement
    from ..preflight import MAX_PLANNED_NODES, preflight

    console = Console(json=json)
    found = preflight(check_file(model, "model"), request)
    console.result(found.to_json())
    if found.unsupported:
        console.table(
            "Nodes that are not supported",
            ("operator", "node", "reason", "remedy"),
            [(item.op, item.node, item.reason, item.remedy) for item in found.unsupported],
            left=4,
        )
    for name, places in found.symbols.items():
        console.print(f"symbolic dimension {name}: {', '.join(places)}")
    for name, argument in found.free.items():
        freed = argument.rpartition(":")[0]
        console.print(
            f"all that is called {name} has one size; --shape '{argument}' frees that of '{freed}'"
        )
    for name in found.optional:
        console.print(f"a run may leave out the input '{name}', which has a default")
    for note in found.notes:
        console.print(f"note: {note}")
    for line in found.unknown:
        console.print(f"known at run time only: {line}")
    for risk in found.risks:
        console.print(f"precision: {risk}")
    if found.nodes > MAX_PLANNED_NODES and not found.unsupported:
        console.print("slow kernels: not predicted for so large a model; inspect --kernels does")
    for slow in found.slow or ():
        console.print(f"slow: {slow}")
    for kernel in found.on_host or ():
        console.print(f"on the host: {kernel}")
    if found.npu:
        show_placement(console, {"npu": found.npu, "cpu": found.cpu})
    if found.checks:
        console.print(f"indices that every run checks: {', '.join(map(repr, found.checks))}")
    if found.unsupported:
        console.exit(UnsupportedError(found.unsupported, where=f"target '{found.target}'"))
    console.print(f"{found.nodes} operators, all supported on '{found.target}'")
