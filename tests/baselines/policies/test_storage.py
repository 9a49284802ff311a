"""Batteries planned by dynamic programming: against a linear program, by hand, and within their windows."""

from dataclasses import fields

import cvxpy as cp
import numpy as np
import pytest

from peergrid.baselines.policies.storage import interpolated, plan_storage
from peergrid.envs.microgrid import Microgrids
from peergrid.envs.p2p_trading.scenario import build_microgrids, load_scenario

GRIDS = build_microgrids(load_scenario("ieee33"))
ONE = Microgrids(**{f.name: np.asarray(getattr(GRIDS, f.name))[:1] for f in fields(Microgrids)})
POWER_KW = np.linspace(-20.0, 20.0, 41)


def plan(worth, stored_kwh=24.0, end_kwh=24.0):
    """The plan of one battery of 8 to 40 kWh and 20 kW, its energy given at both ends."""
    n = len(worth)
    least, most = np.full(n + 1, 8.0), np.full(n + 1, 40.0)
    least[-1] = most[-1] = end_kwh

    def boxed(values):
        return np.asarray(values, dtype=float)[None, :, None]

    found = plan_storage(
        ONE,
        np.array([[stored_kwh]]),
        boxed(least),
        boxed(most),
        boxed(np.full(n, -20.0)),
        boxed(np.full(n, 20.0)),
        np.asarray(worth)[None, :, None],
        1.0,
    )
    return found[0, :, 0]


def energies(battery_kw, stored_kwh=24.0):
    moved = 0.95 * np.maximum(-battery_kw, 0.0) - np.maximum(battery_kw, 0.0) / 0.95
    return stored_kwh + np.cumsum(moved)


def at_price(price):
    return price * POWER_KW - 0.01 * np.abs(POWER_KW)


def test_a_battery_charges_when_energy_is_cheap_and_discharges_when_it_is_dear():
    # 16 kWh fit in: 16 / 0.95 kW are drawn in the cheap hour; 16 * 0.95 kW come out of them in the dear one.
    found = plan([at_price(p) for p in (0.05, 0.1, 0.3)])
    np.testing.assert_allclose(found, [-16 / 0.95, 0.0, 16 * 0.95], atol=0.3)


def test_a_battery_rests_where_losses_and_wear_eat_the_gain():
    # 0.10 / 0.95 + 0.01 for a kWh stored is more than 0.95 * 0.115 - 0.01 for it later.
    np.testing.assert_allclose(plan([at_price(p) for p in (0.10, 0.115, 0.10)]), np.zeros(3), atol=0.1)


@pytest.mark.parametrize("seed", range(6))
def test_the_plan_is_worth_what_a_convex_program_finds(seed):
    """Prices that fall with what is sold: value against CVXPY and Clarabel, with continuous powers."""
    rng, n = np.random.default_rng(seed), 12
    price, slope = rng.uniform(0.05, 0.35, n), rng.uniform(0.0, 0.01, n)

    def value(power, maximum=np.maximum):
        return price * power - slope / 2 * power**2 - 0.01 * np.abs(power)

    worth = [price[h] * POWER_KW - slope[h] / 2 * POWER_KW**2 - 0.01 * np.abs(POWER_KW) for h in range(n)]
    found = plan(worth)
    charge, discharge, energy = cp.Variable(n, nonneg=True), cp.Variable(n, nonneg=True), cp.Variable(n + 1)
    power = discharge - charge
    gained = price @ power - cp.sum(cp.multiply(slope / 2, cp.square(power))) - 0.01 * cp.sum(charge + discharge)
    rules = [charge <= 20, discharge <= 20, energy >= 8, energy <= 40, energy[0] == 24, energy[-1] == 24]
    rules += [energy[1:] == energy[:-1] + 0.95 * charge - discharge / 0.95]
    program = cp.Problem(cp.Maximize(gained), rules)
    program.solve(solver=cp.CLARABEL)
    assert value(found).sum() == pytest.approx(program.value, rel=0.02)
    kept = energies(found)
    assert kept.min() > 8 - 1e-6 and kept.max() < 40 + 1e-6
    assert abs(kept[-1] - 24) < 0.05


def test_energy_below_its_window_is_brought_back():
    found = plan([at_price(0.3)] * 2, stored_kwh=8.0, end_kwh=24.0)
    assert energies(found, 8.0)[-1] == pytest.approx(24.0, abs=0.05)


def test_interpolation_is_numpy_s_and_takes_the_right_side_of_a_jump():
    rng = np.random.default_rng(0)
    x, y, at = np.sort(rng.normal(size=(3, 2, 7)), axis=-1), rng.normal(size=(3, 2, 7)), rng.normal(size=(3, 2, 5))
    wanted = np.stack([[np.interp(at[i, j], x[i, j], y[i, j]) for j in range(2)] for i in range(3)])
    np.testing.assert_allclose(interpolated(at, x, y), wanted)
    jump = interpolated(np.array([0.5, 1.0, 2.0]), np.array([0.0, 1.0, 1.0, 2.0]), np.array([0.0, 0.0, 5.0, 5.0]))
    np.testing.assert_array_equal(jump, [0.0, 5.0, 5.0])
