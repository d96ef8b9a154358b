"""`tensmith inspect`: what is in a model: interface, operators, costs, kernels, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import (
    USUAL,
    Cost,
    Json,
    Runnable,
    Verbose,
    with_compilation,
)

if TYPE_CHECKING:
    from ...compiler.ir import Graph, Value
    from ..console import Console
    from ..request import CompileRequest
    from ..roofline import Roofline

Roofs = Annotated[
    bool,
    typer.Option(
        "--roofline",
        help="Measure every kernel on this machine, beside its prediction and its bound.",
    ),
]

_RESOURCES = ("registers", "stack_bytes", "shared_bytes", "threads", "code_bytes")


@with_compilation(*USUAL, "precision", "calibration")
def command(
    model: Runnable,
    nodes: Annotated[bool, typer.Option("--nodes", help="List every node.")] = False,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Compile, and list the kernels and what they fuse.")
    ] = False,
    why: Annotated[
        bool, typer.Option("--why", help="List what arithmetic is saved, and why that is exact.")
    ] = False,
    roofline: Roofs = False,
    *,
    request: CompileRequest,
    cost: Cost = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show inputs, outputs, operators, parameters, FLOPs as imported and as computed; with
    --kernels, kernels and memory; with --roofline, how long every kernel takes and what bounds it.
    """
    from .. import api
    from ..console import Console
    from ..model_build import import_model
    from ..session import is_compiled, refuse_for_library

    console = Console(json=json, verbose=verbose)
    if is_compiled(model):
        refuse_for_library(request)
        _inspect_library(console, model, roofline)
        return
    request = replace(request, force_precision=True)
    graph = import_model(model, request.shapes)
    described = _describe(model, graph) | _arithmetic(graph, request)
    _show_graph(console, described, nodes)
    if why:
        _show_savings(console, described["savings"])
    for left_out in [key for key, shown in (("nodes", nodes), ("savings", why)) if not shown]:
        del described[left_out]
    with console.progress("compiling") as progress:
        request = replace(request, progress=progress)
        if kernels:
            described["manifest"] = api.compile_request(model, request).manifest
            described["choices"] = _choices(described["manifest"])
        found = _measured(model, request) if roofline else None
    if kernels:
        _show_kernels(console, described["manifest"])
    if found is not None:
        _show_roofline(console, found, described)
    described |= {"cost": _show_cost(console, model, request, cost)} if cost else {}
    console.result(described)


def _show_cost(
    console: Console, model: Path, request: CompileRequest, prices: Path
) -> dict[str, Any]:
    """What a million calls are predicted to cost, without code being generated."""
    from ...compiler.economics.prices import read_prices
    from ..call_cost import call_costs, cost_text
    from ..console import human_seconds
    from ..preflight import predicted_run

    offers = read_prices(prices)
    run = predicted_run(model, request)
    found = run.seconds
    costs = call_costs(found, request.threads, offers, device=run.device)
    each = f"~{human_seconds(found.value)} each, "
    each += "one at a time on a device" if run.device else f"{request.threads} thread(s)"
    console.table(
        f"A million calls, predicted ({each})",
        ("machine", "saturated"),
        [(own.offer.label, cost_text(own)) for own in costs],
    )
    return {"seconds": found.to_json(), "machines": [own.to_json() for own in costs]}


def _arithmetic(graph: Graph, request: CompileRequest) -> dict[str, Any]:
    """FLOPs as they are computed, and what has saved them; the graph is rewritten in place."""
    from dataclasses import asdict

    from ..savings import optimised_flops

    flops, savings = optimised_flops(graph, request)
    return {"computed_flops": _plain(flops), "savings": [asdict(saving) for saving in savings]}


def _measured(model: Path, request: CompileRequest) -> Roofline:
    from ..roofline import roofline

    return roofline(model, request)


def _show_roofline(console: Console, found: Roofline, described: dict[str, Any]) -> None:
    from ..roofline_table import show_roofline

    described["roofline"] = found.to_json()
    show_roofline(console, found)


def _inspect_library(console: Console, path: Path, roofline: bool) -> None:
    from ...compiler.errors import UsageError
    from ..artifacts import manifest_of

    if roofline:
        raise UsageError(
            "--roofline measures kernels anew as they are compiled",
            remedy="give the ONNX file: inspect MODEL.onnx --roofline",
        )
    manifest = manifest_of(path)
    console.result({"manifest": manifest, "choices": _choices(manifest)})
    _show_manifest(console, manifest)


def _describe(path: Path, graph: Graph) -> dict[str, Any]:
    from ...compiler.ir.flops import graph_flops, node_flops, parameter_bytes, parameters
    from ...compiler.scratch import is_copy

    operators: dict[str, dict[str, Any]] = {}
    nodes = []
    for node in graph.walk():
        flops = node_flops(node)
        row = operators.setdefault(node.op, {"count": 0, "flops": 0})
        row["count"] += 1
        row["flops"] += flops
        shapes = [str(value.type) for value in node.outputs]
        nodes.append({"op": node.op, "name": node.name, "outputs": shapes, "flops": _plain(flops)})
    return {
        "model": "-" if is_copy(path) else str(path),
        "inputs": _interface(graph.inputs, graph.defaults),
        "outputs": _interface(graph.outputs, {}),
        "parameters": parameters(graph),
        "constant_bytes": parameter_bytes(graph),
        "flops": _plain(graph_flops(graph)),
        "operators": {
            op: {"count": row["count"], "flops": _plain(row["flops"])}
            for op, row in sorted(operators.items(), key=lambda item: -item[1]["count"])
        },
        "nodes": nodes,
    }


def _choices(manifest: dict[str, Any]) -> dict[str, Any]:
    """The choices of a compiled model, as `compile --choices` takes them."""
    from ...compiler.kernel.schedule.choices import choices_json

    by_key = {key: kernel["choice"] for kernel in manifest["kernels"] for key in kernel["keys"]}
    return choices_json(by_key, manifest["target"]["name"], manifest["threads"])


def _plain(dim: Any) -> int | str:
    return dim if isinstance(dim, int) else str(dim)


def _interface(values: Sequence[Value], defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": v.name,
            "dtype": str(v.dtype),
            "dims": [_plain(dim) for dim in v.shape],
            **({"default": list(defaults[v.name].shape)} if v.name in defaults else {}),
        }
        for v in values
    ]


def _interface_rows(value: dict[str, Any]) -> list[tuple[str, ...]]:
    from ..console import short_dim

    return [
        (
            f"optional {role}" if "default" in tensor else role,
            tensor["name"],
            tensor["dtype"],
            f"[{', '.join(map(short_dim, tensor['dims']))}]",
        )
        for role in ("input", "output")
        for tensor in value[f"{role}s"]
    ]


def _show_graph(console: Console, value: dict[str, Any], nodes: bool) -> None:
    from ..console import human_bytes, human_count

    console.table("Interface", ("", "name", "type", "shape"), _interface_rows(value), left=4)
    console.table(
        "Operators (as imported, regions included)",
        ("operator", "count", "FLOPs"),
        [
            (op, row["count"], human_count(row["flops"]) if row["flops"] else "")
            for op, row in value["operators"].items()
        ],
    )
    if nodes:
        console.table(
            "Nodes",
            ("operator", "name", "results", "FLOPs"),
            [
                (
                    row["op"],
                    row["name"],
                    ", ".join(row["outputs"]),
                    human_count(row["flops"]) if row["flops"] else "",
                )
                for row in value["nodes"]
            ],
            left=3,
        )
    console.print(
        f"{human_count(value['parameters'])} parameters, constants "
        f"{human_bytes(value['constant_bytes'])}, {human_count(value['flops'])} FLOPs per run, "
        f"{human_count(value['computed_flops'])} as computed"
    )


def _show_savings(console: Console, savings: Sequence[dict[str, Any]]) -> None:
    from ..console import human_count

    console.table(
        "Less arithmetic (operations and bytes, as the passes count them)",
        ("pass", "operator", "name", "why", "before", "after"),
        [
            (
                row["by"],
                row["op"],
                row["name"],
                row["reason"],
                human_count(int(row["before"])),
                human_count(int(row["after"])),
            )
            for row in savings
        ],
        left=4,
    )


def _show_kernels(console: Console, manifest: dict[str, Any]) -> None:
    from ...compiler.kernel.cost.slow_kernels import SlowKernel
    from ..console import human_bytes, human_count

    console.print()
    console.table(
        f"Kernels for {manifest['target']['name']}",
        ("kernel", "fuses", "schedule", "calls", "FLOPs"),
        [
            (
                kernel["name"],
                " ".join(kernel["operators"]),
                kernel["schedule"],
                kernel["calls"],
                "by symbols" if kernel["flops"] < 0 else human_count(kernel["flops"]),
            )
            for kernel in manifest["kernels"]
        ],
        left=3,
    )
    _show_functions(console, manifest)
    for kernel in manifest["kernels"]:
        if kernel.get("slow"):
            console.print(f"slow: {SlowKernel.from_json(kernel['slow'])}")
    memory = manifest["memory"]
    arena = memory["arena_bytes"]
    console.print(
        f"{len(manifest['kernels'])} kernels, weights {human_bytes(memory['weight_bytes'])}, arena "
        + ("sized at run time" if arena is None else human_bytes(arena))
    )


def _show_functions(console: Console, manifest: dict[str, Any]) -> None:
    """What the functions of a device take of it, where there are any."""
    rows = [
        (function["symbol"], code, *(found[key] for key in _RESOURCES))
        for kernel in manifest["kernels"]
        for function in kernel.get("functions", ())
        for code, found in function["resources"].items()
    ]
    if rows:
        columns = ("function", "code", *(key.replace("_", " ") for key in _RESOURCES))
        console.table("Functions of the device", columns, rows, left=2)


def _show_manifest(console: Console, manifest: dict[str, Any]) -> None:
    from ..quantisation import summary_of

    target = manifest["target"]
    console.table("Interface", ("", "name", "type", "shape"), _interface_rows(manifest), left=4)
    console.print(
        f"{manifest['name']}: tensmith {manifest['tensmith']}, {manifest['precision']}, "
        f"-O{manifest['opt_level']}, source sha256 {manifest['source_sha256']}"
    )
    console.print(f"target {target['name']} ({target['triple']}): {' '.join(target['features'])}")
    for line in summary_of(manifest):
        console.print(line)
    _show_kernels(console, manifest)
