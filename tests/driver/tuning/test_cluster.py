"""Sessions on a cluster: workers that are slow, of another kind, or killed change no verdict."""

import os
import random
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from fake_tuning import FakeMeasurer, FakeModel, choice_of, still
from fake_workers import GAINS, MakeFake

from tensmith.compiler.backend import Tuning, backend_of
from tensmith.compiler.errors import UsageError
from tensmith.compiler.tuning.events import WORKER, Event
from tensmith.compiler.tuning.history import History, SessionKey
from tensmith.compiler.tuning.jobs import LocalPool, Pool
from tensmith.compiler.tuning.records import Records
from tensmith.compiler.tuning.session import Settings, TuningSession
from tensmith.compiler.tuning.shares import Budget
from tensmith.compiler.tuning.task import MachineClass
from tensmith.driver.tuning import workers
from tensmith.driver.tuning.cluster import ClusterPool
from tensmith.driver.tuning.workers import pool_of

distributed = pytest.importorskip("distributed", reason="Dask.distributed is not installed")

KEY = SessionKey("model", "net", "x86-64-v3", MachineClass("fake"), {"threads": 1})


def _session(path: Path, pool: Pool, trials: int = 160) -> TuningSession:
    history = History(Records(path), KEY, "llvm")
    settings = Settings(budget=Budget(trials=trials), clock=still)
    return TuningSession(history, FakeModel(GAINS), pool, settings)


def _verdicts(session: TuningSession):
    found = {}
    for past in session.history.tasks:
        assert past.verdict is not None
        found[past.task.key] = past.verdict.choice, past.verdict.ratio, past.trials
    session.history.records.close()
    return found


@pytest.fixture(name="cluster")
def _cluster(monkeypatch: pytest.MonkeyPatch):
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with distributed.LocalCluster(
        n_workers=4, threads_per_worker=1, dashboard_address=None, host="127.0.0.1",
        silence_logs=50,
    ) as cluster, distributed.Client(cluster) as client:  # fmt: skip
        client.wait_for_workers(4, timeout=300)
        yield cluster, client


def _undisturbed(folder: Path):
    session = _session(folder / "alone.db", LocalPool(FakeMeasurer(GAINS), still))
    session.run()
    return _verdicts(session)


def test_slow_and_other_workers_change_no_verdict(cluster, tmp_path: Path) -> None:
    told: list[Event] = []
    make = MakeFake(tmp_path)
    pool = ClusterPool(cluster[1], "fake", make, wanted="fake", listener=told.append)
    session = _session(tmp_path / "r.db", pool)
    session.run()
    found = _verdicts(session)
    assert found == _undisturbed(tmp_path)
    assert found["d"][0] == choice_of(3, 2, 0)
    texts = [event.data["told"] for event in told if event.kind == WORKER]
    assert sum(text == "joined" for text in texts) == 3
    assert any("of the class another, not fake" in text for text in texts)


def _kill_workers(cluster, pause: float, ended: threading.Event) -> int:
    """Kill one now and then, until told to end; how many were killed. Two stay, however long the
    machine takes to start others in their place."""
    drawn, killed = random.Random(0), 0
    while not ended.wait(pause):
        alive = [w.pid for w in cluster.workers.values() if w.pid]
        if alive and len(cluster.scheduler.workers) > 2:
            os.kill(drawn.choice(alive), signal.SIGKILL)
            killed += 1
    return killed


def _soak(cluster, folder: Path, pause: float, seconds: float) -> int:
    ended, counts = threading.Event(), []
    killer = threading.Thread(target=lambda: counts.append(_kill_workers(cluster[0], pause, ended)))
    pool = ClusterPool(cluster[1], "fake", MakeFake(folder, seconds), wanted="fake")
    session = _session(folder / "r.db", pool)
    killer.start()
    try:
        session.run()
    finally:
        ended.set()
        killer.join()
    assert _verdicts(session) == _undisturbed(folder)
    again = FakeMeasurer(GAINS)
    finished = _session(folder / "r.db", LocalPool(again, still))
    finished.run()
    assert not again.turns
    finished.history.records.close()
    return counts[0]


def test_killed_workers_change_no_verdict(cluster, tmp_path: Path) -> None:
    assert _soak(cluster, tmp_path, pause=1.0, seconds=0.05) >= 2


@pytest.mark.slow
def test_soak_with_a_worker_killed_every_20_seconds(cluster, tmp_path: Path) -> None:
    assert _soak(cluster, tmp_path, pause=20.0, seconds=1.5) >= 3


def test_a_cluster_without_workers_is_told(tmp_path: Path) -> None:
    with (
        distributed.LocalCluster(
            n_workers=0, dashboard_address=None, host="127.0.0.1", silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
        pytest.raises(UsageError, match="no workers"),
    ):
        ClusterPool(client, "fake", MakeFake(tmp_path), patience=0.5)


def test_a_cluster_that_is_of_no_use_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of("x86")
    target = backend.parse_target("x86-64-v3")
    closed: list[bool] = []

    def refused(*given: object, **named: object) -> ClusterPool:
        raise UsageError("the cluster has no workers")

    monkeypatch.setattr(workers, "_local_cluster", lambda text: (None, lambda: closed.append(True)))
    monkeypatch.setattr(workers, "ClusterPool", refused)
    with pytest.raises(UsageError, match="no workers"):
        pool_of("local:2", backend, target)
    assert closed == [True]


def test_classes_of_machines_are_not_mixed(cluster, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="several classes"):
        ClusterPool(cluster[1], "fake", MakeFake(tmp_path))
    with pytest.raises(UsageError, match="no worker is of the class"):
        ClusterPool(cluster[1], "fake", MakeFake(tmp_path), wanted="third")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("elsewhere", "names no workers"),
        ("local:many", "number of workers"),
        ("tcp://192.0.2.1:8786", "open to whoever reaches it"),
        ("tcp://localhost", "no port"),
    ],
)
def test_workers_that_cannot_be_are_told(text: str, message: str) -> None:
    backend = backend_of("x86")
    target = backend.parse_target("x86-64-v3")
    tuning = Tuning(open=None, measurer=lambda target, worker: None, machine=lambda target: None)
    with pytest.raises(UsageError, match=message):
        pool_of(text, replace(backend, tuning=tuning), target)


def test_backends_that_measure_nothing_are_told() -> None:
    backend = backend_of("reference")
    with pytest.raises(UsageError, match="cannot be tuned"):
        pool_of("local", backend, backend.parse_target("reference"))
