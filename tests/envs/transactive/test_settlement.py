"""Who pays whom: by hand, and summed over a network."""

from dataclasses import replace

import numpy as np
import pytest

from peergrid.envs.transactive.resources import operating_cost
from peergrid.envs.transactive.scenario import build_dso, load_scenario
from peergrid.envs.transactive.settlement import bills, spread_cost, upstream_cost
from peergrid.envs.transactive.simulation import Transactive
from peergrid.grid.dso import DsoStatus, OpfDso

SCENARIO = load_scenario("ieee37", intervals=4, step_hours=0.5)


def test_bills_by_hand():
    # Sold 10 at .10 and delivers 7 while the signal is .15: buys 3 back. Bought 20, draws 25. Bought 5, injects 1.
    paid = bills(
        scheduled_kw=np.array([10.0, -20.0, -5.0]),
        delivered_kw=np.array([7.0, -25.0, 1.0]),
        day_ahead_per_kwh=np.array([0.10, 0.10, 0.12]),
        real_time_per_kwh=np.array([0.15, 0.15, 0.20]),
        step_hours=0.5,
    )
    np.testing.assert_allclose(paid.day_ahead, [-0.5, 1.0, 0.3])
    np.testing.assert_allclose(paid.real_time, [0.225, 0.375, -0.6])
    np.testing.assert_allclose(paid.total, [-0.275, 1.375, -0.3])


def test_upstream_by_hand():
    # 1000 kW at .10 for half an hour; 100 kW missing at 1.2 * .20, 100 kW left over at 0.8 * .20.
    cost = upstream_cost(np.full(3, 1000.0), np.array([0.0, 100.0, -100.0]), np.full(3, 0.1), np.full(3, 0.2), 0.2, 0.5)
    np.testing.assert_allclose(cost, [50.0, 62.0, 42.0])


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.5])
def test_every_gap_costs_at_least_its_energy_at_the_lmp(spread):
    rng = np.random.default_rng(0)
    lmp, gap = rng.uniform(0.02, 0.3, 500), rng.uniform(-800, 800, 500)
    scheduled, ahead = rng.uniform(-500, 2000, 500), rng.uniform(0.02, 0.3, 500)
    with_gap, without = (upstream_cost(scheduled, g, ahead, lmp, spread, 1.0) for g in (gap, 0 * gap))
    extra = with_gap - without - lmp * gap
    assert (extra > 0).all()
    np.testing.assert_allclose(extra, spread_cost(gap, lmp, spread), rtol=1e-9)
    # Closing a gap of either sign pays up to the bounds of the signal and no further.
    np.testing.assert_allclose((with_gap - without) / gap, lmp * (1 + spread * np.sign(gap)), rtol=1e-6)


def random_day(simulation, seed=0):
    """The outcomes of closed hours of a day on which agents do what they like."""
    rng, closed = np.random.default_rng(seed), []
    simulation.reset(seed=seed)
    while not simulation.is_over.any():
        _, outcome = simulation.step(rng.uniform(-1, 1, (1, simulation.n_agent, 3)))
        if outcome.is_closed[0]:
            closed.append(outcome)
    return closed


def shedding_dso(scenario):
    """Where voltages must stay so high that loads are shed."""
    own = build_dso(scenario)
    return OpfDso(replace(own.feeder, v_min_pu=np.full(own.feeder.n_bus, 0.985)), own.trade_bus)


@pytest.mark.parametrize("sheds", [False, True], ids=["plain", "shedding"])
def test_what_everybody_pays_less_what_goes_upstream_is_the_dsos_result(sheds):
    simulation = Transactive(SCENARIO, dso=shedding_dso(SCENARIO) if sheds else None)
    params, n_bus = simulation.params, simulation.params.feeder.n_bus
    closed = random_day(simulation)
    assert len(closed) == 4 and all((o.response.status == DsoStatus.OPTIMAL).all() for o in closed)
    assert any(o.response.shed_kw.sum() > 1.0 for o in closed) == sheds
    days = simulation.running()[1]
    for t, outcome in enumerate(closed):
        ahead, now = days.day_ahead.signal_per_kwh[0, t], outcome.signal_per_kwh[0]
        injected = -days.load_kw[0, t] + outcome.response.shed_kw[0]
        scheduled = -days.forecast.load_kw[0, t]
        injected[params.agent_bus] += outcome.response.accepted_kw[0]
        scheduled[params.agent_bus] = days.day_ahead.exchange_kw[0, t]
        paid = [-0.5 * (ahead[b] * scheduled[b] + now[b] * (injected[b] - scheduled[b])) for b in range(n_bus)]
        np.testing.assert_allclose(outcome.bills.total[0], np.array(paid)[params.agent_bus])

        lmp, gap = days.lmp_per_kwh[0, t], outcome.import_kw[0] - days.day_ahead.import_kw[0, t]
        price = lmp * (1 + SCENARIO.imbalance_spread * np.sign(gap))
        upstream = 0.5 * (days.forecast.lmp_per_kwh[0, t] * days.day_ahead.import_kw[0, t] + price * gap)
        np.testing.assert_allclose(outcome.upstream_cost[0], upstream)
        np.testing.assert_allclose(outcome.dso_result[0], sum(paid) - upstream, atol=1e-9)

        cost = operating_cost(params.resources, outcome.set_points)[0] * 0.5
        np.testing.assert_allclose(outcome.operating_cost[0], cost)
        np.testing.assert_allclose(outcome.reward[0], -outcome.bills.total[0] - cost)
        shed = 0.5 * SCENARIO.dso.voll_per_kwh * outcome.response.shed_kw.sum()
        np.testing.assert_allclose(outcome.total_cost[0], upstream + cost.sum() + shed)
        # Everybody's money and the DSO's is the system's: nothing appears or is lost on the way.
        others = np.delete(np.array(paid), params.agent_bus).sum()
        kept = outcome.dso_result[0] + outcome.reward.sum() - others
        np.testing.assert_allclose(kept, shed - outcome.total_cost[0], rtol=1e-9)


def test_who_delivers_what_was_scheduled_pays_the_day_ahead_bill_alone_whatever_the_signal():
    scheduled, ahead = np.array([[40.0, -75.0]]), np.array([[0.1, 0.12]])
    paid = bills(scheduled, scheduled, ahead, np.array([[9.0, -9.0]]), 1.0)
    assert (paid.real_time == 0).all()
    np.testing.assert_allclose(paid.total, [[-4.0, 9.0]])
