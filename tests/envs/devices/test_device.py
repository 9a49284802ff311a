"""What all devices with a level have in common: limits, level and cost by hand, and scenarios that are refused."""

from dataclasses import replace

import numpy as np
import pytest

from peergrid.envs.devices.device import Course, level_after, power_limits, power_to_reach
from peergrid.envs.devices.vehicle import Vehicle
from peergrid.envs.p2p_trading.scenario import load_scenario, scenario_from_dict
from peergrid.grid.errors import InvalidScenario

INF = np.inf


def course(**changes):
    """One interval of one device: 10 to 60 kWh, 0.9 kWh for a kWh drawn, 1.25 for one given, 11 kW either way."""
    values = dict(
        keep=1.0,
        drift=0.0,
        per_drawn=0.9,
        per_given=1.25,
        least_kw=-11.0,
        most_kw=11.0,
        least_level=10.0,
        most_level=60.0,
        low_level=-INF,
        high_level=INF,
        aim_level=60.0,
        start_level=0.0,
    )
    return Course(**{name: np.array([value]) for name, value in (values | changes).items()}, told=np.zeros((1, 1)))


def test_an_hour_of_charging_and_of_discharging_by_hand():
    level = np.array([30.0])
    np.testing.assert_allclose(level_after(course(), level, np.array([-10.0])), 39.0)
    np.testing.assert_allclose(level_after(course(), level, np.array([8.0])), 20.0)


def test_power_to_reach_a_level_reaches_it_or_stops_at_the_rating():
    level = np.array([30.0])
    for wanted in (39.0, 20.0, 30.0):
        power_kw = power_to_reach(course(), level, np.array([wanted]))
        np.testing.assert_allclose(level_after(course(), level, power_kw), wanted)
    np.testing.assert_allclose(power_to_reach(course(), level, np.array([60.0])), -11.0)


def test_limits_hold_the_level_in_its_window_and_force_what_is_due():
    least_kw, most_kw = power_limits(course(), np.array([11.0]))
    np.testing.assert_allclose((least_kw[0], most_kw[0]), (-11.0, 0.8))
    # 9 kWh below what it must have in an hour: 10 kW are due.
    least_kw, most_kw = power_limits(course(least_level=39.0), np.array([30.0]))
    np.testing.assert_allclose((least_kw[0], most_kw[0]), (-11.0, -10.0))
    # Out of reach: all that the rating can do.
    least_kw, most_kw = power_limits(course(least_level=50.0), np.array([30.0]))
    np.testing.assert_allclose((least_kw[0], most_kw[0]), (-11.0, -11.0))


def test_a_device_that_cannot_give_does_nothing_to_fall():
    away = course(per_given=0.0, most_kw=0.0, most_level=20.0)
    np.testing.assert_allclose(power_limits(away, np.array([30.0])), 0.0)


def with_device(**values):
    base = load_scenario("ieee33")
    return replace(base, devices=(Vehicle(**({"kind": "vehicle", "bus": "17"} | values)),))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"bus": "18"}, "there is no microgrid"),
        ({"charger_kw": 60.0}, "curtails every import"),
        ({"charger_kw": -1.0}, "charger_kw is -1.0"),
        ({"arrives_hour": 20.0, "leaves_hour": 7.0}, "on the same day"),
        ({"needed_share": 1.2}, "needed_share is above 1"),
        ({"charge_efficiency": 0.0}, "charge_efficiency is not in"),
    ],
)
def test_a_device_that_cannot_be_is_refused_with_its_fault(values, told):
    with pytest.raises(InvalidScenario, match=told):
        with_device(**values)


def test_two_of_a_kind_at_a_bus_are_refused():
    one = with_device().devices[0]
    with pytest.raises(InvalidScenario, match="there is one already"):
        replace(load_scenario("ieee33"), devices=(one, one))


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ({"kind": "toaster", "bus": 17}, "toaster"),
        ({"bus": 17}, "kind"),
        ({"kind": "vehicle", "bus": 17, "chargerkw": 3.0}, "did you mean charger_kw"),
        ({"kind": "os:system", "bus": 17}, "os:system"),
    ],
)
def test_a_file_that_names_a_device_wrongly_is_told_what_is_wrong(device, told):
    base = {
        "name": "mine",
        "network": {"feeder": "ieee33"},
        "microgrids": [{"bus": 17, "demand_class": "residential", "demand_peak_kw": 30, "diesel_max_kw": 52}],
    }
    with pytest.raises(InvalidScenario, match=told):
        scenario_from_dict(base | {"devices": [device]})


def test_a_microgrid_that_is_left_out_takes_its_devices_along():
    scenario = load_scenario("ieee33_vehicles", n_microgrids=2)
    assert [d.bus for d in scenario.devices] == ["17", "22"]
