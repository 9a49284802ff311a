"""The batched core: a batch is its members, and nothing else decides what happens than seed, day and actions."""

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest

from peergrid.envs.common.profiles import evaluation_days
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation, build_params, energy_window
from peergrid.envs.p2p_trading.types import Days
from peergrid.grid.errors import InvalidAction, PeergridError, UnknownName

N = 3


def arrays_of(thing, name=""):
    """Every array in a dataclass, those of its parts included, by name."""
    if isinstance(thing, np.ndarray):
        return {name: thing}
    parts = {f.name: getattr(thing, f.name) for f in fields(thing)} if is_dataclass(thing) else {}
    return {k: v for key, part in parts.items() for k, v in arrays_of(part, f"{name}.{key}").items()}


def random_actions(n, n_agent=4, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, n_agent, 4))


@pytest.mark.parametrize(
    ("scenario", "mechanism", "rounds", "predictor", "steps"),
    [
        ("ieee33", "call_auction", 1, "none", 4),
        ("ieee33_communities", "bilateral", 3, "none", 3),
        ("ieee33", "direct", 1, "oracle", 1),
    ],
)
def test_a_batch_is_its_members_one_by_one(scenario, mechanism, rounds, predictor, steps):
    chosen = load_scenario(scenario, intervals=steps)
    chosen = replace(chosen, market=replace(chosen.market, correction_rounds=rounds))
    arguments = dict(mechanism=mechanism, predictor=predictor)
    batch = Simulation(chosen, num_envs=N, **arguments)
    members = [Simulation(chosen, **arguments) for _ in range(N)]
    seen = batch.reset(seed=70)
    alone = [member.reset(seed=70 + i) for i, member in enumerate(members)]
    drawn = arrays_of(batch.days)
    for i, member in enumerate(members):
        for name, values in arrays_of(member.days).items():
            np.testing.assert_array_equal(drawn[name][i], values[0], err_msg=name)
    for step in range(steps):
        np.testing.assert_allclose(seen, np.concatenate(alone), rtol=0, atol=5e-4)
        actions = random_actions(N, seed=step)
        seen, outcome = batch.step(actions)
        answers = [member.step(actions[i : i + 1]) for i, member in enumerate(members)]
        alone = [observation for observation, _ in answers]
        together = arrays_of(outcome)
        for i, (_, own) in enumerate(answers):
            for name, values in arrays_of(own).items():
                # Both are optimal to the solver's tolerance, about a hundredth of a kW where a cost is flat; and every
                # round and step goes on from there.
                np.testing.assert_allclose(together[name][i], values[0], rtol=1e-3, atol=1e-3, err_msg=name)


def test_a_seed_draws_the_same_day_whatever_was_played_before():
    sim = Simulation()
    first = sim.reset(seed=4)
    sim.step(random_actions(1))
    np.testing.assert_array_equal(sim.reset(seed=4), first)
    assert not np.array_equal(sim.reset(seed=5), first)


def test_unseeded_resets_go_on_with_the_generators_as_they_are():
    one, other = Simulation(num_envs=2), Simulation(num_envs=2)
    one.reset(seed=4), other.reset(seed=4)
    for _ in range(3):
        np.testing.assert_array_equal(one.reset(), other.reset())
    fresh = Simulation().reset(), Simulation().reset()
    assert not np.array_equal(*fresh)


def test_rows_of_an_evaluation_play_consecutive_held_out_days_whatever_the_seed():
    sim = Simulation(num_envs=2)
    sim.reset(seed=1, options={"evaluation_day": 5})
    days = arrays_of(sim.days)
    sim.reset(seed=2, options={"evaluation_day": 6})
    for name, values in arrays_of(sim.days).items():
        np.testing.assert_array_equal(values[0], days[name][1], err_msg=name)
    # Those kept for evaluation begin again after the last, with other weather.
    count = len(evaluation_days(sim.profiles.n_days))
    single = Simulation()
    assert not np.array_equal(
        single.reset(options={"evaluation_day": 0}), single.reset(options={"evaluation_day": count})
    )


def test_an_evaluation_day_leaves_the_training_draws_alone():
    sim, other = Simulation(), Simulation()
    sim.reset(seed=1), other.reset(seed=1)
    sim.reset(options={"evaluation_day": 0})
    np.testing.assert_array_equal(sim.reset(), other.reset())


@pytest.mark.parametrize("bad", [-1, 1.5, "3", True, [1]])
def test_an_evaluation_day_that_is_no_number_is_refused(bad):
    with pytest.raises(PeergridError, match=r"evaluation_day.*not a whole number"):
        Simulation().reset(options={"evaluation_day": bad})


def test_days_can_be_given_rather_than_drawn():
    sim = Simulation()
    sim.reset(seed=3)
    days = sim.days
    assert isinstance(days, Days)
    flat = replace(days, lmp_per_kwh=np.full_like(days.lmp_per_kwh, 0.2))
    sim.begin(flat)
    _, outcome = sim.step(random_actions(1))
    np.testing.assert_allclose(outcome.response.price_parts.energy, 0.2, rtol=1e-9)


def test_nothing_is_played_before_the_first_reset_or_after_the_end():
    sim = Simulation(load_scenario("ieee33", intervals=1))
    for ask in (lambda: sim.step(random_actions(1)), sim.observe, sim.running):
        with pytest.raises(PeergridError, match=r"call reset\(\)"):
            ask()
    sim.reset(seed=0)
    sim.step(random_actions(1))
    with pytest.raises(PeergridError, match=r"over: call reset\(\)"):
        sim.step(random_actions(1))


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((1, 3, 4)), r"shape \(1, 3, 4\), not \(1, 4, 4\)"),
        (np.zeros((2, 4, 4)), r"shape \(2, 4, 4\)"),
        (np.full((1, 4, 4), np.nan), r"not finite at .*\[0, 0, 0\]"),
        (np.full((1, 4, 4), np.inf), "not finite"),
    ],
)
def test_actions_that_mean_nothing_are_refused_and_nothing_is_played(actions, message):
    sim = Simulation()
    sim.reset(seed=0)
    with pytest.raises(InvalidAction, match=message):
        sim.step(actions)
    assert sim.running()[0].interval.tolist() == [0]


def test_parts_may_be_names_objects_or_module_and_attribute():
    by_path = Simulation(mechanism="peergrid.envs.p2p_trading.mechanisms:bilateral")
    by_name = Simulation(mechanism="bilateral")
    by_object = Simulation(mechanism=by_name.params.mechanism)
    assert by_path.params.mechanism is by_name.params.mechanism is by_object.params.mechanism
    with pytest.raises(UnknownName, match=r"no mechanism is named 'bilatral'. Did you mean 'bilateral'"):
        Simulation(mechanism="bilatral")
    with pytest.raises(UnknownName, match=r"no predictor is named 'oracel'. Did you mean 'oracle'"):
        Simulation(predictor="oracel")
    with pytest.raises(UnknownName, match=r"no scenario is named 'ieee34'. Did you mean 'ieee33"):
        Simulation("ieee34")


def test_marked_rows_begin_and_play_while_the_others_wait():
    sim, whole = Simulation(num_envs=N), Simulation(num_envs=N)
    sim.reset(seed=4), whole.reset(seed=4)
    odd = np.array([False, True, False])
    actions = random_actions(N)
    before = sim.seen
    seen, outcome = sim.step(actions, odd)
    expected, everything = whole.step(actions)
    assert sim.running()[0].interval.tolist() == [0, 1, 0] and outcome.gain.shape == (1, 4)
    np.testing.assert_array_equal(seen[~odd], before[~odd])
    np.testing.assert_allclose(seen[odd], expected[odd], rtol=0, atol=1e-5)
    np.testing.assert_allclose(outcome.gain[0], everything.gain[1], rtol=1e-6, atol=1e-6)
    sim.step(actions, ~odd)
    np.testing.assert_allclose(sim.seen, expected, rtol=0, atol=1e-5)
    # The next day of a row is the next of its own generator, whichever rows begin with it.
    again = sim.reset(rows=odd)
    np.testing.assert_array_equal(again[odd], whole.reset()[odd])
    np.testing.assert_array_equal(again[~odd], sim.observe()[~odd])
    with pytest.raises(PeergridError, match=r"call reset\(\) first"):
        Simulation(num_envs=N).reset(rows=odd)


def test_a_row_can_be_looked_at_alone():
    sim, single = Simulation(num_envs=N), Simulation()
    sim.reset(seed=4), single.reset(seed=6)
    assert sim.row(2).outcome is None
    actions = random_actions(N)
    sim.step(actions, np.array([True, False, True]))
    _, outcome = single.step(actions[2:])
    row = sim.row(2)
    assert row.outcome is not None and sim.row(1).outcome is None
    for one, other in ((row.state, single.state), (row.days, single.days), (row.outcome, outcome)):
        found = arrays_of(other)
        for name, values in arrays_of(one).items():
            np.testing.assert_allclose(values, found[name], rtol=1e-6, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(row.seen, single.seen, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(row.observe(), row.seen)
    sim.reset(rows=np.array([False, False, True]))
    assert sim.row(2).outcome is None and sim.row(0).outcome is not None


def test_what_is_random_beside_the_day_is_fixed_by_seed_or_held_out_day():
    def drawn(sim, rows=None):
        rows = np.ones(sim.num_envs, dtype=bool) if rows is None else rows
        return [rng.random() for rng in sim.spawn(rows)]

    sim, single = Simulation(num_envs=2), Simulation()
    first = sim.reset(seed=4)
    one = drawn(sim)
    assert len(set(one)) == 2 and not set(drawn(sim)) & set(one)
    single.reset(seed=5)
    assert drawn(single) == one[1:]
    second = sim.reset()
    np.testing.assert_array_equal(sim.reset(seed=4), first)
    np.testing.assert_array_equal(sim.reset(), second)  # to draw or not to draw leaves the days alone
    sim.reset(seed=1, options={"evaluation_day": 3})
    held_out = drawn(sim)
    sim.reset(seed=2, options={"evaluation_day": 3})
    assert drawn(sim, np.array([False, True])) == held_out[1:]


def test_the_window_for_the_energy_closes_no_faster_than_a_battery_can_follow():
    # Two intervals of an hour with 1 kW of sun, no diesel and a load of at most 2 kW: 0.95 kWh in, 2 / 0.95 out.
    scenario = load_scenario("ieee33", intervals=2)
    scenario = replace(
        scenario, microgrids=tuple(replace(m, diesel_max_kw=0.0) for m in scenario.microgrids), initial_charge=0.5
    )
    params = build_params(scenario)
    pv, load = np.full((1, 2, 4), 1.0), np.full((1, 2, 4), 2.0)
    least, most = energy_window(params, pv, load)
    np.testing.assert_allclose(least[0, :, 0], [24 - 1.9, 24 - 0.95, 24])
    np.testing.assert_allclose(most[0, :, 0], [24 + 4 / 0.95, 24 + 2 / 0.95, 24])
    open_least, open_most = energy_window(replace(params, daily_cycle=False), pv, load)
    assert np.all(open_least == 8) and np.all(open_most == 40)
