"""Tuning of contractions on GPUs: their tiles, vetted by their code, timed where a GPU is."""

from __future__ import annotations

from ....compiler.backend import Tuning
from ....compiler.target import GpuTarget
from .measurers import machine_gpu, measurer_gpu, oracle_of
from .tunable import open_gpu

TUNING: Tuning[GpuTarget] = Tuning(
    open=open_gpu, measurer=measurer_gpu, machine=machine_gpu, oracle=oracle_of
)
