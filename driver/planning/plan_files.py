"""What a plan leaves: `plan.json`, `report.html`, `reproduce.sh` and the chosen binary."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

from ..._version import __version__
from ...compiler.economics.estimate import Estimate
from ...compiler.economics.prices import MachineOffer
from ...compiler.economics.serving import ServingCost
from ...compiler.scratch import written_whole
from ..budget.drops import Drop, Limit
from ..calibration import CalibrationData
from .plan_page import plan_page
from .planning import PlanResult
from .points import PlanPoint, Stability
from .variants import Variant

SCHEMA = "tensmith-plan/1"


def write_plan(result: PlanResult) -> list[Path]:
    """Write all into the folder of the request; the files, the chosen binary first if there is
    one."""
    folder = result.request.output
    found: list[Path] = []
    for label in {point.build.variant.label for point in result.points}:
        (folder / f"{label}.so").unlink(missing_ok=True)  # an earlier plan's choice
    if result.choice is not None:
        chosen = folder / f"{result.choice.build.variant.label}.so"
        with written_whole(chosen) as new:
            shutil.copyfile(result.choice.build.library, new)
        chosen.chmod(0o755)
        found.append(chosen)
    texts = {
        "plan.json": json.dumps(plan_json(result), indent=1, allow_nan=False) + "\n",
        "report.html": plan_page(result),
        "reproduce.sh": reproduce_script(result),
    }
    for name, text in texts.items():
        with written_whole(folder / name) as new:
            new.write_text(text, encoding="utf-8")
        found.append(folder / name)
    (folder / "reproduce.sh").chmod(0o755)
    return found


def plan_json(result: PlanResult) -> dict[str, Any]:
    """The plan as an object; docs/plan.md describes it. What is infinite or unknown is null."""
    request = result.request
    test = result.test
    return {
        "schema": SCHEMA,
        "tensmith": __version__,
        "model": str(request.model),
        "objective": request.objective,
        "machine": result.machine,
        "promise": {
            "latency_p99_seconds": request.latency_p99,
            "calls_per_second": {"mean": request.load.mean, "peak": request.load.peak},
            "load": request.load.method,
            "metric": result.metric,
            "fp32": result.exact,
            "accuracy_drop": str(Limit.of(request.max_accuracy_drop)),
            "accuracy_drop_limit": result.limit,
        },
        "points": [
            _point(point, result.stable[n] if n < result.frontier else None)
            for n, point in enumerate(result.points)
        ],
        "chosen": result.chosen,
        "nearest": result.nearest,
        "load_test": None
        if test is None
        else {
            "calls_per_second": test.rate,
            "share_of_capacity": test.share,
            "predicted_p99": test.predicted.to_json(),
            "measured_p99": test.measured.to_json(),
            "cpu_seconds": test.cpu.to_json(),
            "agrees": test.agrees,
            "reason": test.reason,
        },
        "modelled": [own.to_json() for own in result.modelled],
        "response_cache": None if result.cache is None else result.cache.to_json(),
        "pruned": [{"name": own.name, "reason": own.reason} for own in result.pruned],
        "notes": list(result.notes),
    }


def _point(point: PlanPoint, stable: Stability | None) -> dict[str, Any]:
    variant, layout, build = point.build.variant, point.layout, point.build
    return {
        "name": variant.name,
        "model": str(variant.path),
        "target": variant.target,
        "precision": variant.precision,
        "cascade": variant.cascade,
        "layout": {
            "instances": layout.instances, "threads": layout.threads, "batch": layout.batch,
        },
        "machine": _machine(point.offer),
        "library": {
            "sha256": build.sha256, "bytes": build.bytes, "arena_bytes": build.arena_bytes,
        },
        "service": point.service.to_json(),
        "cpu": point.cpu.to_json(),
        "cost": None if point.cost is None else _cost(point.cost),
        "energy": _optional(point.energy),
        "carbon": _optional(point.carbon),
        "accuracy": None if point.drop is None else _drop(point.drop),
        "frontier": stable is not None,
        "stable": None if stable is None else stable.stable,
        "rank_moved_by": [] if stable is None else list(stable.moved),
        "misses": [
            {"constraint": miss.constraint, "by": _finite(miss.by), "text": miss.text}
            for miss in point.misses
        ],
    }  # fmt: skip


def _machine(offer: MachineOffer) -> dict[str, Any]:
    return {
        "name": offer.name, "provider": offer.provider, "region": offer.region, "cpu": offer.cpu,
        "vcpus": offer.vcpus, "cores": offer.cores, "memory_gib": offer.memory_gib,
        "purchase": offer.purchase, "commitment": offer.commitment, "source": offer.source,
        "price": offer.price.to_json(), "extra": dict(offer.extra),
    }  # fmt: skip


def _cost(cost: ServingCost) -> dict[str, Any]:
    return {
        "capacity_per_second": cost.capacity, "replicas": cost.replicas,
        "utilisation": cost.utilisation, "saturated": cost.saturated.to_json(),
        "at_load": cost.at_load.to_json(), "idle": cost.idle.to_json(), "p99": cost.p99.to_json(),
    }  # fmt: skip


def _drop(drop: Drop) -> dict[str, Any]:
    return {name: _finite(value) for name, value in drop.to_json().items()}


def _optional(value: Estimate | None) -> dict[str, Any] | None:
    return None if value is None else value.to_json()


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---------------------------------------------------------------------- reproduce.sh

_HEAD = """#!/bin/sh
# Makes the binaries of the frontier again, and compares them with those of the plan, byte by byte.
# Tensmith {version}; TENSMITH names another program.
set -eu
cd "$(dirname "$0")"
TENSMITH=${{TENSMITH:-tensmith}}
mkdir -p again
"""


def reproduce_script(result: PlanResult) -> str:
    """A shell script; one that says so where nothing is within the promise, or data were given
    that are in no file."""
    lines = [_HEAD.format(version=__version__)]
    variants = {p.build.variant: p.build for p in result.points[: result.frontier]}
    if not variants:
        lines.append("echo 'nothing kept what was promised' >&2; exit 5\n")
    for variant, build in variants.items():
        data = result.request.calibration
        if variant.precision == "int8" and not isinstance(data, str | os.PathLike):
            lines.append(f"# {variant.name}: its calibration data were given in memory\n")
            continue
        output = f"again/{variant.name}.so"
        lines.append(f"$TENSMITH compile {_words(variant, data)} -o {shlex.quote(output)}\n")
        lines.append(f"echo {shlex.quote(f'{build.sha256}  {output}')} | sha256sum -c\n")
    return "".join(lines)


def _words(variant: Variant, data: CalibrationData | None) -> str:
    words = [
        str(variant.path.resolve()), "--target", variant.target, "--precision", variant.precision,
        "--threads", str(variant.threads), "--no-verify",
    ]  # fmt: skip
    if variant.precision != "fp32":
        words.append("--force-precision")
    if variant.precision == "int8":
        words += ["--calibration", str(Path(os.fspath(data)).resolve())]  # type: ignore[arg-type]
    for name, dims in variant.shapes:
        words += ["--shape", f"{name}:[{','.join(map(str, dims))}]"]
    return shlex.join(words)
