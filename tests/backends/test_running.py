"""What runs on this machine by itself, and what runs the rest."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tensmith.backends.common import running
from tensmith.compiler.backend import Emulator, backend_of, backends, resolve_target
from tensmith.compiler.errors import UsageError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An x86 machine."""
    monkeypatch.setattr(running.platform, "machine", lambda: "x86_64")


@pytest.mark.usefixtures("machine")
def test_own_architecture_needs_no_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.shutil, "which", lambda name: f"somewhere/{name}")
    for name in ("x86-64-v3", "x86-64-v4"):
        backend, target = resolve_target(name)
        assert backend.runs_here(target) is None
        assert backend.emulator(target) is None


@pytest.mark.usefixtures("machine")
def test_another_architecture_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, target = resolve_target("aarch64")
    assert backend.runs_here(target) == "it is for aarch64-unknown-linux-gnu, this is x86_64"
    monkeypatch.setattr(running.shutil, "which", lambda name: f"somewhere/{name}")
    assert backend.emulator(target) == Emulator(("somewhere/qemu-aarch64",))
    monkeypatch.setattr(running.shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match="cannot run code for aarch64") as caught:
        backend.emulator(target)
    assert "no qemu-aarch64" in caught.value.why


def test_backends_by_name() -> None:
    assert {"x86", "arm", "reference"} <= set(backends())
    assert all(backend_of(name) is backend for name, backend in backends().items())
    with pytest.raises(UsageError, match="no backend 'abacus'"):
        backend_of("abacus")


def test_backends_are_loaded_as_far_as_the_target() -> None:
    """Processes that compile for processors take no time to import what is for devices."""
    script = (
        "import sys; from tensmith.compiler.backend import resolve_target;"
        "resolve_target('x86-64-v3');"
        "print(*(n for n in sys.modules if n.startswith('tensmith.backends.')))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    loaded = {name.split(".")[2] for name in found.stdout.decode().split()}
    assert "x86" in loaded
    assert not loaded & {"arm", "cuda", "ethosu"}


def test_what_is_no_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from tensmith.compiler import backend as registry

    point = registry.metadata.EntryPoint("odd", "pathlib:Path", "tensmith.backends")
    monkeypatch.setitem(registry.BUILTIN, "odd", point)
    with pytest.raises(UsageError, match="odd' is not a Backend"):
        backend_of("odd")
