"""Where batches are measured: here, on a machine that ssh reaches, on a cluster."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from ...compiler.backend import AnyBackend, backend_of
from ...compiler.errors import UsageError
from ...compiler.target import Target
from ...compiler.tuning.events import Listener
from ...compiler.tuning.jobs import LocalPool, Pool
from ...compiler.tuning.task import Measurer
from .cluster import ClusterPool

LOCAL = "local"
FORMS = "local, local:N, ssh://HOST, tcp://HOST:PORT or tls://HOST:PORT"


def pool_of(
    workers: str,
    backend: AnyBackend,
    target: Target,
    listener: Listener = lambda event: None,
    machine: str = "",
) -> Pool:
    """The pool that a text names.

    "local": this machine. "local:4": a cluster of so many processes on it, of which one measures at
    a time. "ssh://host": the measuring program, there. "tcp://host:port", "tls://host:port": a Dask
    scheduler whose workers have Tensmith; machine: the class of those that are used. Raises
    UsageError for another text, a backend without measurements, and what cannot be reached.
    """
    if backend.tuning is None:
        raise UsageError(
            f"kernels of the target '{target.name}' cannot be tuned",
            why=f"the backend '{backend.name}' measures nothing",
        )
    if workers == LOCAL or workers.startswith("ssh://"):
        pool = LocalPool(backend.tuning.measurer(target, workers), listener=listener)
        return _one_measurer(pool, machine)
    make = partial(measurer_here, backend.name, target)
    if workers.startswith(f"{LOCAL}:"):
        client, close = _local_cluster(workers)
    elif workers.startswith(("tcp://", "tls://")):
        client, close = _connected(workers)
    else:
        raise UsageError(f"'{workers}' names no workers", remedy=f"give {FORMS}")
    try:
        return ClusterPool(
            client, target.name, make, wanted=machine, listener=listener, close=close
        )
    except BaseException:
        close()
        raise


def _one_measurer(pool: Pool, wanted: str) -> Pool:
    """A pool whose machine is of the class that is wanted; "": of any."""
    try:
        if wanted and wanted != pool.machine.name:
            raise UsageError(
                f"no worker is of the class '{wanted}'", why=f"it is {pool.machine.name}",
                remedy="leave out --machine, or name other --workers",
            )  # fmt: skip
    except BaseException:
        pool.close()
        raise
    return pool


def measurer_here(backend: str, target: Target) -> Measurer:
    """On a worker: what measures there."""
    tuning = backend_of(backend).tuning
    if tuning is None:
        raise UsageError(f"the backend '{backend}' measures nothing")
    return tuning.measurer(target, LOCAL)


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise UsageError(
            "workers of a cluster need Dask.distributed", remedy="pip install 'tensmith[cluster]'"
        ) from None
    return distributed


def _local_cluster(text: str) -> tuple[Any, Callable[[], None]]:
    count = text.partition(":")[2]
    if not count.isdigit() or not 1 <= int(count) <= 256:
        raise UsageError(f"'{text}' names no number of workers", remedy="local:4, for instance")
    library = _distributed()
    cluster = library.LocalCluster(
        n_workers=int(count), threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    )
    try:
        client = library.Client(cluster)
    except BaseException:
        cluster.close()
        raise

    def close() -> None:
        client.close()
        cluster.close()

    return client, close


def _connected(address: str) -> tuple[Any, Callable[[], None]]:
    """A client of a scheduler. Who reaches an open port of one can run anything on its workers, so
    that without TLS only this machine's are taken."""
    parts = urlsplit(address)
    if not parts.hostname or not parts.port:
        raise UsageError(f"'{address}' has no host or no port", remedy=f"give {FORMS}")
    if parts.scheme == "tcp" and not _is_loopback(parts.hostname):
        raise UsageError(
            f"'{address}' is another machine, and tcp:// is open to whoever reaches it",
            why="workers of a cluster run what they are sent",
            remedy="use tls://, with certificates in Dask's configuration "
            "(distributed.comm.tls), or a tunnel: ssh -L 8786:localhost:8786 HOST",
        )
    library = _distributed()
    security = library.Security(require_encryption=True) if parts.scheme == "tls" else None
    try:
        client = library.Client(address, timeout=20, security=security)
    except (OSError, TimeoutError, TypeError, ValueError) as error:
        raise UsageError(
            f"cannot reach the scheduler at '{address}'", why=f"{type(error).__name__}: {error}"
        ) from None
    return client, client.close


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
