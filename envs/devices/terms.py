"""What a convex program over a day needs of storage, and of devices with a level: expressions and constraints."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
from jaxtyping import Float

from peergrid.envs.devices.device import Course, Fleet
from peergrid.envs.devices.storage import Storage

SLACK = 1e-6  # of a level's span, so that the only way through a day is not lost to rounding


def stored_flow(storage: Storage, charge: cp.Expression, discharge: cp.Expression) -> cp.Expression:
    """What flows into storage in each interval less what flows out of it, losses included: eta_c ch - dis / eta_d."""
    n = charge.shape[0]
    into = cp.multiply(np.tile(storage.charge_efficiency, (n, 1)), charge)
    return into - cp.multiply(np.tile(1.0 / storage.discharge_efficiency, (n, 1)), discharge)


class FleetTerms:
    """Variables, constraints and cost of all devices of a kind over a day; powers in p.u. of `unit_kw`.

    Attributes:
        power: What each gives in each interval, negative drawn.
        cost: Of the whole day, as a rate: currency per hour, summed over intervals.
    """

    def __init__(self, fleet: Fleet, intervals: int, unit_kw: float) -> None:
        self.fleet, self.unit_kw = fleet, unit_kw
        self.shape = shape = (intervals, len(fleet.draws_kw))
        self.span = np.maximum(fleet.high - fleet.low, 1e-9)
        self._keep, self._drift = cp.Parameter(shape, nonneg=True), cp.Parameter(shape)
        self._per_drawn, self._per_given = cp.Parameter(shape, nonneg=True), cp.Parameter(shape, nonneg=True)
        self._drawn_most, self._given_most = cp.Parameter(shape, nonneg=True), cp.Parameter(shape, nonneg=True)
        self._least, self._most, self._low, self._high = (cp.Parameter(shape) for _ in range(4))
        drawn, given, outside = (cp.Variable(shape, nonneg=True) for _ in range(3))
        level = cp.Variable(shape)  # in spans
        before = cp.vstack([np.zeros((1, shape[1])), level[:-1]])  # the first is part of the drift
        self.power = given - drawn
        self.constraints = [
            drawn <= self._drawn_most,
            given <= self._given_most,
            level
            == cp.multiply(self._keep, before)
            + self._drift
            + cp.multiply(self._per_drawn, drawn)
            - cp.multiply(self._per_given, given),
            level >= self._least,
            level <= self._most,
            outside >= self._low - level,
            outside >= level - self._high,
        ]
        worn = cp.sum(cp.multiply(self._rows(fleet.wear_per_kwh * unit_kw), drawn + given))
        self.cost = worn + cp.sum(cp.multiply(self._rows(fleet.outside_per_hour * self.span), outside))

    def set(self, course: Course, level: Float[np.ndarray, " agent"], first: int = 0) -> None:
        """Fill in a day; the intervals before the first are over, and the level is that with which it begins."""
        over, u, span = np.arange(self.shape[0])[:, None] < first, self.unit_kw, self.span

        def ahead(values: Float[np.ndarray, "time agent"], otherwise: float) -> Float[np.ndarray, "time agent"]:
            return np.where(over, otherwise, values)

        # What is not bound is bound far away, and a level in its own unit is counted in spans.
        far = np.maximum(np.abs(self.fleet.low), np.abs(self.fleet.high)) + 100 * span
        keep, drift = ahead(course.keep, 1.0), ahead(course.drift, 0.0) / span
        drift[0] += keep[0] * level / span
        self._keep.value, self._drift.value = keep, drift
        self._per_drawn.value = ahead(course.per_drawn, 0.0) * u / span
        self._per_given.value = ahead(course.per_given, 0.0) * u / span
        self._drawn_most.value = ahead(-course.least_kw, 0.0) / u
        self._given_most.value = ahead(course.most_kw, 0.0) / u
        self._least.value = ahead(course.least_level, -np.inf).clip(-far, far) / span - SLACK
        self._most.value = ahead(course.most_level, np.inf).clip(-far, far) / span + SLACK
        self._low.value = ahead(course.low_level, -np.inf).clip(-far, far) / span
        self._high.value = ahead(course.high_level, np.inf).clip(-far, far) / span

    def power_kw(self) -> Any:
        """The powers of the program's solution, [time, agent]."""
        return self.power.value * self.unit_kw

    def _rows(self, values: Float[np.ndarray, " agent"]) -> Float[np.ndarray, "time agent"]:
        return np.tile(values, (self.shape[0], 1))
