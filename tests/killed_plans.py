"""`tensmith plan` with made-up times, in a program that kills itself: `python killed_plans.py STEPS
WORD...`; 0 steps: never. A step is a result in the journal, or a measurement."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from fake_probes import FakeProbe, fake_profile

from tensmith.driver import cli
from tensmith.driver.journal import Journal
from tensmith.driver.planning import planning
from tensmith.driver.planning.plan_tools import PlanTools


def main(steps: int, words: list[str]) -> int:
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if done == steps:
            os.kill(os.getpid(), signal.SIGKILL)

    put, fake = Journal.put, FakeProbe()

    def counted(self: Journal, *given: Any) -> None:
        step()
        put(self, *given)
        step()

    def probe(*given: Any, **named: Any) -> Any:
        step()
        return fake(*given, **named)

    Journal.put = counted  # type: ignore[method-assign]
    made = planning.Planning.__init__

    def init(self: planning.Planning, request: Any, tools: PlanTools) -> None:
        made(self, request, PlanTools(tools.compile, probe, profile=fake_profile))

    planning.Planning.__init__ = init  # type: ignore[method-assign]
    code = cli.main(words)
    print(f"{done} steps")
    return code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
