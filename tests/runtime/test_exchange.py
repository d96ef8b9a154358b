"""Tensors that a model uses as they lie: what is refused instead of misread."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from cplans import MANIFEST, make_model, needs_x86

from tensmith.backends.common.link import link
from tensmith.runtime.loader import Module, ModuleError, load

pytestmark = needs_x86

X = np.ones((2, 3), np.float32)


@pytest.fixture(scope="module")
def affine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Module]:
    """2 x + 1."""
    folder = tmp_path_factory.mktemp("libraries")
    made = make_model("affine", folder)
    with load(link(made, "so", folder / "affine.so", MANIFEST)[0]) as module:
        yield module


def test_strides_of_whole_elements(affine: Module) -> None:
    y = np.zeros((2, 3), np.float32)
    affine.run_into([X.repeat(2, 1)[:, ::2]], [y])
    assert (y == 3).all()
    fields = np.zeros((2, 3), [("value", "f4"), ("flag", "i2")])["value"]
    with pytest.raises(ModuleError, match="'x': its elements are not whole elements apart"):
        affine.run_into([fields], [y])


def test_what_cannot_be_written(affine: Module) -> None:
    y = np.zeros((2, 3), np.float32)
    y.flags.writeable = False
    with pytest.raises(ModuleError, match="'y': the array is read-only"):
        affine.run_into([X], [y])
    affine.run_into([y], [X.copy()])  # as an input it may be


class Negated:
    """Its memory holds the numbers before a negation that is to come."""

    def is_neg(self) -> bool:
        return True

    def __dlpack__(self) -> object:
        raise AssertionError("its memory is not what it holds")


def test_negations_to_come(affine: Module) -> None:
    with pytest.raises(ModuleError, match="'x': its numbers have yet to be negated"):
        affine.run_into([Negated()], [X.copy()])
