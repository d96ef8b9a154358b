"""A machine that ssh reaches: the measuring program goes there, and needs nothing that is not."""

from __future__ import annotations

import hashlib
import io
import re
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ....compiler.errors import UsageError
from ....compiler.scratch import temporary_folder
from ....compiler.target import CpuTarget
from ....compiler.tuning.task import Waiting
from .host import Ended, run_limited
from .program import NAME, build_program

_LOST = 255  # the code that ssh ends with where the connection is
_SECONDS = 120.0  # to copy files
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:%\[\]-]*")  # nothing that ssh takes for an option
_LOCK = "/tmp/tensmith-measuring.lock"


class SshHost:
    """The machine of an address "ssh://[USER@]HOST[:PORT]".

    Keys and names are the user's own configuration's; nothing is asked. A folder in the home
    directory there holds the program and the latest batch, until `close`. Raises UsageError where
    the address is none, the machine is not reached, or is of another architecture than the target.
    """

    def __init__(self, target: CpuTarget, address: str) -> None:
        self._command = _ssh(address)
        self._address, self._folder = address, ""
        wanted = target.triple.partition("-")[0]
        found = self._shell("uname -m && mktemp -d ./.tensmith-XXXXXX", b"")
        words = found.stdout.decode(errors="replace").split()
        if found.returncode or len(words) != 2:
            why = found.stderr.decode(errors="replace").strip()[-500:]
            raise UsageError(
                f"'{address}' is not reached", why=why, remedy=f"try `ssh {_host(address)}`"
            )
        self._folder, self._sent = words[1], dict[str, str]()
        if words[0] != wanted:
            self.close()
            raise UsageError(
                f"'{address}' cannot run kernels for '{target.name}'",
                why=f"it is {words[0]}, they are for {target.triple}",
            )
        try:
            with temporary_folder("tensmith-program-") as name:
                program = build_program(target, Path(name)).read_bytes()
            self._copy({NAME: program}, f"chmod +x {NAME}")
        except BaseException:
            self.close()
            raise

    @property
    def lock(self) -> str:
        """One for all users of the machine."""
        return _LOCK

    def put(self, files: Mapping[str, bytes]) -> str:
        """Copy files to a folder there; what the batch before had is not copied again."""
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        new = {name: data for name, data in files.items() if self._sent.get(name) != digests[name]}
        self._copy({f"batch/{name}": data for name, data in new.items()}, "true")
        self._sent = digests
        return "batch"

    def run(
        self, arguments: Sequence[str], seconds: float, waiting: Waiting | None = None
    ) -> Ended:
        """Run the program there; it ends with the connection."""
        words = " ".join(map(shlex.quote, arguments))
        remote = f"cd {self._folder} && exec ./{NAME} {words}"
        command = [*self._command, remote]
        ended = run_limited(command, seconds, waits=arguments[0] == "time", waiting=waiting)
        if ended.code == _LOST and not ended.late:
            raise OSError(f"'{self._address}' is lost: {ended.errors.strip()[-500:]}")
        if ended.code > 128:  # how a shell tells of a signal
            return Ended(128 - ended.code, ended.output, ended.errors, ended.seconds, ended.late)
        return ended

    def close(self) -> None:
        """Remove the folder there."""
        if self._folder:
            self._shell(f"rm -rf {self._folder}", b"")
            self._folder = ""

    def _copy(self, files: Mapping[str, bytes], then: str) -> None:
        """Write files below the folder, then run a command in it. Raises OSError if it fails."""
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name, data in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        done = self._shell(f"cd {self._folder} && tar -xf - && {then}", stream.getvalue())
        if done.returncode:
            why = done.stderr.decode(errors="replace").strip()[-500:]
            raise OSError(f"files cannot be copied to '{self._address}': {why}")

    def _shell(self, command: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                [*self._command, command], input=data, capture_output=True, check=False,
                timeout=_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise OSError(f"'{self._address}' does not answer") from None


def _host(address: str) -> str:
    """What ssh calls the machine."""
    parts = urlsplit(address)
    name = parts.hostname or ""
    return f"{parts.username}@{name}" if parts.username else name


def _ssh(address: str) -> list[str]:
    """The command that runs a shell's line there."""
    program = shutil.which("ssh")
    if program is None:
        raise UsageError(f"'{address}' is not reached", why="there is no ssh on the path")
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"'{address}' is no address", why=str(error)) from None
    host = _host(address)
    if parts.scheme != "ssh" or not _NAME.fullmatch(host) or parts.path not in ("", "/"):
        raise UsageError(f"'{address}' is no address", remedy="ssh://USER@HOST:PORT")
    options = ["-oBatchMode=yes", "-oConnectTimeout=10", "-oServerAliveInterval=15", "-T"]
    return [program, *options, *(["-p", str(port)] if port else []), host]
