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
from .task import BASE, digest, packed

LONGEST_TEXT = 1 << 16
_JSON_BEGINS = (b"{", b"[", b" ", b"\t", b"\r", b"\n")
Check = Callable[[Any, str], None]


class _WrongError(Exception):
    """Where, and what is wrong there."""


def is_exported(path: Path) -> bool:
    """Whether a file holds JSON, whatever its name: else it is a database, or nothing of ours.

    Raises UsageError where it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(1) in _JSON_BEGINS
    except OSError as error:
        raise UsageError(f"cannot read '{path}'", why=error.strerror or str(error)) from None


def check_form(path: Path, tree: Tree) -> Tree:
    """The records of a database, if they have the form of exported ones, too: types, references and
    numbers that a database does not watch over. Raises UsageError where they have not."""
    why = form_problem(tree)
    if why:
        raise UsageError(
            f"'{path}' is damaged", why=why, remedy="take a copy of before, or import exported ones"
        )
    return tree


def form_problem(tree: Tree) -> str:
    """Where and why records have not the form of exported ones; "" where they have."""
    try:
        checked_tree(tree)
    except _WrongError as error:
        return str(error)
    return ""


def read_tree(path: Path) -> Tree:
    """The records in an exported file. Raises UsageError for one that holds anything else."""
    try:
        data = json.loads(path.read_bytes())
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
        raise _WrongError(f"it is of version {_shown(data.get('version'))}, not {TREE_VERSION}")
    _TREE(data, "")
    tree: Tree = data
    for key, choice in tree["choices"].items():
        _require(digest(packed(choice)) == key, f"choices.{_shown(key)}", "the digest is another")
    for key, session in tree["sessions"].items():
        _check_links(tree, session, f"sessions.{digest(key)}")
    return tree


# ---------------------------------------------------------------------- kinds of values


def _require(holds: bool, where: str, why: str) -> None:
    if not holds:
        raise _WrongError(f"{where or 'the whole'}: {why}")


def _shown(value: Any) -> str:
    """A key or value in a message: short, and of characters that there are."""
    return str(value)[:40].encode("utf-8", "backslashreplace").decode("utf-8")


def _text(value: Any, where: str) -> None:
    _require(isinstance(value, str) and len(value) <= LONGEST_TEXT, where, "it is no (short) text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _WrongError(f"{where}: it holds half of a character (a lone surrogate)") from None


def _count(value: Any, where: str) -> None:
    is_int = isinstance(value, int) and not isinstance(value, bool)
    _require(is_int and 0 <= value < 1 << 62, where, "it is no count")


def _number(value: Any, where: str) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    _require(is_number and 0 <= value < math.inf, where, "it is no number from 0 up")
    _require(isinstance(value, float) or value < 1 << 62, where, "it is too large")


def _bool(value: Any, where: str) -> None:
    _require(isinstance(value, bool), where, "it is neither true nor false")


def _or_none(item: Check) -> Check:
    def check(value: Any, where: str) -> None:
        if value is not None:
            item(value, where)

    return check


def _object(value: Any, where: str) -> None:
    """Of anything that JSON can say."""
    _require(isinstance(value, dict), where, "it is no object")
    _map_of(_anything)(value, where)


def _anything(value: Any, where: str) -> None:
    if isinstance(value, str):
        _text(value, where)
    elif isinstance(value, list):
        _list_of(_anything)(value, where)
    elif isinstance(value, dict):
        _object(value, where)
    elif isinstance(value, float):
        _require(math.isfinite(value), where, "it is no number")


def _list_of(item: Check) -> Check:
    def check(value: Any, where: str) -> None:
        _require(isinstance(value, list), where, "it is no list")
        for number, one in enumerate(value):
            item(one, f"{where}[{number}]")

    return check


def _map_of(item: Check) -> Check:
    def check(value: Any, where: str) -> None:
        _require(isinstance(value, dict), where, "it is no object")
        for key, one in value.items():
            below = f"{where}.{_shown(key)}"
            _text(key, below)
            item(one, below)

    return check


def _fields(optional: Mapping[str, Check] | None = None, **checks: Check) -> Check:
    may_be = optional or {}

    def check(value: Any, where: str) -> None:
        _require(isinstance(value, dict), where, "it is no object")
        found = (set(value) ^ set(checks)) - set(may_be)
        names = ", ".join(map(_shown, sorted(found)))
        _require(not found, where, f"missing or unknown: {names}")
        for name, own in {**checks, **may_be}.items():
            if name in value:
                own(value[name], f"{where}.{name}" if where else name)

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
_ALTERNATIVE = _fields(
    key=_text, name=_text, identity=_text, choices=_map_of(_object), replaces=_list_of(_text),
    in_graph=_bool,
)  # fmt: skip
_RESULT = _fields(
    optional={"ratios": _list_of(_number), "machine_code": _text},  # not in all records
    ratio=_number, low=_number, high=_number, pairs=_count, untuned=_number, tuned=_number,
    accepted=_bool, problem=_text, records=_text, graph=_list_of(_ALTERNATIVE), code=_code,
    exact=_bool, noise=_or_none(_number), seconds=_number,
)  # fmt: skip
_OUTCOME = _fields(tasks=_list_of(_text), result=_RESULT, date=_text)
_SHARE = _fields(trials=_or_none(_number), seconds=_or_none(_number))  # of a wave, for each task
_SESSION = _fields(
    model=_text, name=_text, target=_text, options=_object, machine=_text, protocol=_count,
    seed=_count, started=_text, members=_list_of(_MEMBER), waves=_list_of(_map_of(_SHARE)),
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
    _require(len(members) == len(session["members"]), where, "a task is there twice")
    for batch in session["batches"]:
        _require(batch["task"] in members, where, "a batch is of another session's task")
        _require(batch["code"] in tree["codes"], where, "a version is not there")
        _check_batch(tree, batch, f"{where}.batches of {batch['task']}")
    for verdict in session["verdicts"]:
        _require(verdict["task"] in members, where, "a verdict is of another session's task")
        _require(verdict["machine"] in tree["machines"], where, "a verdict's machine is not there")
        known = {verdict["base"], verdict["choice"]} <= set(tree["choices"])
        _require(known, where, "a verdict's choice is not there")
        is_same = verdict["protocol"] == session["protocol"]
        _require(is_same, where, "a verdict is of another protocol than its session")
    _check_numbers(session["batches"], where, "batches")
    ordered = _check_numbers(session["verdicts"], where, "verdicts")
    _require(ordered, where, "the verdicts of a task are not in order")


def _check_numbers(rows: Sequence[Mapping[str, Any]], where: str, what: str) -> bool:
    """Those of a task count from 0, each is there once; whether they stand in that order."""
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(row["task"], []).append(row["number"])
    for task, numbers in found.items():
        holds = sorted(numbers) == list(range(len(numbers)))
        why = f"numbers are missing or there twice: {numbers[:20]}"
        _require(holds, f"{where}.{what} of {task}", why)
    return all(numbers == sorted(numbers) for numbers in found.values())


def _check_batch(tree: Tree, batch: Mapping[str, Any], where: str) -> None:
    trials: Sequence[Mapping[str, Any]] = batch["trials"]
    _require(bool(trials), where, "there is no base")
    for trial in trials:
        _require(trial["choice"] in tree["choices"], where, "a choice is not there")
    base_failed = bool(trials[BASE]["error"]) or any(
        str(BASE) in turn["failures"] for turn in batch["turns"]
    )
    for turn in batch["turns"]:
        named = [sample[0] for sample in turn["samples"]]
        timed = not named or BASE in named or base_failed
        _require(timed, where, "a turn did not time the base")
        fails = [int(n) if n.isdecimal() else len(trials) for n in turn["failures"]]
        inside = all(position < len(trials) for position in (*named, *fails))
        _require(inside, where, "a sample is of no candidate")
