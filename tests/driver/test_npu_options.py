"""Options of Vela's words: what target they make."""

from __future__ import annotations

import pytest

from tensmith.compiler.backend import resolve_target
from tensmith.compiler.errors import UsageError
from tensmith.compiler.target import NpuTarget
from tensmith.driver.npu_options import on_npu

pytest.importorskip("ethosu", reason="names of memories are Vela's: pip install '.[ethosu]'")


def test_words_become_settings_of_the_target() -> None:
    text = on_npu("ethos-u55-64", "Ethos_U55_Deep_Embedded", "Sram_Only", "Size")
    target = resolve_target(text)[1]
    assert isinstance(target, NpuTarget)
    assert (target.system_config, target.memory_mode) == ("Ethos_U55_Deep_Embedded", "Sram_Only")
    assert (target.optimise, target.macs) == ("Size", 64)


@pytest.mark.parametrize("target", ["native", "ethos-u65-256", "cortex-m55"])
def test_nothing_given_changes_nothing(target: str) -> None:
    assert on_npu(target, "", "", "") == target


@pytest.mark.parametrize("target", ["x86-64-v3", "cuda:sm_80", "cortex-m55"])
def test_other_targets_have_no_such_memory(target: str) -> None:
    with pytest.raises(UsageError, match="has no memory that memory-mode"):
        on_npu(target, "", "Sram_Only", "")
