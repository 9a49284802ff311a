"""Curves, compiled into those who read them: an export curve as rungs of a ladder, and values at even points.

A rung is a way to export more, which opens between two marginal values of energy.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from peergrid.grid.compiled import inlined

Rung = tuple[float, float, float]
"""Where it opens and where it is exhausted, per kWh, linearly between; its size in kW. Two equal values make a jump."""


@inlined
def taken(rung: Rung, value_per_kwh: float, from_right: bool) -> float:
    """How much of a rung is worth taking at a marginal value, at a jump seen from the left or from the right."""
    opens, exhausted, size_kw = rung
    if opens < exhausted:
        return min(max(value_per_kwh - opens, 0.0), exhausted - opens) / (exhausted - opens) * size_kw
    return size_kw if value_per_kwh > opens or (from_right and value_per_kwh == opens) else 0.0


@inlined
def next_corner(rungs: tuple[Rung, Rung, Rung, Rung], corner: float) -> float:
    """The least value above a corner at which a rung opens or is exhausted."""
    above = np.inf
    for opens, exhausted, _ in rungs:
        for value in (opens, exhausted):
            if corner < value < above:
                above = value
    return above


@inlined
def between(values: Float[np.ndarray, " point"], start: float, end: float, at: float) -> float:
    """Values at points evenly spaced from `start` to `end`, linear between them."""
    if end <= start:
        return values[0]
    place = (at - start) / (end - start) * (len(values) - 1)
    k = min(max(int(place), 0), len(values) - 2)
    share = min(max(place - k, 0.0), 1.0)
    return values[k] + share * (values[k + 1] - values[k])
