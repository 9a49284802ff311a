from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peergrid.envs.common.rows import rows_of
from peergrid.envs.microgrid import (
    Interval,
    Microgrids,
    battery_limits,
    diesel_cost,
    dispatch_to,
    export_at,
    export_band,
    export_range,
    marginal_value,
    store,
    utility,
    wear,
)
from peergrid.grid.errors import InvalidScenario


def microgrids(n=1, **changes):
    """w = 0.8 and, unless changed, a linear diesel of 20 kW at 0.1, a battery of 10 kW and 4 to 20 kWh."""
    values = dict(
        rating_kw=50.0,
        utility_w_per_kwh=0.8,
        diesel_max_kw=20.0,
        diesel_a_per_kw2h=0.0,
        diesel_b_per_kwh=0.1,
        battery_rating_kw=10.0,
        energy_min_kwh=4.0,
        energy_max_kwh=20.0,
        charge_efficiency=0.9,
        discharge_efficiency=0.8,
        wear_per_kwh=0.01,
        unserved_per_kwh=3.0,
        must_serve_share=0.0,
    )
    return Microgrids(**{k: np.broadcast_to(np.asarray(v, float), (n,)) for k, v in (values | changes).items()})


def interval(pv=10.0, demand=30.0, alpha=0.02, battery=0.0):
    arrays = np.broadcast_arrays(*(np.atleast_1d(np.asarray(v, float)) for v in (pv, demand, alpha, battery)))
    return Interval(pv_kw=arrays[0], demand_kw=arrays[1], alpha_per_kw2h=arrays[2], battery_kw=arrays[3])


def random_case(seed, n=40, rows=None):
    """Microgrids of every kind: linear and quadratic diesel, none at all, must-serve load, no demand, no PV."""
    rng = np.random.default_rng(seed)
    shape = (n,) if rows is None else (rows, n)

    def sometimes(chance, value, otherwise):
        return np.where(rng.random(otherwise.shape) < chance, value, otherwise)

    w = rng.uniform(0.3, 1.0, n)
    m = microgrids(
        n,
        utility_w_per_kwh=w,
        unserved_per_kwh=sometimes(0.3, w, rng.uniform(1.0, 3.0, n)),
        diesel_max_kw=sometimes(0.2, 0.0, rng.uniform(5, 50, n)),
        diesel_a_per_kw2h=sometimes(0.3, 0.0, 10 ** rng.uniform(-4, -2, n)),
        diesel_b_per_kwh=sometimes(0.1, 0.0, rng.uniform(0.02, 0.6, n)),
        must_serve_share=sometimes(0.5, 0.0, rng.uniform(0, 1, n)),
    )
    demand = sometimes(0.1, 0.0, rng.uniform(1, 50, shape))
    with np.errstate(divide="ignore"):
        alpha = 0.6 * rng.uniform(0.5, 1.5, shape) / demand
    pv = sometimes(0.3, 0.0, rng.uniform(0, 60, shape))
    now = interval(pv, demand, alpha, 0.0)
    free = np.maximum(w / alpha, m.must_serve_share * demand)
    return m, replace(now, battery_kw=rng.uniform(np.maximum(-10, -pv - m.diesel_max_kw), np.minimum(10, free))), rng


def value(m, now, dispatch):
    return utility(m, now, dispatch.load_kw) - diesel_cost(m, dispatch.diesel_kw)


def best_value(m, now, payment, export_kw=None):
    """Optimum of utility - diesel cost + payment(export) of each microgrid, from a convex solver."""
    n = len(m.rating_kw)
    pv, diesel, must_serve, more = (cp.Variable(n, nonneg=True) for _ in range(4))
    w, alpha = m.utility_w_per_kwh, np.where(np.isfinite(now.alpha_per_kw2h), now.alpha_per_kw2h, 0.0)
    floor, satiation = m.must_serve_share * now.demand_kw, w / now.alpha_per_kw2h
    # Must-serve load is worth more than any other, so that the solver never prefers the second kind.
    x = np.minimum(floor, satiation) + more
    value = (
        cp.multiply(w, x) - cp.multiply(alpha / 2, cp.square(x)) - cp.multiply(m.unserved_per_kwh, floor - must_serve)
    )
    cost = cp.multiply(m.diesel_a_per_kw2h, cp.square(diesel)) + cp.multiply(m.diesel_b_per_kwh, diesel)
    export = pv + diesel + now.battery_kw - must_serve - more
    profit = value - cost + payment(export)
    constraints = [pv <= now.pv_kw, diesel <= m.diesel_max_kw]
    constraints += [must_serve <= floor, more <= np.maximum(satiation - floor, 0)]
    constraints += [] if export_kw is None else [export == export_kw]
    cp.Problem(cp.Maximize(cp.sum(profit)), constraints).solve(solver=cp.CLARABEL)
    return profit.value


def assert_possible(m, now, d):
    for kw, most in [
        (d.pv_kw, now.pv_kw),
        (d.diesel_kw, m.diesel_max_kw),
        (d.load_kw, np.maximum(m.utility_w_per_kwh / now.alpha_per_kw2h, m.must_serve_share * now.demand_kw)),
    ]:
        assert np.all((kw >= 0) & (kw <= most))
    np.testing.assert_array_equal(d.battery_kw, now.battery_kw)
    np.testing.assert_allclose(d.export_kw, d.pv_kw + d.diesel_kw + d.battery_kw - d.load_kw, rtol=0, atol=1e-12)


def test_marginal_value_matches_the_hand_calculation():
    # Free energy: 0.8 / 0.02 = 40 kW of load. PV lifts export to -30 at 0, where load falls by 50 kW per unit of mu;
    # diesel adds 20 kW at 0.1; at 0.8 no load is left.
    m, now = microgrids(9), interval(pv=np.full(9, 10.0))
    export = np.array([-99.0, -35.0, -30.0, -27.5, -15.0, -5.0, 12.5, 30.0, 99.0])
    np.testing.assert_allclose(marginal_value(m, now, export), [0, 0, 0, 0.05, 0.1, 0.1, 0.45, 0.8, 0.8])
    d = dispatch_to(m, now, export)
    np.testing.assert_allclose(d.export_kw, np.clip(export, -40, 30))
    np.testing.assert_allclose(d.pv_kw, [0, 5, 10, 10, 10, 10, 10, 10, 10])
    np.testing.assert_allclose(d.diesel_kw, [0, 0, 0, 0, 10, 20, 20, 20, 20])
    np.testing.assert_allclose(d.load_kw, [40, 40, 40, 37.5, 35, 35, 17.5, 0, 0], atol=1e-12)


def test_must_serve_load_is_cut_last_of_all():
    # Floor 15 kW, reached at 0.8 - 0.02 * 15 = 0.5.
    m, now = microgrids(4, must_serve_share=0.5), interval(pv=np.full(4, 10.0))
    export = np.array([10.0, 15.0, 20.0, 30.0])
    np.testing.assert_allclose(marginal_value(m, now, export), [0.4, 0.5, 3.0, 3.0])
    np.testing.assert_allclose(dispatch_to(m, now, export).load_kw, [20.0, 15.0, 10.0, 0.0])
    at_floor = 0.8 * 15 - 0.01 * 15**2
    np.testing.assert_allclose(
        utility(m, now, np.array([0.0, 10.0, 15.0, 50.0])), [at_floor - 45, at_floor - 15, at_floor, 16.0]
    )


def test_costs_match_the_hand_calculation():
    m = microgrids(2, diesel_a_per_kw2h=0.01)
    np.testing.assert_allclose(diesel_cost(m, np.array([0.0, 10.0])), [0.0, 2.0])
    np.testing.assert_allclose(wear(m, np.array([-10.0, 5.0])), [0.1, 0.05])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("price", [-0.05, 0.0, 0.1, 0.4, 2.0])
def test_a_price_taker_does_as_well_as_the_convex_solver(seed, price):
    m, now, rng = random_case(seed)
    at = np.where(rng.random(40) < 0.3, m.diesel_b_per_kwh, price)  # also exactly at the jump
    d = dispatch_to(m, now, rng.uniform(-60, 60, 40).clip(*export_band(m, now, at, at)))
    best = best_value(m, now, lambda export: cp.multiply(at, export))
    np.testing.assert_allclose(value(m, now, d) + at * d.export_kw, best, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_a_given_export_is_dispatched_at_the_least_cost(seed):
    m, now, rng = random_case(seed)
    least, most = export_range(m, now)
    export = rng.uniform(least, most)
    d = dispatch_to(m, now, export)
    np.testing.assert_allclose(value(m, now, d), best_value(m, now, lambda _: 0, export), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_export_in_a_band_is_the_optimum_closest_to_the_contract(seed):
    m, now, rng = random_case(seed)
    contract = rng.uniform(-60, 60, 40)
    sell = rng.uniform(-0.05, 0.6, 40)
    buy = sell + rng.uniform(0, 0.2, 40)
    buy = np.where(rng.random(40) < 0.3, np.maximum(sell, m.diesel_b_per_kwh), buy)

    def profit(e):
        return (
            value(m, now, dispatch_to(m, now, e))
            + sell * np.maximum(e - contract, 0)
            - buy * np.maximum(contract - e, 0)
        )

    chosen = contract.clip(*export_band(m, now, sell, buy))
    best = best_value(m, now, lambda e: cp.multiply(sell, e - contract) - cp.multiply(buy - sell, cp.pos(contract - e)))
    np.testing.assert_allclose(profit(chosen), best, rtol=1e-6, atol=1e-5)
    least, most = export_range(m, now)
    closer = np.clip(chosen + 0.05 * (contract - chosen), least, most)
    moved = np.abs(closer - chosen) > 0.05
    assert moved.sum() > 5
    assert np.all((profit(closer) < profit(chosen))[moved])


@pytest.mark.parametrize("seed", range(4))
def test_export_in_a_band_is_the_export_at_the_clipped_marginal_value(seed):
    m, now, rng = random_case(seed)
    least, most = export_range(m, now)
    contract = rng.uniform(least, most)
    sell, buy = np.full(40, 0.12), np.full(40, 0.18)
    inside = marginal_value(m, now, contract)
    at = np.clip(inside, sell, buy)
    chosen = contract.clip(*export_band(m, now, sell, buy))
    assert np.all(chosen >= export_at(m, now, at, "left") - 1e-9)
    assert np.all(chosen <= export_at(m, now, at, "right") + 1e-9)
    np.testing.assert_allclose(chosen[inside == at], contract[inside == at], rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_dispatch_exports_exactly_what_is_asked_however_steep_the_curve(seed):
    m, now, rng = random_case(seed, rows=50)
    a = np.where(rng.random(40) < 0.5, 10.0 ** rng.uniform(-17, -6, 40), m.diesel_a_per_kw2h)
    m = replace(m, diesel_a_per_kw2h=a)
    least, most = export_range(m, now)
    export = rng.uniform(least - 5, most + 5)
    d = dispatch_to(m, now, export)
    np.testing.assert_allclose(d.export_kw, np.clip(export, least, most), rtol=0, atol=1e-9)
    assert_possible(m, now, d)
    np.testing.assert_allclose(dispatch_to(m, now, least).export_kw, least, rtol=0, atol=1e-9)
    np.testing.assert_allclose(dispatch_to(m, now, most).export_kw, most, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_export_never_falls_with_the_marginal_value_and_inverts_it(seed):
    m, now, rng = random_case(seed)
    values = np.sort(np.concatenate([rng.uniform(-0.1, 3.5, 200), [0.0]]))
    left = np.stack([export_at(m, now, np.full(40, v), "left") for v in values])
    right = np.stack([export_at(m, now, np.full(40, v), "right") for v in values])
    assert np.all(left <= right) and np.all(right[:-1] <= left[1:])
    least, most = export_range(m, now)
    np.testing.assert_array_equal(left[0], least)
    np.testing.assert_array_equal(right[-1], most)

    export = rng.uniform(least, most)
    mu = marginal_value(m, now, export)
    assert np.all(export_at(m, now, mu - 1e-9, "right") <= export + 1e-9)
    assert np.all(export_at(m, now, mu + 1e-9, "left") >= export - 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_zero_export_is_feasible_with_any_battery_power_within_the_limits(seed):
    m, now, rng = random_case(seed, rows=200)
    m = replace(m, battery_rating_kw=np.full(40, 200.0), energy_max_kwh=np.full(40, 500.0))
    stored = rng.uniform(m.energy_min_kwh, m.energy_max_kwh, (200, 40))
    least, most = battery_limits(m, now, stored, m.energy_min_kwh + 0 * stored, m.energy_max_kwh + 0 * stored, 1.0)
    for battery in (least, most, rng.uniform(least, most)):
        d = dispatch_to(m, replace(now, battery_kw=battery), np.zeros((200, 40)))
        np.testing.assert_allclose(d.export_kw, 0.0, rtol=0, atol=1e-9)


def test_battery_limits_match_the_hand_calculation():
    # 2 kWh above the floor give 1.6 kW for an hour; 14 kWh of room take 15.6 kW, beyond the rating; in a quarter of an
    # hour all is four times that.
    m, now = microgrids(), interval(pv=30.0)
    stored, least, most = np.array([6.0]), np.array([4.0]), np.array([20.0])
    np.testing.assert_allclose(battery_limits(m, now, stored, least, most, 1.0), [[-10.0], [1.6]])
    np.testing.assert_allclose(battery_limits(m, now, stored, least, np.array([6.9]), 1.0), [[-1.0], [1.6]])
    np.testing.assert_allclose(battery_limits(m, now, stored, least, np.array([6.9]), 0.25), [[-4.0], [6.4]])
    np.testing.assert_allclose(store(m, stored, np.array([-1.0]), least, most, 1.0), [6.9])
    np.testing.assert_allclose(store(m, stored, np.array([1.6]), least, most, 1.0), [4.0])


def test_a_battery_outside_its_window_goes_back_as_far_as_it_can():
    m, now = microgrids(diesel_max_kw=0.0), interval(pv=3.0)
    stored, least, most = np.array([6.0]), np.array([12.0]), np.array([20.0])
    limits = battery_limits(m, now, stored, least, most, 1.0)
    np.testing.assert_allclose(limits, [[-3.0], [-3.0]])  # rated for 10 kW, but there is no more than the PV's 3 kW
    np.testing.assert_allclose(store(m, stored, limits[0], least, most, 1.0), [8.7])
    limits = battery_limits(m, now, np.array([18.0]), np.array([4.0]), np.array([14.0]), 1.0)
    np.testing.assert_allclose(limits, [[3.2], [10.0]])  # 4 kWh must leave


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), step_hours=st.sampled_from([0.25, 0.5, 1.0]))
def test_energy_never_leaves_its_window_and_none_is_lost(seed, step_hours):
    m, now, rng = random_case(seed, n=6, rows=5)
    m = replace(m, charge_efficiency=rng.uniform(0.5, 1.0, 6), discharge_efficiency=rng.uniform(0.5, 1.0, 6))
    least, most = np.full((5, 6), 4.0), np.full((5, 6), 20.0)
    stored = rng.uniform(least, most)
    for _ in range(40):
        low, high = battery_limits(m, now, stored, least, most, step_hours)
        battery = np.choose(rng.integers(0, 3, (5, 6)), [low, high, rng.uniform(low, high)])
        after = store(m, stored, battery, least, most, step_hours)
        assert np.all((after >= 4.0) & (after <= 20.0))
        change = np.where(battery < 0, -battery * m.charge_efficiency, -battery / m.discharge_efficiency) * step_hours
        np.testing.assert_allclose(after - stored, change, rtol=0, atol=1e-12)
        stored = after


def test_a_batch_equals_one_by_one():
    m, now, rng = random_case(7, rows=12)
    export, price = rng.uniform(-60, 60, (12, 40)), rng.uniform(0, 0.5, (12, 1))
    together = dispatch_to(m, now, export)
    least, most = export_band(m, now, price, price + 0.06)
    for i in range(12):
        one = rows_of(now, i)
        alone = dispatch_to(m, one, export[i])
        for name in ("pv_kw", "diesel_kw", "load_kw", "export_kw"):
            np.testing.assert_array_equal(getattr(together, name)[i], getattr(alone, name))
        np.testing.assert_array_equal([least[i], most[i]], export_band(m, one, price[i], price[i] + 0.06))
        np.testing.assert_array_equal(marginal_value(m, now, export)[i], marginal_value(m, one, export[i]))


def test_a_microgrid_with_nothing_at_all_exports_nothing():
    m, now = microgrids(diesel_max_kw=0.0), interval(pv=0.0, demand=0.0, alpha=np.inf)
    d = dispatch_to(m, now, np.array([5.0]))
    assert (d.export_kw, d.load_kw, utility(m, now, d.load_kw), marginal_value(m, now, d.export_kw)) == (0, 0, 0, 0)
    np.testing.assert_array_equal(export_band(m, now, np.array([0.1]), np.array([0.2])), [[0.0], [0.0]])
    np.testing.assert_array_equal(
        battery_limits(m, now, np.array([10.0]), np.array([4.0]), np.array([20.0]), 1.0), [[0.0], [0.0]]
    )


def test_invalid_microgrids_name_every_fault():
    with pytest.raises(
        InvalidScenario, match=r"diesel_max_kw is negative at microgrids \[0, 1\]; charge_eff.*unserved"
    ):
        microgrids(2, diesel_max_kw=-1.0, charge_efficiency=1.2, unserved_per_kwh=0.1)
