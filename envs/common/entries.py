"""Flat observations whose entries have names, units and ranges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from jaxtyping import Float, Float32

# Prices are seen as multiples of this, so that they are of the order of 1.
PRICE_UNIT_PER_KWH = 0.1
BENT_PRICE = f"asinh of {PRICE_UNIT_PER_KWH:g} currency/kWh"
Bounds = tuple[Float[np.ndarray, " entry"], Float[np.ndarray, " entry"]]


def bent(price_per_kwh: Any) -> Any:
    """A nodal price as it is seen: nearly linear up to `PRICE_UNIT_PER_KWH`, a logarithm beyond.

    Where a limit binds, nodal prices are ten times what they are elsewhere; bent, both are of the order of 1.
    """
    return np.arcsinh(price_per_kwh / PRICE_UNIT_PER_KWH)


def unbent(seen: Any) -> Any:
    """The nodal price per kWh of a bent one: the inverse of `bent`."""
    return PRICE_UNIT_PER_KWH * np.sinh(seen)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of an observation: its name, its unit, and the range to which it is clipped."""

    name: str
    unit: str
    low: float
    high: float


def box(entries: Sequence[Entry]) -> spaces.Box:
    """The float32 `Box` of an observation with these entries."""
    low, high = bounds(entries)
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def bounds(entries: Sequence[Entry]) -> Bounds:
    """Lowest and highest value of every entry."""
    return np.array([e.low for e in entries]), np.array([e.high for e in entries])


def clipped(values: Float[np.ndarray, "... entry"], within: Bounds) -> Float32[np.ndarray, "... entry"]:
    """An observation within the ranges of its entries."""
    return values.clip(*within).astype(np.float32)
