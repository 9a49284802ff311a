"""How the DSO moves the signal at the substation so that the exchange follows its schedule.

Every rule moves it up where more is imported than was scheduled; bounds around its base are kept by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

Move = tuple[Float[np.ndarray, " batch"], Float[np.ndarray, " batch"]]


class SignalBase(StrEnum):
    """The price at the substation from which an hour's root signal starts; steps and bounds are shares of it."""

    DAY_AHEAD = "day_ahead"
    """The LMP at which the schedule was bought, as in the paper: agents who answer it do what they planned."""
    REAL_TIME = "real_time"
    """The LMP of the day itself."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Standing:
    """Where an hour stands after an answer.

    Attributes:
        base_per_kwh: The price from which the signal started.
        gap_share: What is imported beyond the schedule, as a share of it; that of the iteration before is 0 in the
            first of an hour.
        step_share: The step to take now, as a share of the base.
        gain: Of rules in proportion to the gap, without unit: a gap of x of the schedule moves the signal by `gain` x
            of the base.
    """

    root_per_kwh: Float[np.ndarray, " batch"]
    base_per_kwh: Float[np.ndarray, " batch"]
    gap_share: Float[np.ndarray, " batch"]
    last_gap_share: Float[np.ndarray, " batch"]
    step_share: Float[np.ndarray, " batch"]
    gain: float


@runtime_checkable
class Rule(Protocol):
    """Where the root signal moves, before it is kept within its bounds, and the step to take after that."""

    def __call__(self, hour: Standing) -> Move: ...


def fixed(hour: Standing) -> Move:
    """The paper's rule: `psi_0 + alpha base sign(gap)` with the same alpha always. It may cycle around the schedule."""
    return _stepped(hour, hour.step_share)


def halving(hour: Standing) -> Move:
    """`fixed`, with alpha halved whenever the gap changes its sign: it closes in on the schedule."""
    changes = hour.gap_share * hour.last_gap_share < 0
    return _stepped(hour, np.where(changes, 0.5 * hour.step_share, hour.step_share))


def proportional(hour: Standing) -> Move:
    """`psi_0 + gain base (P_RT - P_Sch) / |P_Sch|`, after the paper's equation 11: fewer iterations."""
    return hour.root_per_kwh + hour.gain * hour.base_per_kwh * hour.gap_share, hour.step_share


def none(hour: Standing) -> Move:
    """The signal stays at its base: no transactive control."""
    return hour.root_per_kwh, hour.step_share


def _stepped(hour: Standing, step_share: Float[np.ndarray, " batch"]) -> Move:
    return hour.root_per_kwh + step_share * hour.base_per_kwh * np.sign(hour.gap_share), step_share
