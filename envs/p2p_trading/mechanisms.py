"""Who trades with whom: offers are cleared into balanced contracts.

What is sold sums to what is bought, and nobody trades more than it offers. Except for `direct`, sellers never get less
than their limit price and buyers never pay more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from peergrid.grid.compiled import compiled, inlined
from peergrid.grid.errors import InvalidContracts, raise_faults

# The same quantities summed in another order differ by rounding: below this share of the volume, nothing is traded.
_ROUNDING = 1e-13

_Row = Float[np.ndarray, " agent"]
_Rows = Float[np.ndarray, "row agent"]
_Lmp = Float[np.ndarray, " row"]


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


def clear(mechanism: Mechanism, offers: Offers, half_spread_per_kwh: float) -> Contracts:
    """What a mechanism makes of offers, once it is sure that the settlement can count on it.

    Raises:
        InvalidContracts: They are not balanced, trade what was not offered, or lie outside the LMP plus or minus the
            half-spread; every fault is named.
    """
    contracts = mechanism(offers)
    if not isinstance(contracts, Contracts):
        raise InvalidContracts(f"the mechanism {_name(mechanism)} returned {type(contracts).__name__}, not Contracts")
    offered, sold, price = offers.quantity_kw, contracts.quantity_kw, contracts.price_per_kwh
    if sold.shape != offered.shape or price.shape != offered.shape:
        told = f"{sold.shape} and {price.shape}, not {offered.shape}"
        raise InvalidContracts(f"the mechanism {_name(mechanism)} returned quantities and prices of shape {told}")
    slack_kw = 1e-9 + 1e-9 * np.abs(offered).sum(axis=-1)
    within_kw = sold * np.sign(offered)
    off = np.abs(price - offers.lmp_per_kwh[..., None]) - half_spread_per_kwh
    checks = {
        "numbers are not finite": ~np.isfinite(sold + price).all(axis=-1),
        "quantities do not sum to zero": np.abs(sold.sum(axis=-1)) > slack_kw,
        "payments do not sum to zero": np.abs((sold * price).sum(axis=-1)) > slack_kw,
        "somebody trades more than it offered, or in the other direction": (
            (within_kw > np.abs(offered) + slack_kw[..., None])
            | (within_kw < -slack_kw[..., None])
            | ((offered == 0) & (np.abs(sold) > slack_kw[..., None]))
        ).any(axis=-1),
        "a price is further from the LMP than the half-spread": ((off > 1e-9) & (sold != 0)).any(axis=-1),
    }
    faults = [f"{what}, in {int(bad.sum())} of {bad.size} markets" for what, bad in checks.items() if bad.any()]
    raise_faults(InvalidContracts, f"contracts of the mechanism {_name(mechanism)}", faults)
    return contracts


def _name(mechanism: Mechanism) -> str:
    return repr(getattr(mechanism, "__name__", type(mechanism).__name__))


def pairs_kw(contract_kw: Float[np.ndarray, "*batch agent"]) -> Float[np.ndarray, "*batch agent agent"]:
    """What each row's agent sells to each column's: contracts balance as a whole, so who meets whom is pro rata."""
    sold, bought = np.maximum(contract_kw, 0.0), np.maximum(-contract_kw, 0.0)
    volume = np.maximum(sold.sum(axis=-1), 1e-9)
    return sold[..., :, None] * bought[..., None, :] / volume[..., None, None]


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
    return _row_by_row(_call_auction, offers)


def mid_market_rate(offers: Offers) -> Contracts:
    """Everybody whose limit price accepts the LMP, the middle of the market, trades at it; the longer side is rationed.

    Source: Long et al., IEEE PES General Meeting, 2017, with the LMP between the prices of buying from and selling to
    the grid.
    """
    return _row_by_row(_mid_market_rate, offers)


def bilateral(offers: Offers) -> Contracts:
    """Pairs: the cheapest seller with the highest bidder, then the next, each halfway between the two limit prices.

    Agents with equal limit prices stand in line together, rationed like any others. It ends where the ask is above the
    bid.
    An agent's price is the mean over its pairs, by quantity; the LMP if it has none.
    """
    return _row_by_row(_bilateral, offers)


def direct(offers: Offers) -> Contracts:
    """Planned quantities stand as they are, at the LMP; the longer side is rationed. Limit prices are ignored."""
    return _row_by_row(_direct, offers)


def _row_by_row(clear: Callable[[_Rows, _Rows, _Lmp], tuple[_Rows, _Rows]], offers: Offers) -> Contracts:
    """Contracts from a compiled function of rows: quantities, limit prices and LMPs to quantities and prices."""
    shape = offers.quantity_kw.shape
    quantity_kw = np.array(offers.quantity_kw, dtype=float).reshape(-1, shape[-1])
    limit_price = np.array(offers.limit_price_per_kwh, dtype=float).reshape(-1, shape[-1])
    traded_kw, price = clear(quantity_kw, limit_price, np.array(offers.lmp_per_kwh, dtype=float).reshape(-1))
    return Contracts(quantity_kw=traded_kw.reshape(shape), price_per_kwh=price.reshape(shape))


@compiled
def _call_auction(quantity_kw: _Rows, limit_price: _Rows, lmp: _Lmp) -> tuple[_Rows, _Rows]:
    traded_kw, prices = np.empty_like(quantity_kw), np.empty_like(quantity_kw)
    for row in range(len(lmp)):
        quantity, limit = quantity_kw[row], limit_price[row]
        volume_kw = _largest_volume(quantity, limit)
        sale_kw, purchase_kw = _serve(quantity, limit, volume_kw), _serve(-quantity, -limit, volume_kw)
        lowest, highest, rounding_kw = -np.inf, np.inf, _ROUNDING * volume_kw
        for i, own in enumerate(limit):
            if sale_kw[i] > rounding_kw or -quantity[i] - purchase_kw[i] > rounding_kw:
                lowest = max(lowest, own)
            if purchase_kw[i] > rounding_kw or quantity[i] - sale_kw[i] > rounding_kw:
                highest = min(highest, own)
        traded_kw[row] = _balanced(sale_kw, purchase_kw)
        prices[row] = (lowest + highest) / 2 if volume_kw > 0 else lmp[row]
    return traded_kw, prices


@compiled
def _mid_market_rate(quantity_kw: _Rows, limit_price: _Rows, lmp: _Lmp) -> tuple[_Rows, _Rows]:
    traded_kw, prices = np.empty_like(quantity_kw), np.empty_like(quantity_kw)
    for row in range(len(lmp)):
        accepted_kw = quantity_kw[row].copy()
        for i, own in enumerate(limit_price[row]):
            if own > lmp[row] if accepted_kw[i] > 0 else own < lmp[row]:
                accepted_kw[i] = 0.0
        traded_kw[row], prices[row] = _at_one_price(accepted_kw), lmp[row]
    return traded_kw, prices


@compiled
def _bilateral(quantity_kw: _Rows, limit_price: _Rows, lmp: _Lmp) -> tuple[_Rows, _Rows]:
    traded_kw, prices = np.empty_like(quantity_kw), np.empty_like(quantity_kw)
    for row in range(len(lmp)):
        quantity, limit = quantity_kw[row], limit_price[row]
        volume_kw = _largest_volume(quantity, limit)
        traded_kw[row] = _balanced(_serve(quantity, limit, volume_kw), _serve(-quantity, -limit, volume_kw))
        # Sellers stand along one line and buyers along another; those side by side are pairs.
        ask_starts, ask_ends = _in_line(quantity, limit)
        bid_starts, bid_ends = _in_line(-quantity, -limit)
        met_kw, paid = np.zeros(len(limit)), np.zeros(len(limit))
        for i, ask in enumerate(limit):
            for j, bid in enumerate(limit):
                end_kw = min(ask_ends[i], bid_ends[j])
                pair_kw = end_kw - max(ask_starts[i], bid_starts[j])
                if quantity[i] > 0 > quantity[j] and ask <= bid and pair_kw > _ROUNDING * end_kw:
                    # All with the limit price of i meet all with that of j, each by its share of what these offer.
                    by_i = pair_kw * quantity[i] / (ask_ends[i] - ask_starts[i])
                    by_j = pair_kw * -quantity[j] / (bid_ends[j] - bid_starts[j])
                    for one, other_kw in ((i, by_j), (j, by_i)):
                        met_kw[one] += other_kw
                        paid[one] += other_kw * (ask + bid) / 2
        for i, own in enumerate(limit):
            price = paid[i] / met_kw[i] if met_kw[i] > 0 else lmp[row]
            # A mean may miss its smallest member by rounding; a limit price must not be missed.
            if traded_kw[row, i] > 0:
                price = max(price, own)
            elif traded_kw[row, i] < 0:
                price = min(price, own)
            prices[row, i] = price
    return traded_kw, prices


@compiled
def _direct(quantity_kw: _Rows, limit_price: _Rows, lmp: _Lmp) -> tuple[_Rows, _Rows]:
    traded_kw, prices = np.empty_like(quantity_kw), np.empty_like(quantity_kw)
    for row in range(len(lmp)):
        traded_kw[row], prices[row] = _at_one_price(quantity_kw[row]), lmp[row]
    return traded_kw, prices


@inlined
def _largest_volume(quantity_kw: _Row, limit: _Row) -> float:
    """The most that can be traded at one price: supply rises at asks, demand falls after bids, so at one of these."""
    volume_kw = 0.0
    for price in limit:
        supply_kw = demand_kw = 0.0
        for i, own in enumerate(limit):
            if own <= price:
                supply_kw += max(quantity_kw[i], 0.0)
            if own >= price:
                demand_kw += max(-quantity_kw[i], 0.0)
        volume_kw = max(volume_kw, min(supply_kw, demand_kw))
    return volume_kw


@inlined
def _serve(offered_kw: _Row, rank: _Row, volume_kw: float) -> _Row:
    """What each gets of a volume handed out in order of rank: within a rank the same, but nobody more than it offers.

    Under this rule asking for more than one wants never helps; it would if the rank were shared pro rata. Source:
    Sprumont, Econometrica 59(2), 1991.

    Args:
        offered_kw: Not positive for those on the other side of the market, who get nothing.
    """
    served_kw, is_waiting = np.zeros(len(rank)), offered_kw > 0
    left_kw, rounding_kw = volume_kw, _ROUNDING * volume_kw
    while left_kw > rounding_kw and is_waiting.any():
        # Those who offer little go first: what they leave of an equal share is for the others of their rank.
        first, sharing = -1, 0
        for i, own in enumerate(rank):
            if is_waiting[i] and (first < 0 or (own, offered_kw[i]) < (rank[first], offered_kw[first])):
                first = i
        for i, own in enumerate(rank):
            sharing += int(is_waiting[i] and own == rank[first])
        share_kw = left_kw / sharing
        served_kw[first] = share_kw if share_kw < offered_kw[first] - rounding_kw else offered_kw[first]
        left_kw -= served_kw[first]
        is_waiting[first] = False
    return served_kw


@inlined
def _balanced(sale_kw: _Row, purchase_kw: _Row) -> _Row:
    """What is sold less what is bought: two sums that may differ by rounding, made equal."""
    sold_kw, bought_kw = sale_kw.sum(), purchase_kw.sum()
    volume_kw = min(sold_kw, bought_kw)
    if volume_kw == 0:
        return np.zeros(len(sale_kw))
    return sale_kw * (volume_kw / sold_kw) - purchase_kw * (volume_kw / bought_kw)


@inlined
def _at_one_price(quantity_kw: _Row) -> _Row:
    """What each trades where nobody goes first: the longer side is rationed until both are equal."""
    same_rank = np.zeros(len(quantity_kw))
    volume_kw = _largest_volume(quantity_kw, same_rank)
    return _balanced(_serve(quantity_kw, same_rank, volume_kw), _serve(-quantity_kw, same_rank, volume_kw))


@inlined
def _in_line(offered_kw: _Row, rank: _Row) -> tuple[_Row, _Row]:
    """Where each rank starts and ends when agents stand in line in order of rank."""
    starts_kw, ends_kw = np.zeros(len(rank)), np.zeros(len(rank))
    for i, own in enumerate(rank):
        for j, other in enumerate(rank):
            if offered_kw[j] > 0 and other <= own:
                ends_kw[i] += offered_kw[j]
                starts_kw[i] += offered_kw[j] if other < own else 0.0
    return starts_kw, ends_kw
