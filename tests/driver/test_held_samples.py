"""Which samples of a calibration count, and how errors are measured on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tensmith.driver.calibration_notes import DataNotes
from tensmith.driver.held_samples import (
    FOLDS,
    HELD_BYTES,
    LEAST_HELD,
    MOST_HELD,
    OUTLYING,
    SampleParts,
    parts_of,
)
from tensmith.driver.ranges_observed import (
    FAINT,
    MOST_DECIBELS,
    decibels_of,
    means_of_outputs,
    share_of_noise,
    shares_of_noise,
)
from tensmith.driver.weight_compensation import nearest_only


def test_samples_that_are_far_larger_than_most_count_for_nothing() -> None:
    samples = [{"x": np.full(4, 1e4 if n == 5 else 1.0 + n, np.float32)} for n in range(10)]
    parts = parts_of(samples, DataNotes())
    assert (parts.count, parts.outlying) == (10, frozenset({5}))
    assert parts.of(5) == OUTLYING
    assert parts.judged() == frozenset(range(10)) - {5}
    assert 5 not in parts.held_out()
    sizes = [sum(parts.of(n) == fold for n in range(10)) for fold in range(FOLDS)]
    assert sorted(sizes) == [2, 2, 2, 3]


def test_of_many_samples_some_are_judged_from_first_to_last() -> None:
    judged = sorted(SampleParts(1000).judged())
    assert len(judged) == MOST_HELD
    assert judged[0] == 0
    assert judged[-1] > 950
    assert max(np.diff(judged)) <= 32
    assert {SampleParts(1000).of(n) for n in judged} == {*range(FOLDS)}
    assert len(SampleParts(1000).judged(size=1 << 40)) == LEAST_HELD


def test_what_is_kept_of_samples_is_told_by_the_largest() -> None:
    """Of open sizes, the first of which is the smallest."""
    samples = [{"x": np.ones((rows, 4), np.float32)} for rows in [2, *[20] * 19]]
    parts = parts_of(samples, DataNotes())
    assert parts.growth == 10
    assert len(parts.judged(HELD_BYTES // 100)) == 10
    assert len(parts_of(reversed(samples), DataNotes()).judged(HELD_BYTES // 10)) == 10


def test_one_sample_that_counts_is_told_from_one_sample() -> None:
    assert nearest_only(SampleParts(1)).startswith("there is one calibration sample: ")
    assert nearest_only(SampleParts(4, frozenset({0, 1, 3}))).startswith("one of 4 ")


def test_a_single_sample_is_judged_by_itself() -> None:
    assert SampleParts(1).is_shared
    assert SampleParts(1).judged() == {0}
    assert not SampleParts(1).held_out()
    assert not SampleParts(2).is_shared
    assert SampleParts(2).held_out() == {1}


def shares(*pairs: tuple[float, float]) -> list[float]:
    runs = (({"y": np.array([float(a)])}, {"y": np.array([float(a + b)])}) for a, b in pairs)
    return list(shares_of_noise(runs)["y"])


def test_every_sample_counts_alike_however_large_it_is() -> None:
    """A sample that is a thousand times larger, and lost, is one of five."""
    found = shares((1, 0.1), (1, 0.1), (1, 0.1), (1, 0.1), (1000, 5000))
    assert found[-1] == 1
    small = shares((1, 0.1), (1, 0.1))
    assert small == pytest.approx([0.1, 0.1])
    assert decibels_of(np.array(small)) == pytest.approx(20)
    assert decibels_of(np.array([*small, 1.0, 0.1, 0.1])) == pytest.approx(-20 * np.log10(0.28))


def test_a_sample_of_nothing_counts_by_what_others_are() -> None:
    first, last = shares((1, 0.0), (0, 0.001))
    assert first == 0
    assert last == pytest.approx(0.001 / np.sqrt(FAINT / 2))
    assert shares((0, 0), (0, 0)) == [0, 0]
    assert shares((1, np.nan), (np.inf, 1)) == [1, 1]


def empty_or_not(counts: Sequence[int], got: Sequence[int]) -> dict[str, np.ndarray]:
    """Of an output y, with a tenth of noise, and one that has so many elements in each sample."""
    return shares_of_noise(
        ({"y": np.ones(4), "z": np.ones(n)}, {"y": np.full(4, 1.1), "z": np.full(m, 1.3)})
        for n, m in zip(counts, got, strict=True)
    )


@pytest.mark.filterwarnings("error")
def test_empty_outputs_say_nothing_of_their_samples() -> None:
    found = empty_or_not([2, 0, 3], [2, 0, 3])
    np.testing.assert_allclose(found["z"], [0.3, np.nan, 0.3])
    np.testing.assert_allclose(means_of_outputs(found), [0.2, 0.1, 0.2])
    assert decibels_of(found["z"]) == pytest.approx(-20 * np.log10(0.3))
    assert empty_or_not([0, 0], [0, 0]).keys() == {"y"}
    assert list(empty_or_not([0, 0], [0, 2])["z"])[1] == 1
    np.testing.assert_allclose(means_of_outputs({"z": found["z"]}), [0.3, np.nan, 0.3])


@pytest.mark.filterwarnings("error")
def test_a_sample_of_which_another_number_is_found_is_lost_and_no_more() -> None:
    """A detector that finds one more in one sample: of the others something can still be said."""
    counts = (4, 3)
    runs = [({"y": np.ones(4)}, {"y": np.full(n, 1.1)}) for n in counts]
    assert share_of_noise(runs) == pytest.approx(np.square((0.1 + 1) / 2))
    assert share_of_noise([({"n": np.arange(3)}, {"n": np.arange(4)})]) == 0
    assert share_of_noise([]) == 0


@pytest.mark.filterwarnings("error")
def test_outputs_that_never_change_are_no_division_by_nothing() -> None:
    assert shares((0, 0), (0, 0.1), (0, np.inf)) == [0, 1, 1]
    assert shares((5, 0), (5, 0)) == [0, 0]
    assert decibels_of(np.array([0.0, 0.0])) == MOST_DECIBELS
