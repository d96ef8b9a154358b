"""Programs around models whose plans are C."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cplans import MANIFEST, make_model

from tensmith.backends.common.link import link


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("programs")
    made: dict[str, Path] = {}

    def get(kind: str, arch: str = "x86_64") -> Path:
        name = f"{kind}_{arch}"
        if name not in made:
            model = make_model(kind, folder, arch=arch)
            made[name] = link(model, "exe", folder / name, MANIFEST)[0]
        return made[name]

    return get


@pytest.fixture
def run(programs, tmp_path):
    def call(kind: str, *arguments: object, code: int = 0) -> str:
        result = subprocess.run(
            [programs(kind), *map(str, arguments)], cwd=tmp_path, capture_output=True, text=True
        )
        assert result.returncode == code, result.stderr
        return result.stdout if code == 0 else result.stderr

    return call
