"""Records of several files as one, the best of them alone, and without the oldest.

Sessions of one key are one: steps that both have are there once, of a batch that one of them did
further the longer is taken, and what differs stands beside it. Verdicts follow from samples and are
found anew, within their protocol of measuring; the order of files does not matter.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from .exchange import Tree, empty_tree, past_batch, past_tasks
from .history import PastTask, Verdict
from .race import verdict_from
from .task import PROTOCOL, Candidate, digest, packed
from .whole_model import judged_result

BEST = "best of "  # what the keys of sessions begin with that hold no more: none is continued


def merged(trees: Sequence[Tree]) -> Tree:
    """The union of trees."""
    found = empty_tree()
    for name in ("machines", "tasks", "choices"):
        for tree in trees:
            for key, value in tree[name].items():
                found[name][key] = _one_of(found[name].get(key, value), value)
    found["codes"] = sorted({tuple(code) for tree in trees for code in tree["codes"]})
    found["codes"] = [list(code) for code in found["codes"]]
    for tree in trees:
        for key, session in tree["sessions"].items():
            mine = found["sessions"].get(key)
            found["sessions"][key] = _united(mine, session) if mine else copy.deepcopy(session)
    return judged_anew(found)


def _one_of(one: Any, other: Any) -> Any:
    """The same of two whatever their order."""
    return min(one, other, key=packed)


def _united(one: Tree, other: Tree) -> Tree:
    first, second = sorted((one, other), key=packed)
    if first == second:
        return first
    longer = max((first, second), key=_length)
    united = copy.deepcopy(longer)
    united["started"] = min(first["started"], second["started"])
    known = {member["task"] for member in longer["members"]}
    for side in (first, second):
        united["members"] += [m for m in side["members"] if m["task"] not in known]
        known |= {member["task"] for member in side["members"]}
        united["waves"] += side["waves"][len(united["waves"]) :]
    united["batches"] = _batches(first["batches"], second["batches"])
    judged = {verdict["task"] for verdict in longer["verdicts"]}
    for side in (first, second):
        united["verdicts"] += [v for v in side["verdicts"] if v["task"] not in judged]
        judged |= {verdict["task"] for verdict in side["verdicts"]}
    outcomes = {packed(own): own for side in (first, second) for own in side["outcomes"]}
    united["outcomes"] = sorted(outcomes.values(), key=lambda own: (own["date"], packed(own)))
    return united


def _length(session: Tree) -> tuple[int, int]:
    return len(session["batches"]), sum(len(batch["turns"]) for batch in session["batches"])


def _batches(*sides: Sequence[Tree]) -> list[Tree]:
    """Those of which there is no longer one, numbered for each task, in the order of steps."""
    kept: dict[str, list[tuple[int, Tree]]] = defaultdict(list)
    every = [(place, batch) for side in sides for place, batch in enumerate(side)]
    for place, batch in sorted(every, key=lambda own: (-len(own[1]["turns"]), packed(own))):
        if not any(_is_part(batch, longer) for _, longer in kept[batch["task"]]):
            kept[batch["task"]].append((place, batch))
    found = []
    for task in kept:
        own = sorted(kept[task], key=lambda pair: (pair[1]["number"], packed(pair)))
        found += [(place, {**batch, "number": n}) for n, (place, batch) in enumerate(own)]
    return [batch for _, batch in sorted(found, key=lambda own: (own[0], packed(own)))]


def _is_part(batch: Tree, longer: Tree) -> bool:
    same = ("number", "wave", "code", "trials", "worker", "seconds")
    turns = longer["turns"][: len(batch["turns"])]
    return all(batch[name] == longer[name] for name in same) and turns == batch["turns"]


# ---------------------------------------------------------------------- verdicts


def judged_anew(tree: Tree) -> Tree:
    """A tree whose last verdicts are what its samples say, and its outcomes what their pairs say;
    of other protocols they stay."""
    for session in tree["sessions"].values():
        if session["protocol"] != PROTOCOL:
            continue
        session["outcomes"] = _outcomes_anew(session["outcomes"])
        for past in past_tasks(tree, session):
            found = verdict_from(past, tree["choices"])
            rows = [v for v in session["verdicts"] if v["task"] == past.task.key]
            if not rows or found == past.verdict:
                continue
            if found is None:  # no sample speaks for it
                session["verdicts"] = [v for v in session["verdicts"] if v not in rows]
            else:
                rows[-1].update(_columns(found))
    return tree


def _outcomes_anew(outcomes: Sequence[Tree]) -> list[Tree]:
    """Those that can be judged, judged. Without pairs a gain is none that is proved; that there was
    none takes nothing on trust: it leaves choices out."""
    found = []
    for own in outcomes:
        result = own["result"]
        if "ratios" in result:
            found.append({**own, "result": judged_result(result)})
        elif not result["accepted"]:
            found.append(own)
    return found


def _columns(verdict: Verdict) -> Tree:
    names = ("base_digest", "digest", "pairs", "wins", "ratio", "low", "high")
    keys = {"base": Candidate(verdict.base).key, "choice": Candidate(verdict.choice).key}
    return {**keys, **{name: getattr(verdict, name) for name in names}}


# ---------------------------------------------------------------------- parts


def best_of(tree: Tree) -> Tree:
    """The verdicts that are gains, with the batches that prove them: what is shipped.

    Of several sessions the surest verdict for a task, machine and protocol. Sessions have other
    keys then: nobody goes on with one of which the rest is not there.
    """
    surest: dict[tuple[str, ...], tuple[float, float, str]] = {}
    for key, session in tree["sessions"].items():
        for verdict in _last(session).values():
            if verdict["choice"] != verdict["base"]:
                name = (verdict["task"], verdict["machine"], str(verdict["protocol"]))
                rank = (float(verdict["high"]), float(verdict["ratio"]), str(key))
                surest[name] = min(surest.get(name, rank), rank)
    found = empty_tree()
    for key, session in tree["sessions"].items():
        kept: dict[str, Tree] = {}
        for task, verdict in _last(session).items():
            first = surest.get((task, verdict["machine"], str(verdict["protocol"])))
            if first is not None and first[2] == key:
                kept[task] = verdict
        if kept:
            own = key if key.startswith(BEST) else f"{BEST}{digest(key)}"
            found["sessions"][own] = _proofs(tree, session, kept)
    return _with_named(found, tree)


def _last(session: Tree) -> dict[str, Tree]:
    return {verdict["task"]: verdict for verdict in session["verdicts"]}


def _proofs(tree: Tree, session: Tree, kept: Mapping[str, Tree]) -> Tree:
    by_key = {past.task.key: past for past in past_tasks(tree, session)}
    batches = []
    for task, verdict in kept.items():
        own = [batch for batch in session["batches"] if batch["task"] == task]
        batches += _fewest(tree, by_key[task], own, verdict)
    return {
        **session,
        "members": [member for member in session["members"] if member["task"] in kept],
        "waves": [],
        "batches": batches,
        "verdicts": [{**verdict, "number": 0} for verdict in kept.values()],
    }


def _fewest(tree: Tree, past: PastTask, batches: list[Tree], verdict: Tree) -> list[Tree]:
    """One batch that alone proves a verdict, or all."""
    for batch in reversed(batches):
        part = PastTask(past.id, past.task, batches=[past_batch(batch)])
        if verdict_from(part, tree["choices"]) == past.verdict:
            return [{**batch, "number": 0}]
    return batches


def pruned(tree: Tree, before: str) -> Tree:
    """Without the sessions in which nothing was done since a date in ISO format."""
    found = {
        **empty_tree(),
        "sessions": {k: s for k, s in tree["sessions"].items() if last_day(s) >= before},
    }
    return _with_named(found, tree)


def last_day(session: Tree) -> str:
    """When something was done last, as far as records tell."""
    dates = [own["date"] for own in (*session["verdicts"], *session["outcomes"])]
    return str(max([session["started"], *dates]))


def _with_named(found: Tree, tree: Tree) -> Tree:
    """With the machines, codes, tasks and choices that the sessions name."""
    sessions = list(found["sessions"].values())
    batches = [batch for session in sessions for batch in session["batches"]]
    verdicts = [verdict for session in sessions for verdict in session["verdicts"]]
    named: dict[str, set[str]] = {
        "machines": {s["machine"] for s in sessions} | {v["machine"] for v in verdicts},
        "tasks": {m["task"] for s in sessions for m in s["members"]},
        "choices": {t["choice"] for b in batches for t in b["trials"]}
        | {v[side] for v in verdicts for side in ("base", "choice")},
    }
    for name, keys in named.items():
        found[name] = {key: tree[name][key] for key in sorted(keys)}
    found["codes"] = [list(c) for c in sorted({tuple(batch["code"]) for batch in batches})]
    return found
