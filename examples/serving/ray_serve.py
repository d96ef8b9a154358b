"""Serves what a plan chose with Ray Serve, in the layout that the plan chose, and measures it.

    python examples/serving/ray_serve.py PLAN --seconds 10

PLAN is the folder of `tensmith plan`: its `plan.json` says how many instances a machine has, and
how many threads each; the library is among its builds. Every instance is a replica, to which Ray
Serve gives its cores. The router hands a call to a replica that has room for one
(`max_ongoing_requests=1`): that is the pooled queue that the plan counts with. Needs
`pip install 'ray[serve]'` and numpy; of Tensmith the loader alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import serve

Arrays = dict[str, np.ndarray]


@serve.deployment(max_ongoing_requests=1, max_queued_requests=-1)
class CompiledService:
    """An instance of a compiled model. idle "park": between calls its threads take no time."""

    def __init__(self, library: str, threads: int) -> None:
        from tensmith.runtime.loader import load

        self.model = load(library, threads=threads, idle="park")

    async def __call__(self, inputs: Arrays) -> Arrays:
        """Outputs by name for inputs by name."""
        return self.model(inputs)


def application(folder: Path, instances: int | None = None) -> tuple[serve.Application, int]:
    """The deployment that a plan describes, and how many instances it has."""
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    if plan["chosen"] is None:
        raise SystemExit("the plan chose nothing: nothing keeps what it was to promise")
    point = plan["points"][plan["chosen"]]
    layout, name = point["layout"], point["name"]
    count = instances or layout["instances"]
    library = str((folder / "work" / "builds" / f"{name}.so").resolve())
    deployment = CompiledService.options(
        num_replicas=count, ray_actor_options={"num_cpus": layout["threads"]}
    )
    return deployment.bind(library, layout["threads"]), count


async def latencies(handle: Any, rows: list[Arrays], rate: float, seconds: float) -> np.ndarray:
    """Seconds from when each call was due until its answer; calls come by chance, whatever the
    service does."""
    rng = np.random.default_rng(0)
    due = np.cumsum(rng.exponential(1 / rate, max(1, int(rate * seconds))))
    begun, found = time.perf_counter(), []

    async def one(number: int, moment: float) -> None:
        await handle.remote(rows[number % len(rows)])
        found.append(time.perf_counter() - begun - moment)

    tasks = []
    for number, moment in enumerate(due):
        await asyncio.sleep(max(0.0, begun + moment - time.perf_counter()))
        tasks.append(asyncio.create_task(one(number, moment)))
    await asyncio.gather(*tasks)
    return np.sort(found)


def rows_of(folder: Path) -> list[Arrays]:
    """The rows that the plan measured on, one by one."""
    with np.load(folder / "work" / "rows.npz") as file:
        arrays = {name: file[name] for name in file.files}
    count = min(len(array) for array in arrays.values())
    return [{name: array[n : n + 1] for name, array in arrays.items()} for n in range(count)]


def main() -> None:
    """Serve, measure, tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path, help="folder of `tensmith plan`")
    parser.add_argument("--rate", type=float, default=50.0, help="calls per second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the measurement")
    parser.add_argument("--instances", type=int, help="in place of the plan's")
    options = parser.parse_args()
    ray.init(include_dashboard=False, log_to_driver=False)
    bound, count = application(options.plan, options.instances)
    handle = serve.run(bound, route_prefix=None)
    rows = rows_of(options.plan)

    async def measured() -> np.ndarray:
        for row in rows[:20]:
            await handle.remote(row)
        return await latencies(handle, rows, options.rate, options.seconds)

    times = asyncio.run(measured())
    p50, p99 = np.percentile(times, (50, 99)) * 1e3
    print(
        f"{len(times)} calls at {options.rate:g}/s on {count} instance(s): median {p50:.2f} ms, "
        f"p99 {p99:.2f} ms"
    )
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
