"""What agents own: flexible load, a generator, storage and PV; what it may do, what it costs, what it is left with.

All injections are positive: load put off, generation, discharge. Costs are strictly convex in each resource, so that
every price has one answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from peergrid.envs.devices import demand, storage
from peergrid.envs.devices.storage import Storage


@dataclass(frozen=True, eq=False, kw_only=True)
class Resources:
    """Every agent's resources; an entry of zero is a resource that the agent does not have.

    Per hour, shifting x costs `shift_per_kw2h x^2`, generating g costs `generator_b g + generator_a g^2`, and storage
    power s costs `wear |s| + storage_per_kw2h s^2`. PV is fed in as it comes.
    """

    peak_kw: Float[np.ndarray, " agent"]
    shiftable_share: Float[np.ndarray, " agent"]
    shift_per_kw2h: Float[np.ndarray, " agent"]
    generator_max_kw: Float[np.ndarray, " agent"]
    generator_a_per_kw2h: Float[np.ndarray, " agent"]
    generator_b_per_kwh: Float[np.ndarray, " agent"]
    storage_max_kw: Float[np.ndarray, " agent"]
    storage_max_kwh: Float[np.ndarray, " agent"]
    charge_efficiency: Float[np.ndarray, " agent"]
    discharge_efficiency: Float[np.ndarray, " agent"]
    wear_per_kwh: Float[np.ndarray, " agent"]
    storage_per_kw2h: Float[np.ndarray, " agent"]
    pv_peak_kw: Float[np.ndarray, " agent"]

    @property
    def rating_kw(self) -> Float[np.ndarray, " agent"]:
        """More than an agent ever injects or draws."""
        flexible = self.shiftable_share * self.peak_kw + self.generator_max_kw + self.storage_max_kw
        return self.peak_kw + flexible + self.pv_peak_kw

    @cached_property
    def storage(self) -> Storage:
        """Their storage alone."""
        return Storage(
            rating_kw=self.storage_max_kw,
            energy_min_kwh=np.zeros_like(self.storage_max_kwh),
            energy_max_kwh=self.storage_max_kwh,
            charge_efficiency=self.charge_efficiency,
            discharge_efficiency=self.discharge_efficiency,
            wear_per_kwh=self.wear_per_kwh,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class SetPoints:
    """What agents do with their resources in an interval, or over several."""

    shift_kw: Float[np.ndarray, "*batch agent"]
    generator_kw: Float[np.ndarray, "*batch agent"]
    storage_kw: Float[np.ndarray, "*batch agent"]

    @property
    def total_kw(self) -> Float[np.ndarray, "*batch agent"]:
        total: Float[np.ndarray, "*batch agent"] = self.shift_kw + self.generator_kw + self.storage_kw
        return total


def operating_cost(resources: Resources, chosen: SetPoints) -> Float[np.ndarray, "*batch agent"]:
    """What the resources cost each agent, in currency per hour."""
    r, g, s = resources, chosen.generator_kw, chosen.storage_kw
    shifting = demand.shift_cost(r.shift_per_kw2h, chosen.shift_kw)
    # `generator.cost` term by term, which rounds otherwise: money of published runs is the same to the last bit.
    generating = r.generator_b_per_kwh * g + r.generator_a_per_kw2h * g**2
    cost: Float[np.ndarray, "*batch agent"] = (
        shifting + generating + storage.wear(r.storage, s) + r.storage_per_kw2h * s**2
    )
    return cost


def store(
    resources: Resources, stored_kwh: Float[np.ndarray, "*batch agent"], storage_kw: np.ndarray, step_hours: float
) -> Float[np.ndarray, "*batch agent"]:
    """Energy in storage after an interval, within what it holds."""
    own = resources.storage
    return storage.store(own, stored_kwh, storage_kw, own.energy_min_kwh, own.energy_max_kwh, step_hours)


def storage_range(
    resources: Resources,
    stored_kwh: Float[np.ndarray, "batch agent"],
    least_kwh: Float[np.ndarray, "batch agent"],
    most_kwh: Float[np.ndarray, "batch agent"],
    step_hours: float,
) -> tuple[Float[np.ndarray, "batch agent"], Float[np.ndarray, "batch agent"]]:
    """The least and the most storage power with which the interval ends between two energies."""
    own, rating_kw = resources.storage, resources.storage_max_kw
    # Adding zero takes the sign from a zero, which would be seen as such.
    return (
        storage.power_to_reach(own, stored_kwh, most_kwh, -rating_kw, rating_kw, step_hours) + 0.0,
        storage.power_to_reach(own, stored_kwh, least_kwh, -rating_kw, rating_kw, step_hours) + 0.0,
    )


def storage_window(
    resources: Resources, initial_kwh: Float[np.ndarray, " agent"], intervals: int, step_hours: float
) -> tuple[Float[np.ndarray, "boundary agent"], Float[np.ndarray, "boundary agent"]]:
    """The least and the most energy at each boundary between intervals from which the day can end as it began."""
    hours_left = step_hours * np.arange(intervals, -1, -1)[:, None]
    chargeable_kwh = hours_left * resources.charge_efficiency * resources.storage_max_kw
    drainable_kwh = hours_left * resources.storage_max_kw / resources.discharge_efficiency
    return storage.window(resources.storage, initial_kwh, chargeable_kwh, drainable_kwh)


def carried(
    chosen: SetPoints, pv_kw: Float[np.ndarray, "batch agent"], accepted_kw: Float[np.ndarray, "batch agent"]
) -> tuple[SetPoints, Float[np.ndarray, "batch agent"]]:
    """What is left of set-points, and of PV, of which the DSO accepts less.

    An injection is cut at the generator first, then at PV, discharge, and load put off; a withdrawal at charging first,
    then at load brought forward.
    """
    cut_kw = chosen.total_kw + pv_kw - accepted_kw
    generator, cut_kw = _cut(chosen.generator_kw, cut_kw)
    pv, cut_kw = _cut(pv_kw, cut_kw)
    storage, cut_kw = _cut(chosen.storage_kw, cut_kw)
    shift, _ = _cut(chosen.shift_kw, cut_kw)
    return SetPoints(shift_kw=shift, generator_kw=generator, storage_kw=storage), pv


def _cut(power_kw: np.ndarray, cut_kw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A power brought nearer to zero by at most what is to be cut, and what is left to cut elsewhere."""
    here = np.clip(cut_kw, np.minimum(power_kw, 0.0), np.maximum(power_kw, 0.0))
    return power_kw - here, cut_kw - here
