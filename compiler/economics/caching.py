"""What a cache of responses would find again, of the requests of a trace."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


def hit_rate(keys: Sequence[str], entries: int, machines: int = 1) -> float:
    """The share of requests whose key is among the last `entries` different ones of their machine.

    Requests are dealt out to machines in turns, each of which has a cache of its own, that forgets
    what was not asked for the longest. 0 where there are no requests, or no room.
    """
    if not keys or entries < 1:
        return 0.0
    held: list[OrderedDict[str, None]] = [OrderedDict() for _ in range(machines)]
    hits = 0
    for number, key in enumerate(keys):
        own = held[number % machines]
        if key in own:
            own.move_to_end(key)
            hits += 1
            continue
        own[key] = None
        if len(own) > entries:
            own.popitem(last=False)
    return hits / len(keys)
