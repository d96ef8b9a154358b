"""What is decided of command streams without being told."""

from __future__ import annotations

from integer_graphs import Sketch, integers_made
from tosa_runs import needs_vela

from tensmith.backends.ethosu import arrangement
from tensmith.backends.ethosu.arrangement import arranged, decisions_of
from tensmith.backends.ethosu.targets import TARGETS


@needs_vela
def test_columns_that_make_the_whole_slower_are_not_folded(monkeypatch):
    def four_channels(s: Sketch):
        return (s.op("tanh", s.conv(s.input(1, 4, 24, 32), 16, (1, 5), pads=(0, 2, 0, 2))),)

    graph, *_ = integers_made(four_channels, 6)
    target = TARGETS["ethos-u55-128"]
    (columns,) = (d for d in decisions_of(graph, target) if d.name.startswith("columns"))

    def cycles(choice):
        return sum(s.estimate.cycles for s in arranged(graph, target, choice).streams)

    by_columns = {value: cycles({columns.name: value}) for value in columns.values}
    worst = max(by_columns, key=lambda value: by_columns[value])
    assert by_columns[worst] > by_columns[1]
    monkeypatch.setattr(arrangement, "least_cycles", lambda chain, target: worst)
    assert cycles({}) == by_columns[1]
