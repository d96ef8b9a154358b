"""Functions in Triton's language become code for GPUs: by processes of their own, side by side.

Results are kept in the cache folder by what they were made of; a file of it is checked by the
digest that it begins with, and made anew where it is damaged.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import selectors
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...compiler.errors import InternalError
from ...compiler.knobs import child_environment
from ...compiler.scratch import cache_folders, temporary_folder, writable_cache, written_whole
from .cubin import Cubin, read_cubin
from .emit.function import Function

FORMAT = 2  # of files in the cache
SECONDS = 300.0  # that the compilation of one function may take
OLD_PTX = 90  # the last architecture that PTX of that version knows
PTX_VERSION = 80  # of PTX that drivers compile for GPUs not known yet: CUDA 12.0 takes it
EARLY_LAUNCHES = 90  # the first architecture with programmatic dependent launches
_WAIT = "    tl.extra.cuda.gdc_wait()\n    tl.extra.cuda.gdc_launch_dependents()\n"
POINTER_BYTES = 8
HIDDEN_PARAMETERS = 2  # Triton's own, behind ours: scratch (for tensor maps), and for profiles


@dataclass(frozen=True)
class FunctionJob:
    """A function to compile. ptx: whether its PTX is wanted, not its cubin."""

    function: Function
    architecture: int
    ptx: bool = False

    @property
    def waits(self) -> bool:
        """Whether the function is launched early, and waits by itself for the launch before."""
        return self.architecture >= EARLY_LAUNCHES and not self.ptx

    @property
    def source(self) -> str:
        """The module that defines the function."""
        if not self.waits:
            return self.function.source
        head, body = self.function.source.split(f"def {self.function.symbol}(", 1)
        arguments, body = body.split("\n", 1)
        return f"{head}def {self.function.symbol}({arguments}\n{_WAIT}{body}"

    def request(self) -> dict[str, Any]:
        """What the compiling process is told, apart from where files are."""
        function = self.function
        return {
            "symbol": function.symbol,
            "signature": function.signature,
            "aligned": function.aligned,
            "exact": function.exact,
            "warps": function.tiles.warps,
            "stages": function.tiles.stages,
            "architecture": self.architecture,
            "ptx_version": PTX_VERSION if self.ptx and self.architecture <= OLD_PTX else 0,
            "early": self.waits,
        }

    @property
    def key(self) -> str:
        """What decides the code, as the name of a file."""
        told = {
            **self.request(), "format": FORMAT, "triton": importlib.metadata.version("triton"),
            "source": self.source,
        }  # fmt: skip
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Image:
    """Code of one function for one architecture.

    threads: of a block. shared: bytes of its memory that a launch asks for. registers: of a thread;
    stack: bytes of its own memory, for what registers do not hold. Both are 0 of PTX, which the
    driver compiles. waits: for the launch before, by itself.
    """

    symbol: str
    architecture: int
    ptx: bool
    data: bytes
    threads: int
    shared: int
    registers: int = 0
    stack: int = 0
    waits: bool = False


def compile_all(jobs: Sequence[FunctionJob]) -> list[Image]:
    """The images of all jobs, in their order.

    Raises InternalError where Triton fails, or its code is not what a launch expects.
    """
    images = []
    for made in try_all(jobs):
        if isinstance(made, InternalError):
            raise made
        images.append(made)
    return images


def try_all(jobs: Sequence[FunctionJob]) -> list[Image | InternalError]:
    """The images of all jobs, in their order, or why there is none: Triton fails, or its code is
    not what a launch expects."""
    found: dict[str, Image | InternalError] = {}
    keys = [job.key for job in jobs]
    missing: dict[str, FunctionJob] = {}
    for key, job in zip(keys, jobs, strict=True):
        if key in found or key in missing:
            continue
        kept = _restored(key, job)
        if kept is None:
            missing[key] = job
        else:
            found[key] = kept
    if missing:
        count = min(len(missing), len(os.sched_getaffinity(0)))
        with _Pool(count) as pool:
            made = pool.run(list(missing.values()))
        found |= dict(zip(missing, made, strict=True))
        for key, image in zip(missing, made, strict=True):
            if isinstance(image, Image):
                _keep(key, image)
    return [found[key] for key in keys]


class _Pool:
    """Compiling processes, one for each thread that waits for it."""

    def __init__(self, count: int) -> None:
        self._threads = ThreadPoolExecutor(count)
        self._own = threading.local()
        self._processes: list[_Process] = []
        self._lock = threading.Lock()

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.close()

    def run(self, jobs: Sequence[FunctionJob]) -> list[Image | InternalError]:
        """The images of jobs, in their order, or why there is none."""
        return list(self._threads.map(self._one, jobs))

    def _one(self, job: FunctionJob) -> Image | InternalError:
        process: _Process | None = getattr(self._own, "process", None)
        if process is None or process.dead:
            process = self._own.process = _Process()
            with self._lock:
                self._processes.append(process)
        try:
            return _image(job, *process.compile(job))
        except InternalError as error:
            return error


class _Process:
    """One process that compiles one function after the other."""

    def __init__(self) -> None:
        self._folder = temporary_folder("tensmith-triton-")
        spec = importlib.util.find_spec("triton")
        assert spec is not None
        assert spec.origin is not None
        ptxas = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "ptxas"
        environment = child_environment(
            PYTHONPATH=os.pathsep.join(filter(None, sys.path)),
            TRITON_CACHE_DIR=str(Path(self._folder.name, "cache")),
            TRITON_DISABLE_LINE_INFO="1",
            TRITON_PTXAS_BLACKWELL_PATH=str(ptxas),  # whose code older drivers take, too
        )
        environment.pop("TRITON_INTERPRET", None)
        self._log = Path(self._folder.name, "log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment,
                start_new_session=True,
            )  # fmt: skip
        self._count = 0

    @property
    def dead(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def compile(self, job: FunctionJob) -> tuple[dict[str, Any], bytes]:
        """What Triton says of a function, and its code. Raises InternalError where it fails."""
        self._count += 1
        source = Path(self._folder.name, f"f{self._count}.py")
        source.write_text(job.source, encoding="utf-8")
        request = {**job.request(), "source": str(source)}
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        answer = self._answer(job)
        if "error" in answer:
            raise _failure(job, answer["error"])
        suffix = ".ptx" if job.ptx else ".cubin"
        return answer, source.with_suffix(suffix).read_bytes()

    def _answer(self, job: FunctionJob) -> dict[str, Any]:
        stream = self._process.stdout
        assert stream is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            if not selector.select(SECONDS):
                self._process.kill()
                raise _failure(job, f"it took longer than {SECONDS:g} s")
        line = stream.readline()
        if not line:
            status = self._process.wait()
            told = self._log.read_text(errors="replace").strip().splitlines()[-1:]
            raise _failure(job, f"the compiling process ended with status {status}: {told}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process and remove its files."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        self._folder.cleanup()


def _failure(job: FunctionJob, why: str) -> InternalError:
    where = f"function '{job.function.symbol}', sm_{job.architecture}"
    return InternalError("Triton compiles no code for a kernel", where=where, why=why)


def _image(job: FunctionJob, told: Mapping[str, Any], data: bytes) -> Image:
    """The image, once its code is what a launch expects. Raises InternalError if it is not."""
    function = job.function
    foreign = told["scratch"] > function.scratch or told["clusters"] != 1
    if foreign or told["name"] != function.symbol:
        raise _failure(job, f"the code asks for more than a launch gives: {dict(told)}")
    image = Image(
        function.symbol,
        job.architecture,
        job.ptx,
        data,
        32 * told["warps"],
        told["shared"],
        waits=job.waits,
    )
    if job.ptx:
        return image
    cubin = read_cubin(data, function.symbol)
    check_parameters(job, cubin)
    return Image(**{**asdict(image), "registers": cubin.registers, "stack": cubin.stack})


def check_parameters(job: FunctionJob, cubin: Cubin) -> None:
    """Raise InternalError unless a cubin takes the parameters that a launch hands over: pointers
    and i64, of 8 bytes each, and behind them those of Triton itself."""
    count = len(job.function.signature) + HIDDEN_PARAMETERS
    wanted = tuple((POINTER_BYTES * n, POINTER_BYTES) for n in range(count))
    if cubin.parameters != wanted or cubin.architecture != job.architecture:
        raise _failure(
            job,
            f"its parameters are {cubin.parameters} for sm_{cubin.architecture}, not {wanted}",
        )


# the cache ---------------------------------------------------------------------------------


def _entry(key: str) -> Path:
    return Path("cuda", key[:2], key)


def _restored(key: str, job: FunctionJob) -> Image | None:
    """A kept image, unless there is none or it is damaged."""
    for folder in cache_folders():
        with suppress(OSError, ValueError, KeyError, TypeError):
            digest, head, data = (folder / _entry(key)).read_bytes().split(b"\n", 2)
            if hashlib.sha256(head + b"\n" + data).hexdigest().encode() == digest:
                return Image(data=data, symbol=job.function.symbol, **json.loads(head))
    return None


def _keep(key: str, image: Image) -> None:
    folder = writable_cache()
    if folder is None:
        return
    told = asdict(image)
    for name in ("data", "symbol"):
        del told[name]
    body = json.dumps(told).encode() + b"\n" + image.data
    with suppress(OSError):  # what is not kept is compiled again
        path = folder / _entry(key)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with written_whole(path) as new:
            new.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
