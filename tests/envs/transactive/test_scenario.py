"""Transactive scenarios: the shipped one, the user's own, and what is said to whoever gets one wrong."""

import copy
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from peergrid.baselines.policies.transactive import Optimising
from peergrid.envs.common.network import NetworkSpec
from peergrid.envs.common.profiles import DayShape, SyntheticProfiles, TableProfiles
from peergrid.envs.transactive.scenario import (
    AgentSpec,
    TransactiveScenario,
    build_dso,
    build_resources,
    check_scenario,
    load_scenario,
    scenario_from_dict,
    scenario_names,
)
from peergrid.envs.transactive.signal import proportional
from peergrid.envs.transactive.simulation import Transactive
from peergrid.envs.transactive.types import Closing
from peergrid.grid import load_feeder
from peergrid.grid.errors import InvalidProfiles, InvalidScenario, PeergridError, UnknownName

BASE = load_scenario("ieee37")


def values(name="ieee37"):
    """A scenario as nested mappings, as YAML gives them."""
    with initialize_config_module("peergrid.conf", version_base="1.3"):
        return OmegaConf.to_container(compose(f"transactive/{name}"))["transactive"]


def with_agent(**changes):
    return replace(BASE, agents=(replace(BASE.agents[0], **changes), *BASE.agents[1:]))


def with_loop(**changes):
    return replace(BASE, loop=replace(BASE.loop, **changes))


# The shipped one


@pytest.mark.parametrize("name", scenario_names())
def test_hydra_composes_what_the_file_says(name):
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario == scenario_from_dict(values(name))
    check_scenario(scenario)


def test_a_scenario_is_a_value():
    assert {BASE: 1}[load_scenario("ieee37")] == 1
    assert load_scenario("ieee37", seed=1) != BASE
    assert pickle.loads(pickle.dumps(BASE)) == copy.deepcopy(BASE) == BASE
    assert load_scenario(BASE) is BASE


def test_plain_python_says_the_same_as_the_file():
    buses = (701, 713, 722, 728, 731, 733, 737, 738, 742)
    scenario = TransactiveScenario(
        name="ieee37",
        network=NetworkSpec(feeder="ieee37", v_min_pu=0.958, v_max_pu=1.05, rating_factor=1.5, rating_floor_a=40.0),
        agents=tuple(AgentSpec(bus=str(bus)) for bus in buses),
        profiles=SyntheticProfiles(load_scale=0.85, max_load_pu=0.95, lmp_deviation_std=0.04),
    )
    assert scenario == BASE


def test_resources_are_shares_of_the_load_at_their_bus():
    feeder, resources = load_feeder("ieee37"), build_resources(BASE)
    peak = np.array([feeder.load_kw[feeder.index(a.bus)] for a in BASE.agents])
    np.testing.assert_array_equal(resources.peak_kw, peak)
    np.testing.assert_allclose(resources.generator_max_kw, 0.25 * peak)
    np.testing.assert_allclose(resources.storage_max_kwh, 4 * 0.1 * peak)
    np.testing.assert_allclose(resources.pv_peak_kw, 0.4 * peak)
    # At full output a generator's marginal cost is the last one; shifting costs .003 per kW2 at 100 kW of peak.
    last = resources.generator_b_per_kwh + 2 * resources.generator_a_per_kw2h * resources.generator_max_kw
    np.testing.assert_allclose(last, 0.13)
    np.testing.assert_allclose(resources.shift_per_kw2h * peak, 0.3)
    assert [build_dso(BASE).feeder.bus[b] for b in build_dso(BASE).trade_bus] == [a.bus for a in BASE.agents]


# The user's own file


def test_a_file_of_ones_own_builds_on_the_shipped_scenario(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ndefaults: [ieee37, _self_]\nloop: {rule: none, step_share: 5e-3}\nintervals: 2\n")
    expected = replace(BASE, name="mine", loop=replace(BASE.loop, rule="none", step_share=0.005), intervals=2)
    assert load_scenario(path) == expected
    simulation = Transactive(str(path))
    simulation.reset(seed=0)
    _, outcome = simulation.step(np.zeros((1, 9, 3)))
    assert outcome.closing[0] in (Closing.WITHIN_THRESHOLD, Closing.SIGNAL_STANDS)
    whole = tmp_path / "whole.yml"
    whole.write_text(yaml.safe_dump(values() | dict(name="whole")))
    assert load_scenario(whole) == replace(BASE, name="whole")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [unclosed", "while parsing"),
        ("- a list", "a scenario is a mapping"),
        ("name: mine\ndefaults: [ieee73]\n", "no scenario is named 'ieee73'. Did you mean 'ieee37'"),
        ("name: mine\n", "network is missing; agents is missing"),
    ],
)
def test_a_file_that_is_no_scenario_is_refused(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(PeergridError, match=message):
        load_scenario(tmp_path / "mine.yaml")


def test_a_scenario_of_the_other_market_is_not_one_of_these():
    with pytest.raises(UnknownName, match=r"no scenario is named 'ieee33'. Did you mean 'ieee37'\?"):
        Transactive("ieee33")


# Faults


def test_every_fault_of_the_keys_is_named_at_once_and_the_nearest_suggested():
    wrong = values()
    wrong |= dict(intervalls=24, lookahead="far", market={})
    wrong["loop"] = dict(max_iteration=3, bound_share="wide")
    wrong["agents"][1] |= dict(pv_shares=0.3)
    wrong["agents"][2] = dict(storage_share=0.1)
    with pytest.raises(InvalidScenario) as caught:
        scenario_from_dict(wrong)
    for fault in (
        "scenario 'ieee37'",
        "unknown key intervalls (did you mean intervals?)",
        "lookahead is 'far', not of type int",
        "unknown key market",
        "unknown key loop.max_iteration (did you mean max_iterations?)",
        "loop.bound_share is 'wide', not of type float",
        "unknown key agents[1].pv_shares (did you mean pv_share?)",
        "agents[2].bus is missing",
    ):
        assert fault in str(caught.value), fault


def test_every_contradiction_of_the_numbers_is_named_at_once():
    nan = float("nan")
    first, second, third, *others = BASE.agents
    with pytest.raises(InvalidScenario) as caught:
        replace(
            BASE,
            agents=(
                replace(first, load_share=1.5, shiftable_share=1.5, charge_efficiency=0.0, pv_share=-1.0),
                replace(second, bus=first.bus, discharge_efficiency=1.1, storage_hours=nan),
                replace(third, load_share=0.0, shift_per_kw2h=0.0, storage_per_kw2h=0.0, generator_last_per_kwh=0.09),
                *others,
            ),
            network=replace(BASE.network, v_min_pu=nan),
            loop=replace(
                BASE.loop,
                bound_share=1.0,
                max_iterations=0,
                step_share=-0.01,
                threshold_share=nan,
                signal_base="ahead",
                gain=0.0,
            ),
            dso=replace(BASE.dso, penalty="paper", upper_voltage="high", kappa_per_kwh=-0.05),
            imbalance_spread=0.0,
            intervals=0,
            step_hours=float("inf"),
            lookahead=0,
            initial_charge=1.5,
            seed=-1,
        )
    for fault in (
        "scenario 'ieee37'",
        "agents at bus 701 have 2.5 of its load: give each a load_share, together at most 1",
        "agents[2] at bus 722: load_share is 0, and all resources are shares of that load",
        "loop.signal_base is 'ahead'; it is 'day_ahead' or 'real_time'",
        "loop.gain is 0: the proportional rule would never move the signal",
        "agents[0] at bus 701: shiftable_share is above 1",
        "agents[0] at bus 701: efficiencies must lie in (0, 1]",
        "agents[0] at bus 701: pv_share is -1.0, not a number >= 0",
        "agents[1] at bus 701: efficiencies must lie in (0, 1]",
        "agents[1] at bus 701: storage_hours is nan",
        "agents[2] at bus 722: shift_per_kw2h must be positive",
        "agents[2] at bus 722: storage_per_kw2h must be positive",
        "agents[2] at bus 722: generator_last_per_kwh must be above generator_first_per_kwh",
        "network: v_min_pu is nan",
        "loop.bound_share must be below 1",
        "loop.max_iterations is below 1",
        "loop: step_share is -0.01",
        "loop: threshold_share is nan",
        "dso.penalty must be 'default'",
        "dso.upper_voltage is 'high'; it is 'lossless' or 'plain'",
        "dso: kappa_per_kwh is -0.05",
        "imbalance_spread is 0.0",
        "intervals is 0",
        "step_hours is inf",
        "lookahead is 0",
        "initial_charge is 1.5",
        "seed is -1",
    ):
        assert fault in str(caught.value), fault


def test_a_scenario_needs_an_agent():
    with pytest.raises(InvalidScenario, match="there is no agent"):
        replace(BASE, agents=())


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        (dict(shift_per_kw2h=0.0), "shiftable_share"),
        (dict(storage_per_kw2h=0.0), "storage_share"),
        (dict(generator_last_per_kwh=0.09), "generator_share"),
        (dict(generator_last_per_kwh=0.05), "generator_share"),
    ],
)
def test_linear_costs_are_refused_unless_nothing_bears_them(changes, share):
    with pytest.raises(InvalidScenario, match="the agent's answer jumps and the loop cycles"):
        with_agent(**changes)
    with_agent(**changes, **{share: 0.0})


def test_buses_that_are_unknown_or_without_load_are_all_named():
    first, second, *others = BASE.agents
    wrong = replace(BASE, agents=(replace(first, bus="7000"), replace(second, bus="702"), *others))
    with pytest.raises(InvalidScenario) as caught:
        Transactive(wrong)
    assert "agents[0]: feeder 'ieee37' has no bus '7000'" in str(caught.value)
    assert "agents[1]: bus 702 has no load, of which the agent's resources are shares" in str(caught.value)


def test_a_network_that_cannot_serve_its_loads_is_refused():
    with pytest.raises(InvalidScenario, match=r"at 0.95 of nominal load 1\d % must be shed to keep the limits"):
        Transactive(replace(BASE, network=replace(BASE.network, v_min_pu=0.97)))
    with pytest.raises(InvalidScenario, match=r"at 0.95 of nominal load: no dispatch keeps every bus"):
        Transactive(replace(BASE, network=replace(BASE.network, v_min_pu=1.02)))


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        (with_loop(rule="halfing"), "no rule is named 'halfing'. Did you mean 'halving'"),
        (replace(BASE, network=NetworkSpec(feeder="ieee73")), "no feeder is named 'ieee73'. Did you mean 'ieee37'"),
        (replace(BASE, dso=replace(BASE.dso, solver="adm")), "no OPF solver is named 'adm'. Did you mean 'admm'"),
    ],
)
def test_a_part_that_nobody_has_suggests_the_nearest(scenario, message):
    with pytest.raises(UnknownName, match=message):
        Transactive(scenario)


def test_a_rule_may_be_named_by_its_module():
    simulation = Transactive(with_loop(rule="peergrid.envs.transactive.signal:proportional"))
    assert simulation.params.loop.rule is proportional


# The user's own profiles


def table(folder: Path, **columns) -> str:
    """A CSV of five days, each with a load and a price that follow the hour."""
    hour = np.arange(120) % 24
    frame = dict(time=pd.date_range("2026-06-01", periods=120, freq="h"))
    frame |= dict(lmp_per_kwh=0.1 - 0.04 * np.cos(2 * np.pi * hour / 24))
    frame |= dict(load_pu=0.7 - 0.1 * np.cos(2 * np.pi * hour / 24))
    frame |= dict(pv_pu=np.clip(-np.cos(2 * np.pi * hour / 24), 0, 1))
    pd.DataFrame(frame | columns).to_csv(folder / "days.csv", index=False)
    return str(folder / "days.csv")


def played(scenario):
    """The closed hours of a day on which agents optimise."""
    simulation, policy, closed = Transactive(scenario), Optimising(), []
    simulation.reset(seed=0)
    while not simulation.is_over[0]:
        _, outcome = simulation.step(policy.act_rows(simulation, simulation.seen))
        if outcome.is_closed[0]:
            closed.append(outcome)
    return simulation.running()[1], closed


def test_where_all_comes_as_forecast_every_hour_closes_at_once_without_a_gap(tmp_path):
    days, closed = played(load_scenario(BASE, profiles_file=table(tmp_path)))
    assert [int(o.iteration[0]) for o in closed] == [0] * 24
    assert all(o.closing[0] == Closing.WITHIN_THRESHOLD for o in closed)
    share = np.array([o.gap_kw[0] / o.scheduled_kw[0] for o in closed])
    np.testing.assert_allclose(share, 0.0, atol=1e-4)
    np.testing.assert_array_equal(days.load_kw, days.forecast.load_kw)
    np.testing.assert_array_equal(days.pv_kw, days.forecast.pv_kw)
    # What the day costs is what was expected of it.
    cost = sum(float(o.total_cost[0]) for o in closed)
    np.testing.assert_allclose(cost, days.day_ahead.cost[0], rtol=1e-4)
    hour = np.arange(24)
    np.testing.assert_allclose(days.lmp_per_kwh[0], 0.1 - 0.04 * np.cos(2 * np.pi * hour / 24))


def test_a_forecast_of_the_load_that_is_wrong_leaves_a_gap_to_close(tmp_path):
    path = table(tmp_path, load_forecast_pu=np.full(120, 0.7))
    days, closed = played(load_scenario(BASE, profiles_file=path, intervals=1))
    nominal = load_feeder("ieee37").load_kw
    np.testing.assert_allclose(days.forecast.load_kw[0, 0], 0.7 * nominal)
    np.testing.assert_allclose(days.load_kw[0, 0], 0.6 * nominal)
    *_, last = closed
    assert last.gap_kw[0] < 0 and last.iteration[0] > 5  # less is drawn than was scheduled
    assert last.root_per_kwh < last.lmp_per_kwh


@pytest.mark.parametrize("column", ["lmp_per_kwh", "lmp_day_ahead_per_kwh"])
def test_prices_of_zero_are_refused_as_signals_are_shares_of_them(tmp_path, column):
    prices = dict(lmp_per_kwh=np.full(120, 0.1), lmp_day_ahead_per_kwh=np.full(120, 0.1))
    prices[column][3::24] = 0.0
    simulation = Transactive(replace(BASE, profiles_file=table(tmp_path, **prices)))
    with pytest.raises(InvalidProfiles, match=f"{column} is 0, and must be positive"):
        simulation.reset(seed=0)


def test_agents_without_demand_of_their_own_draw_none(tmp_path):
    shape = DayShape(intervals=24, step_hours=1.0, bus=("1", "2"), demand_class=("", "residential", ""))
    rng = np.random.default_rng(0)
    synthetic = SyntheticProfiles()
    day = synthetic.draw(shape, 0, rng)
    assert not day.demand_pu[:, [0, 2]].any() and (day.demand_pu[:, 1] > 0).all()
    assert day.pv_pu.shape == (24, 3)
    # Nothing else of the day depends on whether there is a demand.
    other = synthetic.draw(replace(shape, demand_class=("residential",) * 3), 0, np.random.default_rng(0))
    for name in ("load_pu", "load_forecast_pu", "pv_pu", "lmp_per_kwh"):
        np.testing.assert_array_equal(getattr(day, name), getattr(other, name))
    # A file without any column of demand does for such agents, and for no others.
    source = TableProfiles(table(tmp_path))
    none = source.draw(replace(shape, demand_class=("", "")), 0, rng)
    assert none.demand_pu.shape == (24, 2) and not none.demand_pu.any()
    with pytest.raises(InvalidProfiles, match="column demand_residential_pu is missing"):
        source.draw(shape, 0, rng)
