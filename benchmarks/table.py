"""Tables of the results that `run.py` writes.

python -m benchmarks.table out.json                      # as Markdown
python -m benchmarks.table out.json --update README.md   # between the markers of that file
python -m benchmarks.table one.json two.json --compact   # ratios of several runs, side by side
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from .stats import geometric_mean

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
TITLES = {
    "tensmith": "Tensmith",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tvm": "TVM",
    "iree": "IREE",
    "torch": "torch.compile",
    "tensmith-parked": "Tensmith, parked",
    "onnxruntime-parked": "ONNX Runtime, parked",
    "tensmith-bf16": "Tensmith bf16",
    "tensmith-int8": "Tensmith int8",
    "openvino-bf16": "OpenVINO bf16",
}
PEERS = ("onnxruntime", "openvino")


def summary(models: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Geometric mean of the speed of each engine relative to each peer, over the models that both
    ran: `{engine: {peer: {"geomean", "models", "worst"}}}`."""
    ratios: dict[str, dict[str, list[float]]] = {}
    for model in models:
        for engine, record in model["engines"].items():
            for peer, ratio in record.get("speed", {}).items():
                ratios.setdefault(engine, {}).setdefault(peer, []).append(ratio)
    return {
        engine: {
            peer: {"geomean": geometric_mean(v), "models": len(v), "worst": min(v)}
            for peer, v in peers.items()
        }
        for engine, peers in ratios.items()
    }


def milliseconds(seconds: float) -> str:
    """Three significant digits."""
    value = seconds * 1e3
    return f"{value:.3f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def cell(record: dict[str, Any]) -> str:
    if "median" in record:
        return f"{milliseconds(record['median'])} ({milliseconds(record['p90'])})"
    return "skipped" if "skipped" in record else "failed"


def ready_cell(record: dict[str, Any]) -> str:
    """Seconds until the model is ready, and the peak memory of the process until then."""
    if "median" not in record:
        return ""
    seconds = record["compile_seconds"] + record["load_seconds"]
    return f"{seconds:.1f} s, {record['peak_rss'] / 2**20:.0f} MiB"


def engines_shown(results: dict[str, Any]) -> list[str]:
    """Engines that ran a model; all that were asked for where none did."""
    models = results["models"]
    engines = list(dict.fromkeys(engine for model in models for engine in model["engines"]))
    ran = [e for e in engines if any("median" in m["engines"].get(e, {}) for m in models)]
    return ran or engines


def speed_grid(results: dict[str, Any]) -> list[list[str]]:
    """Header and rows. Ratios are for the first engine that ran anything: above 1 it is faster."""
    models = results["models"]
    shown = engines_shown(results)
    subject = shown[0] if shown else ""
    peers = _peers(results)
    header = ["ms (p90)", *(TITLES[engine] for engine in shown)]
    rows = [header + [f"{TITLES[subject]} vs {TITLES[peer]}" for peer in peers]]
    for model in models:
        records = [model["engines"].get(engine, {}) for engine in shown]
        speed = records[0].get("speed", {}) if records else {}
        row = [model["name"], *map(cell, records)]
        rows.append(row + [_times(speed[peer]) if peer in speed else "" for peer in peers])
    means = summary(models).get(subject, {})
    if means and peers:
        total = ["geometric mean", *("" for _ in shown)]
        total += [_times(means[peer]["geomean"]) if peer in means else "" for peer in peers]
        rows.append(total)
    return rows


def compact_grid(runs: list[dict[str, Any]]) -> list[list[str]]:
    """Header and rows of several runs: times and ratios of the first engine, run by run."""
    names = list(dict.fromkeys(model["name"] for run in runs for model in run["models"]))
    rows = [["ms", *(name for run in runs for name in _compact_header(run))]]
    for name in names:
        cells: list[str] = []
        for run in runs:
            model = next((m for m in run["models"] if m["name"] == name), None)
            cells += _compact_cells(run, model)
        rows.append([name, *cells])
    means = ["geometric mean"]
    for run in runs:
        subject = next(iter(engines_shown(run)), "")
        found = summary(run["models"]).get(subject, {})
        means += ["", *(_times(found[p]["geomean"]) if p in found else "" for p in _peers(run))]
    return [*rows, means]


def _peers(run: dict[str, Any]) -> list[str]:
    """Engines that the first one of a run is compared with."""
    shown = engines_shown(run)
    return [peer for peer in PEERS if peer in shown[1:]]


def _times(ratio: float) -> str:
    return f"{ratio:.2f}×"


def _compact_header(run: dict[str, Any]) -> list[str]:
    threads = "1 thread" if run["threads"] == 1 else f"{run['threads']} threads"
    return [threads, *(f"vs {TITLES[peer]}" for peer in _peers(run))]


def _compact_cells(run: dict[str, Any], model: dict[str, Any] | None) -> list[str]:
    shown = engines_shown(run)
    record = model["engines"].get(shown[0], {}) if model and shown else {}
    speed = record.get("speed", {})
    time = milliseconds(record["median"]) if "median" in record else cell(record)
    ratios = [_times(speed[peer]) if peer in speed else "" for peer in _peers(run)]
    return [time, *ratios] if model else [""] * (1 + len(ratios))


def ready_grid(results: dict[str, Any]) -> list[list[str]]:
    """Header and rows: what it takes until the model is ready."""
    shown = engines_shown(results)
    rows = [["ready after, peak memory", *(TITLES[engine] for engine in shown)]]
    for model in results["models"]:
        cells = [ready_cell(model["engines"].get(engine, {})) for engine in shown]
        rows.append([model["name"], *cells])
    return rows


def remarks(results: dict[str, Any]) -> list[str]:
    """One line for each thing that was not measured, those with the same reason together."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for model in results["models"]:
        for engine, record in model["engines"].items():
            for kind in ("skipped", "error"):
                if kind in record:
                    reason = " ".join(record[kind].split())[:400]
                    reasons.setdefault((engine, reason), []).append(model["name"])
    return [f"{TITLES[e]}: {', '.join(names)}: {why}" for (e, why), names in reasons.items()]


def versions(results: dict[str, Any]) -> str:
    """Engines with their versions, as measured."""
    found: dict[str, str] = {}
    for model in results["models"]:
        for engine, record in model["engines"].items():
            if "version" in record:
                found[engine] = record["version"]
    return ", ".join(f"{TITLES[engine]} {version}" for engine, version in found.items())


def markdown_table(rows: list[list[str]]) -> list[str]:
    """Lines of a table whose first row is the header; all columns but the first to the right."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|---|" + "--:|" * (len(rows[0]) - 1), *lines[1:]]


def machine(results: dict[str, Any]) -> str:
    """What the results were measured on."""
    info = results["machine"]
    return (
        f"{info['processor']}, {info['cores']} cores, {info['memory_gib']} GiB, {info['system']} "
        f"({', '.join(info['features'])})"
    )


def compact_markdown(runs: list[dict[str, Any]]) -> str:
    """Several runs of one machine as Markdown: machine, versions, one table, the commands."""
    lines = [
        f"{machine(runs[0])}; f32; {versions(runs[0])}; Python {runs[0]['machine']['python']}.",
        "",
        *markdown_table(compact_grid(runs)),
        "",
        *(f"    {run['command']}" for run in runs),
    ]
    return "\n".join(lines) + "\n"


def markdown(results: dict[str, Any]) -> str:
    """The results as Markdown: machine, versions, tables, what is missing."""
    lines = [
        f"{machine(results)}; {results['threads']} thread(s), f32; {versions(results)}; "
        f"Python {results['machine']['python']}.",
        "",
        *markdown_table(speed_grid(results)),
        "",
        *markdown_table(ready_grid(results)),
    ]
    notes = remarks(results)
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    lines += ["", f"    {results['command']}"]
    return "\n".join(lines) + "\n"


def rich_tables(results: dict[str, Any]) -> list[Table]:
    """The results for a terminal."""
    tables = []
    for rows in (speed_grid(results), ready_grid(results)):
        table = Table()
        for index, title in enumerate(rows[0]):
            table.add_column(title, justify="right" if index else "left", no_wrap=not index)
        for row in rows[1:]:
            table.add_row(*row)
        tables.append(table)
    if notes := remarks(results):
        tables[-1].caption = "\n".join(notes)
        tables[-1].caption_justify = "left"
    return tables


def replace_between_markers(text: str, content: str) -> str:
    """`text` with what stands between the markers replaced. Raises ValueError without markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"expected one {BEGIN} followed by one {END}")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{content}{END}{rest.split(END)[1]}"


def main(
    results: Annotated[list[Path], typer.Argument(help="files written by benchmarks.run")],
    update: Annotated[Path | None, typer.Option(help="file with markers to update")] = None,
    compact: Annotated[bool, typer.Option(help="one table: runs side by side")] = False,
) -> None:
    """Print the results as Markdown, or put them into a file."""
    runs = [json.loads(path.read_text()) for path in results]
    content = compact_markdown(runs) if compact else "\n".join(map(markdown, runs))
    if update is None:
        print(content, end="")
    else:
        update.write_text(replace_between_markers(update.read_text(), content))


if __name__ == "__main__":
    typer.run(main)
