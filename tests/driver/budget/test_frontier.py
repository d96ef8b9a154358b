"""The order in which groups go to floats, and the search along it."""

from __future__ import annotations

import math

import pytest

from tensmith.driver.budget.drops import Drop
from tensmith.driver.budget.frontier import GUESSES, REPAIRS, Group, frontier, search


class Model:
    """Noise adds up; the drop is its sum, and evaluations are counted."""

    def __init__(self, errors: dict[int, float]) -> None:
        self.errors, self.evaluated = errors, list[frozenset[int]]()

    def __call__(self, integer: frozenset[int]) -> Drop:
        self.evaluated.append(integer)
        drop = sum(self.errors[n] for n in integer)
        return Drop(drop, drop, drop, 1 - drop, 1.0, 100)


def test_what_saves_nothing_stays_and_the_worst_goes_first() -> None:
    given = [
        Group(0, 0.1, 1.0),
        Group(1, 0.1, 4.0),
        Group(2, 0.0, -1.0),
        Group(3, 0.3, 2.0),
        Group(4, math.inf, 1.0),
        Group(5, 0.0, 0.0),
    ]
    assert [c.index for c in frontier(given)] == [4, 3, 0, 1]


def test_one_evaluation_is_enough_where_all_may_be_integer() -> None:
    model = Model(dict.fromkeys(range(50), 1e-4))
    order = frontier([Group(n, 1e-4, 1.0) for n in range(50)])
    found = search(order, model, 0.01)
    assert found.met
    assert found.integer == frozenset(range(50))
    assert len(model.evaluated) == 1


@pytest.mark.parametrize("bad", [1, 7, 40, 99])
def test_few_evaluations_find_the_edge(bad: int) -> None:
    """Some groups make ten times the noise that is allowed: they and no others go to floats."""
    errors = {n: 0.1 if n < bad else 1e-5 for n in range(100)}
    model = Model(errors)
    found = search(frontier([Group(n, errors[n], 1.0) for n in errors]), model, 0.01)
    assert found.met
    assert found.integer == frozenset(range(bad, 100))
    assert len(model.evaluated) <= 1 + GUESSES + 7 + REPAIRS


def test_repairs_take_back_what_the_order_misjudged() -> None:
    """A group that seems bad and is not becomes integer again."""
    seems = {0: 0.5, 1: 0.4, 2: 0.01, 3: 0.01}
    model = Model({0: 0.001, 1: 0.4, 2: 0.001, 3: 0.001})
    found = search(frontier([Group(n, seems[n], 1.0) for n in seems]), model, 0.01)
    assert found.integer == {0, 2, 3}
    assert found.drop is not None
    assert found.drop.drop == pytest.approx(0.003)


def test_where_nothing_is_within_the_budget() -> None:
    """What loses least is told, though it is not met."""
    model = Model({0: 0.5, 1: 0.2, 2: 0.3})
    order = frontier([Group(n, model.errors[n], 1.0) for n in model.errors])
    found = search(order, model, 0.01)
    assert not found.met
    assert found.integer == {1}


def test_a_single_group_within_the_budget_is_found_beside_the_frontier() -> None:
    seems = {0: 0.1, 1: 0.1, 2: 0.09}
    model = Model({0: 0.001, 1: 0.5, 2: 0.5})
    found = search(frontier([Group(n, seems[n], 1.0) for n in seems]), model, 0.01)
    assert found.met
    assert found.integer == {0}


def test_nothing_saves_time() -> None:
    model = Model({})
    found = search([], model, 0.0)
    assert (found.integer, found.drop, found.met) == (frozenset(), None, True)
    assert not model.evaluated
