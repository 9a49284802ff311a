"""The heat pump: heat balances, comfort has its price, and a thermostat holds the band if nobody decides."""

from dataclasses import replace

import numpy as np
import pytest

from peergrid.envs.common.profiles import DayShape
from peergrid.envs.devices.heat_pump import HeatPump
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.grid.errors import InvalidScenario

N = 24
PUMP = HeatPump(kind="heat_pump", bus="17")
SHAPE = DayShape(intervals=32, step_hours=1.0, bus=("1",), demand_class=("residential",))


def play(number):
    """A day in which every pump runs by this number, or by its thermostat."""
    simulation = Simulation("ieee33_heat_pumps", num_envs=2, predictor="none")
    simulation.reset(seed=2)
    outcomes = []
    while not simulation.is_over.all():
        numbers = simulation.now().fleet_kw[0] / simulation.params.fleets[0].draws_kw
        actions = np.zeros((2, 4, 5))
        actions[..., 4] = numbers if number is None else number
        outcomes.append(simulation.step(actions)[1])
    return outcomes, simulation


@pytest.mark.parametrize("number", [None, -1.0, -0.3, 0.0, 1.0])
def test_heat_balances_in_every_interval(number):
    """Against the differential equation C dT/dt = COP p - (T - T_out) / R, in steps of a second."""
    outcomes, simulation = play(number)
    pumps = simulation.scenario.devices
    outside_degc = 20.0 * simulation.days.courses[0].told[0, :, :, 0]
    start = simulation.days.courses[0].start_level[0]
    for t in (0, 7, 23):
        before = start if t == 0 else outcomes[t - 1].levels[0][0]
        power_kw = -outcomes[t].decisions.fleet_kw[0][0]
        for agent, pump in enumerate(pumps):
            cop = np.clip(pump.cop + pump.cop_per_kelvin * (outside_degc[t, agent] - 7.0), 1.0, pump.most_cop)
            inside = before[agent]
            for _ in range(3600):
                leaks_kw = (inside - outside_degc[t, agent]) / pump.resistance_k_per_kw
                inside += (cop * power_kw[agent] - leaks_kw) / pump.capacity_kwh_per_k / 3600.0
            np.testing.assert_allclose(outcomes[t].levels[0][0, agent], inside, atol=2e-3)


def test_discomfort_costs_by_the_kelvin_and_the_hour_and_counts_in_the_gain():
    outcomes, simulation = play(0.0)
    low = np.array([pump.low_degc for pump in simulation.scenario.devices])
    price = np.array([pump.comfort_per_kelvin_hour for pump in simulation.scenario.devices])
    for o in outcomes:
        np.testing.assert_allclose(o.fleet_costs[0], price * np.maximum(low - o.levels[0], 0.0))
        assert not o.decisions.fleet_kw[0].any()
    assert (outcomes[-1].fleet_costs[0] > 0).all()


def test_undecided_a_thermostat_holds_the_lower_end_of_the_band():
    outcomes, simulation = play(None)
    low = np.array([pump.low_degc for pump in simulation.scenario.devices])
    power_kw = np.stack([-o.decisions.fleet_kw[0] for o in outcomes])
    inside = np.stack([o.levels[0] for o in outcomes])
    runs, is_full = power_kw > 1e-9, power_kw > simulation.params.fleets[0].draws_kw - 1e-9
    assert runs.any(axis=0).all()
    np.testing.assert_allclose(inside[runs & ~is_full], np.broadcast_to(low, inside.shape)[runs & ~is_full], atol=1e-9)
    assert (inside[~runs] >= np.broadcast_to(low, inside.shape)[~runs] - 1e-9).all()


def test_heating_at_its_rating_overheats_and_pays_for_it():
    outcomes, simulation = play(-1.0)
    high = np.array([pump.high_degc for pump in simulation.scenario.devices])
    assert (outcomes[-1].levels[0] > high).all() and (outcomes[-1].fleet_costs[0] > 0).all()


def test_the_cop_falls_with_the_temperature_outside_and_is_never_below_one():
    mild, hard = (replace(PUMP, outdoor_degc=degc).draw(SHAPE, np.random.default_rng(0))[0] for degc in (10.0, -80.0))
    assert (mild.per_drawn > hard.per_drawn).all()
    of_one_kwh = PUMP.resistance_k_per_kw * (1.0 - mild.keep)
    np.testing.assert_allclose(hard.per_drawn, of_one_kwh)


def test_the_forecast_is_the_day_without_its_noise():
    day, forecast = replace(PUMP, outdoor_noise_std=0.0).draw(SHAPE, np.random.default_rng(4))
    np.testing.assert_array_equal(day.drift, forecast.drift)
    day, forecast = PUMP.draw(SHAPE, np.random.default_rng(4))
    assert np.abs(day.drift - forecast.drift).max() > 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"low_degc": 24.0}, "low_degc is not below high_degc"),
        ({"resistance_k_per_kw": 0.0}, "resistance_k_per_kw is not positive"),
        ({"rating_kw": -1.0}, "rating_kw is -1.0"),
    ],
)
def test_one_that_cannot_be_is_refused(changes, told):
    with pytest.raises(InvalidScenario, match=told):
        replace(load_scenario("ieee33"), devices=(replace(PUMP, **changes),))


def test_frost_outside_is_no_fault():
    scenario = replace(load_scenario("ieee33"), devices=(replace(PUMP, outdoor_degc=-20.0),))
    assert scenario.devices[0].outdoor_degc == -20.0
