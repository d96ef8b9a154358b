"""Time one binary in a process: `python -m benchmarks.visit MODEL.so INPUTS.npz SECONDS`.

Prints the lower quartile of the seconds of a call, and a digest of the outputs' bits.
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

import numpy as np

from tensmith.runtime.loader import load

WARM_CALLS, LEAST_CALLS = 3, 5


def main() -> None:
    """Run the binary for about so many seconds."""
    library, inputs, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    module = load(Path(library))
    with np.load(inputs) as arrays:
        feed = {name: arrays[name] for name in arrays.files}
    for _ in range(WARM_CALLS):
        outputs = module(feed)
    bits = hashlib.sha256()
    for name in sorted(outputs):
        bits.update(np.array(outputs[name]).tobytes())
    times: list[float] = []
    begun = last = time.perf_counter()
    while len(times) < LEAST_CALLS or last - begun < seconds:
        module(feed)
        now = time.perf_counter()
        times.append(now - last)
        last = now
    print(f"{np.quantile(times, 0.25):.9f} {bits.hexdigest()}")


if __name__ == "__main__":
    main()
