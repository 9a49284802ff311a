"""Several agents at one bus: together they are one agent with all of its load and resources."""

from dataclasses import fields, replace

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test

from peergrid.baselines.policies.transactive import Optimising
from peergrid.envs.transactive.env import TransactiveMarket
from peergrid.envs.transactive.resources import SetPoints
from peergrid.envs.transactive.scenario import AgentSpec, agent_names, build_resources, load_scenario
from peergrid.envs.transactive.simulation import Transactive
from peergrid.grid.errors import InvalidScenario

ONE = load_scenario("ieee37", intervals=3)
AT = 3  # which agent is split in two, and how
SHARES = (0.3, 0.7)
HALVES = tuple(replace(ONE.agents[AT], load_share=share) for share in SHARES)
TWO = replace(ONE, agents=(*ONE.agents[:AT], *HALVES, *ONE.agents[AT + 1 :]))
BUS = ONE.agents[AT].bus
IS_HALF = np.isin(np.arange(10), (AT, AT + 1))
NAMES = [f.name for f in fields(SetPoints)]


def twice(of_agents):
    """What is given for the agents of ONE, the last axis but for actions, given to both halves."""
    return np.insert(of_agents, AT, of_agents[:, AT], axis=1)


def together(of_agents):
    """What the agents of TWO have, with the halves added up."""
    summed = of_agents.copy()
    summed[:, AT] += of_agents[:, AT + 1]
    return np.delete(summed, AT + 1, axis=1)


def begun(solver="interior_point", **changes):
    """Both scenarios on the same day: the halves see the sun of the whole."""
    simulations = [Transactive(replace(scenario, **changes), dso=solver) for scenario in (ONE, TWO)]
    one, two = simulations
    until_two = replace(one.episodes.shape, intervals=14)
    whole = ONE.profiles.draw(until_two, 170, np.random.default_rng(0))
    day = replace(whole, **{f.name: getattr(whole, f.name)[11:] for f in fields(whole)})  # while the sun shines
    of_agents = {name: twice(getattr(day, name)) for name in ("pv_pu", "pv_forecast_pu", "demand_pu")}
    one.begin(one.days_of([day]))
    two.begin(two.days_of([replace(day, **of_agents)]))
    return simulations


@pytest.mark.parametrize("solver", ["interior_point", "conic", "admm"])
def test_two_agents_at_a_bus_give_the_flows_and_signals_of_one_with_their_sum(solver):
    (one, two), rng = begun(solver), np.random.default_rng(1)
    for _ in range(4):
        asked = rng.uniform(-1, 1, (1, 9, 3))
        (_, a), (_, b) = one.step(asked), two.step(twice(asked))
        within = 1e-2 if solver == "admm" else 2e-3  # of flows of up to 1,500 kW
        np.testing.assert_allclose(b.response.flow_kw, a.response.flow_kw, atol=within)
        np.testing.assert_allclose(b.response.flow_kvar, a.response.flow_kvar, atol=within)
        np.testing.assert_allclose(b.response.voltage_pu, a.response.voltage_pu, atol=1e-7)
        np.testing.assert_allclose(b.signal_per_kwh, a.signal_per_kwh, rtol=1e-6)
        np.testing.assert_allclose(b.import_kw, a.import_kw, atol=within)
        assert (b.root_per_kwh, b.closing, b.interval) == (a.root_per_kwh, a.closing, a.interval)
    assert np.abs(a.exchange_kw[0, AT]) > 1.0  # there was something to share


def test_each_has_its_share_of_load_resources_and_money():
    one, two = begun(loop=replace(ONE.loop, threshold_share=0.5))
    asked = np.random.default_rng(2).uniform(-0.5, 0.5, (1, 9, 3))
    (_, a), (_, b) = one.step(asked), two.step(twice(asked))
    assert a.is_closed.all() and b.is_closed.all()
    for name in ("exchange_kw", "scheduled_exchange_kw", "load_kw", "asked_kw", "pv_kw", "operating_cost", "reward"):
        np.testing.assert_allclose(together(getattr(b, name)), getattr(a, name), atol=0.02, err_msg=name)
    for name in ("load_kw", "pv_kw", "operating_cost"):
        halves = getattr(b, name)[0, IS_HALF]
        np.testing.assert_allclose(halves / halves.sum(), SHARES, rtol=1e-4, err_msg=name)
    for name in ("upstream_cost", "total_cost", "dso_result", "dso_reward"):
        np.testing.assert_allclose(getattr(b, name), getattr(a, name), atol=1e-3, err_msg=name)
    np.testing.assert_allclose(together(b.bills.day_ahead), a.bills.day_ahead, atol=2e-3)
    np.testing.assert_allclose(together(b.bills.real_time), a.bills.real_time, atol=2e-3)
    of_one, of_two = build_resources(ONE), build_resources(TWO)
    for name in ("peak_kw", "generator_max_kw", "storage_max_kwh", "pv_peak_kw"):
        np.testing.assert_allclose(getattr(of_two, name)[IS_HALF], np.array(SHARES) * getattr(of_one, name)[AT])


def test_what_was_agreed_the_day_before_and_what_agents_plan_is_shared_alike():
    one, two = begun()
    a, b = (s.running()[1].day_ahead for s in (one, two))
    np.testing.assert_allclose(b.import_kw, a.import_kw, atol=0.1)
    np.testing.assert_allclose(b.signal_per_kwh, a.signal_per_kwh, rtol=1e-5)
    np.testing.assert_allclose(together(b.exchange_kw.swapaxes(1, 2)), a.exchange_kw.swapaxes(1, 2), atol=0.1)
    plans = [Optimising().answer(s) for s in (one, two)]
    for name in NAMES:
        whole, halves = (getattr(plan, name) for plan in plans)
        np.testing.assert_allclose(together(halves), whole, atol=0.1, err_msg=name)
        np.testing.assert_allclose(halves[0, IS_HALF], np.array(SHARES) * whole[0, AT], atol=0.1, err_msg=name)


def test_load_that_is_nobodys_is_billed_like_that_of_other_buses():
    left = replace(ONE, agents=(replace(ONE.agents[0], load_share=0.4), *ONE.agents[1:]))
    simulation = Transactive(replace(left, loop=replace(left.loop, threshold_share=0.5)))
    simulation.reset(seed=0)
    days, params = simulation.running()[1], simulation.params
    _, outcome = simulation.step(np.zeros((1, 9, 3)))
    assert outcome.is_closed.all()
    np.testing.assert_allclose(outcome.load_kw[0, 0], 0.4 * days.load_kw[0, 0, params.agent_bus[0]])
    # What is injected at all buses, by whomever, is what everybody pays for.
    scheduled, delivered = -days.forecast.load_kw[0, 0], -days.load_kw[0, 0]
    own_load = days.forecast.load_kw[0, 0, params.agent_bus] * params.load_share
    scheduled[params.agent_bus] += days.day_ahead.exchange_kw[0, 0] + own_load
    delivered[params.agent_bus] += outcome.response.accepted_kw[0]
    ahead, now = days.day_ahead.signal_per_kwh[0, 0], outcome.signal_per_kwh[0]
    paid = -(ahead * scheduled + now * (delivered - scheduled)).sum()
    np.testing.assert_allclose(outcome.dso_result, paid - outcome.upstream_cost)


def test_agents_are_told_apart_by_numbers_where_they_share_a_bus():
    assert agent_names(["1", "2", "1", "3", "1"]) == ("1_1", "2", "1_2", "3", "1_3")
    env = TransactiveMarket(TWO, roles="both", max_cycles=3)
    assert [a for a in env.possible_agents if BUS in a] == [f"bus_{BUS}_1", f"bus_{BUS}_2"]
    parallel_api_test(env, num_cycles=5)
    names = [e.name for e in env.describe_state()]
    assert len(set(names)) == len(names) and f"bus {BUS}_2: own load now" in names


def test_names_that_would_be_taken_twice_are_refused():
    agents = (*(AgentSpec(bus="701", load_share=0.5) for _ in range(2)), AgentSpec(bus="701_2"))
    with pytest.raises(InvalidScenario, match="two agents go by one name"):
        replace(ONE, agents=agents)


def test_agents_at_a_bus_may_not_have_more_than_its_load():
    replace(TWO, agents=tuple(replace(a, load_share=min(a.load_share, 0.5)) for a in TWO.agents))
    whole = tuple(replace(a, load_share=1.0) for a in TWO.agents)
    with pytest.raises(InvalidScenario, match=f"agents at bus {BUS} have 2 of its load"):
        replace(TWO, agents=whole)


def test_both_are_shown():
    env = TransactiveMarket(TWO, render_mode="ansi")
    env.reset(seed=0)
    env.step({a: np.zeros(3, dtype=np.float32) for a in env.agents})
    rows = [line.split() for line in env.render().splitlines()]
    shown = {row[0]: row for row in rows if row and row[0].startswith(BUS)}
    assert set(shown) == {f"{BUS}_1", f"{BUS}_2"}
    assert shown[f"{BUS}_1"][1] == shown[f"{BUS}_2"][1]  # one bus, one signal
    drawn = TransactiveMarket(TWO, render_mode="rgb_array")
    drawn.reset(seed=0)
    drawn.step({a: np.zeros(3, dtype=np.float32) for a in drawn.agents})
    assert drawn.render().ndim == 3
