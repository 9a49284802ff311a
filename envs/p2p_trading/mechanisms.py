"""Who trades with whom: mechanisms turn offers into contracts that balance.

Whatever the mechanism, a contract is never larger than its offer, nor of the other direction. All but `direct` respect
limit prices: nobody sells below or buys above their own. The order in which agents are listed plays no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

# The same quantities summed in another order differ by rounding: below this share of the volume, nothing is traded.
_ROUNDING = 1e-13


@dataclass(frozen=True, eq=False, kw_only=True)
class Offers:
    """What each agent offers: a quantity, positive to sell, and the least price to sell or the highest to buy at."""

    quantity_kw: Float[np.ndarray, "*batch agent"]
    limit_price_per_kwh: Float[np.ndarray, "*batch agent"]
    lmp_per_kwh: Float[np.ndarray, "*batch"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Contracts:
    """What each agent sells (positive) or buys, and its price; quantities sum to zero, and so does price x quantity."""

    quantity_kw: Float[np.ndarray, "*batch agent"]
    price_per_kwh: Float[np.ndarray, "*batch agent"]


@runtime_checkable
class Mechanism(Protocol):
    """Anything that clears offers into contracts."""

    def __call__(self, offers: Offers) -> Contracts: ...


def call_auction(offers: Offers) -> Contracts:
    """One price for everybody, at which the largest volume is traded.

    Low asks and high bids go first; those at the last price served share what is left pro rata. The price lies between
    accepted asks and accepted bids such that nobody left unserved would rather trade at it: the midpoint of all such
    prices is taken. Where nothing is traded it is the LMP.
    """
    sold_kw, bought_kw = _sides(offers.quantity_kw)
    limit = offers.limit_price_per_kwh
    before_ask_kw, at_ask_kw = _merit_order(sold_kw, limit)
    before_bid_kw, at_bid_kw = _merit_order(bought_kw, -limit)
    # Supply rises at asks only and demand falls after bids only, so that some limit price attains the largest volume.
    supply_kw, demand_kw = before_ask_kw + at_ask_kw, before_bid_kw + at_bid_kw
    volume_kw = np.minimum(supply_kw, demand_kw).max(axis=-1, keepdims=True)

    sold_share = _served_share(before_ask_kw, at_ask_kw, volume_kw)
    bought_share = _served_share(before_bid_kw, at_bid_kw, volume_kw)
    above = ((sold_kw > 0) & (sold_share > 0)) | ((bought_kw > 0) & (bought_share < 1))
    below = ((bought_kw > 0) & (bought_share > 0)) | ((sold_kw > 0) & (sold_share < 1))
    trades, lmp = volume_kw > 0, offers.lmp_per_kwh[..., None]
    lowest = np.where(trades, limit.max(axis=-1, keepdims=True, where=above, initial=-np.inf), lmp)
    highest = np.where(trades, limit.min(axis=-1, keepdims=True, where=below, initial=np.inf), lmp)
    return Contracts(
        quantity_kw=_longer_side_pro_rata(sold_share * sold_kw - bought_share * bought_kw),
        price_per_kwh=np.broadcast_to((lowest + highest) / 2, limit.shape),
    )


def mid_market_rate(offers: Offers) -> Contracts:
    """Everybody whose limit price accepts the LMP, the middle of the market, trades at it; the longer side pro rata.

    Source: Long et al., IEEE PES General Meeting, 2017, with the LMP between the prices of buying from and selling to
    the grid.
    """
    quantity_kw, limit, lmp = offers.quantity_kw, offers.limit_price_per_kwh, offers.lmp_per_kwh[..., None]
    accepts = np.where(quantity_kw > 0, limit <= lmp, limit >= lmp)
    return Contracts(
        quantity_kw=_longer_side_pro_rata(np.where(accepts, quantity_kw, 0.0)),
        price_per_kwh=_lmp_for_everybody(offers),
    )


def bilateral(offers: Offers) -> Contracts:
    """Pairs: the cheapest seller with the highest bidder, then the next, each halfway between the two limit prices.

    Agents with equal limit prices stand in line together, each with its share. It ends where the ask is above the bid.
    An agent's price is the mean over its pairs, by quantity; the LMP if it has none.
    """
    sold_kw, bought_kw = _sides(offers.quantity_kw)
    limit = offers.limit_price_per_kwh
    before_ask_kw, at_ask_kw = _merit_order(sold_kw, limit)
    before_bid_kw, at_bid_kw = _merit_order(bought_kw, -limit)
    # Sellers stand along one line and buyers along another; those side by side are pairs. [seller, buyer]
    starts_kw = np.maximum(before_ask_kw[..., :, None], before_bid_kw[..., None, :])
    ends_kw = np.minimum((before_ask_kw + at_ask_kw)[..., :, None], (before_bid_kw + at_bid_kw)[..., None, :])
    overlap_kw = ends_kw - starts_kw
    traded = (overlap_kw > _ROUNDING * ends_kw) & (limit[..., :, None] <= limit[..., None, :])
    share = _ratio(sold_kw, at_ask_kw)[..., :, None] * _ratio(bought_kw, at_bid_kw)[..., None, :]
    pair_kw = np.where(traded, overlap_kw * share, 0.0)
    paid = pair_kw * (limit[..., :, None] + limit[..., None, :]) / 2

    sells_kw, buys_kw = pair_kw.sum(axis=-1), pair_kw.sum(axis=-2)
    # A mean may miss its smallest member by rounding; a limit price must not be missed.
    sells_at = np.maximum(_ratio(paid.sum(axis=-1), sells_kw), limit)
    buys_at = np.minimum(_ratio(paid.sum(axis=-2), buys_kw), limit)
    idle_at = _lmp_for_everybody(offers)
    return Contracts(
        quantity_kw=np.minimum(sells_kw, sold_kw) - np.minimum(buys_kw, bought_kw),
        price_per_kwh=np.where(sells_kw > 0, sells_at, np.where(buys_kw > 0, buys_at, idle_at)),
    )


def direct(offers: Offers) -> Contracts:
    """Planned quantities stand as they are, at the LMP; the longer side goes pro rata. Limit prices are ignored."""
    return Contracts(
        quantity_kw=_longer_side_pro_rata(offers.quantity_kw),
        price_per_kwh=_lmp_for_everybody(offers),
    )


def _sides(
    quantity_kw: Float[np.ndarray, "*batch agent"],
) -> tuple[Float[np.ndarray, "*batch agent"], Float[np.ndarray, "*batch agent"]]:
    """What is sold and what is bought, neither negative."""
    return np.maximum(quantity_kw, 0.0), np.maximum(-quantity_kw, 0.0)


def _merit_order(
    quantity_kw: Float[np.ndarray, "*batch agent"], rank: Float[np.ndarray, "*batch agent"]
) -> tuple[Float[np.ndarray, "*batch agent"], Float[np.ndarray, "*batch agent"]]:
    """For every agent, the quantity ranked before it, and the quantity of its own rank, itself included."""
    own, others, quantity = rank[..., :, None], rank[..., None, :], quantity_kw[..., None, :]
    return np.where(others < own, quantity, 0.0).sum(axis=-1), np.where(others == own, quantity, 0.0).sum(axis=-1)


def _served_share(
    before_kw: Float[np.ndarray, "*batch agent"],
    at_rank_kw: Float[np.ndarray, "*batch agent"],
    volume_kw: Float[np.ndarray, "*batch 1"],
) -> Float[np.ndarray, "*batch agent"]:
    """Share of every rank that is served when the volume is handed out in order of rank."""
    rounding_kw = _ROUNDING * volume_kw
    is_full = before_kw + at_rank_kw <= volume_kw + rounding_kw
    is_empty = volume_kw <= before_kw + rounding_kw
    return np.where(is_full, 1.0, np.where(is_empty, 0.0, np.clip(_ratio(volume_kw - before_kw, at_rank_kw), 0.0, 1.0)))


def _longer_side_pro_rata(quantity_kw: Float[np.ndarray, "*batch agent"]) -> Float[np.ndarray, "*batch agent"]:
    """The quantities, those on the longer side scaled down until both sides are equal."""
    sold_kw, bought_kw = _sides(quantity_kw)
    supply_kw, demand_kw = sold_kw.sum(axis=-1, keepdims=True), bought_kw.sum(axis=-1, keepdims=True)
    volume_kw = np.minimum(supply_kw, demand_kw)
    balanced_kw: Float[np.ndarray, "*batch agent"] = sold_kw * _ratio(volume_kw, supply_kw) - bought_kw * _ratio(
        volume_kw, demand_kw
    )
    return balanced_kw


def _lmp_for_everybody(offers: Offers) -> Float[np.ndarray, "*batch agent"]:
    return np.broadcast_to(offers.lmp_per_kwh[..., None], offers.quantity_kw.shape)


def _ratio(part: Float[np.ndarray, "*batch n"], whole: Float[np.ndarray, "*batch n"]) -> Float[np.ndarray, "*batch n"]:
    """part / whole, and 0 where the whole is 0."""
    ratio: Float[np.ndarray, "*batch n"] = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return ratio
