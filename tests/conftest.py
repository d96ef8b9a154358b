"""Settings that every test runs under: reproducible examples, one core per test process."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator

import pytest
from hypothesis import settings

from tensmith.compiler.collector import SELDOM, collector_paused
from tensmith.compiler.scratch import writable_cache

# numpy and other libraries read these once, when they are first imported.
for _library in ("OPENBLAS", "MKL", "OMP"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

# Tests that run zig themselves keep its files where Tensmith does: there may be no HOME.
if _kept := writable_cache():
    for _kind in ("GLOBAL", "LOCAL"):
        os.environ.setdefault(f"ZIG_{_kind}_CACHE_DIR", str(_kept / "zig"))

# Verifications say the same whatever is installed; tests that ask other engines set this anew.
os.environ["TENSMITH_SECOND_OPINION"] = "off"

# Nothing depends on how fast this machine is; tests of what times decide bring their own clock.
os.environ["TENSMITH_TIME_PRECISION"] = "off"

settings.register_profile("tensmith", derandomize=True, deadline=None, database=None)
settings.load_profile("tensmith")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Tests that are collected live as long as their process: no search for cycles looks at them.

    Searches are fewer than Python's, as where a user compiles, and more than that code asks for,
    which its own tests need to see (measured: a third of collecting, 5 % of a compilation).
    """
    with collector_paused():
        result = yield
    gc.freeze()
    gc.set_threshold(SELDOM // 2)
    return result


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-goldens", action="store_true", help="write the expected texts anew, then compare"
    )


@pytest.fixture
def update_goldens(request: pytest.FixtureRequest) -> bool:
    """Whether expected texts are to be written anew."""
    return bool(request.config.getoption("--update-goldens"))
