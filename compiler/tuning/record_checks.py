"""Whether a records file can be trusted: its structure, its references, and what it claims."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import UsageError
from .exchange import Tree, past_tasks, tree_of
from .exchange_checks import form_problem
from .history import SessionKey
from .merging import BEST
from .race import verdict_from
from .records import Records
from .task import BASE, PROTOCOL, MachineClass, digest
from .whole_model import judged_result

_MOST = 20  # lines of SQLite's own check


@dataclass
class Examination:
    """What was found. problems: the file is wrong; notes: what is right, and not used."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def examine(records: Records) -> Examination:
    """Look at all of a file."""
    found = Examination()
    try:
        found.problems += _structure(records)
        tree = tree_of(records)
    except (sqlite3.DatabaseError, UsageError) as error:
        why = error.why if isinstance(error, UsageError) else str(error)
        found.problems.append(f"it cannot be read to its end: {why}")
        return found
    wrong = form_problem(tree)
    if wrong:
        found.problems.append(wrong)
    for key, session in tree["sessions"].items() if not wrong else ():
        _examine_session(tree, key, session, found)
    sessions = list(tree["sessions"].values())
    batches = [batch for session in sessions for batch in session["batches"]]
    turns = [turn for batch in batches for turn in batch["turns"]]
    found.counts = {
        "sessions": len(sessions),
        "tasks": len(tree["tasks"]),
        "batches": len(batches),
        "samples": sum(len(turn["samples"]) for turn in turns),
        "verdicts": sum(len(session["verdicts"]) for session in sessions),
    }
    return found


def _structure(records: Records) -> Iterator[str]:
    for row in records.rows(f"PRAGMA integrity_check({_MOST})"):
        if row[0] != "ok":
            yield f"damaged: {row[0]}"
    for row in records.rows("PRAGMA foreign_key_check"):
        yield f"row {row[1]} of table {row[0]} names what is not there, in table {row[2]}"


def _examine_session(tree: Tree, key: str, session: Tree, found: Examination) -> None:
    name = f"session '{session['name']}' ({digest(key)})"
    if session["protocol"] != PROTOCOL:
        text = f"{name}: samples of protocol {session['protocol']}, not {PROTOCOL}: not used"
        found.notes.append(text)
        return
    if not key.startswith(BEST) and _key_of(tree, session) != key:
        found.problems.append(f"{name}: its key is not what its options say")
    _examine_outcomes(name, session, found)
    for past in past_tasks(tree, session):
        if past.verdict is None:
            continue
        if past.verdict != verdict_from(past, tree["choices"]):
            found.problems.append(
                f"{name}: the verdict of '{past.task.name}' is not what its samples say"
            )
        codes = {one.code for batch in past.batches for one in batch.built}
        bases = {batch.built[BASE].code for batch in past.batches}
        if not ({past.verdict.digest} <= codes and {past.verdict.base_digest} <= bases):
            found.problems.append(f"{name}: the verdict of '{past.task.name}' is of unknown code")


def _examine_outcomes(name: str, session: Tree, found: Examination) -> None:
    """Whether what is said of whole binaries follows from their pairs."""
    for number, outcome in enumerate(session["outcomes"]):
        result = outcome["result"]
        if "ratios" not in result:
            text = f"{name}: binary {number} has no pairs: whether it was a gain cannot be proved"
            found.notes.append(text)
        elif judged_result(result) != result:
            found.problems.append(f"{name}: the gain of binary {number} is not what its pairs say")


def _key_of(tree: Tree, session: Tree) -> str:
    machine = MachineClass(session["machine"], tree["machines"][session["machine"]])
    return SessionKey(
        session["model"], session["name"], session["target"], machine, session["options"],
        session["seed"],
    ).text  # fmt: skip
