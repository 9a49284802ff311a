"""Scales of a problem, numbers beyond which something counts as absent, and the price that a start assumes."""

from __future__ import annotations

# Money is divided by this, power by the feeder's base: what a usual injection costs comes out near 1.
TYPICAL_PRICE_PER_KWH = 0.1
LARGEST_RATING_PU = 100.0
NARROWEST_PU = 1e-10
# Of power at the start, in TYPICAL_PRICE_PER_KWH.
FIRST_PRICE = 1.0
