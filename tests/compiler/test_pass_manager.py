"""Running passes: order, fixpoints, verification, dumps, timings, errors."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from rewriting import body

from tensmith.compiler.compilation import Stages
from tensmith.compiler.errors import InternalError
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.text import parse_graph
from tensmith.compiler.pass_manager import Fixpoint, run_passes


@dataclass(frozen=True)
class Countdown:
    """Claims a change as often as it is told to."""

    left: list[int]
    calls: list[str] = field(default_factory=list)
    name: str = "countdown"

    def run(self, graph: Graph) -> bool:
        self.calls.append(self.name)
        self.left[0] -= 1
        return self.left[0] >= 0


@dataclass(frozen=True)
class Breaks:
    """Turns the node list around."""

    name: str = "breaks"

    def run(self, graph: Graph) -> bool:
        graph.nodes.reverse()
        return True


@dataclass(frozen=True)
class Refuses:
    """Raises what type inference raises."""

    name: str = "refuses"

    def run(self, graph: Graph) -> bool:
        raise ValueError("the shapes do not fit")


@dataclass(frozen=True)
class Renames:
    """Calls an output by another name."""

    name: str = "renames"

    def run(self, graph: Graph) -> bool:
        graph.outputs[0].name = "other"
        return True


def _graph() -> Graph:
    return parse_graph(body("%x: f32[n]", ["%a: f32[n] = exp(%x)", "%y: f32[n] = neg(%a)"]))


def test_dump_and_timings() -> None:
    seen: list[str] = []
    stages = Stages()
    passes = (Countdown([1], name="a"), Countdown([0], name="b"))
    assert run_passes(_graph(), passes, dump_after=lambda n, g: seen.append(n), stages=stages)
    assert seen == list(stages.seconds) == ["a", "b"]


def test_nothing_changed() -> None:
    assert not run_passes(_graph(), (Countdown([0]), Fixpoint((Countdown([0]),))))


def test_fixpoint_ends_when_all_are_quiet() -> None:
    calls: list[str] = []
    group = Fixpoint((Countdown([2], calls, "a"), Countdown([0], calls, "b")))
    run_passes(_graph(), [group])
    assert calls == ["a", "b", "a", "b", "a"]


def test_what_changed_nothing_waits_for_a_change() -> None:
    calls: list[str] = []
    quiet, busy = Countdown([0], calls, "quiet"), Countdown([1], calls, "busy")
    run_passes(_graph(), [quiet, Fixpoint((quiet,)), quiet, busy, quiet, quiet])
    assert calls == ["quiet", "busy", "quiet"]


def test_fixpoint_ends_at_its_limit() -> None:
    calls: list[str] = []
    run_passes(_graph(), [Fixpoint((Countdown([99], calls),), limit=3)])
    assert len(calls) == 3


@pytest.mark.parametrize("broken", [Breaks(), Refuses(), Renames()], ids=lambda item: item.name)
def test_error_names_the_pass(broken: Breaks | Refuses | Renames) -> None:
    with pytest.raises(InternalError, match=f"pass '{broken.name}' broke the graph"):
        run_passes(_graph(), [broken])


def test_verification_can_be_left_out() -> None:
    assert run_passes(_graph(), [Breaks()], verify=False)
