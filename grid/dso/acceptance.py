"""How much of a proposal the operator accepts where the nodal price is known, and what counts as curtailed."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

CURTAILED_SHARE = 0.01  # of a microgrid's rating; less is the solver's rounding


def is_curtailed(
    proposed_kw: Float[np.ndarray, "*batch trade"],
    accepted_kw: Float[np.ndarray, "*batch trade"],
    rating_kw: Float[np.ndarray, "*#batch trade"],
) -> Bool[np.ndarray, "*batch trade"]:
    """Whether a proposal counts as curtailed: more of it than `CURTAILED_SHARE` of the rating is not accepted."""
    return np.asarray(np.abs(proposed_kw - accepted_kw) > CURTAILED_SHARE * rating_kw)


def accepted_at_price(
    proposed_kw: Any,
    price_per_kwh: Any,
    lmp_per_kwh: Any,
    *,
    kappa_per_kwh: float,
    lambda_corr_per_kw2h: Any,
    energy_at_lmp: float = 1.0,
) -> Any:
    """What is accepted of each trade, in kW, where its bus has this price; `Penalty` says what the coefficients are.

    Of a trade t that is neither wholly accepted nor wholly rejected, the amount a is accepted at which curtailing one
    more kW costs the operator as much as it saves the network. With s the sign of t, and energy_at_lmp 1 or 0:

        kappa + 2 lambda_corr (|t| - |a|) = s (energy_at_lmp LMP - price)

    Solved for a and kept between 0 and t, this is the optimality condition of the operator's problem. It needs
    lambda_corr > 0: without it, a price at which a trade is cut does not say by how much.

    Args:
        proposed_kw: Arrays of NumPy, or tensors of torch, which then have gradients.
    """
    sign = np.sign(proposed_kw) if isinstance(proposed_kw, np.ndarray) else proposed_kw.sign()
    short = sign * (energy_at_lmp * lmp_per_kwh - price_per_kwh) - kappa_per_kwh
    cut = (short / (2.0 * lambda_corr_per_kw2h)).clip(0.0)
    return sign * (abs(proposed_kw) - cut).clip(0.0)
