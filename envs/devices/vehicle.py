"""Electric vehicle: it arrives, leaves, and must have its energy by then.

While it is here, its charger draws up to its rating, and gives as much where `vehicle_to_grid` is set:

    E' = E + (eta_c charge - discharge / eta_d) dt,     E_min <= E <= E_max

A day brings one stay: when it arrives and leaves, and with which energy it arrives, are drawn. By the time that it
leaves it must hold `needed_share` of its battery, or what can be charged until then if that is less; limits on the
power see to it, so that the last intervals of a stay may leave no choice. If nobody decides, it charges at full power
from its arrival on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from peergrid.envs.common.entries import Entry
from peergrid.envs.common.profiles import DayShape
from peergrid.envs.devices.device import Course, Device


@dataclass(frozen=True, kw_only=True)
class Vehicle(Device):
    """A vehicle and its charger; hours are those of the day, shares those of its battery."""

    charger_kw: float = 11.0
    vehicle_to_grid: bool = False
    battery_kwh: float = 60.0
    least_share: float = 0.1
    charge_efficiency: float = 0.93
    discharge_efficiency: float = 0.93
    wear: float = 0.01
    """Per kWh that is charged or discharged."""
    arrives_hour: float = 17.5
    arrives_std_hours: float = 1.0
    leaves_hour: float = 23.0
    leaves_std_hours: float = 0.5
    arrival_share: float = 0.5
    arrival_std: float = 0.1
    needed_share: float = 0.8

    level_name: ClassVar[str] = "energy"
    level_unit: ClassVar[str] = "kWh"
    level_suffix: ClassVar[str] = "kwh"
    told: ClassVar[tuple[Entry, ...]] = (
        Entry(name="is here", unit="0 or 1", low=0.0, high=1.0),
        Entry(name="time until it arrives", unit="share of a day", low=0.0, high=1.0),
        Entry(name="time until it leaves", unit="share of a day", low=0.0, high=1.0),
        Entry(name="energy that it must leave with", unit="share of its battery", low=0.0, high=1.0),
    )

    @property
    def draws_kw(self) -> float:
        return self.charger_kw

    @property
    def gives_kw(self) -> float:
        return self.charger_kw if self.vehicle_to_grid else 0.0

    @property
    def wear_per_kwh(self) -> float:
        return self.wear

    @property
    def span(self) -> tuple[float, float]:
        return self.least_share * self.battery_kwh, self.battery_kwh

    def faults(self) -> list[str]:
        faults = []
        for name in ("charge_efficiency", "discharge_efficiency"):
            if not 0 < getattr(self, name) <= 1:
                faults.append(f"{name} is not in (0, 1]")
        for name in ("least_share", "arrival_share", "needed_share"):
            if getattr(self, name) > 1:
                faults.append(f"{name} is above 1")
        if self.battery_kwh <= 0:
            faults.append("battery_kwh is not positive")
        if not self.arrives_hour < self.leaves_hour <= 24:
            faults.append("it must leave after it arrives, and on the same day: arrives_hour < leaves_hour <= 24")
        return faults

    def scaled(self, scale: float) -> Vehicle:
        return replace(self, charger_kw=scale * self.charger_kw, battery_kwh=scale * self.battery_kwh)

    def draw(self, shape: DayShape, rng: np.random.Generator) -> tuple[Course, Course]:
        """Its owner knows when it will come and go: forecast and day are the same."""
        n, per_day, hours = shape.intervals, shape.intervals_per_day, shape.step_hours
        least_kwh, most_kwh = self.span
        per_drawn = self.charge_efficiency * hours
        is_here, arrives_with, needs = np.zeros(n), np.full(n, np.nan), np.full(n, np.nan)
        until_it_comes, until_it_goes = np.zeros(n), np.zeros(n)
        window_kwh, start_kwh = np.full(n, -np.inf), least_kwh
        for begins in range(0, n, per_day):
            noise = rng.standard_normal(3)
            comes, goes = self._stay(noise, per_day, hours, first=1 if begins else 0)
            kwh = float(np.clip(self.arrival_share + self.arrival_std * noise[2], self.least_share, 1.0)) * most_kwh
            full_kwh = kwh + per_drawn * self.charger_kw * (goes - comes)
            needed_kwh = max(min(self.needed_share * most_kwh, full_kwh), least_kwh)
            if begins == 0:
                start_kwh = kwh
            for t in range(begins, min(begins + per_day, n)):
                k = t - begins
                until_it_comes[t], until_it_goes[t] = max(comes - k, 0) / per_day, max(goes - k, 0) / per_day
                needs[t] = needed_kwh / most_kwh if k < goes else 0.0
                if comes <= k < goes:
                    is_here[t] = 1.0
                    window_kwh[t] = max(needed_kwh - per_drawn * self.charger_kw * (goes - 1 - k), least_kwh)
            arrives_with[min(begins + comes, n - 1)] = kwh
        jumps = np.zeros(n, dtype=bool)
        jumps[:-1] = np.isfinite(arrives_with[1:]) & (is_here[1:] > 0)
        drift = np.where(jumps, np.append(arrives_with[1:], 0.0), 0.0)
        here: Float[np.ndarray, " time"] = is_here
        course = Course(
            keep=np.where(jumps, 0.0, 1.0),
            drift=np.where(jumps, drift, 0.0),
            per_drawn=per_drawn * here,
            per_given=hours / self.discharge_efficiency * here,
            least_kw=-self.draws_kw * here,
            most_kw=self.gives_kw * here,
            least_level=window_kwh,
            most_level=np.where(here > 0, most_kwh, np.inf),
            low_level=np.full(n, -np.inf),
            high_level=np.full(n, np.inf),
            aim_level=np.full(n, most_kwh),
            told=np.stack([here, until_it_comes, until_it_goes, needs], axis=-1),
            start_level=np.array(start_kwh),
        )
        return course, course

    def _stay(self, noise: Float[np.ndarray, "3"], per_day: int, hours: float, first: int) -> tuple[int, int]:
        """The interval of a day with which it arrives, and that with which it is gone."""
        comes = round((self.arrives_hour + self.arrives_std_hours * noise[0]) / hours)
        comes = min(max(comes, first), per_day - 1)
        goes = round((self.leaves_hour + self.leaves_std_hours * noise[1]) / hours)
        return comes, min(max(goes, comes + 1), per_day)
