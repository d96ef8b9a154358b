"""Tuning of kernels on CPUs: what can be tuned, in which ways, and how it is measured."""

from __future__ import annotations

from ....compiler.backend import Tuning
from ....compiler.target import CpuTarget
from .measurer import machine_cpu, measurer_cpu
from .tunable import open_cpu

TUNING: Tuning[CpuTarget] = Tuning(open=open_cpu, measurer=measurer_cpu, machine=machine_cpu)
