"""Scenarios: the shipped ones, the user's own, and what is said to whoever gets one wrong."""

import copy
import pickle
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from peergrid.envs.common.network import DsoSpec, NetworkSpec, build_feeder
from peergrid.envs.common.profiles import SyntheticProfiles, training_days
from peergrid.envs.p2p_trading.scenario import (
    GeneratorSpec,
    MarketSpec,
    MicrogridSpec,
    Scenario,
    build_dso,
    build_microgrids,
    check_scenario,
    load_scenario,
    scenario_from_dict,
    scenario_names,
)
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.grid import load_feeder, save_feeder
from peergrid.grid.dso import DsoStatus
from peergrid.grid.errors import InvalidProfiles, InvalidScenario, PeergridError, UnknownName

MICROGRID = dict(
    demand_class="residential",
    demand_peak_kw=30.0,
    diesel_max_kw=52.0,
    diesel_a_per_kw2h=0.0005,
    diesel_b_per_kwh=0.06,
    pv_peak_kw=20.0,
    battery_kw=20.0,
    battery_min_kwh=8.0,
    battery_max_kwh=40.0,
)


def values(name="ieee33"):
    """A scenario as nested mappings, as YAML gives them."""
    with initialize_config_module("peergrid.conf", version_base="1.3"):
        return OmegaConf.to_container(compose(f"scenario/{name}"))["scenario"]


def with_parts(scenario, **parts):
    """The scenario with some fields of its network, market and so on changed."""
    return replace(scenario, **{name: replace(getattr(scenario, name), **changes) for name, changes in parts.items()})


# Shipped scenarios


def test_six_scenarios_are_shipped():
    assert {"ieee33", "ieee33_communities", "ieee33_paper", "ieee69", "ieee123", "caracas141"} <= set(scenario_names())


@pytest.mark.parametrize("name", scenario_names())
def test_hydra_composes_what_the_file_says(name):
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario == scenario_from_dict(values(name))
    assert hash(scenario) == hash(scenario_from_dict(values(name)))
    check_scenario(scenario)


@pytest.mark.parametrize("name", scenario_names())
def test_every_microgrid_and_generator_has_its_bus_and_its_rating(name):
    scenario = load_scenario(name)
    dso, grids = build_dso(scenario), build_microgrids(scenario)
    assert [dso.feeder.bus[b] for b in dso.trade_bus] == [m.bus for m in scenario.microgrids]
    assert [dso.feeder.bus[b] for b in dso.generators.bus] == [g.bus for g in scenario.generators]
    assert np.isfinite(dso.feeder.i_max_a[1:]).all()
    first, k = scenario.microgrids[0], scenario.scale
    np.testing.assert_allclose(grids.diesel_max_kw[0], k * first.diesel_max_kw)
    np.testing.assert_allclose(grids.diesel_a_per_kw2h[0], first.diesel_a_per_kw2h / k)
    np.testing.assert_allclose(grids.energy_max_kwh[0], k * first.battery_max_kwh)


def test_plain_python_says_the_same_as_the_file():
    def microgrid(bus, demand_class, demand_peak_kw, diesel_max_kw, diesel_b_per_kwh):
        return MicrogridSpec(
            **MICROGRID
            | dict(bus=bus, demand_class=demand_class, demand_peak_kw=demand_peak_kw)
            | dict(diesel_max_kw=diesel_max_kw, diesel_b_per_kwh=diesel_b_per_kwh)
        )

    scenario = Scenario(
        name="ieee33",
        network=NetworkSpec(feeder="ieee33"),
        generators=(GeneratorSpec(bus="18", p_max_kw=1500.0, q_max_kvar=540.0, a_per_kw2h=5e-5, b_per_kwh=0.12),),
        microgrids=(
            microgrid("17", "residential", 30.0, 52.0, 0.06),
            microgrid("22", "commercial", 45.0, 44.0, 0.10),
            microgrid("25", "commercial", 35.0, 52.0, 0.08),
            microgrid("32", "residential", 45.0, 44.0, 0.12),
        ),
    )
    assert scenario == load_scenario("ieee33")
    assert (scenario.dso, scenario.market, scenario.profiles) == (DsoSpec(), MarketSpec(), SyntheticProfiles())


def test_the_communities_are_the_microgrids_ten_times_as_large():
    small, large = load_scenario("ieee33"), load_scenario("ieee33_communities")
    assert large.microgrids == small.microgrids and large.generators == small.generators
    assert large.scale == 10.0 and large.network.rating_floor_path_to == "18"
    np.testing.assert_allclose(build_microgrids(large).rating_kw, 10 * build_microgrids(small).rating_kw)


def test_a_floor_of_ratings_on_a_path_holds_on_that_path_only():
    scenario = load_scenario("ieee33_communities")
    feeder, without = build_feeder(scenario.network), build_feeder(replace(scenario.network, rating_floor_path_to=""))
    raised = np.flatnonzero(feeder.i_max_a > without.i_max_a)
    on_path = np.flatnonzero(feeder.on_path[feeder.index("18")])
    assert len(raised) > 0 and set(raised) <= set(on_path)
    assert np.all(feeder.i_max_a[raised] == 80.0)


# As values


def test_a_scenario_is_a_value():
    scenario = load_scenario("ieee33")
    assert {scenario: 1}[load_scenario("ieee33")] == 1
    assert scenario != load_scenario("ieee33", seed=1)
    assert pickle.loads(pickle.dumps(scenario)) == copy.deepcopy(scenario) == scenario
    assert load_scenario(scenario) is scenario
    with pytest.raises(FrozenInstanceError):
        scenario.seed = 2


def test_top_level_fields_can_be_changed_on_the_way():
    assert load_scenario("ieee33", intervals=3, cooperation=0.5) == replace(
        load_scenario("ieee33"), intervals=3, cooperation=0.5
    )
    with pytest.raises(InvalidScenario, match="intervals is 0, below 1"):
        load_scenario("ieee33", intervals=0)
    with pytest.raises(TypeError, match="intervalls"):
        load_scenario("ieee33", intervalls=3)


# The user's own file


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_file_of_ones_own_builds_on_a_shipped_scenario(tmp_path):
    path = write(tmp_path, "mine.yaml", "name: mine\ndefaults: [ieee33, _self_]\nnetwork: {v_min_pu: 0.94}\nscale: 2\n")
    assert load_scenario(path) == with_parts(
        load_scenario("ieee33", name="mine", scale=2.0), network=dict(v_min_pu=0.94)
    )
    beside = write(tmp_path, "theirs.yaml", "name: theirs\ndefaults: [mine]\nseed: 5\n")
    assert load_scenario(beside) == replace(load_scenario(path), name="theirs", seed=5)
    _, outcome = played(load_scenario(beside, intervals=1))
    assert outcome.response.status.tolist() == [0]


def test_a_whole_file_of_ones_own_needs_nothing_shipped(tmp_path):
    path = write(tmp_path, "whole.yml", yaml.safe_dump(values() | dict(name="whole")))
    assert load_scenario(path) == load_scenario("ieee33", name="whole")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [unclosed", "while parsing"),
        ("- a list", "a scenario is a mapping"),
        ("name: mine\ndefaults: [ieee34]\n", "no scenario is named 'ieee34'. Did you mean 'ieee33"),
        ("name: mine\n", "network is missing; microgrids is missing"),
    ],
)
def test_a_file_that_is_no_scenario_is_refused(tmp_path, text, message):
    with pytest.raises(PeergridError, match=message):
        load_scenario(write(tmp_path, "mine.yaml", text))


def test_a_name_that_nobody_has_suggests_the_nearest():
    with pytest.raises(UnknownName, match=r"no scenario is named 'ieee32'. Did you mean 'ieee33'\? Known: caracas141,"):
        load_scenario("ieee32")
    with pytest.raises(UnknownName, match="A YAML file or a Scenario will do as well"):
        load_scenario("nowhere.yaml")


# Faults


def test_every_fault_of_the_keys_is_named_at_once_and_the_nearest_suggested():
    wrong = values()
    wrong |= dict(intervalls=24, scale="large", daily_cycle=1)
    wrong["network"] |= dict(v_min=0.95)
    wrong["microgrids"][1] |= dict(pv_peak="20 kW", colour="red")
    del wrong["microgrids"][2]["demand_peak_kw"]
    with pytest.raises(InvalidScenario) as caught:
        scenario_from_dict(wrong)
    message = str(caught.value)
    for fault in (
        "scenario 'ieee33'",
        "unknown key intervalls (did you mean intervals?)",
        "scale is 'large', not of type float",
        "daily_cycle is 1, not of type bool",
        "unknown key network.v_min (did you mean v_min_pu?)",
        "unknown key microgrids[1].pv_peak (did you mean pv_peak_kw?)",
        "unknown key microgrids[1].colour;",
        "microgrids[2].demand_peak_kw is missing",
    ):
        assert fault in message, fault


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("network", "ieee33", "network. is 'ieee33', not a mapping"),
        ("microgrids", {"bus": 1}, "microgrids is .*, not a list"),
        ("microgrids", ["17"], r"microgrids\[0\]. is '17', not a mapping"),
        ("intervals", 2.5, "intervals is 2.5, not of type int"),
        ("scale", True, "scale is True, not of type float"),
        (
            "network",
            {"feeder": "ieee33", "ratings": "own"},
            "network.ratings is 'own'; it is 'nominal_load' or 'feeder'",
        ),
        ("name", True, "name is True, not of type str"),
        ("seed", None, "seed is None, not of type int"),
        ("profiles", {"load_scale": "high"}, "profiles.load_scale is 'high', not of type float"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(key, value, message):
    with pytest.raises(InvalidScenario, match=message):
        scenario_from_dict(values() | {key: value})


def test_a_feeder_may_keep_its_own_ratings():
    network = replace(load_scenario("ieee33").network, feeder="ieee123", ratings="feeder")
    feeder = build_feeder(network)
    np.testing.assert_array_equal(feeder.i_max_a, load_feeder("ieee123").i_max_a)
    assert (feeder.v_min_pu == network.v_min_pu).all()


def test_every_contradiction_of_the_numbers_is_named_at_once():
    scenario = load_scenario("ieee33")
    first, second, *others = scenario.microgrids
    nan = float("nan")
    with pytest.raises(InvalidScenario) as caught:
        replace(
            scenario,
            microgrids=(
                replace(first, battery_min_kwh=50.0, charge_efficiency=0.0, pv_peak_kw=-1.0),
                replace(second, bus=first.bus, utility_w_per_kwh=0.1, must_serve_share=2.0, unserved_per_kwh=0.05),
                *others,
            ),
            generators=(replace(scenario.generators[0], p_min_kw=10.0, p_max_kw=5.0, a_per_kw2h=-1.0),),
            network=replace(scenario.network, v_min_pu=nan),
            market=replace(scenario.market, half_spread_per_kwh=nan, price_cap_per_kwh=0.0, correction_rounds=0),
            dso=replace(scenario.dso, penalty="papr", upper_voltage="high", kappa_per_kwh=-0.05),
            scale=float("inf"),
            step_hours=0.0,
            lookahead=0,
            cooperation=1.5,
            initial_charge=-0.1,
            horizon="never",
            seed=-1,
        )
    message = str(caught.value)
    for fault in (
        "two microgrids share a bus",
        "microgrids[0] at bus 17: battery_min_kwh is above battery_max_kwh",
        "microgrids[0] at bus 17: efficiencies must lie in (0, 1]",
        "microgrids[0] at bus 17: pv_peak_kw is -1.0, not a number >= 0",
        "microgrids[1] at bus 17: utility_w_per_kwh must be above demand_price_per_kwh",
        "microgrids[1] at bus 17: must_serve_share is above 1",
        "microgrids[1] at bus 17: unserved_per_kwh is below utility_w_per_kwh",
        "generators[0] at bus 18: p_min_kw is above p_max_kw",
        "generators[0] at bus 18: a_per_kw2h is -1.0",
        "network: v_min_pu is nan",
        "market: half_spread_per_kwh is nan",
        "market.price_cap_per_kwh must be positive",
        "market.correction_rounds is below 1",
        "dso.penalty is 'papr'; it is 'default' or 'paper'",
        "dso.upper_voltage is 'high'; it is 'lossless' or 'plain'",
        "dso: kappa_per_kwh is -0.05",
        "scale is inf",
        "step_hours is 0.0",
        "lookahead is 0",
        "cooperation is 1.5",
        "initial_charge is -0.1",
        "horizon is 'never'",
        "seed is -1",
    ):
        assert fault in message, fault


def test_a_market_needs_a_microgrid():
    with pytest.raises(InvalidScenario, match="there is no microgrid"):
        load_scenario("ieee33", microgrids=())


def test_free_shedding_is_refused():
    with pytest.raises(InvalidScenario, match=r"penalty is 'paper', so c_ls_per_kw2h must be positive"):
        with_parts(load_scenario("ieee33"), dso=dict(penalty="paper"))


def test_penalties_that_would_shed_load_to_save_trades_are_refused():
    with pytest.raises(InvalidScenario, match=r"load would be shed to save trades: raise dso.voll_per_kwh or lower"):
        check_scenario(with_parts(load_scenario("ieee33"), dso=dict(voll_per_kwh=0.5)))
    # The same lambda_corr is divided by the scale that multiplies trades: the communities pass as they are.
    with pytest.raises(InvalidScenario, match="shed to save trades"):
        check_scenario(with_parts(load_scenario("ieee33"), dso=dict(lambda_corr_per_kw2h=0.05)))


def test_a_price_cap_below_the_lmp_is_refused():
    with pytest.raises(InvalidScenario, match=r"price_cap_per_kwh = 0.2 is below the largest LMP 0.3, so undelivered"):
        check_scenario(with_parts(load_scenario("ieee33"), market=dict(price_cap_per_kwh=0.2)))


def test_buses_that_the_feeder_does_not_have_are_all_named():
    scenario = load_scenario("ieee33")
    first, *others = scenario.microgrids
    wrong = replace(
        with_parts(scenario, network=dict(rating_floor_path_to="34")),
        microgrids=(replace(first, bus="99"), *others),
        generators=(replace(scenario.generators[0], bus="18a"),),
    )
    with pytest.raises(InvalidScenario) as caught:
        Simulation(wrong)
    for where, bus in (("microgrids[0]", "99"), ("generators[0]", "18a"), ("network.rating_floor_path_to", "34")):
        assert f"{where}: feeder 'ieee33' has no bus '{bus}'" in str(caught.value)


def test_a_network_that_cannot_serve_its_loads_is_refused_with_where_and_what_to_do():
    with pytest.raises(InvalidScenario) as caught:
        Simulation(with_parts(load_scenario("ieee33"), network=dict(v_min_pu=1.02, v_max_pu=1.1)))
    message = str(caught.value)
    for part in (
        "at 0.95 of nominal load without trades: no dispatch keeps every bus and line within limits",
        "bus 18 is at 0.918 p.u., its limits are 1.02 and 1.1",
        "widen network.v_min_pu, v_max_pu or the ratings",
    ):
        assert part in message, part


def test_a_network_that_must_shed_load_without_any_trade_is_refused():
    with pytest.raises(InvalidScenario, match=r"29 % must be shed to keep the limits: .* or add a generator"):
        check_scenario(with_parts(load_scenario("ieee33"), network=dict(v_min_pu=0.99)))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (dict(network=dict(feeder="ieee34")), "no feeder is named 'ieee34'. Did you mean 'ieee37'"),
        (dict(dso=dict(solver="conik")), "no OPF solver is named 'conik'. Did you mean 'conic'"),
        (dict(market=dict(mechanism="call")), "no mechanism is named 'call'"),
    ],
)
def test_a_part_that_nobody_has_suggests_the_nearest(parts, message):
    with pytest.raises(UnknownName, match=message):
        Simulation(with_parts(load_scenario("ieee33"), **parts))


def test_a_demand_class_that_nobody_has_suggests_the_nearest():
    scenario = load_scenario("ieee33")
    wrong = replace(scenario, microgrids=(replace(scenario.microgrids[0], demand_class="residental"),))
    with pytest.raises(UnknownName, match=r"no demand class is named 'residental'. Did you mean 'residential'"):
        Simulation(wrong).reset(seed=0)


# The user's own profiles


def profiles(folder: Path, days=5, **columns) -> str:
    """A CSV of days that are easy to recognise."""
    n = 24 * days
    frame = dict(time=pd.date_range("2026-06-01", periods=n, freq="h"), lmp_per_kwh=np.linspace(0.05, 0.15, n))
    frame |= dict(load_pu=np.full(n, 0.6), pv_pu=np.linspace(0, 1, n))
    frame |= dict(demand_residential_pu=np.full(n, 0.5), demand_commercial_pu=np.full(n, 0.25))
    pd.DataFrame(frame | columns).to_csv(folder / "days.csv", index=False)
    return str(folder / "days.csv")


def played(scenario, **options):
    sim = Simulation(scenario)
    sim.reset(seed=0, options=options or None)
    return sim, sim.step(np.zeros((1, sim.n_agent, 4)))[1]


def test_ones_own_profiles_drive_an_episode(tmp_path):
    scenario = load_scenario("ieee33", profiles_file=profiles(tmp_path), intervals=3, lookahead=2)
    sim, outcome = played(scenario, evaluation_day=0)
    days = sim.days
    price = np.linspace(0.05, 0.15, 120)[96:101]  # the fifth day is the first one kept for evaluation
    np.testing.assert_allclose(days.lmp_per_kwh[0], price)
    np.testing.assert_allclose(days.lmp_day_ahead_per_kwh[0], price)
    np.testing.assert_allclose(days.pv_kw[0, :, 0], 20.0 * np.linspace(0, 1, 120)[96:101])
    np.testing.assert_allclose(days.load_kw[0], np.tile(0.6 * sim.params.feeder.load_kw, (5, 1)))
    np.testing.assert_allclose(days.demand_kw[0, 0], [15.0, 0.25 * 45, 0.25 * 35, 22.5])
    np.testing.assert_allclose(outcome.response.price_parts.energy, price[0], rtol=1e-9)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (dict(pv_pu=np.r_[np.nan, np.zeros(119)]), r"pv_pu is missing or not a number at row 1 \(2026-06-01T00:00\)"),
        (dict(load_pu=np.r_[-1.0, np.zeros(119)]), "load_pu is negative at row 1"),
        (dict(lmp_per_kwh=np.full(120, 60.0)), r"lmp_per_kwh is above 3 \(is it per MWh\?\)"),
    ],
)
def test_profiles_with_faults_are_refused_with_column_and_row(tmp_path, columns, message):
    with pytest.raises(InvalidProfiles, match=message):
        Simulation(load_scenario("ieee33", profiles_file=profiles(tmp_path, **columns)))


def test_a_profiles_file_that_is_not_there_is_named():
    with pytest.raises(InvalidProfiles, match=r"'nowhere.csv' cannot be read"):
        Simulation(load_scenario("ieee33", profiles_file="nowhere.csv"))


def test_prices_above_the_cap_in_ones_own_profiles_are_refused(tmp_path):
    path = profiles(tmp_path, lmp_per_kwh=np.full(120, 1.5))
    with pytest.raises(InvalidScenario, match=r"below the largest LMP 1.5"):
        check_scenario(load_scenario("ieee33", profiles_file=path))


def test_yaml_may_write_numbers_in_exponents(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ndefaults: [ieee33, _self_]\ndso: {lambda_corr_per_kw2h: 4e-3}\n")
    assert load_scenario(path).dso.lambda_corr_per_kw2h == 0.004


def test_a_user_s_file_may_bear_the_name_of_the_one_it_builds_on(tmp_path):
    (tmp_path / "ieee33.yaml").write_text("name: ieee33\ndefaults: [ieee33, _self_]\nscale: 2.0\n")
    assert load_scenario(tmp_path / "ieee33.yaml").scale == 2.0
    (tmp_path / "a.yaml").write_text("name: a\ndefaults: [b]\n")
    (tmp_path / "b.yaml").write_text("name: b\ndefaults: [a]\n")
    with pytest.raises(InvalidScenario, match="in a circle"):
        load_scenario(tmp_path / "a.yaml")


def test_lines_may_be_left_without_ratings():
    scenario = load_scenario("ieee33")
    unrated = replace(scenario, network=replace(scenario.network, rating_floor_a=np.inf), intervals=2)
    simulation = Simulation(unrated)
    simulation.reset(seed=0)
    _, outcome = simulation.step(np.zeros((1, 4, 4)))
    assert outcome.response.status[0] == 0


def test_a_changed_feeder_of_the_user_s_is_read_again(tmp_path):
    save_feeder(load_feeder("ieee33"), tmp_path / "own")
    scenario = load_scenario("ieee33")
    own = replace(scenario, network=replace(scenario.network, feeder=str(tmp_path / "own")))
    before = build_feeder(own.network).load_kw.sum()
    halved = load_feeder("ieee33")
    save_feeder(replace(halved, load_kw=halved.load_kw / 2), tmp_path / "own")
    assert build_feeder(own.network).load_kw.sum() == before / 2


def test_long_episodes_to_learn_from_never_touch_a_held_out_day():
    assert set(training_days(20, span=2)) == set(range(20)) - {3, 4, 13, 14}
    with pytest.raises(InvalidProfiles, match="make episodes shorter"):
        training_days(20, span=11)


def test_a_part_may_be_given_by_name():
    simulation = Simulation("ieee33", dso="unchecked")
    simulation.reset(seed=0)
    _, outcome = simulation.step(np.zeros((1, 4, 4)))
    assert outcome.response.status[0] == DsoStatus.UNCHECKED
    with pytest.raises(UnknownName, match="unchecked"):
        Simulation("ieee33", dso="uncheked")


def test_fewer_microgrids_and_more_sun():
    scenario = load_scenario("ieee33_communities")
    fewer = replace(scenario, n_microgrids=2, pv_scale=3.0)
    assert fewer.microgrids == scenario.microgrids[:2]
    one, two = Simulation(scenario), Simulation(fewer)
    for simulation in (one, two):
        simulation.reset(options={"evaluation_day": 16})
    sun = [simulation.running()[1].pv_kw[0].sum(axis=0) for simulation in (one, two)]
    assert two.n_agent == 2 and 2.5 < sun[1].sum() / sun[0][:2].sum() < 3.5  # noise is drawn for fewer
    assert replace(fewer, seed=1).microgrids == fewer.microgrids
    with pytest.raises(InvalidScenario, match="n_microgrids is 5, and there are 4"):
        replace(scenario, n_microgrids=5)
    with pytest.raises(InvalidScenario, match="pv_scale"):
        replace(scenario, pv_scale=-1.0)


def test_a_season_is_where_all_days_come_from(monkeypatch):
    drawn = []
    profiles = load_scenario("ieee33").profiles
    draw = SyntheticProfiles.draw

    def noted(self, shape, day, rng):
        drawn.append(day)
        return draw(self, shape, day, rng)

    monkeypatch.setattr(SyntheticProfiles, "draw", noted)
    winter = Simulation(load_scenario("ieee33", first_day=334, n_days=90), num_envs=30)
    winter.reset(seed=0)
    winter.reset(options={"evaluation_day": 0})
    assert len(set(drawn)) > 20 and all(day >= 334 or day < 59 for day in drawn)
    assert {day % 10 == 4 for day in drawn[:30]} == {False} and {day % 10 for day in drawn[30:]} == {4}
    none = Simulation(load_scenario("ieee33", first_day=0, n_days=4))
    with pytest.raises(PeergridError, match="no day is left"):
        none.reset(options={"evaluation_day": 0})
    assert profiles.n_days == 365
