"""Heat pump: it heats a thermal mass, whose owner wants it within a comfort band.

    T' = T_out + (T - T_out) keep + R (1 - keep) COP p,      keep = exp(-dt / (R C)),     0 <= p <= rating

R is the thermal resistance to the outside and C the capacity of what is heated. The COP falls with the temperature
outside, between 1 and `most_cop`. The day's mean temperature outside and the noise around its daily wave are drawn; the
forecast is the wave without the noise. An hour that ends a kelvin outside the band costs `comfort_per_kelvin_hour`. If
nobody decides, a thermostat holds the lower end of the band.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from peergrid.envs.common.entries import Entry
from peergrid.envs.common.profiles import DayShape
from peergrid.envs.devices.device import Course, Device

RATED_AT_DEGC = 7.0  # where heat pumps are rated (EN 14511)
WARMEST_HOUR = 15.0
SEEN_UNIT_DEGC = 20.0


@dataclass(frozen=True, kw_only=True)
class HeatPump(Device):
    """A heat pump and what it heats; temperatures in degrees Celsius, power in kW of electricity."""

    rating_kw: float = 4.0
    cop: float = 3.5
    """At 7 degrees outside."""
    cop_per_kelvin: float = 0.06
    most_cop: float = 6.0
    resistance_k_per_kw: float = 3.0
    capacity_kwh_per_k: float = 5.0
    low_degc: float = 20.0
    high_degc: float = 23.0
    start_degc: float = 21.0
    comfort_per_kelvin_hour: float = 1.0
    outdoor_degc: float = 2.0
    outdoor_std: float = 3.0
    """Of the day's mean."""
    outdoor_swing: float = 4.0
    """From the mean to the warmest hour."""
    outdoor_noise_std: float = 0.7
    outdoor_hourly_correlation: float = 0.8

    level_name: ClassVar[str] = "temperature"
    level_unit: ClassVar[str] = "degC"
    level_suffix: ClassVar[str] = "degc"
    told: ClassVar[tuple[Entry, ...]] = (
        Entry(name="temperature outside now", unit="20 degC", low=-3.0, high=3.0),
        Entry(name="temperature outside expected in 4 hours", unit="20 degC", low=-3.0, high=3.0),
        Entry(name="temperature outside expected in 8 hours", unit="20 degC", low=-3.0, high=3.0),
    )
    may_be_negative: ClassVar[tuple[str, ...]] = ("low_degc", "high_degc", "start_degc", "outdoor_degc")

    @property
    def draws_kw(self) -> float:
        return self.rating_kw

    @property
    def outside_per_hour(self) -> float:
        return self.comfort_per_kelvin_hour

    @property
    def span(self) -> tuple[float, float]:
        wide = self.high_degc - self.low_degc
        return self.low_degc - wide, self.high_degc + wide

    def faults(self) -> list[str]:
        faults = [
            f"{name} is not positive"
            for name in ("cop", "most_cop", "resistance_k_per_kw", "capacity_kwh_per_k")
            if getattr(self, name) <= 0
        ]
        if not self.low_degc < self.high_degc:
            faults.append("low_degc is not below high_degc")
        if self.outdoor_hourly_correlation >= 1:
            faults.append("outdoor_hourly_correlation is not below 1")
        return faults

    def scaled(self, scale: float) -> HeatPump:
        return replace(
            self,
            rating_kw=scale * self.rating_kw,
            resistance_k_per_kw=self.resistance_k_per_kw / scale,
            capacity_kwh_per_k=scale * self.capacity_kwh_per_k,
            comfort_per_kelvin_hour=scale * self.comfort_per_kelvin_hour,
        )

    def draw(self, shape: DayShape, rng: np.random.Generator) -> tuple[Course, Course]:
        """The temperature outside is known in the interval that begins, and by forecast beyond it."""
        n, hours = shape.intervals, shape.step_hours
        mean_degc = self.outdoor_degc + self.outdoor_std * rng.standard_normal()
        white = rng.standard_normal(n)
        correlation = self.outdoor_hourly_correlation**hours
        noise = np.zeros(n)
        for t in range(n):
            noise[t] = white[t] if t == 0 else correlation * noise[t - 1] + np.sqrt(1 - correlation**2) * white[t]
        time = (np.arange(n) + 0.5) * hours
        wave = np.cos(2 * np.pi * (time - WARMEST_HOUR) / 24)
        expected_degc = mean_degc + self.outdoor_swing * wave
        actual_degc = expected_degc + self.outdoor_noise_std * noise
        later = [np.minimum(np.arange(n) + round(ahead / hours), n - 1) for ahead in (4, 8)]
        told = np.stack([actual_degc, *(expected_degc[t] for t in later)], axis=-1) / SEEN_UNIT_DEGC
        return self._course(actual_degc, told, hours), self._course(expected_degc, told, hours)

    def _course(
        self, outdoor_degc: Float[np.ndarray, " time"], told: Float[np.ndarray, "time figure"], hours: float
    ) -> Course:
        keep = float(np.exp(-hours / (self.resistance_k_per_kw * self.capacity_kwh_per_k)))
        cop = (self.cop + self.cop_per_kelvin * (outdoor_degc - RATED_AT_DEGC)).clip(1.0, self.most_cop)
        same = np.ones_like(outdoor_degc)
        return Course(
            keep=keep * same,
            drift=(1.0 - keep) * outdoor_degc,
            per_drawn=self.resistance_k_per_kw * (1.0 - keep) * cop,
            per_given=0.0 * same,
            least_kw=-self.rating_kw * same,
            most_kw=0.0 * same,
            least_level=-np.inf * same,
            most_level=np.inf * same,
            low_level=self.low_degc * same,
            high_level=self.high_degc * same,
            aim_level=self.low_degc * same,
            told=told,
            start_level=np.array(self.start_degc),
        )
