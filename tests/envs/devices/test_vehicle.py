"""The electric vehicle: it has its energy when it leaves, whatever is decided, and every kWh is accounted for."""

import numpy as np
import pytest

from peergrid.envs import p2p_trading_v0
from peergrid.envs.common.profiles import DayShape
from peergrid.envs.devices.vehicle import Vehicle
from peergrid.envs.p2p_trading.infos import INFOS
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation

N, VEHICLE = 24, 4  # intervals, and the place of its number in an action


def play(number, seed=3, rows=3, **arguments):
    """A day of random actions, with one number of our choice for the vehicles; what happened, and the simulation."""
    simulation, rng = (
        Simulation("ieee33_vehicles", num_envs=rows, predictor="none", **arguments),
        np.random.default_rng(0),
    )
    simulation.reset(seed=seed)
    outcomes = []
    for _ in range(N):
        actions = rng.uniform(-1.0, 1.0, (rows, 4, 5))
        if number is not None:
            actions[..., VEHICLE] = number
        outcomes.append(simulation.step(actions)[1])
    return outcomes, simulation


def over_time(outcomes, of):
    return np.stack([of(outcome) for outcome in outcomes], axis=1)


@pytest.mark.parametrize("number", [None, -1.0, 0.0, 1.0])
def test_it_leaves_with_its_energy_whatever_is_decided(number):
    outcomes, simulation = play(number)
    course = simulation.days.courses[0].over((slice(None), slice(N)))
    kwh = over_time(outcomes, lambda o: o.levels[0])
    is_here, needed_kwh = course.told[..., 0] > 0, course.told[..., 3] * [60.0, 75.0, 75.0, 60.0]
    last = is_here & ~np.concatenate([is_here[:, 1:], np.zeros_like(is_here[:, :1])], axis=1)
    assert (last.sum(axis=1) == 1).all()
    assert (kwh[last] >= needed_kwh[last] - 1e-9).all()
    assert (kwh[is_here] <= np.broadcast_to([60.0, 75.0, 75.0, 60.0], kwh.shape)[is_here] + 1e-9).all()


@pytest.mark.parametrize("number", [None, -1.0, 0.0])
def test_energy_balances_in_every_interval(number):
    outcomes, simulation = play(number)
    course = simulation.days.courses[0].over((slice(None), slice(N)))
    kwh, power_kw = over_time(outcomes, lambda o: o.levels[0]), over_time(outcomes, lambda o: o.decisions.fleet_kw[0])
    before_kwh = np.concatenate([course.start_level[:, None], kwh[:, :-1]], axis=1)
    flow_kwh = 0.93 * np.maximum(-power_kw, 0.0) - np.maximum(power_kw, 0.0) / 0.93
    is_here = course.told[..., 0] > 0
    np.testing.assert_allclose((kwh - before_kwh)[is_here], flow_kwh[is_here], atol=1e-9)
    assert not power_kw[~is_here].any()
    for o in outcomes:
        d = o.dispatch
        np.testing.assert_allclose(
            d.pv_kw + d.diesel_kw + d.battery_kw + d.others_kw - d.load_kw, o.response.accepted_kw, atol=1e-9
        )


def test_only_one_that_may_gives_to_the_grid():
    outcomes, _ = play(1.0)
    power_kw = over_time(outcomes, lambda o: o.decisions.fleet_kw[0])
    gives = power_kw.max(axis=(0, 1)) > 0
    assert gives.tolist() == [False, True, False, False]


def test_wear_is_paid_by_the_kwh_and_counts_in_the_gain():
    outcomes, _ = play(-1.0)
    charging = max(outcomes, key=lambda o: -o.decisions.fleet_kw[0].sum())
    np.testing.assert_allclose(charging.fleet_costs[0], 0.01 * np.abs(charging.decisions.fleet_kw[0]))
    assert charging.fleet_costs[0].sum() > 0


def test_undecided_it_charges_from_its_arrival_on():
    simulation = Simulation("ieee33_vehicles", predictor="none")
    simulation.reset(seed=1)
    while not simulation.is_over.all():
        now = simulation.now()
        is_here = now.courses[0].told[..., 0] > 0
        wished_kw = np.where(is_here, -simulation.params.fleets[0].draws_kw, 0.0)
        room_kw = (np.array([60.0, 75.0, 75.0, 60.0]) - simulation.state.levels[0]) / 0.93
        np.testing.assert_allclose(now.fleet_kw[0], np.where(is_here, np.maximum(wished_kw, -room_kw), 0.0))
        simulation.step(np.dstack([np.zeros((1, 4, 4)), now.fleet_kw[0] / simulation.params.fleets[0].draws_kw]))


def test_days_are_those_without_vehicles_and_stays_differ_from_day_to_day():
    with_them, without = (Simulation(name, num_envs=4, predictor="none") for name in ("ieee33_vehicles", "ieee33"))
    for simulation in (with_them, without):
        simulation.reset(seed=7)
    np.testing.assert_array_equal(with_them.days.load_kw, without.days.load_kw)
    np.testing.assert_array_equal(with_them.days.pv_kw, without.days.pv_kw)
    assert len({day.tobytes() for day in with_them.days.courses[0].told}) == 4
    again = Simulation("ieee33_vehicles", num_envs=4, predictor="none")
    again.reset(seed=7)
    np.testing.assert_array_equal(again.days.courses[0].told, with_them.days.courses[0].told)


def test_every_day_of_a_longer_episode_has_its_stay():
    shape = DayShape(intervals=72, step_hours=1.0, bus=("1",), demand_class=("residential",))
    vehicle = Vehicle(kind="vehicle", bus="17")
    course, forecast = vehicle.draw(shape, np.random.default_rng(0))
    assert forecast is course
    arrivals = np.flatnonzero(np.diff(course.told[:, 0]) > 0)
    assert arrivals.size == 3
    assert ((course.drift[arrivals] >= 6.0) & (course.keep[arrivals] == 0.0)).all()


def test_agents_see_it_decide_on_it_and_are_told_of_it():
    env = p2p_trading_v0.parallel_env(scenario="ieee33_vehicles", predictor="none")
    plain = p2p_trading_v0.parallel_env(scenario="ieee33", predictor="none")
    env.reset(seed=0)
    plain.reset(seed=0)
    agent = env.agents[0]
    own, standard = env.describe_observation(agent), plain.describe_observation(agent)
    assert [e.name for e in own[: len(standard)]] == [e.name for e in standard]
    assert all(e.name.startswith("vehicle: ") for e in own[len(standard) :])
    assert env.action_space(agent).shape == (5,) and plain.action_space(agent).shape == (4,)
    while env.agents:
        seen, rewards, _, _, infos = env.step({a: env.action_space(a).sample() for a in env.agents})
        assert all(env.observation_space(a).contains(values) for a, values in seen.items())
        assert all(np.isfinite(reward) for reward in rewards.values())
        assert all([*INFOS, "vehicle_kw", "vehicle_kwh", "vehicle_cost"] == list(info) for info in infos.values())


def test_scale_makes_fleets_of_vehicles():
    large = Simulation(load_scenario("ieee33_vehicles", scale=3.0), predictor="none")
    np.testing.assert_allclose(large.params.fleets[0].draws_kw, [33.0, 66.0, 66.0, 33.0])
    np.testing.assert_allclose(large.params.fleets[0].high, [180.0, 225.0, 225.0, 180.0])


def test_batteries_end_the_day_as_they_began_it_beside_vehicles():
    outcomes, simulation = play(None)
    np.testing.assert_allclose(outcomes[-1].stored_kwh, simulation.params.initial_kwh[None].repeat(3, 0), atol=1e-9)
