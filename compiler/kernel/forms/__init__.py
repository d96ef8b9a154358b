"""Forms: the algorithms that a fused group can take, and the choice among them."""

from __future__ import annotations

from .form import Form, form_of, parse_form, set_form
from .region import Lowered, lower_region

__all__ = ["Form", "Lowered", "form_of", "lower_region", "parse_form", "set_form"]
