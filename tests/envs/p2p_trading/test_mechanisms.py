from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peergrid.envs import p2p_trading_v0
from peergrid.envs.p2p_trading.mechanisms import (
    Contracts,
    Mechanism,
    Offers,
    bilateral,
    call_auction,
    clear,
    direct,
    mid_market_rate,
)
from peergrid.grid.errors import InvalidContracts

MECHANISMS = [call_auction, mid_market_rate, bilateral, direct]
RESPECT_LIMITS = [call_auction, mid_market_rate, bilateral]
LMP = 0.1

every_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda m: m.__name__)


def offers(quantity, limit, lmp=LMP):
    quantity = np.asarray(quantity, float)
    return Offers(
        quantity_kw=quantity,
        limit_price_per_kwh=np.asarray(limit, float),
        lmp_per_kwh=np.broadcast_to(np.asarray(lmp, float), quantity.shape[:-1]),
    )


def random_offers(seed, rows=200, agents=6, whole_cents=True):
    """Few distinct prices and sizes, so that ties, exact fits and idle agents are common; or none of them."""
    rng = np.random.default_rng(seed)
    if whole_cents:
        quantity, limit = rng.integers(-4, 5, (rows, agents)) * 0.1, rng.integers(7, 14, (rows, agents)) / 100
    else:
        quantity, limit = rng.normal(0, 30, (rows, agents)), rng.uniform(0.07, 0.13, (rows, agents))
    return offers(quantity, limit)


@st.composite
def tables(draw):
    """One table of offers; prices are drawn from few, so that they often tie."""
    n = draw(st.integers(1, 7))
    size = st.one_of(st.just(0.0), st.floats(1e-6, 1e4), st.floats(-1e4, -1e-6), st.sampled_from([0.1, 0.2, 0.3, -0.3]))
    limit = st.one_of(st.sampled_from([0.08, 0.09, LMP, 0.11]), st.floats(-0.5, 0.5))
    return offers([draw(size) for _ in range(n)], [draw(limit) for _ in range(n)])


def assert_sound(o, c, limits_hold):
    q, p = c.quantity_kw, c.price_per_kwh
    volume = np.abs(q).sum(axis=-1)
    assert np.all(np.abs(q.sum(axis=-1)) <= 1e-12 * volume)
    assert np.all(np.abs((p * q).sum(axis=-1)) <= 1e-12 * volume * np.abs(p).max(axis=-1))
    assert np.all(np.abs(q) <= np.abs(o.quantity_kw))
    assert np.all(q * o.quantity_kw >= 0)
    if limits_hold:
        assert np.all(p[q > 0] >= o.limit_price_per_kwh[q > 0])
        assert np.all(p[q < 0] <= o.limit_price_per_kwh[q < 0])
    idle = volume == 0
    np.testing.assert_array_equal(p[idle], np.broadcast_to(o.lmp_per_kwh[..., None], p.shape)[idle])


def largest_volume(o):
    """The most that can be sold at any one price, row by row and price by price."""
    volumes = []
    for quantity, limit in zip(o.quantity_kw, o.limit_price_per_kwh, strict=True):
        at = []
        for price in limit:
            supply = sum(q for q, ask in zip(quantity, limit, strict=True) if q > 0 and ask <= price)
            demand = sum(-q for q, bid in zip(quantity, limit, strict=True) if q < 0 and bid >= price)
            at.append(min(supply, demand))
        volumes.append(max(at))
    return np.array(volumes)


def test_the_call_auction_matches_the_hand_calculation():
    # Bids 5 at .12 and 5 at .10 meet asks 4 at .08 and 4 at .09 (and 4 at .11): 8 kWh, so the second bid gets 3 of 5.
    # It is not fully accepted: the price is not below .10; nor above it, as it is accepted.
    c = call_auction(offers([4, 4, 4, -5, -5], [0.08, 0.09, 0.11, 0.12, 0.10]))
    np.testing.assert_allclose(c.quantity_kw, [4, 4, 0, -5, -3])
    np.testing.assert_allclose(c.price_per_kwh, 0.10)


def test_the_call_auction_takes_the_middle_of_the_prices_that_nobody_objects_to():
    # Accepted asks up to .08, accepted bids from .12; the bid left over is at .09 and the ask left over at .11.
    c = call_auction(offers([3, 5, -3, -5], [0.08, 0.11, 0.12, 0.09]))
    np.testing.assert_allclose(c.quantity_kw, [3, 0, -3, 0])
    np.testing.assert_allclose(c.price_per_kwh, 0.10)
    c = call_auction(offers([3, -3], [0.07, 0.12]))
    np.testing.assert_allclose(c.price_per_kwh, 0.095)


def test_the_call_auction_does_not_mind_rounding():
    # 0.1 + 0.2 is not 0.3: were the last ask held to be cut, it alone would set the price.
    for quantity in ([0.1, 0.2, -0.3], [-0.1, -0.2, 0.3]):
        sells = quantity[-1] < 0
        c = call_auction(offers(quantity, [0.08, 0.09, 0.12] if sells else [0.12, 0.11, 0.08]))
        np.testing.assert_allclose(c.price_per_kwh, (0.09 + 0.12) / 2 if sells else (0.11 + 0.08) / 2)


def test_the_call_auction_gives_all_the_same_at_the_last_price_but_nobody_more_than_offered():
    c = call_auction(offers([2, 3, 6, -5], [0.08, 0.09, 0.09, 0.12]))
    np.testing.assert_allclose(c.quantity_kw, [2, 1.5, 1.5, -5])
    np.testing.assert_allclose(c.price_per_kwh, 0.09)
    c = call_auction(offers([2, 1, 6, 5, -7], [0.08, 0.09, 0.09, 0.09, 0.12]))
    np.testing.assert_allclose(c.quantity_kw, [2, 1, 2, 2, -7])
    np.testing.assert_allclose(c.price_per_kwh, 0.09)


def test_the_mid_market_rate_matches_the_hand_calculation():
    # At the LMP of .10, the ask of .11 and the bid of .09 drop out; 6 kW are sold to bids of 6 and 2 kW.
    c = mid_market_rate(offers([2, 4, 9, -6, -2, -9], [0.08, 0.10, 0.11, 0.12, 0.10, 0.09]))
    np.testing.assert_allclose(c.quantity_kw, [2, 4, 0, -4, -2, 0])
    np.testing.assert_allclose(c.price_per_kwh, LMP)


def test_bilateral_trades_match_the_hand_calculation():
    # In line: 3 kW at .12 and .08, then 1 kW at .10 and .08, then 2 kW at .10 and .09; the ask of .11 finds no bid.
    c = bilateral(offers([4, 2, 5, -3, -4], [0.08, 0.09, 0.11, 0.12, 0.10]))
    np.testing.assert_allclose(c.quantity_kw, [4, 2, 0, -3, -3])
    seller, buyer = (3 * 0.10 + 1 * 0.09) / 4, (1 * 0.09 + 2 * 0.095) / 3
    np.testing.assert_allclose(c.price_per_kwh, [seller, 0.095, LMP, 0.10, buyer])


def test_bilateral_trades_ration_equal_limit_prices_alike():
    c = bilateral(offers([1, 3, -2, -1], [0.08, 0.08, 0.12, 0.10]))
    np.testing.assert_allclose(c.quantity_kw, [1, 2, -2, -1])
    np.testing.assert_allclose(c.price_per_kwh, [(2 * 0.10 + 1 * 0.09) / 3] * 2 + [0.10, 0.09])


def test_direct_contracts_ignore_limit_prices():
    c = direct(offers([3, 1, -2], [0.5, 0.5, -0.5]))
    np.testing.assert_allclose(c.quantity_kw, [1, 1, -2])
    np.testing.assert_allclose(c.price_per_kwh, LMP)
    balanced = [3.0, 0.1, -2.0, -1.1]
    np.testing.assert_array_equal(direct(offers(balanced, [0] * 4)).quantity_kw, balanced)


@every_mechanism
def test_every_mechanism_fits_the_protocol(mechanism):
    assert isinstance(mechanism, Mechanism)


@every_mechanism
@pytest.mark.parametrize("quantity", [[3, 2, 0], [-3, -2, 0], [0, 0, 0], [5, 0, 0]])
def test_without_a_partner_nothing_is_traded_and_the_price_is_the_lmp(mechanism, quantity):
    c = mechanism(offers(quantity, [0.08, 0.12, 0.1]))
    np.testing.assert_array_equal(c.quantity_kw, 0.0)
    np.testing.assert_array_equal(c.price_per_kwh, LMP)


@pytest.mark.parametrize("mechanism", [call_auction, bilateral])
def test_asks_above_all_bids_find_no_partner(mechanism):
    c = mechanism(offers([3, -3], [0.12, 0.08]))
    np.testing.assert_array_equal(c.quantity_kw, 0.0)
    np.testing.assert_array_equal(c.price_per_kwh, LMP)


@every_mechanism
@pytest.mark.parametrize("whole_cents", [True, False])
def test_contracts_balance_and_respect_offers_and_limits(mechanism, whole_cents):
    for agents in (2, 6, 25):
        o = random_offers(0, agents=agents, whole_cents=whole_cents)
        assert_sound(o, mechanism(o), mechanism in RESPECT_LIMITS)


@every_mechanism
@settings(max_examples=60, deadline=None)
@given(o=tables())
def test_contracts_of_any_table_balance_and_respect_offers_and_limits(mechanism, o):
    assert_sound(o, mechanism(o), mechanism in RESPECT_LIMITS)


@pytest.mark.parametrize("mechanism", [call_auction, bilateral])
@pytest.mark.parametrize("whole_cents", [True, False])
def test_auction_and_pairs_trade_the_largest_volume(mechanism, whole_cents):
    o = random_offers(1, whole_cents=whole_cents)
    volume = np.maximum(mechanism(o).quantity_kw, 0).sum(axis=-1)
    np.testing.assert_allclose(volume, largest_volume(o), rtol=1e-11)


def test_nobody_left_unserved_would_rather_trade_at_the_price_of_the_auction():
    o = random_offers(2, rows=1000)
    c = call_auction(o)
    q, limit, price = o.quantity_kw, o.limit_price_per_kwh, c.price_per_kwh
    short = (np.abs(c.quantity_kw) < np.abs(q) * (1 - 1e-9)) & (np.abs(c.quantity_kw).sum(axis=-1, keepdims=True) > 0)
    assert np.all(limit[short & (q > 0)] >= price[short & (q > 0)])
    assert np.all(limit[short & (q < 0)] <= price[short & (q < 0)])


@every_mechanism
def test_offering_more_than_one_gets_wins_nothing_of_what_others_get(mechanism):
    # Nobody gets more by offering more, once it gets less than it offers. (Prices may move: theirs is another matter.)
    o = random_offers(3, rows=500)
    before = mechanism(o).quantity_kw
    rationed = np.abs(before) < np.abs(o.quantity_kw) - 1e-6
    for agent in range(o.quantity_kw.shape[1]):
        more = o.quantity_kw.copy()
        more[:, agent] *= 3.0
        after = mechanism(replace(o, quantity_kw=more)).quantity_kw
        rows = rationed[:, agent] & (o.quantity_kw[:, agent] != 0)
        assert rows.sum() > 5
        np.testing.assert_allclose(after[rows, agent], before[rows, agent], rtol=0, atol=1e-9)


@every_mechanism
@settings(max_examples=40, deadline=None)
@given(o=tables(), data=st.data())
def test_relabelled_agents_get_relabelled_contracts(mechanism, o, data):
    order = data.draw(st.permutations(range(o.quantity_kw.size)))
    c, relabelled = mechanism(o), mechanism(offers(o.quantity_kw[order], o.limit_price_per_kwh[order]))
    volume = np.abs(c.quantity_kw).sum()
    np.testing.assert_allclose(relabelled.quantity_kw, c.quantity_kw[order], rtol=0, atol=1e-12 * volume)
    # The price of a trade that is no more than rounding means nothing.
    traded = np.abs(c.quantity_kw[order]) > 1e-9 * volume
    np.testing.assert_allclose(relabelled.price_per_kwh[traded], c.price_per_kwh[order][traded], rtol=1e-9, atol=1e-12)


@every_mechanism
@settings(max_examples=25, deadline=None)
@given(o=tables(), factor=st.sampled_from([1e-3, 7.0, 1e3]))
def test_contracts_scale_with_offers(mechanism, o, factor):
    c, scaled = mechanism(o), mechanism(offers(o.quantity_kw * factor, o.limit_price_per_kwh))
    volume = np.abs(c.quantity_kw).sum()
    np.testing.assert_allclose(scaled.quantity_kw / factor, c.quantity_kw, rtol=0, atol=1e-12 * volume)


@every_mechanism
def test_a_batch_equals_one_by_one(mechanism):
    o = random_offers(4, rows=24)
    lmp = np.linspace(0.08, 0.12, 24)
    together = mechanism(offers(o.quantity_kw, o.limit_price_per_kwh, lmp))
    cube = mechanism(offers(o.quantity_kw.reshape(4, 6, 6), o.limit_price_per_kwh.reshape(4, 6, 6), lmp.reshape(4, 6)))
    np.testing.assert_array_equal(cube.quantity_kw.reshape(24, 6), together.quantity_kw)
    for i in range(24):
        alone = mechanism(offers(o.quantity_kw[i], o.limit_price_per_kwh[i], lmp[i]))
        np.testing.assert_array_equal(alone.quantity_kw, together.quantity_kw[i])
        np.testing.assert_array_equal(alone.price_per_kwh, together.price_per_kwh[i])


@every_mechanism
@pytest.mark.parametrize("whole_cents", [True, False])
def test_contracts_of_the_shipped_mechanisms_pass_the_check(mechanism, whole_cents):
    o = random_offers(3, whole_cents=whole_cents)
    np.testing.assert_array_equal(clear(mechanism, o, 0.03).quantity_kw, mechanism(o).quantity_kw)


@pytest.mark.parametrize(
    ("quantity", "price", "fault"),
    [
        ([10, -8, 0], LMP, "quantities do not sum to zero"),
        ([10, -10, 0], [0.1, 0.12, 0.1], "payments do not sum to zero"),
        ([40, -40, 0], LMP, "somebody trades more than it offered"),
        ([-10, 10, 0], LMP, "in the other direction"),
        ([10, -20, 10], LMP, "in the other direction"),
        ([10, -10, 0], 0.2, "a price is further from the LMP than the half-spread"),
        ([10, -10, 0], np.nan, "numbers are not finite"),
    ],
)
def test_contracts_that_the_settlement_cannot_count_on_are_refused(quantity, price, fault):
    def careless(offers):
        rows = np.zeros((2, 3)), np.full((2, 3), LMP)
        rows[0][1], rows[1][1] = quantity, price
        return Contracts(quantity_kw=rows[0], price_per_kwh=rows[1])

    with pytest.raises(InvalidContracts, match=rf"'careless': .*{fault}.*, in 1 of 2 markets"):
        clear(careless, offers(np.tile([30.0, -30.0, 0.0], (2, 1)), np.full((2, 3), LMP)), 0.03)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (np.zeros(4), "returned ndarray, not Contracts"),
        (Contracts(quantity_kw=np.zeros((1, 3)), price_per_kwh=np.zeros((1, 3))), r"shape \(1, 3\) and \(1, 3\), not"),
    ],
)
def test_a_mechanism_that_returns_something_else_is_named(returned, told):
    env = p2p_trading_v0.parallel_env(mechanism=lambda offers: returned, max_cycles=1)
    env.reset(seed=0)
    with pytest.raises(InvalidContracts, match=told):
        env.step({agent: np.zeros(4, np.float32) for agent in env.agents})
