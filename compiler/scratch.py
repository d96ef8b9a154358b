"""Folders for what is no result: the files of one compilation, and what is kept between them."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UsageError, system_refusals
from .knobs import CACHE_DIR, WORK_DIR, child_environment

LEAST_BYTES = 60 << 20  # free space without which a folder keeps nothing: the C library takes 50 MB
_MEMORY = Path("/dev/shm")
_COPIES: dict[str, str] = {}  # files of ours -> what they are copies of, as messages have it


def temporary_folder(prefix: str, *, near: Path | None = None) -> tempfile.TemporaryDirectory[str]:
    """A folder that goes with the object, for a `with` statement; as `make_folder`."""
    return tempfile.TemporaryDirectory(prefix=prefix, dir=_parent(near))


def make_folder(prefix: str, *, near: Path | None = None) -> Path:
    """A new folder, which the caller removes.

    It lies where the knob says, else in the system's folder for temporary files, in memory, or in
    `near`, whichever can be written first. Raises UsageError where none can.
    """
    return Path(tempfile.mkdtemp(prefix=prefix, dir=_parent(near)))


def speak_of(copy: Path, name: str) -> None:
    """Let messages call a file, which its user has never seen, by what it is a copy of."""
    _COPIES[str(copy)] = name


def called(path: Path) -> str:
    """What messages call a file: its path in quotes, or what it is a copy of."""
    return _COPIES.get(str(path), f"'{path}'")


def is_copy(path: Path) -> bool:
    """Whether messages call it by another name than its path."""
    return str(path) in _COPIES


def in_our_words(text: str) -> str:
    """What another program says, with files called as our messages call them."""
    for path, name in _COPIES.copy().items():
        text = text.replace(path, name)
    return text


def forget(folder: Path) -> None:
    """Of copies in a folder that goes nothing will be said."""
    for path in _COPIES.copy():
        if Path(path).is_relative_to(folder):
            _COPIES.pop(path, None)


def _parent(near: Path | None) -> Path:
    """The first folder where folders can be made."""
    reasons = []
    for folder in _work_folders(near):
        reason = unwritable(folder)
        if not reason:
            return folder
        reasons.append(f"'{folder}': {reason}")
    raise UsageError(
        "cannot make a folder for intermediate files",
        why="; ".join(reasons),
        remedy=f"set {WORK_DIR.variable} to a folder that can be written",
    )


def _work_folders(near: Path | None) -> Iterator[Path]:
    if WORK_DIR.value:
        yield Path(str(WORK_DIR.value)).absolute()
        return
    yield from _system_folders()
    if near is not None:
        yield near


def _system_folders() -> Iterator[Path]:
    try:
        yield Path(tempfile.gettempdir()).absolute()
    except FileNotFoundError:  # tempfile has tried all that it knows
        yield Path(child_environment().get("TMPDIR") or "/tmp")
    yield _MEMORY


def unwritable(folder: Path, least_bytes: int = 0) -> str:
    """Why no file of `least_bytes` can be written in an existing folder; "" where one can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
        status = os.statvfs(folder)
    except OSError as error:
        return error.strerror or str(error)
    free = status.f_bavail * status.f_frsize
    return f"only {free >> 20} MiB are free" if free < least_bytes else ""


def home() -> Path | None:
    """The user's own folder, where there is one: some users have neither HOME nor an account."""
    text = child_environment().get("HOME", "")
    if not os.path.isabs(text):
        try:
            text = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return None
    return Path(text) if Path(text).is_dir() else None


def cache_folders() -> list[Path]:
    """Where compiled parts may be kept for later compilations, best first.

    That of the knob alone; else the user's (below XDG_CACHE_HOME, or ~/.cache) and one for the user
    among the temporary files.
    """
    if CACHE_DIR.value:
        return [Path(str(CACHE_DIR.value)).absolute()]
    found = []
    base = child_environment().get("XDG_CACHE_HOME", "")
    own = home()
    if os.path.isabs(base):
        found.append(Path(base) / "tensmith")
    elif own is not None:
        found.append(own / ".cache" / "tensmith")
    found += [folder / f"tensmith-{os.getuid()}" for folder in _system_folders()]
    return [folder for folder in found if _is_private(folder)]


def _is_private(folder: Path) -> bool:
    """Whether nobody else can put files into a folder that exists, or it is yet to be made."""
    try:
        status = folder.lstat()
    except OSError:
        return True
    if stat.S_ISLNK(status.st_mode):
        return folder.is_dir() and folder.stat().st_uid == os.getuid()
    return status.st_uid in (0, os.getuid()) and not status.st_mode & 0o022


def writable_cache() -> Path | None:
    """The first of `cache_folders` that can be written, made where it is missing; None without one.

    Raises UsageError when the knob names a folder that cannot be written.
    """
    for folder in cache_folders():
        reason = _made(folder) or unwritable(folder, LEAST_BYTES)
        if not reason:
            return folder
        if CACHE_DIR.value:
            raise UsageError(
                f"cannot write in '{folder}'",
                why=reason,
                remedy=f"set {CACHE_DIR.variable} to another folder, or leave it out",
            )
    return None


def _made(folder: Path) -> str:
    """Make a folder that only its owner may write; why that cannot be, or ""."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return ""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Where to write a file that is to be at `path` when it is complete, and not before.

    Raises UsageError where `path` is no file, or where the system refuses it.
    """
    with new_files(path) as folder:
        yield folder / path.name
        place(folder / path.name, path)


@contextmanager
def new_files(path: Path) -> Iterator[Path]:
    """A folder beside `path` for new files, which `place` gives their names; as `written_whole`."""
    check_output(path)
    parent = path.absolute().parent
    if not parent.is_dir():
        raise UsageError(f"cannot write '{path}'", why=f"there is no folder '{parent}'")
    with (
        system_refusals(f"cannot write '{path}'"),
        tempfile.TemporaryDirectory(dir=parent, prefix=".tensmith-") as folder,
    ):
        yield Path(folder)


def check_output(path: Path) -> None:
    """Raise UsageError when `path` exists and cannot become a file: a folder, a device, a pipe, a
    link to where no file can be."""
    with system_refusals(f"cannot write '{path}'"):
        is_folder, exists, final = path.is_dir(), path.exists(), Path(os.path.realpath(path))
    if is_folder:
        raise UsageError(f"cannot write '{path}'", why="it is a directory")
    if path.is_symlink() and not final.parent.is_dir():
        raise UsageError(
            f"cannot write '{path}'",
            why=f"it is a link to '{final}', and there is no folder '{final.parent}'",
            remedy="make that folder, or remove the link",
        )
    if exists and not path.is_file():
        raise UsageError(
            f"cannot write '{path}'",
            why="it is not a regular file",
            remedy="name a file; what is written needs to be read again while it is made",
        )


def place(new: Path, path: Path) -> None:
    """Rename a complete file to `path`, or to where `path` is a link to."""
    final = Path(os.path.realpath(path))
    try:
        os.replace(new, final)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=".tensmith-") as folder:
            shutil.copy(new, folder)
            os.replace(Path(folder, new.name), final)
