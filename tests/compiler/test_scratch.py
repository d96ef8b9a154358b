"""Folders for intermediate files and for what is kept; files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

import pytest

from tensmith.compiler import scratch
from tensmith.compiler.errors import UsageError, system_refusal, system_refusals


@pytest.fixture(autouse=True)
def system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No settings, and a temporary folder of the system's that is the test's own."""
    for name in ("TENSMITH_WORK_DIR", "TENSMITH_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "system"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(scratch, "_MEMORY", tmp_path / "memory")
    monkeypatch.setattr("pwd.getpwuid", no_account)
    return folder


def no_account(uid: int) -> None:
    raise KeyError(f"uid not found: {uid}")


def refusing(folders: set[Path]) -> object:
    def unwritable(folder: Path, least_bytes: int = 0) -> str:
        return "Read-only file system" if folder in folders or not folder.is_dir() else ""

    return unwritable


def test_the_first_folder_that_can_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: Path
) -> None:
    near, memory = tmp_path / "near", tmp_path / "memory"
    near.mkdir()
    memory.mkdir()
    refused: set[Path] = set()
    monkeypatch.setattr(scratch, "unwritable", refusing(refused))
    for expected in (system, memory, near):
        made = scratch.make_folder("x-", near=near)
        assert made.parent == expected
        refused.add(expected)
    with pytest.raises(UsageError, match="TENSMITH_WORK_DIR") as caught:
        scratch.make_folder("x-", near=near)
    assert str(near) in caught.value.why
    assert "Read-only" in caught.value.why


def test_copies_are_called_by_what_they_are_copies_of(tmp_path: Path) -> None:
    copy, other = tmp_path / "model.onnx", tmp_path / "other.onnx"
    scratch.speak_of(copy, "the model")
    assert scratch.called(copy) == "the model"
    assert scratch.called(other) == f"'{other}'"
    assert scratch.in_our_words(f"no {copy}, no {other}") == f"no the model, no {other}"
    scratch.forget(tmp_path / "elsewhere")
    assert scratch.is_copy(copy)
    scratch.forget(tmp_path)
    assert not scratch.is_copy(copy)


def test_no_temporary_folder_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    assert scratch.make_folder("x-", near=tmp_path).parent == tmp_path
    with pytest.raises(UsageError, match="gone"):
        scratch.make_folder("x-")


def test_a_named_folder_is_the_only_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TENSMITH_WORK_DIR", str(tmp_path / "missing"))
    with pytest.raises(UsageError, match="missing"):
        scratch.make_folder("x-", near=tmp_path)
    monkeypatch.setenv("TENSMITH_CACHE_DIR", "/proc/self/none")
    with pytest.raises(UsageError, match="TENSMITH_CACHE_DIR"):
        scratch.writable_cache()


@pytest.mark.parametrize("name", ["", "relative", "~"])
def test_cache_without_a_home(monkeypatch: pytest.MonkeyPatch, system: Path, name: str) -> None:
    monkeypatch.setenv("HOME", name)
    monkeypatch.setenv("XDG_CACHE_HOME", name)
    own = system / f"tensmith-{os.getuid()}"
    assert scratch.home() is None
    assert scratch.cache_folders()[0] == own
    assert scratch.writable_cache() == own
    assert stat.S_IMODE(own.stat().st_mode) == 0o700


def test_cache_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert scratch.writable_cache() == tmp_path / ".cache" / "tensmith"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    assert scratch.writable_cache() == tmp_path / "kept" / "tensmith"
    monkeypatch.setenv("TENSMITH_CACHE_DIR", str(tmp_path / "named"))
    assert scratch.cache_folders() == [tmp_path / "named"]


def test_a_home_that_is_not_there_is_not_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    assert scratch.writable_cache() == system / f"tensmith-{os.getuid()}"
    assert not (tmp_path / "nonexistent").exists()


def test_cache_where_others_may_write_is_left_alone(system: Path) -> None:
    shared = system / f"tensmith-{os.getuid()}"
    shared.mkdir()
    shared.chmod(0o777)
    assert shared not in scratch.cache_folders()


def test_full_disks_keep_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "LEAST_BYTES", 1 << 62)
    assert scratch.writable_cache() is None


def test_files_appear_whole(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_text("old")

    def fill_the_disk() -> None:
        with scratch.written_whole(path) as new:
            new.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UsageError, match="free some space"):
        fill_the_disk()
    assert path.read_text() == "old"
    previous = os.umask(0o027)
    try:
        with scratch.written_whole(path) as new:
            new.write_text("new")
    finally:
        os.umask(previous)
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert set(os.listdir(tmp_path)) == {
        "result",
        "system",
    }


def test_links_stay_links(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with scratch.written_whole(link) as new:
        new.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_link_to_another_file_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    replace = os.replace

    def across(source: Path, target: Path) -> None:
        if Path(source).parent.parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        replace(source, target)

    monkeypatch.setattr(os, "replace", across)
    (tmp_path / "other").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "other" / "file")
    with scratch.written_whole(link) as new:
        new.write_text("moved")
    assert (tmp_path / "other" / "file").read_text() == "moved"


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null"), tmp_path / "none" / "file"):
        with pytest.raises(UsageError, match="cannot write"), scratch.written_whole(path):
            pytest.fail("it was opened")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENAMETOOLONG, "shorter name"),
        (errno.EROFS, "TENSMITH_WORK_DIR"),
        (errno.EACCES, "TENSMITH_CACHE_DIR"),
    ],
)
def test_refusals_say_what_to_do(code: int, advice: str) -> None:
    with pytest.raises(UsageError, match=advice) as caught, system_refusals():
        raise OSError(code, os.strerror(code), "some/file")
    assert caught.value.where == "some/file"
    assert "report" not in str(caught.value)


def test_other_errors_pass() -> None:
    assert system_refusal(OSError(errno.EBADF, "Bad file descriptor")) is None
    assert system_refusal(OSError("4096 requested and 0 written")) is not None
    with pytest.raises(FileNotFoundError), system_refusals():
        raise FileNotFoundError(errno.ENOENT, "No such file", "some/file")


def test_the_current_folder_may_be_gone() -> None:
    with pytest.raises(UsageError, match="current folder"), system_refusals():
        raise FileNotFoundError(errno.ENOENT, "No such file")


def test_what_cannot_become_a_file_is_told_before_it_is_made(tmp_path: Path) -> None:
    link = tmp_path / "link.so"
    link.symlink_to("nowhere/model.so")
    with pytest.raises(UsageError, match="there is no folder") as raised:
        scratch.check_output(link)
    assert "make that folder" in raised.value.remedy
    with pytest.raises(UsageError, match="cannot write"):
        scratch.check_output(tmp_path / ("x" * 300))
    (tmp_path / "nowhere").mkdir()
    scratch.check_output(link)
