"""Which products stay in floats for the noise that they make."""

from __future__ import annotations

from collections.abc import Mapping

from tensmith.driver.float_parts import least_noise

WORK = {"a": 6.0, "b": 1.0, "c": 5.0, "d": 1.0}


def chosen(parts: Mapping[str, float], budget: float) -> frozenset[str]:
    """Of products whose noise adds up."""

    def power(floats: frozenset[str]) -> float:
        return sum(own for key, own in parts.items() if key not in floats)

    return least_noise(power, parts, WORK, budget)


def test_what_makes_most_of_the_noise_comes_first() -> None:
    """Small products take no room that the one that matters needs."""
    assert chosen({"a": 10.0, "b": 2.0, "c": 1.0}, 6.5) == {"a"}


def test_small_products_are_taken_where_they_save_more_together() -> None:
    assert chosen({"a": 5.0, "b": 4.0, "c": 0.1, "d": 4.0}, 6.0) == {"b", "d"}


def test_products_that_make_little_stay_integer() -> None:
    assert chosen({"a": 10.0, "b": 0.1, "c": 10.0}, 100.0) == {"a", "c"}
    assert chosen({"a": 1.0}, 5.0) == frozenset()
    assert chosen({"a": 0.0, "b": 0.0}, 100.0) == frozenset()


def test_noise_that_two_products_share_goes_with_both() -> None:
    """Errors that cancel each other: one alone saves less than with the other."""

    def power(floats: frozenset[str]) -> float:
        return {0: 10.0, 1: 9.0, 2: 1.0}[len(floats & {"b", "d"})] + ("a" not in floats)

    assert least_noise(power, ["a", "b", "d"], WORK, 6.0) == {"b", "d"}
