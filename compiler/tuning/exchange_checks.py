"""What a file of exported records has to look like: it comes from anywhere, and is data alone.

Nothing in it is run or unpickled. A choice is an object here; whether it is legal is found where it
is used, by the target.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .exchange import FORMAT, TREE_VERSION, Tree
from .history import CONFIRM, RACE
from .task import digest, packed

LONGEST_TEXT = 1 << 16
Check = Callable[[Any, str], None]


class _WrongError(Exception):
    """Where, and what is wrong there."""


def read_tree(path: Path) -> Tree:
    """The records in an exported file. Raises UsageError for one that holds anything else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return checked_tree(data)
    except OSError as error:
        raise UsageError(f"cannot read '{path}'", why=error.strerror or str(error)) from None
    except RecursionError:
        raise _refusal(path, "it is nested too deeply") from None
    except (ValueError, _WrongError) as error:  # no text, no JSON
        raise _refusal(path, str(error)) from None


def _refusal(path: Path, why: str) -> UsageError:
    return UsageError(
        f"'{path}' holds no exported records", why=why,
        remedy="`tensmith records export` writes such files",
    )  # fmt: skip


def checked_tree(data: Any) -> Tree:
    """The data, if they are records. Raises an error that says where they are not."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise _WrongError(f"its \"format\" is not '{FORMAT}'")
    if data.get("version") != TREE_VERSION:
        raise _WrongError(f"it is of version {data.get('version')}, not {TREE_VERSION}")
    _TREE(data, "")
    tree: Tree = data
    for key, choice in tree["choices"].items():
        _require(digest(packed(choice)) == key, f"choices.{key}", "the digest is another")
    for key, session in tree["sessions"].items():
        _check_links(tree, session, f"sessions.{digest(key)}")
    return tree


# ---------------------------------------------------------------------- kinds of values


def _require(holds: bool, where: str, why: str) -> None:
    if not holds:
        raise _WrongError(f"{where or 'the whole'}: {why}")


def _text(value: Any, where: str) -> None:
    _require(isinstance(value, str) and len(value) <= LONGEST_TEXT, where, "it is no (short) text")


def _count(value: Any, where: str) -> None:
    is_int = isinstance(value, int) and not isinstance(value, bool)
    _require(is_int and 0 <= value < 1 << 62, where, "it is no count")


def _number(value: Any, where: str) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    _require(is_number and math.isfinite(value) and value >= 0, where, "it is no number from 0 up")


def _object(value: Any, where: str) -> None:
    _require(isinstance(value, dict), where, "it is no object")


def _list_of(item: Check) -> Check:
    def check(value: Any, where: str) -> None:
        _require(isinstance(value, list), where, "it is no list")
        for number, one in enumerate(value):
            item(one, f"{where}[{number}]")

    return check


def _map_of(item: Check) -> Check:
    def check(value: Any, where: str) -> None:
        _object(value, where)
        for key, one in value.items():
            item(one, f"{where}.{key[:40]}")

    return check


def _fields(**checks: Check) -> Check:
    def check(value: Any, where: str) -> None:
        _object(value, where)
        found = set(value) ^ set(checks)
        _require(not found, where, f"missing or unknown: {', '.join(sorted(found))}")
        for name, own in checks.items():
            own(value[name], f"{where}.{name}")

    return check


def _sample(value: Any, where: str) -> None:
    _require(isinstance(value, list) and len(value) == 5, where, "it is no list of five")
    _count(value[0], where)
    _count(value[4], where)
    for one in value[1:4]:
        _number(one, where)


def _kind(value: Any, where: str) -> None:
    _require(value in (RACE, CONFIRM), where, "it is no kind of turn")


def _flag(value: Any, where: str) -> None:
    _require(value in (0, 1), where, "it is neither 0 nor 1")


def _code(value: Any, where: str) -> None:
    _list_of(_text)(value, where)
    _require(len(value) == 2, where, "it is no version with its toolchain")


_MEMBER = _fields(task=_text, calls=_count, seconds=_number, roof_share=_number, skipped=_text)
_TRIAL = _fields(choice=_text, exact=_flag, predicted=_number, digest=_text, error=_text)
_TURN = _fields(
    kind=_kind, seconds=_number, disturbed=_text, failures=_map_of(_text), samples=_list_of(_sample)
)


def _wave(value: Any, where: str) -> None:
    _require(isinstance(value, int) and -1 <= value < 1 << 31, where, "it is no number of a wave")


_BATCH = _fields(
    task=_text, number=_count, wave=_wave, code=_code, seconds=_number, worker=_text,
    trials=_list_of(_TRIAL), turns=_list_of(_TURN),
)  # fmt: skip
_VERDICT = _fields(
    task=_text, number=_count, machine=_text, protocol=_count, base=_text, choice=_text,
    base_digest=_text, digest=_text, pairs=_count, wins=_count, ratio=_number, low=_number,
    high=_number, date=_text,
)  # fmt: skip
_OUTCOME = _fields(tasks=_list_of(_text), result=_object, date=_text)
_SESSION = _fields(
    model=_text, name=_text, target=_text, options=_object, machine=_text, protocol=_count,
    seed=_count, started=_text, members=_list_of(_MEMBER), waves=_list_of(_object),
    batches=_list_of(_BATCH), verdicts=_list_of(_VERDICT), outcomes=_list_of(_OUTCOME),
)  # fmt: skip
_TASK = _fields(
    name=_text, choice_key=_text, target=_text, sizes=_map_of(_count), threads=_count,
    regime=_object,
)  # fmt: skip
_TREE = _fields(
    format=_text, version=_count, machines=_map_of(_object), codes=_list_of(_code),
    tasks=_map_of(_TASK), choices=_map_of(_object), sessions=_map_of(_SESSION),
)  # fmt: skip


# ---------------------------------------------------------------------- references


def _check_links(tree: Tree, session: Mapping[str, Any], where: str) -> None:
    """Everything that is named is there, and positions are those of candidates."""
    members = {member["task"] for member in session["members"]}
    _require(session["machine"] in tree["machines"], where, "its machine is not there")
    _require(members <= set(tree["tasks"]), where, "a task is not there")
    numbers = set()
    for batch in session["batches"]:
        _require(batch["task"] in members, where, "a batch is of another session's task")
        _require(batch["code"] in tree["codes"], where, "a version is not there")
        _require((batch["task"], batch["number"]) not in numbers, where, "a batch is there twice")
        numbers.add((batch["task"], batch["number"]))
        _check_batch(tree, batch, f"{where}.batches of {batch['task']}")
    for verdict in session["verdicts"]:
        _require(verdict["task"] in members, where, "a verdict is of another session's task")
        _require(verdict["machine"] in tree["machines"], where, "a verdict's machine is not there")
        known = {verdict["base"], verdict["choice"]} <= set(tree["choices"])
        _require(known, where, "a verdict's choice is not there")


def _check_batch(tree: Tree, batch: Mapping[str, Any], where: str) -> None:
    trials: Sequence[Mapping[str, Any]] = batch["trials"]
    _require(bool(trials), where, "there is no base")
    for trial in trials:
        _require(trial["choice"] in tree["choices"], where, "a choice is not there")
    for turn in batch["turns"]:
        named = [sample[0] for sample in turn["samples"]]
        fails = [int(n) if n.isdecimal() else len(trials) for n in turn["failures"]]
        inside = all(position < len(trials) for position in (*named, *fails))
        _require(inside, where, "a sample is of no candidate")
