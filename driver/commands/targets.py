"""`tensmith targets`: what can be compiled for, and what stands in the way."""

from __future__ import annotations

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
            target = backend.parse_target(name)
            rows.append(
                {
                    "target": name,
                    "backend": backend.name,
                    "cpu": target.cpu if target else "",
                    "tune": target.tune if target else "",
                    "features": list(target.features) if target else [],
                    "triple": target.triple if target else "",
                    "vector_bits": target.vector_bits if target else None,
                    "available": reason is None,
                    "reason": reason or "",
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
                row["cpu"],
                row["tune"],
                row["triple"],
                f"{row['vector_bits']} bits" if row["triple"] else "",
                "yes" if row["available"] else f"no: {row['reason']}",
            )
            for row in rows
        ],
        left=len(columns),
    )
    console.print(f"native: {native or 'no backend compiles for this machine'}")
