"""The operator table: ONNX operator -> the function that lowers one node of it to the core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from .containers import Content
    from .site import Site

Lowering = Callable[["Site"], "Content | Sequence[Content | None]"]
F = TypeVar("F", bound=Lowering)
_TABLE: dict[tuple[str, str], Lowering] = {}
_REFUSED: set[tuple[str, str]] = set()

MICROSOFT = "com.microsoft"


def lowers(*names: str, domain: str = "") -> Callable[[F], F]:
    """Register a function for the named operators of a domain, in every opset version."""

    def add(function: F) -> F:
        for name in names:
            if (domain, name) in _TABLE:
                raise ValueError(f"'{domain}:{name}' has two lowerings")
            _TABLE[domain, name] = function
        return function

    return add


def refuses(*names: str, domain: str = "") -> Callable[[F], F]:
    """Register a function that raises NotSupported, with the reason, for the named operators."""
    _REFUSED.update((domain, name) for name in names)
    return lowers(*names, domain=domain)


def is_refused(domain: str, name: str) -> bool:
    """Whether the operator's lowering only says why there is none."""
    return (domain, name) in _REFUSED


def find(domain: str, name: str) -> Lowering | None:
    """The lowering of an operator, or None."""
    return _TABLE.get((domain, name))


def supported() -> list[tuple[str, str]]:
    """Every (domain, operator) that has a lowering, sorted."""
    return sorted(_TABLE)
