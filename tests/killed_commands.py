"""`tensmith tune` with made-up kernels and times, in a program that kills itself:
`python killed_commands.py STEPS WORD...`; 0 steps: never. A step is a turn, or a whole binary."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "driver"))

from conftest import FakeBackend
from fake_tuning import FakeMeasurer

from tensmith.compiler import backend as registry
from tensmith.compiler.tuning.whole_model import Paired
from tensmith.driver import cli
from tensmith.driver.tuning.pairs import BinaryPair


def main(steps: int, words: list[str]) -> int:
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if done == steps:
            os.kill(os.getpid(), signal.SIGKILL)

    timed = FakeMeasurer.time

    def turn(self: FakeMeasurer, *given: Any) -> Any:
        step()
        return timed(self, *given)

    def whole(self: BinaryPair, artifact: Any, *, exact: bool) -> Paired:
        step()
        slow = b"dense" in artifact.code.objects[0][1]  # with all choices it is no gain
        return Paired((1.0 if slow else 0.9,) * 15, 1e-3, 0.9e-3)

    FakeMeasurer.time = turn  # type: ignore[method-assign]
    BinaryPair.time = whole  # type: ignore[method-assign]
    found = {"fake": FakeBackend().backend}
    registry.backends = lambda: found  # type: ignore[assignment]
    code = cli.main(words)
    print(f"{done} steps")
    return code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
