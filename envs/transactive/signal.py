"""How the DSO moves the signal at the substation so that the exchange follows its schedule.

Every rule moves it up where more is imported than was scheduled, and keeps it within bounds around the LMP.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

# How far the proportional rule moves: a gap of x of the schedule moves the signal by x times this share of the LMP.
GAIN = 0.8


@runtime_checkable
class Rule(Protocol):
    """Where the root signal moves, before it is kept within its bounds."""

    def __call__(
        self,
        root_per_kwh: Float[np.ndarray, " batch"],
        lmp_per_kwh: Float[np.ndarray, " batch"],
        gap_share: Float[np.ndarray, " batch"],
        last_gap_share: Float[np.ndarray, " batch"],
        step_share: Float[np.ndarray, " batch"],
    ) -> tuple[Float[np.ndarray, " batch"], Float[np.ndarray, " batch"]]:
        """The next root signal, and the step to take after that.

        Args:
            gap_share: What is imported beyond the schedule, as a share of it; that of the iteration before is 0 in the
                first of an hour.
            step_share: The step to take now, as a share of the LMP.
        """
        ...


def fixed(
    root_per_kwh: Float[np.ndarray, " batch"],
    lmp_per_kwh: Float[np.ndarray, " batch"],
    gap_share: Float[np.ndarray, " batch"],
    last_gap_share: Float[np.ndarray, " batch"],
    step_share: Float[np.ndarray, " batch"],
) -> tuple[Float[np.ndarray, " batch"], Float[np.ndarray, " batch"]]:
    """The paper's rule: `psi_0 + alpha LMP sign(gap)` with the same alpha always. It may cycle around the schedule."""
    return root_per_kwh + step_share * lmp_per_kwh * np.sign(gap_share), step_share


def halving(
    root_per_kwh: Float[np.ndarray, " batch"],
    lmp_per_kwh: Float[np.ndarray, " batch"],
    gap_share: Float[np.ndarray, " batch"],
    last_gap_share: Float[np.ndarray, " batch"],
    step_share: Float[np.ndarray, " batch"],
) -> tuple[Float[np.ndarray, " batch"], Float[np.ndarray, " batch"]]:
    """The same with alpha halved whenever the gap changes its sign: it closes in on the schedule."""
    step_share = np.where(gap_share * last_gap_share < 0, 0.5 * step_share, step_share)
    return root_per_kwh + step_share * lmp_per_kwh * np.sign(gap_share), step_share


def proportional(
    root_per_kwh: Float[np.ndarray, " batch"],
    lmp_per_kwh: Float[np.ndarray, " batch"],
    gap_share: Float[np.ndarray, " batch"],
    last_gap_share: Float[np.ndarray, " batch"],
    step_share: Float[np.ndarray, " batch"],
) -> tuple[Float[np.ndarray, " batch"], Float[np.ndarray, " batch"]]:
    """`psi_0 + GAIN LMP gap / P_Sch`, after the paper's equation 11: fewer iterations."""
    return root_per_kwh + GAIN * lmp_per_kwh * gap_share, step_share


def none(
    root_per_kwh: Float[np.ndarray, " batch"],
    lmp_per_kwh: Float[np.ndarray, " batch"],
    gap_share: Float[np.ndarray, " batch"],
    last_gap_share: Float[np.ndarray, " batch"],
    step_share: Float[np.ndarray, " batch"],
) -> tuple[Float[np.ndarray, " batch"], Float[np.ndarray, " batch"]]:
    """The signal stays at the LMP: no transactive control."""
    return root_per_kwh, step_share
