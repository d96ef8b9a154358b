"""The decisions about a whole graph that come before there are groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ...errors import ScheduleError

GRAPH = "graph"  # the key of this choice among those of groups


@dataclass(frozen=True)
class GraphChoice:
    """What passes do where it pays, by their own estimates.

    channels_first: convolutions that make few channels keep channels first. side_by_side: products
    of one operand are computed by one kernel where their results meet. bands: convolutions are
    merged with depthwise ones behind them. row_blocks: the products of attention are merged.
    """

    channels_first: bool = True
    side_by_side: bool = True
    bands: bool = True
    row_blocks: bool = True

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GraphChoice:
        """The choice with the fields that are given.

        Raises ScheduleError for fields that there are not, or that are no bool.
        """
        known = {field.name for field in fields(cls)}
        for name, value in data.items():
            if name not in known or not isinstance(value, bool):
                raise ScheduleError(
                    f"the choice for the graph: {name} = {value!r}",
                    remedy=f"true or false for {', '.join(sorted(known))}",
                )
        return cls(**data)
