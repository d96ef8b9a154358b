"""What is told of calibration data that should not be as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from compiled import needs_native

from tensmith.driver.calibration_notes import DataNotes, untrained
from tensmith.driver.quantisation import quantise
from tensmith.driver.ranges_observed import Spread
from tensmith.driver.request import CompileRequest
from tensmith.frontends.onnx.quantising.batch_norms import Norm

MODELS = Path(__file__).parents[1] / "models"
RNG = np.random.default_rng(3)
IMAGES = RNG.standard_normal((8, 1, 3, 4, 4)).astype(np.float32)


def notes(**inputs: Any) -> list[str]:
    """Of samples: the arrays' elements along the first axis."""
    found = DataNotes()
    for index in range(len(next(iter(inputs.values())))):
        found.add({name: array[index] for name, array in inputs.items()})
    return found.notes()


def test_usual_data_are_not_mentioned() -> None:
    mask = np.ones((8, 1, 16), np.int64)
    assert notes(image=IMAGES) == []
    assert notes(image=IMAGES, mask=mask, rate=np.full((8,), 16000, np.float32)) == []
    loud = IMAGES * np.linspace(1, 50, 8, dtype=np.float32).reshape(-1, 1, 1, 1, 1)
    assert notes(image=loud) == []


def test_inputs_of_one_number() -> None:
    [line] = notes(image=IMAGES, state=np.zeros((8, 1, 5), np.float32))
    assert "every element of 'state' is 0 in all 8 samples" in line
    assert "as the model gets them" in line
    [line] = notes(image=IMAGES[:1] * 0 + 0.5)
    assert "every element of 'image' is 0.5 in the sample" in line
    tokens = np.zeros((8, 1, 16), np.int64)
    assert len(notes(tokens=tokens)) == 2  # it is all that there is; and the samples are the same
    assert notes(image=IMAGES, tokens=tokens) == []


def test_samples_that_are_the_same() -> None:
    [line] = notes(image=np.repeat(IMAGES[:1], 5, 0))
    assert "the 5 samples are all the same" in line
    assert "different ones" in line


def test_a_sample_that_is_far_larger() -> None:
    stray = IMAGES.copy()
    stray[5, 0, 1, 2, 3] = 1e6
    [line] = notes(image=stray)
    assert "'image' reaches 1e+06 in sample 5" in line
    assert "leave such samples out" in line
    assert notes(image=stray[4:7]) == []  # of three nobody knows what is usual


def observed(x: Any) -> Spread:
    """What a tensor [samples, channels, places] shows."""
    seen = Spread()
    for sample in x:
        limits = sample.min(1), sample.max(1)
        power = float(np.square(sample).mean())
        seen.add(sample.min(), sample.max(), power, sample.mean(1), limits)
    return seen


def test_data_of_another_scale_than_in_training() -> None:
    scale, shift = np.array([0.5, 2.0, 1e-9]), np.array([1.0, -3.0, 0.0])
    norm = Norm("bn", "y", scale, shift)
    trained = RNG.standard_normal((8, 3, 500)) * scale[:, None] + shift[:, None]
    ranges = {"x": (0.0, 255.0)}
    assert untrained(norm, observed(trained), ranges) == []
    for factor in (255.0, 1 / 255):
        [line] = untrained(norm, observed((trained - 0.8) * factor), ranges)
        assert "'x' is 0 to 255, of which 'bn' makes channels" in line
        assert "prepare them as the model's users do" in line


@needs_native
def test_ranges_are_those_of_usual_samples(tmp_path: Path) -> None:
    """What is far larger sets no range, and nothing is judged on it."""
    rows = np.load(MODELS / "drawing.npz")["rows"][:12].copy()
    usual = rows.max()
    rows[3].reshape(-1)[7] = 1e6
    request = CompileRequest(precision="int8", calibration={"rows": rows[:, None]})
    found = quantise(MODELS / "drawing.onnx", tmp_path / "q.onnx", request, tmp_path)
    assert any("in sample 3" in note for note in found.notes)
    assert found.held_out == 11
    assert min(found.decibels.values()) > 25
    highs = [row.high for row in found.products if row.high is not None]
    assert highs
    assert max(highs) < 1000 * usual
