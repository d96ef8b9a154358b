"""Choices for the groups of a model: what files hold and compilations take.

{"version": 1, "target": "x86-64-v4", "threads": 1, "choices": {KEY: CHOICE, ...}}: a key names a
group of operators (`ir/groups.py`), a choice has the fields of `choice.py`, any of them; what is
left out is chosen as usual.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ...errors import ScheduleError, UsageError
from ...ir.graph import Graph, Value
from ...ir.groups import group_key, group_of
from ..forms.form import Form, parse_form
from .choice import VERSION
from .graph_choice import GRAPH, GraphChoice

F = TypeVar("F", bound=Form)


@dataclass(frozen=True)
class Offer:
    """A group that can have a form of a kind. form: that it gets, or None. illegal: why it cannot
    have another one."""

    key: str
    kind: type[Any]
    form: Form | None
    region: Graph
    illegal: Callable[[Any], str]


@dataclass(frozen=True)
class Choices:
    """Given choices by key: that of a group, with what tells its kernels apart behind a "+".

    A choice for the group alone is for all of them. offered: is told of every group that can have
    another form, with the one that it gets.
    """

    by_key: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    offered: Callable[[Offer], None] | None = field(default=None, compare=False)

    @cached_property
    def graph(self) -> GraphChoice:
        """The choice for the whole graph. Raises ScheduleError for one that there is not."""
        return GraphChoice.from_json(self.by_key.get(GRAPH, {}))

    @property
    def are_open(self) -> bool:
        """Whether a group may get another form than the usual one, or has to be offered."""
        return bool(self.by_key) or self.offered is not None

    def of(self, key: str) -> Mapping[str, Any] | None:
        """The choice for a kernel, if one was given."""
        return self.by_key.get(key, self.by_key.get(group_of(key))) if key else None

    def form(
        self,
        operands: Sequence[Value],
        region: Graph,
        kind: type[F],
        usual: Callable[[], F | None],
        illegal: Callable[[F], str],
    ) -> F | None:
        """The form of a group: the given one, or the usual. illegal: why it cannot have one.

        Raises ScheduleError for a given form that it cannot have.
        """
        key = group_key(operands, region) if self.are_open else ""
        given = self._given_form(key) if self.by_key else None
        if given is None:
            found = usual()
            if self.offered:
                self.offered(Offer(key, kind, found, region, illegal))
            return found
        form = parse_form(str(given))
        if form is None:
            return None
        why = illegal(form) if isinstance(form, kind) else "it is a group of another kind"
        if why or not isinstance(form, kind):
            raise ScheduleError(
                f"the group '{'+'.join(n.op for n in region.nodes)}' cannot take the form '{form}'",
                why=why,
                remedy="leave the form out: the heuristic chooses one",
            )
        return form

    def _given_form(self, group: str) -> object | None:
        """The form that a choice for any of a group's kernels names."""
        forms = (data.get("form") for key, data in self.by_key.items() if group_of(key) == group)
        return next((form for form in forms if form is not None), None)

    def unused(self, keys: Iterable[str]) -> list[str]:
        """Keys of choices that are for none of the kernels with these keys."""
        known = set(keys) | {group_of(key) for key in keys} | {GRAPH}
        return [key for key in self.by_key if key not in known]


def read_choices(path: Path, target: str, threads: int) -> Choices:
    """The choices in a file, which have to be for this target and number of threads.

    Raises UsageError for a file that cannot be read, or is for another.
    """
    try:
        data = json.loads(path.read_bytes())
        if "version" in data.get("choices", ()):  # all that `inspect --json` prints
            data = data["choices"]
        version, by_key = data["version"], dict(data["choices"])
        meant = data["target"], data["threads"]
        for key, choice in by_key.items():
            if not isinstance(choice, dict):
                raise TypeError(f"the choice '{key}' is no object")
    except OSError as error:
        raise UsageError(f"cannot read '{path}'", why=error.strerror or str(error)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"'{path}' holds no choices", why=f"{type(error).__name__}: {error}",
            remedy="`tensmith inspect MODEL --kernels --json` prints some",
        ) from None  # fmt: skip
    if version != VERSION:
        raise UsageError(f"'{path}' is of version {version}, not {VERSION}")
    if meant != (target, threads):
        raise UsageError(
            f"'{path}' is for '{meant[0]}' and {meant[1]} thread(s)",
            remedy=f"--target {meant[0]} --threads {meant[1]}, or choices made for '{target}'",
        )
    return Choices(by_key)


def choices_json(
    by_key: Mapping[str, Mapping[str, Any]], target: str, threads: int
) -> dict[str, Any]:
    """What a file holds."""
    return {"version": VERSION, "target": target, "threads": threads, "choices": dict(by_key)}
