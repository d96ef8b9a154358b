"""Where a tile reads the factors of products that instructions of their own compute."""

from __future__ import annotations

from ....compiler.errors import InternalError
from ....compiler.kernel import expr as ex
from ....compiler.kernel.kernel import Stage
from .shape import Address
from .tile import Tile


def factor_addresses(tile: Tile, stage: Stage) -> tuple[Address, Address]:
    """Of both factors of the stage's product. Raises InternalError where they are not plain."""
    body = stage.reductions[0].body
    assert isinstance(body, ex.Apply)
    tile.prepare([body])
    left, right = (tile.addresses[id(arg)] for arg in body.args)
    if left is None or right is None:
        raise InternalError("factors have no plain addresses")
    return left, right
