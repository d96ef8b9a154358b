"""Energy and carbon of servers by a model: where no counter can be read, which is in every virtual
machine."""

from __future__ import annotations

from .estimate import Estimate, Provenance, combined

# Watts of a vCPU that idles and that works, of a GiB of memory, and of the building for one watt of
# the machine: Cloud Carbon Footprint, AwsFootprintEstimationConstants.ts (2024), averages of AWS.
IDLE_WATTS, BUSY_WATTS, GIB_WATTS, BUILDING = 0.74, 3.5, 0.392, 1.135
UNSURE = 0.5  # share by which the model is off, either way
JOULES_OF_A_KWH = 3.6e6


def server_power(vcpus: float, memory_gib: float, utilisation: float) -> Estimate:
    """Watts of a part of a server, building included: linear in the share of the time it works."""
    own = vcpus * (IDLE_WATTS + (BUSY_WATTS - IDLE_WATTS) * utilisation) + memory_gib * GIB_WATTS
    watts = own * BUILDING
    bounds = (watts * (1 - UNSURE), watts * (1 + UNSURE))
    method = "watts linear in utilisation, averages of a cloud, +-50 %"
    return Estimate(watts, "W", Provenance.MODELLED, method, bounds)


def carbon_of(energy: Estimate, intensity: Estimate) -> Estimate:
    """Grams of CO2 for an energy in J. intensity: in g/kWh."""
    return combined(lambda j, g: j / JOULES_OF_A_KWH * g, (energy, intensity), "g", "energy x grid")
