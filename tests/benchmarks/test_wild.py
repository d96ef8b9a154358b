"""The sweep over exported models: its own output holds its own lines only."""

from __future__ import annotations

import ctypes
import os
import sys

import pytest

from tensmith.benchmarks import wild


def _print_everywhere(text: str) -> None:
    """Through Python, through C's buffers, and past both."""
    print(text)
    print(text, file=sys.stderr)
    ctypes.CDLL(None).printf(b"%s\n", text.encode())
    for descriptor in (1, 2):
        os.write(descriptor, text.encode())


def test_exporters_print_nothing_into_the_sweep(capfd: pytest.CaptureFixture[str]) -> None:
    def export() -> None:
        _print_everywhere("noise")
        raise ValueError("no such operator")

    _print_everywhere("before")
    assert wild._quietly(export) == (None, "ValueError: no such operator")
    _print_everywhere("after")
    ctypes.CDLL(None).fflush(None)
    for printed in capfd.readouterr():
        assert printed.count("before") == printed.count("after") >= 2
        assert "noise" not in printed
