"""The race of a batch and the confirmation of its finalists: decided from what was measured.

Taking the fastest of some twenty candidates after a few rounds made one pick in five slower than
the base (measured on ResNet-50, DeiT-S and MobileNetV2, Zen 4). So the base runs in every turn and
only ratios within a turn count; the race does no more than name finalists; these are measured
afresh, in turns that mirror their order, and have to win nearly all of them by more than noise.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from .history import CONFIRM, RACE, PastBatch, PastTask, PastTurn, Verdict
from .statistics import interval, sign_test
from .task import BASE, Batch, CallTimes, Candidate, Measurer, Reading, Turn

MOST_DISTURBED = 8  # turns of a batch; where more are, all count: the machine is like that


@dataclass(frozen=True)
class RaceRules:
    """Of the protocol of measuring (`task.PROTOCOL`).

    race_seconds: of each candidate in the first turn, doubled from turn to turn. far: candidates
    slower than the best by this factor are dropped after the first turn, then the slower halves.
    finalists: that are left, at most, after at least `race_turns` turns. promising: ratio to the
    base that makes a finalist. pairs: turns of a confirmation, of which `wins` have to be won.
    gain: ratio that median and least time have to reach; gains below `doubtful` take as many
    turns again.
    """

    race_seconds: float = 0.01
    far: float = 1.25
    finalists: int = 3
    race_turns: int = 3
    promising: float = 0.99
    confirm_seconds: float = 0.02
    pairs: int = 12
    wins: int = 10
    gain: float = 0.98
    doubtful: float = 0.95


RULES = RaceRules()


@dataclass(frozen=True)
class Confirmed:
    """A finalist after its confirmation. ratios: to the base, of each turn."""

    position: int
    ratios: tuple[float, ...]
    wins: int
    accepted: bool

    @property
    def ratio(self) -> float:
        """The median."""
        return median(self.ratios)


def next_turn(
    batch: PastBatch, seed: str, keep: Sequence[int] = (), rules: RaceRules = RULES
) -> tuple[str, Turn] | None:
    """The kind and the turn to be done next, or None: the batch is through.

    keep: positions that are confirmed again however they race: what an earlier batch confirmed.
    seed: what the order of candidates in a turn is drawn by.
    """
    racing = _racing(batch, rules)
    if racing is not None:
        seconds = rules.race_seconds * 2 ** len(_counted(batch, RACE))
        order = [BASE, *(n for n in racing if n != BASE), BASE]
        inner = order[1:-1]
        random.Random(f"{seed}:{batch.number}:{len(batch.turns)}").shuffle(inner)
        return RACE, Turn((BASE, *inner, BASE), seconds, len(batch.turns))
    pending = _pending(batch, keep, rules)
    if not pending:
        return None
    mirrored = (BASE, *pending, *reversed(pending), BASE)
    return CONFIRM, Turn(mirrored, rules.confirm_seconds, len(batch.turns))


def run_batch(
    measurer: Measurer,
    batch: Batch,
    past: PastBatch,
    seed: str,
    keep: Sequence[int],
    commit: Callable[[str, Reading], None],
    stopped: Callable[[], bool] = lambda: False,
    rules: RaceRules = RULES,
) -> None:
    """Do all turns that are left of a batch; `commit` adds each to `past`.

    stopped: asked before every turn. Raises OSError when the measurer is lost.
    """
    if measurer.exact:
        if not past.turns and not stopped():
            alive = [n for n in range(len(past.built)) if n not in _out(past)]
            commit(CONFIRM, measurer.time(batch, Turn(tuple(alive), 0.0)))
        return
    while not stopped():
        step = next_turn(past, seed, keep, rules)
        if step is None:
            return
        kind, turn = step
        commit(kind, measurer.time(batch, turn))


# ---------------------------------------------------------------------- racing


def scores(batch: PastBatch, turns: Sequence[PastTurn] | None = None) -> dict[int, float]:
    """Seconds as shares of the base's in the same turn, the median over turns, by position."""
    found: dict[int, list[float]] = {}
    for turn in _counted(batch, RACE) if turns is None else turns:
        for position, ratio in _ratios(turn.reading.samples).items():
            found.setdefault(position, []).append(ratio)
    out = _out(batch)
    return {n: median(own) for n, own in found.items() if n not in out}


def finalists(batch: PastBatch, keep: Sequence[int] = (), rules: RaceRules = RULES) -> list[int]:
    """Who is to be confirmed, the fastest first."""
    out = _out(batch)
    if BASE in out:
        return []
    usual = batch.built[BASE].candidate
    best = sorted((score, n) for n, score in scores(batch).items() if score <= rules.promising)
    kept = [n for n in keep if n not in out]
    others = [n for _, n in best if n not in kept and batch.built[n].candidate != usual]
    return [*kept, *others[: rules.finalists - len(kept)]] if others else []


def noise(batch: PastBatch) -> list[float]:
    """The base's second time as a share of its first, for every turn of the race: what equal code
    differs by."""
    return noise_of(turn.reading for turn in batch.counted(RACE))


def noise_of(readings: Iterable[Reading]) -> list[float]:
    """The same, of what the turns of a race gave; others do not count."""
    found = []
    for reading in readings:
        own = [s.lower_quartile for s in reading.samples if s.position == BASE]
        if len(own) == 2 and own[0] > 0:
            found.append(own[1] / own[0])
    return found


def _out(batch: PastBatch) -> set[int]:
    """Positions that are not measured: what failed, and code that stands in the batch already."""
    seen: dict[str, str] = {}
    twice = set()
    for position, one in enumerate(batch.built):
        if one.code and seen.setdefault(one.code, one.candidate) != one.candidate:
            twice.add(position)
    return twice | set(batch.failures)


def _counted(batch: PastBatch, kind: str) -> list[PastTurn]:
    """The turns of a kind whose samples count."""
    disturbed = sum(1 for turn in batch.turns if turn.reading.disturbed)
    if disturbed > MOST_DISTURBED:
        return [turn for turn in batch.turns if turn.kind == kind]
    return batch.counted(kind)


def _racing(batch: PastBatch, rules: RaceRules) -> list[int] | None:
    """Who is still in the race, or None: it is over."""
    out = _out(batch)
    alive = [n for n in range(len(batch.built)) if n not in out]
    turns = _counted(batch, RACE)
    if BASE in out:
        return None
    for done in range(1, len(turns) + 1):
        current = scores(batch, turns[:done])
        others = sorted((current[n], n) for n in alive if n != BASE and n in current)
        if not others:
            return None
        if done == 1:
            others = [(s, n) for s, n in others if s <= rules.far * min(1.0, others[0][0])]
        else:
            others = others[: max(rules.finalists, (len(others) + 1) // 2)]
        alive = [BASE, *sorted(n for _, n in others)]
        if done >= rules.race_turns and len(others) <= rules.finalists:
            return None
    return alive if len(alive) > 1 else None


def _ratios(samples: Sequence[CallTimes]) -> dict[int, float]:
    """Of lower quartiles, each position's to the base's; {} where the base has none."""
    times: dict[int, list[float]] = {}
    for sample in samples:
        times.setdefault(sample.position, []).append(sample.lower_quartile)
    base = times.get(BASE)
    if not base or not sum(base):
        return {}
    unit = sum(base) / len(base)
    return {n: sum(own) / len(own) / unit for n, own in times.items()}


# ---------------------------------------------------------------------- confirming


def confirmations(
    batch: PastBatch, keep: Sequence[int] = (), rules: RaceRules = RULES
) -> list[Confirmed]:
    """The finalists of a batch whose confirmation is through."""
    return [
        found
        for position in finalists(batch, keep, rules)
        if (found := _confirmed(batch, position, rules)) is not None
    ]


def exact_confirmations(batch: PastBatch) -> list[Confirmed]:
    """Those of costs without noise: whoever costs less is faster."""
    turns = batch.counted(CONFIRM)
    ratios = _ratios(turns[0].reading.samples) if turns else {}
    return [Confirmed(n, (r,), int(r < 1), r < 1) for n, r in ratios.items() if n != BASE]


def _pending(batch: PastBatch, keep: Sequence[int], rules: RaceRules) -> list[int]:
    """Finalists of which more turns are needed."""
    return [n for n in finalists(batch, keep, rules) if _confirmed(batch, n, rules) is None]


def _confirmed(batch: PastBatch, position: int, rules: RaceRules) -> Confirmed | None:
    """What became of a finalist; None: nothing yet."""
    turns = [t for t in _counted(batch, CONFIRM) if _has(t, position)]
    first = _judged(turns[: rules.pairs], position, rules)
    if first is None or not first.accepted or first.ratio <= rules.doubtful:
        return first
    second = _judged(turns[rules.pairs : 2 * rules.pairs], position, rules)
    if second is None:
        return None
    return Confirmed(
        position, first.ratios + second.ratios, first.wins + second.wins, second.accepted
    )


def _has(turn: PastTurn, position: int) -> bool:
    return any(sample.position == position for sample in turn.reading.samples)


def _judged(turns: Sequence[PastTurn], position: int, rules: RaceRules) -> Confirmed | None:
    """By one dozen of turns; None where they are not complete."""
    if len(turns) < rules.pairs:
        return None
    ratios = tuple(_ratios(turn.reading.samples).get(position, 1.0) for turn in turns)
    wins = sum(1 for ratio in ratios if ratio < 1)
    least = {
        n: min(s.least for t in turns for s in t.reading.samples if s.position == n)
        for n in (BASE, position)
    }
    accepted = (
        wins >= rules.wins
        and sign_test(wins, len(ratios)) < 0.02
        and median(ratios) <= rules.gain
        and least[position] <= rules.gain * least[BASE]
    )
    return Confirmed(position, ratios, wins, accepted)


# ---------------------------------------------------------------------- verdicts


def verdict_from(
    past: PastTask, choices: Mapping[str, Mapping[str, object]], rules: RaceRules = RULES
) -> Verdict | None:
    """What the batches of a task have found: the last that was confirmed, or the base.

    choices: of candidates by key. Batches of other machine code than the last one's do not count.
    None where nothing was built.
    """
    verdict: Verdict | None = None
    for batch in past.batches:
        if batch.base_code != past.batches[-1].base_code:
            continue
        base = batch.built[BASE]
        usual = Verdict(choices[base.candidate], choices[base.candidate], base.code, base.code)
        verdict = verdict or usual
        keep = kept_positions(batch, verdict)
        found = [own for own in all_confirmations(batch, keep, rules) if own.accepted]
        if found:
            best = min(found, key=lambda own: own.ratio)
            verdict = _verdict(batch, best, choices)
        elif keep and all_confirmations(batch, keep, rules):
            verdict = usual  # what an earlier batch had confirmed did not hold
    return verdict


def all_confirmations(
    batch: PastBatch, keep: Sequence[int], rules: RaceRules = RULES
) -> list[Confirmed]:
    """Of noisy measurements, or of exact costs."""
    exact = not batch.counted(RACE) and len(batch.counted(CONFIRM)) == 1
    return exact_confirmations(batch) if exact else confirmations(batch, keep, rules)


def kept_positions(batch: PastBatch, verdict: Verdict | None) -> list[int]:
    """Where in a batch the choice stands that earlier ones confirmed."""
    if verdict is None or not verdict.is_gain:
        return []
    key = Candidate(verdict.choice).key
    return [n for n, one in enumerate(batch.built) if n != BASE and one.candidate == key]


def _verdict(
    batch: PastBatch, best: Confirmed, choices: Mapping[str, Mapping[str, object]]
) -> Verdict:
    base, own = batch.built[BASE], batch.built[best.position]
    low, high = interval(best.ratios)
    return Verdict(
        choices[base.candidate], choices[own.candidate], base.code, own.code,
        len(best.ratios), best.wins, best.ratio, low, high,
    )  # fmt: skip
