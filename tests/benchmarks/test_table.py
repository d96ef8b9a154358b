"""Tables of results."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from tensmith.benchmarks.table import (
    BEGIN,
    END,
    compact_grid,
    markdown,
    milliseconds,
    replace_between_markers,
    rich_tables,
    summary,
)


def _record(median: float, **speed: float) -> dict[str, Any]:
    return {
        "version": "1.0",
        "median": median,
        "p90": 2 * median,
        "compile_seconds": 1.0,
        "load_seconds": 0.5,
        "peak_rss": 64 << 20,
        "speed": speed,
    }


@pytest.fixture
def results() -> dict[str, Any]:
    models = [
        {
            "name": "one",
            "engines": {
                "tensmith": _record(0.010, onnxruntime=4.0, openvino=1.5),
                "onnxruntime": _record(0.040, tensmith=0.25, openvino=0.4),
                "openvino": _record(0.015, tensmith=0.7, onnxruntime=2.5),
            },
        },
        {
            "name": "two",
            "engines": {
                "tensmith": _record(0.004, onnxruntime=0.25),
                "onnxruntime": _record(0.001, tensmith=4.0),
                "openvino": {"error": "no such\noperator"},
            },
        },
    ]
    info = {
        "processor": "CPU",
        "cores": 2,
        "memory_gib": 8.0,
        "system": "Linux",
        "features": ["avx2"],
        "python": "3.11",
    }
    return {"machine": info, "threads": 1, "command": "run", "models": models}


def test_runs_side_by_side(results: dict[str, Any]) -> None:
    two = {**results, "threads": 2, "models": results["models"][:1]}
    peers = ["vs ONNX Runtime", "vs OpenVINO"]
    assert compact_grid([results, two]) == [
        ["ms", "1 thread", *peers, "2 threads", *peers],
        ["one", "10.0", "4.00×", "1.50×", "10.0", "4.00×", "1.50×"],
        ["two", "4.000", "0.25×", "", "", "", ""],
        ["geometric mean", "", "1.00×", "1.50×", "", "4.00×", "1.50×"],
    ]


def test_summary_counts_only_models_that_both_ran(results: dict[str, Any]) -> None:
    found = summary(results["models"])["tensmith"]
    assert found["onnxruntime"] == {"geomean": pytest.approx(1.0), "models": 2, "worst": 0.25}
    assert found["openvino"] == {"geomean": pytest.approx(1.5), "models": 1, "worst": 1.5}


def test_markdown_has_figures_ratios_and_reasons(results: dict[str, Any]) -> None:
    lines = markdown(results).splitlines()
    assert "| one | 10.0 (20.0) | 40.0 (80.0) | 15.0 (30.0) | 4.00× | 1.50× |" in lines
    assert "| two | 4.000 (8.000) | 1.000 (2.000) | failed | 0.25× |  |" in lines
    assert "| geometric mean |  |  |  | 1.00× | 1.50× |" in lines
    assert "| one | 1.5 s, 64 MiB | 1.5 s, 64 MiB | 1.5 s, 64 MiB |" in lines
    assert "- OpenVINO: two: no such operator" in lines


def test_an_engine_that_ran_nothing_has_no_column(results: dict[str, Any]) -> None:
    for model in results["models"]:
        model["engines"]["tensmith"] = {"skipped": "not installed"}
    text = markdown(results)
    assert "| ms (p90) | ONNX Runtime | OpenVINO | ONNX Runtime vs OpenVINO |" in text
    assert "- Tensmith: one, two: not installed" in text


def test_rich_tables_render(results: dict[str, Any]) -> None:
    console = Console(width=120, record=True, quiet=True)
    with console.capture() as capture:
        for table in rich_tables(results):
            Console(width=120, file=console.file).print(table)
    assert capture is not None
    assert [len(table.rows) for table in rich_tables(results)] == [3, 2]


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.5e-6, "0.002"), (0.00125, "1.250"), (0.0125, "12.5"), (0.5, "500")]
)
def test_milliseconds(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text


def test_replace_between_markers_is_idempotent() -> None:
    once = replace_between_markers(f"a\n{BEGIN}\nold\n{END}\nb\n", "new\n")
    assert once == f"a\n{BEGIN}\nnew\n{END}\nb\n"
    assert replace_between_markers(once, "new\n") == once


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_replace_needs_one_pair_of_markers(text: str) -> None:
    with pytest.raises(ValueError, match="expected one"):
        replace_between_markers(text, "x")
