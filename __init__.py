"""Tensmith: compile ONNX models to standalone binaries.

The public face; everything is imported on first use, so that `import tensmith` is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .compiler.errors import TensmithError
    from .driver.api import Artifact, compile, load
    from .driver.layer_checks import layers
    from .driver.planning.plan_api import plan
    from .driver.tuning.interface import tune
    from .runtime.loader import Module

__all__ = [
    "Artifact",
    "Module",
    "TensmithError",
    "__version__",
    "compile",
    "layers",
    "load",
    "plan",
    "tune",
]

_HOMES = {
    "Artifact": ".driver.api",
    "compile": ".driver.api",
    "layers": ".driver.layer_checks",
    "load": ".driver.api",
    "plan": ".driver.planning.plan_api",
    "tune": ".driver.tuning.interface",
    "Module": ".runtime.loader",
    "TensmithError": ".compiler.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tensmith' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name], __name__), name)
