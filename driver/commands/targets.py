"""`tensmith targets`: what can be compiled for, and what stands in the way."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..options import Json


def command(json: Json = False) -> None:
    """List the targets, and what this machine is."""
    from ...compiler.backend import backends, resolve_target
    from ...compiler.errors import UsageError
    from ..console import Console

    console = Console(json=json)
    rows: list[dict[str, Any]] = []
    for backend in backends().values():
        reason = backend.available()
        for name in backend.targets:
            why = reason
            try:
                target = backend.parse_target(name)
            except UsageError as error:  # it is for hardware that is not here
                target, why = None, error.why or error.what
            figures = asdict(target) if target else {}
            rows.append(
                {
                    "target": name,
                    "backend": backend.name,
                    "cpu": figures.get("cpu", ""),
                    "tune": figures.get("tune", ""),
                    "features": list(figures.get("features", ())),
                    "instructions": list(figures.get("instructions", ())),
                    "architectures": list(figures.get("architectures", ())),
                    "triple": figures.get("triple", ""),
                    "vector_bits": figures.get("vector_bits"),
                    "available": why is None,
                    "reason": why or "",
                }
            )
    try:
        native: str | None = resolve_target("native")[1].name
    except UsageError:
        native = None
    console.result({"targets": rows, "native": native})
    columns = ("target", "backend", "code", "tuned for", "triple", "vectors", "available")
    console.table(
        "Targets",
        columns,
        [
            (
                row["target"],
                row["backend"],
                row["cpu"] or " ".join(f"sm_{number}" for number in row["architectures"]),
                row["tune"],
                row["triple"],
                f"{row['vector_bits']} bits" if row["vector_bits"] else "",
                "yes" if row["available"] else f"no: {row['reason']}",
            )
            for row in rows
        ],
        left=len(columns),
    )
    console.print(f"native: {native or 'no backend compiles for this machine'}")
