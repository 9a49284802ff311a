"""What each agent sees: names, units, ranges, values, and nothing that is somebody else's secret."""

from dataclasses import replace

import numpy as np
import pytest

from peergrid.envs.common.entries import bent, unbent
from peergrid.envs.common.registered import MECHANISMS
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.observation import OPTIONS, PRICE_UNIT_PER_KWH, observe
from peergrid.envs.p2p_trading.predictors import no_prediction
from peergrid.envs.p2p_trading.scenario import load_scenario, scenario_names
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.transition import current_interval
from peergrid.grid.errors import UnknownName


def simulation(predictor="none", num_envs=1, steps=2, scenario="ieee33", **changes):
    """A simulation that has played some random steps."""
    sim = Simulation(load_scenario(scenario, **changes), predictor=predictor, num_envs=num_envs)
    rng = np.random.default_rng(0)
    seen, outcome = sim.reset(seed=11), None
    for _ in range(steps):
        seen, outcome = sim.step(rng.uniform(-1, 1, (num_envs, sim.n_agent, 4)))
    return sim, seen, outcome


def entry(sim, seen, name):
    """One entry of what everybody sees: [row, agent]."""
    return seen[..., [e.name for e in sim.entries].index(name)]


def play_within_spaces(scenario, mechanism, predictor, cycles, seed=0):
    env = P2PTrading(scenario, mechanism=mechanism, predictor=predictor, max_cycles=cycles)
    rng = np.random.default_rng(seed)
    observations, _ = env.reset(seed=seed)
    spaces = {a: env.observation_space(a) for a in env.possible_agents}
    while True:
        assert all(spaces[a].contains(o) for a, o in observations.items())
        assert env.state_space.contains(env.state())
        if not env.agents:
            break
        # One step in two goes to the ends of the action space, where values are largest.
        draw = (lambda: rng.choice([-1.0, 1.0], 4)) if rng.random() < 0.5 else (lambda: rng.uniform(-1, 1, 4))
        observations, *_ = env.step({a: draw() for a in env.agents})


# Names, units, ranges


def test_every_entry_has_a_name_of_its_own_a_unit_and_a_range():
    env = P2PTrading()
    for entries, space in (
        (env.describe_observation("microgrid_2"), env.observation_space("microgrid_2")),
        (env.describe_state(), env.state_space),
    ):
        names = [e.name for e in entries]
        assert len(set(names)) == len(names) and all(names) and all(e.unit for e in entries)
        assert all(-np.inf < e.low < e.high < np.inf for e in entries)
        np.testing.assert_array_equal(space.low, np.array([e.low for e in entries], dtype=np.float32))
        np.testing.assert_array_equal(space.high, np.array([e.high for e in entries], dtype=np.float32))
        assert space.dtype == np.float32
    with pytest.raises(UnknownName, match="Did you mean 'microgrid_"):
        env.describe_observation("microgrid_9")


def test_the_layout_is_the_same_for_every_predictor_and_agent():
    described = [
        P2PTrading(predictor=p).describe_observation(a)
        for p in ("none", "oracle")
        for a in ("microgrid_0", "microgrid_3")
    ]
    assert all(d == described[0] for d in described)


def test_a_longer_lookahead_adds_forecasts_and_prices_and_nothing_else():
    short, long = (Simulation(load_scenario("ieee33", lookahead=n)).entries for n in (1, 3))
    added = {e.name for e in long} - {e.name for e in short}
    forecasts = ("PV forecast", "day-ahead LMP", "LMP expected", "load of the feeder expected")
    prices = [
        f"{option} in {{}} intervals: predicted nodal price{end}"
        for option in ("no trade", "full import", "full export")
        for end in ("", ", below", ", above")
    ]
    names = [*(f"{what} in {{}} intervals" for what in forecasts), *prices]
    assert added == {name.format(k) for name in names for k in (1, 2)}


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("scenario", ["ieee33", "ieee33_communities", "ieee33_paper"])
def test_observations_stay_within_their_spaces(scenario, mechanism):
    play_within_spaces(scenario, mechanism, "none", cycles=2)


def test_observations_with_predictions_stay_within_their_spaces():
    play_within_spaces("ieee33_communities", None, "oracle", cycles=2)


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("scenario", scenario_names())
def test_observations_stay_within_their_spaces_for_whole_days(scenario, mechanism):
    for seed in (1, 2):
        play_within_spaces(scenario, mechanism, "none", cycles=24, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", scenario_names())
def test_observations_with_predictions_stay_within_their_spaces_for_whole_days(scenario):
    play_within_spaces(scenario, None, "oracle", cycles=12)


# Values


def test_what_is_seen_is_what_is():
    sim, seen, outcome = simulation(num_envs=2, steps=3)
    days, t = sim.days, 3
    rating = sim.params.microgrids.rating_kw
    tens_of_cents = 1 / PRICE_UNIT_PER_KWH
    hour = 2 * np.pi * 3 / 24
    proposed, accepted = outcome.proposed_kw, outcome.response.accepted_kw
    expected = {
        "sine of time of day": np.full((2, 4), np.sin(hour)),
        "cosine of time of day": np.full((2, 4), np.cos(hour)),
        "share of the episode left": np.full((2, 4), 21 / 24),
        "state of charge": (outcome.stored_kwh - 8.0) / 32.0,
        "PV now": days.pv_kw[:, t] / rating,
        "PV forecast in 2 intervals": days.pv_forecast_kw[:, t + 2] / rating,
        "reference demand now": days.demand_kw[:, t] / rating,
        "diesel cost at no output": np.tile([0.6, 1.0, 0.8, 1.2], (2, 1)),
        "diesel cost at full output": np.tile([0.6 + 0.52, 1.0 + 0.44, 0.8 + 0.52, 1.2 + 0.44], (2, 1)),
        "utility of the first kWh": np.full((2, 4), 7.5),
        "LMP now": np.repeat(days.lmp_per_kwh[:, [t]], 4, axis=1) * tens_of_cents,
        "day-ahead LMP in 7 intervals": np.repeat(days.lmp_day_ahead_per_kwh[:, [t + 7]], 4, axis=1) * tens_of_cents,
        "own nodal price in the last interval": bent(outcome.response.price_per_kwh[:, sim.params.agent_bus]),
        "own proposal in the last interval": proposed / rating,
        "share of it that was accepted": np.where(
            proposed == 0, 1.0, accepted / np.where(proposed == 0, 1.0, proposed)
        ),
    }
    for name, values in expected.items():
        e = next(e for e in sim.entries if e.name == name)
        values = np.clip(values, e.low, e.high)
        np.testing.assert_allclose(entry(sim, seen, name), values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_battery_limits_are_those_that_the_next_step_keeps():
    sim, seen, _ = simulation(steps=2)
    least, most = (entry(sim, seen, f"{which} battery power").copy() for which in ("least", "most"))
    actions = np.zeros((1, 4, 4))
    for battery, limit in ((-1.0, least), (1.0, most)):
        actions[..., 0] = battery
        before = sim.state
        _, outcome = sim.step(actions)
        np.testing.assert_allclose(outcome.dispatch.battery_kw / 20.0, limit, rtol=1e-5, atol=1e-6)
        sim.state = before


def test_before_the_first_interval_nothing_was_proposed_and_the_price_is_the_lmp():
    sim, seen, _ = simulation(steps=0)
    lmp = entry(sim, seen, "LMP now")
    own = unbent(entry(sim, seen, "own nodal price in the last interval")) / PRICE_UNIT_PER_KWH
    np.testing.assert_allclose(own, lmp, rtol=1e-6)
    np.testing.assert_array_equal(entry(sim, seen, "own proposal in the last interval"), np.zeros((1, 4)))
    np.testing.assert_array_equal(entry(sim, seen, "share of it that was accepted"), np.ones((1, 4)))
    np.testing.assert_allclose(entry(sim, seen, "state of charge"), np.full((1, 4), 0.5))


def test_the_envelope_asked_about_is_full_import_no_trade_the_last_proposal_and_full_export():
    sim, seen, outcome = simulation(steps=14)
    importing, nothing, last, exporting = (entry(sim, seen, f"{option}: proposal") for option in OPTIONS)
    assert not nothing.any()
    assert np.all(importing <= last) and np.all(last <= exporting)
    assert np.all(importing <= 0) and np.all(exporting >= 0)
    rating = sim.params.microgrids.rating_kw
    proposed = outcome.proposed_kw / rating
    inside = (proposed > importing) & (proposed < exporting)
    assert inside.any()
    np.testing.assert_allclose(last[inside], proposed[inside], rtol=1e-5)
    # Both ends are what one can offer with the battery at its own end.
    before = sim.state
    for end, share in ((-1.0, importing), (1.0, exporting)):
        actions = np.zeros((1, 4, 4))
        actions[..., :2] = end
        _, decided = sim.step(actions)
        np.testing.assert_allclose(decided.decisions.quantity_kw / rating, share, rtol=1e-5, atol=1e-6)
        sim.state = before


def test_the_global_state_is_what_everybody_sees_and_every_bus():
    sim, seen, outcome = simulation(num_envs=2, steps=2)
    state = sim.global_state()
    names = [e.name for e in sim.state_entries]
    assert state.shape == (2, len(names)) and state.dtype == np.float32
    per_agent = len(sim.entries)
    np.testing.assert_array_equal(state[:, : 4 * per_agent], seen.reshape(2, -1))
    assert names[per_agent] == f"microgrid_1: {sim.entries[0].name}"
    feeder = sim.params.feeder
    for position, bus in enumerate(feeder.bus):
        load = sim.days.load_kw[:, 2, position] / feeder.base_kva
        np.testing.assert_allclose(state[:, names.index(f"bus {bus}: load")], load, rtol=1e-6)
        volts = outcome.response.voltage_pu[:, position]
        np.testing.assert_allclose(state[:, names.index(f"bus {bus}: last voltage")], volts, rtol=1e-6)


# Secrets


def looked(sim, state, days, predictor):
    now = current_interval(state, days, sim.params)
    return observe(state, days, now, sim.foretold, predictor, sim.params)


@pytest.mark.parametrize("predictor", ["none", "oracle"])
def test_nobody_sees_what_the_others_have_and_want_in_this_interval(predictor):
    sim, _, _ = simulation(predictor, steps=2, scenario="ieee33_communities")
    t, rng = sim.state.interval[0], np.random.default_rng(5)
    for me in range(sim.n_agent):
        others = np.arange(sim.n_agent) != me
        private = {}
        for name in ("pv_kw", "pv_forecast_kw", "demand_kw", "alpha_per_kw2h"):
            values = getattr(sim.days, name).copy()
            values[:, t:, others] *= rng.uniform(0.2, 2.0, values[:, t:, others].shape)
            private[name] = values
        stored = sim.state.stored_kwh.copy()
        stored[:, others] = rng.uniform(80, 400, stored[:, others].shape)
        # Their own proposals are theirs as well; what was accepted of them is public.
        proposed = sim.state.last_proposed_kw.copy()
        proposed[:, others] *= 1.5
        state = replace(sim.state, stored_kwh=stored, last_proposed_kw=proposed)
        changed = looked(sim, state, replace(sim.days, **private), sim.predictor)
        kept = looked(sim, sim.state, sim.days, sim.predictor)
        np.testing.assert_array_equal(changed[:, me], kept[:, me])
        assert not np.array_equal(changed[:, others], kept[:, others])


def test_nobody_sees_what_the_future_will_bring():
    sim, _, _ = simulation(steps=2)
    t = sim.state.interval[0]
    future = {}
    for name in ("pv_kw", "demand_kw", "alpha_per_kw2h", "lmp_per_kwh", "load_kw", "load_kvar"):
        future[name] = getattr(sim.days, name).copy()
        future[name][:, t + 1 :] *= 0.5
    changed = looked(sim, sim.state, replace(sim.days, **future), no_prediction)
    np.testing.assert_array_equal(changed, looked(sim, sim.state, sim.days, no_prediction))
