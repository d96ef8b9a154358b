"""Records as one JSON object: what is exported, imported and merged.

{"format": ..., "version": ..., "machines": {CLASS: facts}, "codes": [[version, toolchain], ...],
"tasks": {KEY: ...}, "choices": {KEY: choice}, "sessions": {KEY: ...}}; a session holds its members,
waves, batches (with trials, turns and samples), verdicts and outcomes as lists, in order. Rows
refer to each other by natural keys, never by number, so that objects of several files can be
united; sorted, the same records are the same text.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..scratch import new_files, place
from .history import PastBatch, PastTask, PastTurn, Verdict
from .records import Records
from .task import Built, CallTimes, Reading, Task, packed

Tree = dict[str, Any]

FORMAT, TREE_VERSION = "tensmith-records", 1
LINE = 120  # characters of a file, about
SAMPLE = ("position", "least", "lower_quartile", "median", "count")
TRIAL = ("choice", "exact", "predicted", "digest", "error")
VERDICT = (
    "task", "number", "machine", "protocol", "base", "choice", "base_digest", "digest", "pairs",
    "wins", "ratio", "low", "high", "date",
)  # fmt: skip
_VERDICTS = (
    "SELECT verdict.*, task.key AS task_key, machine.class, b.key AS base_key, c.key AS choice_key"
    " FROM verdict JOIN task ON task.id = verdict.task"
    " JOIN machine ON machine.id = verdict.machine JOIN choice AS b ON b.id = verdict.base"
    " JOIN choice AS c ON c.id = verdict.choice"
    " ORDER BY verdict.session, verdict.number, verdict.id"
)


def empty_tree() -> Tree:
    """Records of nothing."""
    return {
        "format": FORMAT, "version": TREE_VERSION, "machines": {}, "codes": [], "tasks": {},
        "choices": {}, "sessions": {},
    }  # fmt: skip


def text_of(tree: Tree) -> str:
    """The JSON of a file."""
    return f"{in_lines(tree)}\n"


def in_lines(value: Any, depth: int = 0) -> str:
    """Sorted JSON, broken where a line would be long: short for people, and for comparisons of
    lines. Raises ValueError for numbers that are not finite."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    if len(text) + depth <= LINE or not isinstance(value, dict | list) or not value:
        return text
    inner, pad = depth + 1, " " * (depth + 1)
    if isinstance(value, dict):
        parts = [f"{pad}{json.dumps(key)}: {in_lines(value[key], inner)}" for key in sorted(value)]
        return "{\n" + ",\n".join(parts) + f"\n{' ' * depth}}}"
    return "[\n" + ",\n".join(pad + in_lines(own, inner) for own in value) + f"\n{' ' * depth}]"


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turn what SQLite says of a file inside into a UsageError."""
    try:
        yield
    except (sqlite3.DatabaseError, ValueError) as error:
        raise UsageError(
            f"'{path}' is damaged", why=str(error),
            remedy="`tensmith records check` says where; take a copy of before",
        ) from None  # fmt: skip


# ---------------------------------------------------------------------- from a file


def tree_of(records: Records) -> Tree:
    """All that a file holds. Raises UsageError where it is damaged."""
    with damage_told(records.path):
        tree = empty_tree()
        for row in records.rows("SELECT * FROM machine"):
            tree["machines"][row["class"]] = json.loads(row["facts"])
        codes = {
            r["id"]: [r["version"], r["toolchain"]] for r in records.rows("SELECT * FROM code")
        }
        tree["codes"] = sorted(codes.values())
        for row in records.rows("SELECT * FROM task"):
            tree["tasks"][row["key"]] = {
                "name": row["name"], "choice_key": row["choice_key"], "target": row["target"],
                "sizes": json.loads(row["sizes"]), "threads": row["threads"],
                "regime": json.loads(row["regime"]),
            }  # fmt: skip
        for row in records.rows("SELECT * FROM choice"):
            tree["choices"][row["key"]] = json.loads(row["json"])
        sessions = _sessions(records)
        _add_steps(records, sessions)
        _add_batches(records, sessions, codes)
        tree["sessions"] = {row.pop("key"): row for row in sessions.values()}
        return tree


def _sessions(records: Records) -> dict[int, Tree]:
    query = (
        "SELECT session.*, machine.class FROM session JOIN machine ON machine.id = session.machine"
    )
    return {
        row["id"]: {
            "key": row["key"], "model": row["model"], "name": row["name"], "target": row["target"],
            "options": json.loads(row["options"]), "machine": row["class"],
            "protocol": row["protocol"], "seed": row["seed"], "started": row["started"],
            "members": [], "waves": [], "batches": [], "verdicts": [], "outcomes": [],
        }
        for row in records.rows(query)
    }  # fmt: skip


def _add_steps(records: Records, sessions: Mapping[int, Tree]) -> None:
    """Members, waves, verdicts and outcomes."""
    members = (
        "SELECT member.*, task.key FROM member JOIN task ON task.id = member.task ORDER BY number"
    )
    for row in records.rows(members):
        names = ("calls", "seconds", "roof_share", "skipped")
        sessions[row["session"]]["members"].append(
            {"task": row["key"], **{name: row[name] for name in names}}
        )
    for row in records.rows("SELECT * FROM wave ORDER BY number"):
        sessions[row["session"]]["waves"].append(json.loads(row["shares"]))
    for row in records.rows(_VERDICTS):
        own = {name: row[name] for name in VERDICT} | {
            "task": row["task_key"], "machine": row["class"], "base": row["base_key"],
            "choice": row["choice_key"],
        }  # fmt: skip
        sessions[row["session"]]["verdicts"].append(own)
    for row in records.rows("SELECT * FROM outcome ORDER BY number"):
        sessions[row["session"]]["outcomes"].append(
            {"tasks": json.loads(row["tasks"]), "result": json.loads(row["result"]),
             "date": row["date"]}
        )  # fmt: skip


def _add_batches(
    records: Records, sessions: Mapping[int, Tree], codes: Mapping[int, list[str]]
) -> None:
    trials, turns, samples = defaultdict(list), defaultdict(list), defaultdict(list)
    for row in records.rows("SELECT * FROM sample ORDER BY turn, place"):
        samples[row["turn"]].append([row[name] for name in SAMPLE])
    for row in records.rows("SELECT * FROM turn ORDER BY batch, number"):
        turns[row["batch"]].append({
            "kind": row["kind"], "seconds": row["seconds"], "disturbed": row["disturbed"],
            "failures": json.loads(row["failures"]), "samples": samples[row["id"]],
        })  # fmt: skip
    query = (
        "SELECT trial.*, choice.key FROM trial JOIN choice ON choice.id = trial.choice"
        " ORDER BY batch, position"
    )
    for row in records.rows(query):
        trials[row["batch"]].append({name: row[name] for name in TRIAL} | {"choice": row["key"]})
    query = "SELECT batch.*, task.key FROM batch JOIN task ON task.id = batch.task"
    for row in records.rows(f"{query} ORDER BY batch.id"):
        sessions[row["session"]]["batches"].append({
            "task": row["key"], "number": row["number"], "wave": row["wave"],
            "code": codes[row["code"]], "seconds": row["seconds"], "worker": row["worker"],
            "trials": trials[row["id"]], "turns": turns[row["id"]],
        })  # fmt: skip


# ---------------------------------------------------------------------- to a file


def write_records(path: Path, tree: Tree) -> None:
    """Make a records file of a tree, in place of one that is there, whole or not at all.

    Raises UsageError where it cannot be written or another program writes it.
    """
    with Records(path) as held:
        replace_records(held, tree)


def replace_records(held: Records, tree: Tree) -> None:
    """The same, of a file that is open to be written: since then nobody else may. It is closed.

    What is to be kept of it has to be read from `held` itself: before, others may have written.
    """
    with new_files(held.path) as folder:
        new = folder / held.path.name
        with Records(new) as records:
            add_tree(records, tree)
        _leave_wal(held)
        held.db.close()
        place(new, held.path)


def _leave_wal(held: Records) -> None:
    """Remove the files beside an old one: the new one must not meet them."""
    try:
        held.rows("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError as error:
        raise UsageError(
            f"cannot replace '{held.path}'", why=f"another program reads it: {error}",
            remedy="wait for it, or write another file",
        ) from None  # fmt: skip


def add_tree(records: Records, tree: Tree) -> None:
    """Write a tree into an empty file, in one transaction."""
    with records.transaction():
        ids = _add_shared(records, tree)
        for key, session in sorted(tree["sessions"].items(), key=lambda own: _age(*own)):
            _add_session(records, key, session, ids)


def _age(key: str, session: Tree) -> tuple[str, str]:
    return session["started"], key


def _add_shared(records: Records, tree: Tree) -> dict[str, dict[Any, int]]:
    """Machines, codes, tasks and choices; their numbers by natural key."""
    ids: dict[str, dict[Any, int]] = {"machine": {}, "code": {}, "task": {}, "choice": {}}
    for name, facts in sorted(tree["machines"].items()):
        values = {"class": name, "facts": packed(facts)}
        ids["machine"][name] = records.add("machine", **values)
    for version, toolchain in sorted(tree["codes"]):
        number = records.add("code", version=version, toolchain=toolchain)
        ids["code"][version, toolchain] = number
    for key, own in sorted(tree["tasks"].items()):
        ids["task"][key] = records.add(
            "task", key=key, name=own["name"], choice_key=own["choice_key"], target=own["target"],
            sizes=packed(own["sizes"]), threads=own["threads"], regime=packed(own["regime"]),
        )  # fmt: skip
    for key, choice in sorted(tree["choices"].items()):
        ids["choice"][key] = records.add("choice", key=key, json=packed(choice))
    return ids


def _add_session(
    records: Records, key: str, own: Tree, ids: Mapping[str, Mapping[Any, int]]
) -> None:
    session = records.add(
        "session", key=key, model=own["model"], name=own["name"], target=own["target"],
        options=packed(own["options"]), machine=ids["machine"][own["machine"]],
        protocol=own["protocol"], seed=own["seed"], started=own["started"],
    )  # fmt: skip
    for number, member in enumerate(own["members"]):
        values = {**member, "task": ids["task"][member["task"]]}
        records.add("member", session=session, number=number, **values)
    for number, shares in enumerate(own["waves"]):
        records.add("wave", session=session, number=number, shares=packed(shares))
    for batch in own["batches"]:
        _add_batch(records, session, batch, ids)
    for verdict in own["verdicts"]:
        linked = {
            "task": ids["task"][verdict["task"]], "machine": ids["machine"][verdict["machine"]],
            "base": ids["choice"][verdict["base"]], "choice": ids["choice"][verdict["choice"]],
        }  # fmt: skip
        records.add("verdict", session=session, **{**verdict, **linked})
    for number, outcome in enumerate(own["outcomes"]):
        records.add(
            "outcome", session=session, number=number, tasks=packed(outcome["tasks"]),
            result=packed(outcome["result"]), date=outcome["date"],
        )  # fmt: skip


def _add_batch(
    records: Records, session: int, own: Tree, ids: Mapping[str, Mapping[Any, int]]
) -> None:
    batch = records.add(
        "batch", session=session, task=ids["task"][own["task"]], number=own["number"],
        wave=own["wave"], code=ids["code"][tuple(own["code"])], seconds=own["seconds"],
        worker=own["worker"],
    )  # fmt: skip
    for position, trial in enumerate(own["trials"]):
        values = {**trial, "choice": ids["choice"][trial["choice"]]}
        records.add("trial", batch=batch, position=position, **values)
    for number, turn in enumerate(own["turns"]):
        row = records.add(
            "turn", batch=batch, number=number, kind=turn["kind"], seconds=turn["seconds"],
            disturbed=turn["disturbed"], failures=packed(turn["failures"]),
        )  # fmt: skip
        for place_, sample in enumerate(turn["samples"]):
            values = dict(zip(SAMPLE, sample, strict=True))
            records.add("sample", turn=row, place=place_, **values)


# ---------------------------------------------------------------------- as history


def past_tasks(tree: Tree, session: Tree) -> list[PastTask]:
    """The tasks of a session as `history.py` has them, with the last verdict of each."""
    batches, verdicts = defaultdict(list), defaultdict(list)
    for batch in sorted(session["batches"], key=lambda own: int(own["number"])):
        batches[batch["task"]].append(past_batch(batch))
    for own in session["verdicts"]:
        verdicts[own["task"]].append(own)
    found = []
    for number, member in enumerate(session["members"]):
        key = member["task"]
        shared = tree["tasks"][key]
        task = Task(
            key, shared["name"], shared["choice_key"], shared["sizes"], shared["threads"],
            shared["regime"], member["calls"], member["seconds"], member["roof_share"],
        )  # fmt: skip
        last = verdict_in(tree, verdicts[key][-1]) if verdicts[key] else None
        found.append(
            PastTask(number, task, member["skipped"], batches[key], last, len(verdicts[key]))
        )
    return found


def past_batch(own: Tree) -> PastBatch:
    """A batch as `history.py` has it; its id is its number."""
    built = tuple(Built(t["choice"], t["digest"], t["error"]) for t in own["trials"])
    batch = PastBatch(own["number"], own["number"], own["wave"], built, own["seconds"])
    for number, turn in enumerate(own["turns"]):
        samples = tuple(CallTimes(*sample) for sample in turn["samples"])
        failures = {int(position): text for position, text in turn["failures"].items()}
        reading = Reading(samples, turn["seconds"], failures, turn["disturbed"])
        batch.turns.append(PastTurn(number, turn["kind"], reading))
    return batch


def verdict_in(tree: Tree, own: Mapping[str, Any]) -> Verdict:
    """A verdict as `history.py` has it."""
    choices: Mapping[str, Any] = tree["choices"]
    rest: Sequence[Any] = [own[name] for name in VERDICT[6:-1]]
    return Verdict(choices[own["base"]], choices[own["choice"]], *rest)
