"""What it costs to compile a model: time, memory, size of the artifact.

    python -m benchmarks.compile_time --models resnet50,bert-base --threads 1 --json out.json

`memory` is the peak of the compiling process and its children, and how many times the model file
that is. `beyond weights` is what the artifact holds besides the model's constants.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .cases import Case, exported_zoo, find_cases
from .process import EngineError, Worker, one_cpu_per_core
from .provenance import machine, revision

MIB = float(1 << 20)
log = Console(stderr=True)


def weight_bytes(model: Path) -> int:
    """Bytes of the tensors stored in a model: initialisers and constants of all its graphs."""
    import onnx

    def tensors(graph: Any) -> int:
        total = sum(size(tensor) for tensor in graph.initializer)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    total += size(attribute.t)
                if attribute.HasField("g"):
                    total += tensors(attribute.g)
        return total

    def size(tensor: Any) -> int:
        count = 1
        for extent in tensor.dims:
            count *= extent
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        return count * int(dtype.itemsize)

    return tensors(onnx.load(model, load_external_data=False).graph)


def measure(case: Case, cpus: list[int], timeout: float, twice: bool) -> dict[str, Any]:
    """Compile the case once in a process of its own, twice to see whether the bytes repeat.

    Raises EngineError when Tensmith cannot compile the model.
    """
    answers = []
    for _ in range(1 + twice):
        with Worker("tensmith", cpus, timeout) as worker:
            answer = worker.request("compile", model=str(case.model.resolve()))
            answers.append({**answer, "peak_rss": worker.peak_rss})
    file_bytes, weights = case.model.stat().st_size, weight_bytes(case.model)
    first = answers[0]
    return {
        "name": case.name,
        "file_bytes": file_bytes,
        "weight_bytes": weights,
        "artifact_bytes": first["artifact_bytes"],
        "beyond_weights_bytes": first["artifact_bytes"] - weights,
        "compile_seconds": first["compile_seconds"],
        "base_rss": first["base_rss"],
        "peak_rss": first["peak_rss"],
        "peak_rss_per_file_byte": first["peak_rss"] / file_bytes,
        "identical": first["sha256"] == answers[1]["sha256"] if twice else None,
    }


def rich_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("model")
    for title in ("compile, s", "memory, MiB", "× file", "artifact, MiB", "beyond weights, MiB"):
        table.add_column(title, justify="right")
    table.add_column("same bytes twice")
    repeats = {None: "", True: "yes", False: "no"}
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['compile_seconds']:.1f}",
            f"{row['peak_rss'] / MIB:.0f}",
            f"{row['peak_rss_per_file_byte']:.1f}",
            f"{row['artifact_bytes'] / MIB:.1f}",
            f"{row['beyond_weights_bytes'] / MIB:.2f}",
            repeats[row["identical"]],
        )
    return table


def main(
    models: Annotated[
        str, typer.Option(help="zoo names, folders, .onnx files, with commas; default: the zoo")
    ] = "",
    threads: Annotated[int, typer.Option(min=1, help="cores that the compiler may use")] = 1,
    twice: Annotated[bool, typer.Option(help="compile twice and compare the bytes")] = False,
    timeout: Annotated[float, typer.Option(help="seconds for one model")] = 600.0,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="write the results to this file")
    ] = None,
) -> None:
    """Compile models with Tensmith, each in a process of its own."""
    cpus = one_cpu_per_core(threads)
    rows = []
    failed = False
    with tempfile.TemporaryDirectory(prefix="bench-inputs-") as scratch:
        names = [name for name in models.split(",") if name] or exported_zoo()
        try:
            cases = find_cases(names, Path(scratch))
        except FileNotFoundError as error:
            raise typer.BadParameter(str(error)) from error
        for case in cases:
            log.print(f"[dim]{case.name}[/dim]")
            try:
                rows.append(measure(case, cpus, timeout, twice))
            except EngineError as error:
                failed = True
                log.print(f"[red]{case.name}: {error}[/red]")
    if json_path:
        results = {"machine": machine(), "revision": revision(), "threads": threads, "models": rows}
        json_path.write_text(json.dumps(results, indent=1) + "\n")
    Console().print(rich_table(rows))
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
