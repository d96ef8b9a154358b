"""What a backend tells of every kernel of a model: how long it takes, and how long it should."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .compilation import KernelInfo
from .kernel.cost.cost import KernelCost
from .kernel.cost.machine import Machine


@dataclass(frozen=True)
class ProfileOptions:
    """What to measure.

    sizes: of the symbolic dims of the inputs. machine: what one core can do; predictions follow
    from it. seconds: of timed calls for each kernel, about. progress: told how far it is.
    """

    sizes: Mapping[str, int]
    machine: Machine
    seconds: float = 0.1
    progress: Callable[[str], None] | None = None


@dataclass(frozen=True)
class KernelProfile:
    """One kernel with one set of sizes, on one core, by itself.

    sizes: of its symbolic dims. calls: of one run; certain: whether every run makes them. cost:
    what is predicted for a call. seconds: median of the measured calls. cost and seconds are None
    where only a run knows the sizes, seconds also where the kernel could not run: `reason` says so.
    """

    kernel: KernelInfo
    sizes: Mapping[str, int]
    calls: int
    certain: bool
    cost: KernelCost | None = None
    seconds: float | None = None
    reason: str = ""

    @property
    def flops_per_second(self) -> float | None:
        """Measured."""
        return self.cost.flops / self.seconds if self.cost and self.seconds else None

    @property
    def roof_share(self) -> float | None:
        """The least time that the bound allows as a share of the measured one; None also for
        kernels that do not count floating-point operations and have them as bound."""
        if not self.cost or not self.seconds or not self.cost.roof_seconds:
            return None
        return self.cost.roof_seconds / self.seconds

    def to_json(self) -> dict[str, Any]:
        """Times in seconds, of one call; names of levels as in the machine's."""
        cost = self.cost
        return {
            "name": self.kernel.name,
            "operators": list(self.kernel.operators),
            "schedule": self.kernel.schedule,
            "sizes": dict(self.sizes),
            "calls": self.calls,
            "every_run": self.certain,
            "seconds": self.seconds,
            "predicted_seconds": cost and cost.seconds,
            "flops": cost and cost.flops,
            "bytes": cost and cost.bytes,
            "traffic_bytes": cost and dict(cost.traffic),
            "bound": cost and cost.bound,
            "roof_seconds": cost and cost.roof_seconds,
            "flops_per_second": self.flops_per_second,
            "roof_share": self.roof_share,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Profile:
    """All kernels in the order of their first calls. functions: of the runtime that the plan calls
    besides, each as often as it stands in the plan; they are not measured. evicted_bytes: of other
    memory that was read before each measured call. live_bytes: of tensors between kernels that are
    alive at each step of the plan; empty where only a run knows. arena_bytes: of the memory that
    they share."""

    kernels: tuple[KernelProfile, ...]
    functions: tuple[str, ...]
    evicted_bytes: int
    live_bytes: tuple[int, ...] = ()
    arena_bytes: int = 0
