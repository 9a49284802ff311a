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

    Low asks and high bids go first; those at the last price served are rationed. The price lies between
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

    served_sale_kw = _equally(sold_kw, limit, _left_for_rank(before_ask_kw, at_ask_kw, volume_kw))
    served_purchase_kw = _equally(bought_kw, limit, _left_for_rank(before_bid_kw, at_bid_kw, volume_kw))
    rounding_kw = _ROUNDING * volume_kw
    above = (served_sale_kw > rounding_kw) | (bought_kw - served_purchase_kw > rounding_kw)
    below = (served_purchase_kw > rounding_kw) | (sold_kw - served_sale_kw > rounding_kw)
    trades, lmp = volume_kw > 0, offers.lmp_per_kwh[..., None]
    lowest = np.where(trades, limit.max(axis=-1, keepdims=True, where=above, initial=-np.inf), lmp)
    highest = np.where(trades, limit.min(axis=-1, keepdims=True, where=below, initial=np.inf), lmp)
    return Contracts(
        quantity_kw=_balanced(served_sale_kw - served_purchase_kw),
        price_per_kwh=np.broadcast_to((lowest + highest) / 2, limit.shape),
    )


def mid_market_rate(offers: Offers) -> Contracts:
    """Everybody whose limit price accepts the LMP, the middle of the market, trades at it; the longer side is rationed.

    Source: Long et al., IEEE PES General Meeting, 2017, with the LMP between the prices of buying from and selling to
    the grid.
    """
    quantity_kw, limit, lmp = offers.quantity_kw, offers.limit_price_per_kwh, offers.lmp_per_kwh[..., None]
    accepts = np.where(quantity_kw > 0, limit <= lmp, limit >= lmp)
    return Contracts(
        quantity_kw=_balanced(np.where(accepts, quantity_kw, 0.0)),
        price_per_kwh=_lmp_for_everybody(offers),
    )


def bilateral(offers: Offers) -> Contracts:
    """Pairs: the cheapest seller with the highest bidder, then the next, each halfway between the two limit prices.

    Agents with equal limit prices stand in line together, rationed like any others. It ends where the ask is above the
    bid.
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
    met_kw = np.where(traded, overlap_kw, 0.0)
    ask_met_kw = (met_kw * _ratio(bought_kw, at_bid_kw)[..., None, :]).sum(axis=-1)
    bid_met_kw = (met_kw * _ratio(sold_kw, at_ask_kw)[..., :, None]).sum(axis=-2)
    ask_share = _ratio(_equally(sold_kw, limit, ask_met_kw), ask_met_kw)
    bid_share = _ratio(_equally(bought_kw, limit, bid_met_kw), bid_met_kw)
    pair_kw = met_kw * ask_share[..., :, None] * bid_share[..., None, :]
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
    """Planned quantities stand as they are, at the LMP; the longer side is rationed. Limit prices are ignored."""
    return Contracts(
        quantity_kw=_balanced(offers.quantity_kw),
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


def _left_for_rank(
    before_kw: Float[np.ndarray, "*batch agent"],
    at_rank_kw: Float[np.ndarray, "*batch agent"],
    volume_kw: Float[np.ndarray, "*batch 1"],
) -> Float[np.ndarray, "*batch agent"]:
    """What is left for each rank when the volume is handed out in order of rank."""
    rounding_kw = _ROUNDING * volume_kw
    left_kw = (volume_kw - before_kw).clip(0.0, at_rank_kw)
    left_kw = np.where(left_kw <= rounding_kw, 0.0, left_kw)
    return np.where(at_rank_kw - left_kw <= rounding_kw, at_rank_kw, left_kw)


def _equally(
    quantity_kw: Float[np.ndarray, "*batch agent"],
    rank: Float[np.ndarray, "*batch agent"],
    left_kw: Float[np.ndarray, "*batch agent"],
) -> Float[np.ndarray, "*batch agent"]:
    """What each gets of what is left for its rank: the same for all, but nobody more than it offers.

    Under this rule asking for more than one wants never helps; it would if the rank were shared pro rata. Source:
    Sprumont, Econometrica 59(2), 1991.
    """
    same = rank[..., :, None] == rank[..., None, :]
    each, others = quantity_kw[..., :, None], quantity_kw[..., None, :]
    # The sum of min(quantity, level) over a rank is concave in the level: its tangents at every quantity, and at zero,
    # reach what is left at or before it does, and one of them reaches it where it does.
    handed_kw = np.where(same, np.minimum(each, others), 0.0).sum(axis=-1)
    larger = (same & (others > each)).sum(axis=-1)
    positive = (same & (others > 0)).sum(axis=-1)
    missing_kw = left_kw - handed_kw
    at_each = np.where(
        larger > 0, quantity_kw + missing_kw / np.maximum(larger, 1), np.where(missing_kw >= 0, np.inf, 0)
    )
    at_zero = left_kw / np.maximum(positive, 1)
    level_kw = np.maximum(np.where(same, at_each[..., None, :], -np.inf).max(axis=-1), at_zero)
    return np.minimum(quantity_kw, level_kw)


def _balanced(quantity_kw: Float[np.ndarray, "*batch agent"]) -> Float[np.ndarray, "*batch agent"]:
    """The quantities, the longer side rationed until both sides are equal."""
    sold_kw, bought_kw = _sides(quantity_kw)
    supply_kw, demand_kw = sold_kw.sum(axis=-1, keepdims=True), bought_kw.sum(axis=-1, keepdims=True)
    volume_kw = np.minimum(supply_kw, demand_kw)
    together, left_kw = np.zeros_like(quantity_kw), np.broadcast_to(volume_kw, quantity_kw.shape)

    def rationed(side_kw: Float[np.ndarray, "*batch agent"]) -> Float[np.ndarray, "*batch agent"]:
        served_kw = _equally(side_kw, together, left_kw)
        # The sum may miss the volume by rounding.
        return np.minimum(served_kw * _ratio(volume_kw, served_kw.sum(axis=-1, keepdims=True)), side_kw)

    return rationed(sold_kw) - rationed(bought_kw)


def _lmp_for_everybody(offers: Offers) -> Float[np.ndarray, "*batch agent"]:
    return np.broadcast_to(offers.lmp_per_kwh[..., None], offers.quantity_kw.shape)


def _ratio(part: Float[np.ndarray, "*batch n"], whole: Float[np.ndarray, "*batch n"]) -> Float[np.ndarray, "*batch n"]:
    """part / whole, and 0 where the whole is 0."""
    ratio: Float[np.ndarray, "*batch n"] = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return ratio
