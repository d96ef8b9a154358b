"""Lines of a function as they come about: names for what was computed, each computed once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

INDENT = "    "


class Lines:
    """The body of a function, in single static assignment but for what loops carry."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._depth = 1
        self._count = 0
        self._scopes: list[dict[str, str]] = [{}]

    def add(self, line: str) -> None:
        """Append a statement."""
        self.lines.append(INDENT * self._depth + line)

    def let(self, expression: str) -> str:
        """A name for the value of an expression, one for equal expressions."""
        if expression.isidentifier():
            return expression
        for scope in self._scopes:
            if expression in scope:
                return scope[expression]
        name = self.fresh()
        self.add(f"{name} = {expression}")
        self._scopes[-1][expression] = name
        return name

    def fresh(self) -> str:
        """A new name."""
        self._count += 1
        return f"v{self._count}"

    def forget_loads(self) -> None:
        """What was loaded may have been overwritten."""
        for scope in self._scopes:
            for expression in [text for text in scope if "tl.load(" in text]:
                del scope[expression]

    @contextmanager
    def block(self, header: str) -> Iterator[None]:
        """Statements inside a loop or a condition; what they name is not known behind it."""
        self.add(header)
        self._depth += 1
        self._scopes.append({})
        yield
        self._scopes.pop()
        self._depth -= 1

    def __str__(self) -> str:
        return "\n".join(self.lines) + "\n"
