"""The program as containers and services run it: real processes, mounts and limits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tensmith.compiler.knobs import child_environment
from tensmith.compiler.scratch import cache_folders

Run = Callable[..., subprocess.CompletedProcess[str]]
UNSET = ("HOME", "XDG_CACHE_HOME", "TENSMITH_CACHE_DIR", "TENSMITH_WORK_DIR", "TMPDIR")


def _can_mount() -> bool:
    if not shutil.which("unshare"):
        return False
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return not subprocess.run(command, capture_output=True, check=False).returncode


needs_mounts = pytest.mark.skipif(not _can_mount(), reason="this user may not unshare mounts")


@pytest.fixture
def shell(tmp_path: Path, model_path: Path) -> Run:
    """Runs a script, in mounts of its own where `mounts` is given: $T is the program.

    Variables that say where files go are unset unless given.
    """

    def run(script: str, *, mounts: bool = False, **settings: str) -> subprocess.CompletedProcess:
        environment = child_environment(PYTHON=sys.executable, MODEL=str(model_path))
        environment = {k: v for k, v in environment.items() if k not in UNSET} | settings
        inner = ["sh", "-c", 'T="$PYTHON -m tensmith"; ' + script]
        return subprocess.run(
            ["unshare", "-rm", *inner] if mounts else inner,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def kept(tmp_path: Path) -> str:
    """A cache without a runtime, with what the session's has of the C library."""
    folder = tmp_path / "kept"
    folder.mkdir(mode=0o700)
    for known in cache_folders():
        if (known / "zig").is_dir():
            (folder / "zig").symlink_to(known / "zig")
            break
    return str(folder)


COMPILE = "$T compile $MODEL --target x86-64-v3 --no-verify"


@pytest.mark.parametrize("home", [None, "relative", "/proc"])
def test_homes_that_are_none(shell: Run, tmp_path: Path, home: str | None) -> None:
    done = shell(f"{COMPILE} -o m.so", **({} if home is None else {"HOME": home}))
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path)) == ["double.onnx", "m.so"]


@needs_mounts
def test_only_the_output_can_be_written(shell: Run) -> None:
    """Nothing is kept: the C library is compiled beside the output, too."""
    read_only = (
        "mkdir out; for d in /tmp /var/tmp /dev/shm $HOME; do mount --bind $d $d;"
        "mount -o remount,bind,ro $d; done; out=$PWD/out; mount -t tmpfs -o size=200m tmpfs $out;"
        "cd $out;"
    )
    done = shell(f"{read_only} {COMPILE} -o m.so >/dev/null; ls -A", mounts=True)
    assert done.stdout.split() == ["m.so"], done.stderr


@needs_mounts
@pytest.mark.parametrize("emit", ["m.so", "m.a"])
def test_full_disks_leave_nothing(shell: Run, kept: str, emit: str) -> None:
    script = f"mkdir d; mount -t tmpfs -o size=16k tmpfs d; {COMPILE} -o d/{emit}; c=$?; ls -A d"
    done = shell(f"{script}; exit $c", mounts=True, TENSMITH_CACHE_DIR=kept)
    assert done.returncode == 2, done.stderr
    assert "space" in done.stderr
    assert "report" not in done.stderr
    assert not done.stdout


@needs_mounts
def test_kept_folders_that_are_full(shell: Run) -> None:
    script = f"mkdir d; mount -t tmpfs -o size=64k tmpfs d; {COMPILE} -o m.so"
    for name in ("TENSMITH_CACHE_DIR", "TENSMITH_WORK_DIR"):
        full = "dd if=/dev/zero of=d/f bs=1k 2>/dev/null;" if name.endswith("WORK_DIR") else ""
        done = shell(script.replace("tmpfs d;", f"tmpfs d; {full}"), mounts=True, **{name: "d"})
        assert done.returncode == 2
        assert name in done.stderr


@needs_mounts
def test_libraries_load_where_nothing_can_be_written(
    shell: Run, kept: str, tmp_path: Path, batch: np.ndarray
) -> None:
    done = shell(f"{COMPILE} -o m.so && {COMPILE} -o m", TENSMITH_CACHE_DIR=kept)
    assert done.returncode == 0, done.stderr
    np.save(tmp_path / "x.npy", batch)
    script = (
        "import numpy, tensmith;"
        "print(tensmith.load('m.so')(numpy.load('x.npy'))['y'].sum())"
    )  # fmt: skip
    hidden = (
        "mkdir d; mount -t tmpfs tmpfs d; cp m m.so x.npy d; mount -o remount,ro,OPTION d; cd d;"
        "for f in /var/tmp /dev/shm; do mount -t tmpfs -o ro tmpfs $f; done; TMPDIR=$PWD;"
    )
    for option in ("exec", "noexec"):
        setup = hidden.replace("OPTION", option)
        done = shell(f'{setup} "$PYTHON" -c "{script}"', mounts=True)
        assert done.returncode == 0, done.stderr
        assert float(done.stdout) == 2 * batch.sum()
    done = shell(f"{hidden.replace('OPTION', 'exec')} ./m --input x.npy", mounts=True)
    assert done.returncode == 0, done.stderr
    done = shell(f"{hidden.replace('OPTION', 'exec')} ./m --input x.npy --output y", mounts=True)
    assert done.returncode == 2
    assert "Read-only" in done.stderr


@pytest.mark.parametrize("mask", ["000", "077"])
def test_umask_decides_who_may_read(shell: Run, kept: str, tmp_path: Path, mask: str) -> None:
    done = shell(f"umask {mask}; {COMPILE} -o m.so; {COMPILE} -o m.a", TENSMITH_CACHE_DIR=kept)
    assert done.returncode == 0, done.stderr
    hidden = int(mask, 8)
    assert (tmp_path / "m.so").stat().st_mode & 0o777 == 0o777 & ~hidden
    assert (tmp_path / "m.a").stat().st_mode & 0o777 == 0o666 & ~hidden


@pytest.mark.parametrize("limit", ["-f 8", "-n 12"])
def test_limits_are_told(shell: Run, kept: str, limit: str) -> None:
    done = shell(f"ulimit {limit}; {COMPILE} -o m.so", TENSMITH_CACHE_DIR=kept)
    assert done.returncode == 2, done.stderr
    assert "ulimit" in done.stderr
    assert "report" not in done.stderr


NAMES = ("a b,c $HOME #1", "-ü 100%", "quo\"te'\nbreak", "$ORIGIN \udcff")


@pytest.mark.parametrize("name", NAMES)
def test_names_of_any_kind(shell: Run, tmp_path: Path, name: str) -> None:
    folder = tmp_path / f"in {name}"
    folder.mkdir()
    shutil.copy(tmp_path / "double.onnx", folder / f"{name}.onnx")
    (tmp_path / "use.py").write_text(
        "import os, sys, tensmith\n"
        "name = sys.argv[1]\n"
        "artifact = tensmith.compile(name + '.onnx', target='x86-64-v3')\n"
        "for suffix, emit in (('.so', 'so'), ('.a', 'lib'), ('', 'exe')):\n"
        "    artifact.save(name + suffix, emit)\n"
        "print(tensmith.load(name + '.so').name)\n"
    )
    done = shell('cd "$FOLDER"; "$PYTHON" ../use.py "$NAME"', FOLDER=str(folder), NAME=name)
    assert done.returncode == 0, done.stderr


def test_long_names(shell: Run, kept: str, tmp_path: Path) -> None:
    name = "m" * 252
    done = shell(f"{COMPILE} -o {name}.so && {COMPILE} -o {name}x.a", TENSMITH_CACHE_DIR=kept)
    assert done.returncode == 0, done.stderr
    done = shell(f"{COMPILE} -o {name}xyz.so", TENSMITH_CACHE_DIR=kept)
    assert done.returncode == 2
    assert "name too long" in done.stderr


def test_a_folder_that_has_gone(shell: Run, kept: str) -> None:
    gone = "mkdir gone; cd gone; rmdir ../gone;"
    done = shell(f"{gone} $T compile double.onnx", TENSMITH_CACHE_DIR=kept)
    assert done.returncode == 2
    assert "report" not in done.stderr
    done = shell(f"{gone} {COMPILE} -o $OLDPWD/m.so", TENSMITH_CACHE_DIR=kept)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("locale", ["C", "tr_TR.UTF-8"])
def test_locales(shell: Run, kept: str, tmp_path: Path, locale: str) -> None:
    model = onnx.load(tmp_path / "double.onnx")
    model.graph.input[0].name = "entrée"
    model.graph.node[0].input[:] = ["entrée", "entrée"]
    onnx.save(model, tmp_path / "modèle.onnx")
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = shell(
        "$T compile modèle.onnx --target x86-64-v3 --no-verify --emit asm -o ü.s && "
        "$T compile modèle.onnx --target x86-64-v3 --no-verify -o ü.a && $T inspect modèle.onnx",
        TENSMITH_CACHE_DIR=kept,
        LC_ALL=locale,
        **(plain if locale == "C" else {}),
    )
    assert done.returncode == 0, done.stderr


def test_processes_that_begin_together_and_one_that_is_ended(shell: Run, kept: str) -> None:
    """Both find an empty cache of the runtime, as does one that was ended while it filled it."""
    done = shell(
        f"{COMPILE} -o a.so >/dev/null & one=$!; {COMPILE} -o b.so >/dev/null & two=$!;"
        f"{COMPILE} -o c.so >/dev/null & three=$!; sleep 1; kill -9 $three;"
        f"wait $one && wait $two && {COMPILE} -o d.so",
        TENSMITH_CACHE_DIR=kept,
    )
    assert done.returncode == 0, done.stderr
