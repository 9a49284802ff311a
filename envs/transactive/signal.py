"""How the DSO moves the signal at the substation so that the exchange follows its schedule.

Every rule moves it up where more is imported than was scheduled; bounds around the LMP are kept by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

# How far the proportional rule moves: a gap of x of the schedule moves the signal by x times this share of the LMP.
GAIN = 0.8
Move = tuple[Float[np.ndarray, " batch"], Float[np.ndarray, " batch"]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Standing:
    """Where an hour stands after an answer.

    Attributes:
        gap_share: What is imported beyond the schedule, as a share of it; that of the iteration before is 0 in the
            first of an hour.
        step_share: The step to take now, as a share of the LMP.
    """

    root_per_kwh: Float[np.ndarray, " batch"]
    lmp_per_kwh: Float[np.ndarray, " batch"]
    gap_share: Float[np.ndarray, " batch"]
    last_gap_share: Float[np.ndarray, " batch"]
    step_share: Float[np.ndarray, " batch"]


@runtime_checkable
class Rule(Protocol):
    """Where the root signal moves, before it is kept within its bounds, and the step to take after that."""

    def __call__(self, hour: Standing) -> Move: ...


def fixed(hour: Standing) -> Move:
    """The paper's rule: `psi_0 + alpha LMP sign(gap)` with the same alpha always. It may cycle around the schedule."""
    return _stepped(hour, hour.step_share)


def halving(hour: Standing) -> Move:
    """`fixed`, with alpha halved whenever the gap changes its sign: it closes in on the schedule."""
    changes = hour.gap_share * hour.last_gap_share < 0
    return _stepped(hour, np.where(changes, 0.5 * hour.step_share, hour.step_share))


def proportional(hour: Standing) -> Move:
    """`psi_0 + GAIN LMP gap / P_Sch`, after the paper's equation 11: fewer iterations."""
    return hour.root_per_kwh + GAIN * hour.lmp_per_kwh * hour.gap_share, hour.step_share


def none(hour: Standing) -> Move:
    """The signal stays at the LMP: no transactive control."""
    return hour.root_per_kwh, hour.step_share


def _stepped(hour: Standing, step_share: Float[np.ndarray, " batch"]) -> Move:
    return hour.root_per_kwh + step_share * hour.lmp_per_kwh * np.sign(hour.gap_share), step_share
