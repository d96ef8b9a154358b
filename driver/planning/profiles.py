"""The kernels and the memory of what was chosen, measured once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...compiler.errors import TensmithError
from ..journal import Journal
from ..request import CompileRequest
from ..roofline import Roofline
from .builds import Build
from .plan_request import PlanRequest

ProfileModel = Callable[[Path, CompileRequest], Roofline]


def chosen_profile(
    build: Build, request: PlanRequest, profile: ProfileModel, journal: Journal, notes: list[str]
) -> dict[str, Any] | None:
    """What `Roofline.to_json` says of a binary's model. None where it cannot be measured kernel by
    kernel, which is noted."""
    key = ("profile", build.variant.name, build.sha256)
    kept: dict[str, Any] | None = journal.get(*key)
    if kept is None:
        request.note(f"measuring the kernels of {build.variant.name}")
        try:
            found = profile(build.variant.path, build.variant.request(request))
        except TensmithError as error:
            if error.exit_code not in (2, 3):
                raise
            notes.append(f"the kernels of {build.variant.name} were not measured: {error.what}")
            return None
        kept = found.to_json()
        journal.put(kept, *key)
    return kept
