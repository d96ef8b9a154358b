"""Lowerings of ONNX operators by domain; importing them fills the table."""

from __future__ import annotations

from . import microsoft, ml, standard

__all__ = ["microsoft", "ml", "standard"]
