"""The batched core: what was agreed the day before, whole days of the loop, seeds, the distributed solver."""

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest

from peergrid.baselines.policies.transactive import Optimising
from peergrid.envs.common.rows import rows_of
from peergrid.envs.transactive.plans import Outlook
from peergrid.envs.transactive.resources import operating_cost
from peergrid.envs.transactive.scenario import load_scenario
from peergrid.envs.transactive.simulation import Transactive
from peergrid.envs.transactive.types import Closing, Days, State
from peergrid.grid.dso import DsoQuery
from peergrid.grid.errors import InvalidAction, PeergridError, UnknownName

BASE = load_scenario("ieee37")
SHORT = replace(BASE, intervals=3)


def with_loop(scenario=BASE, **changes):
    return replace(scenario, loop=replace(scenario.loop, **changes))


def play(scenario, day=0):
    """The simulation at the end of a held-out day on which agents optimise, and every outcome."""
    simulation, policy, outcomes = Transactive(scenario), Optimising(), []
    simulation.reset(options={"evaluation_day": day})
    while not simulation.is_over[0]:
        outcomes.append(simulation.step(policy.act_rows(simulation, simulation.seen))[1])
    return simulation, outcomes


def closed(outcomes):
    return [o for o in outcomes if o.is_closed[0]]


def deviation(outcomes):
    """Energy imported beyond schedule or short of it over the day, in kWh."""
    return sum(abs(float(o.gap_kw[0])) for o in closed(outcomes))


@pytest.fixture(scope="module")
def with_signal():
    return play(BASE)


@pytest.fixture(scope="module")
def without_signal():
    return play(with_loop(rule="none"))


# The loop


def test_the_loop_brings_the_exchange_nearer_to_its_schedule(with_signal, without_signal):
    assert len(closed(with_signal[1])) == len(closed(without_signal[1])) == 24
    assert deviation(with_signal[1]) < 0.5 * deviation(without_signal[1])
    # Where no gap was, nothing moved; where the signal moved, the gap is no larger than it was at the LMP.
    for moved, stayed in zip(closed(with_signal[1]), closed(without_signal[1]), strict=True):
        if moved.closing[0] == Closing.WITHIN_THRESHOLD:
            assert abs(moved.gap_kw[0]) <= 0.01 * moved.scheduled_kw[0]
        assert moved.interval[0] == stayed.interval[0] and moved.lmp_per_kwh[0] == stayed.lmp_per_kwh[0]


def test_every_root_signal_is_within_its_bounds_and_moves_against_the_gap(with_signal):
    simulation, outcomes = with_signal
    day_ahead = simulation.running()[1].forecast.lmp_per_kwh[0]
    share = np.array([o.root_per_kwh[0] / day_ahead[o.interval[0]] for o in outcomes])
    assert 0.8 - 1e-9 <= share.min() < 0.99 and 1.01 < share.max() <= 1.2 + 1e-9
    for before, after in pairwise(outcomes):
        if not before.is_closed[0]:
            assert np.sign(after.root_per_kwh - before.root_per_kwh)[0] == np.sign(before.gap_kw[0])
            # Agents with costs that rise at the margin answer monotonically: the import falls as the signal rises.
            assert (after.import_kw - before.import_kw)[0] * np.sign(before.gap_kw[0]) < 1e-3


def test_the_day_ends_as_it_began_for_agents_who_optimise(with_signal):
    simulation, outcomes = with_signal
    state = simulation.running()[0]
    np.testing.assert_allclose(state.stored_kwh[0], simulation.params.initial_kwh, atol=1e-3)
    np.testing.assert_allclose(state.shifted_kwh, 0.0, atol=1e-3)
    assert state.interval.tolist() == [24] and state.steps.tolist() == [len(outcomes)]


def test_a_day_with_the_signal_costs_the_system_less_than_one_without(with_signal, without_signal):
    cost, plain = (sum(float(o.total_cost[0]) for o in closed(day[1])) for day in (with_signal, without_signal))
    assert cost < plain


def test_load_moves_to_low_signals_and_generation_to_high_ones(with_signal):
    simulation, outcomes = with_signal
    agents = simulation.params.agent_bus
    psi = np.array([o.signal_per_kwh[0, agents] for o in closed(outcomes)])
    for name in ("shift_kw", "generator_kw", "storage_kw"):
        done = np.array([getattr(o.set_points, name)[0] for o in closed(outcomes)])
        for i in range(simulation.n_agent):
            assert np.corrcoef(done[:, i], psi[:, i])[0, 1] > 0.6, (name, i)


def first_hour(rule):
    """Gaps of the first hour of a day, as shares of the schedule, under a threshold that a step may leap over."""
    narrow = with_loop(replace(BASE, intervals=4), rule=rule, threshold_share=2e-4)
    simulation, policy = Transactive(narrow), Optimising()
    simulation.reset(options={"evaluation_day": 1})
    gaps = []
    while simulation.running()[0].interval[0] == 0:
        _, outcome = simulation.step(policy.act_rows(simulation, simulation.seen))
        gaps.append(float(outcome.gap_kw[0] / outcome.scheduled_kw[0]))
    return np.array(gaps), outcome.closing[0]


def test_a_fixed_step_cycles_where_a_halving_one_closes_in():
    fixed, why_fixed = first_hour("fixed")
    halving, why_halving = first_hour("halving")
    assert (why_fixed, why_halving) == (Closing.OUT_OF_ITERATIONS, Closing.WITHIN_THRESHOLD)
    assert len(fixed) == 30 and len(halving) < 20
    assert (fixed[12:-1] * fixed[13:] < 0).all()  # over the schedule and back
    np.testing.assert_allclose(fixed[14:], fixed[12:-2], atol=1e-6)
    assert abs(halving[-1]) < 2e-4 < np.abs(fixed).min()


def test_the_proportional_rule_closes_hours_in_fewer_iterations(with_signal, without_signal):
    _, fast = play(with_loop(rule="proportional"))
    assert len(closed(fast)) == 24 and len(fast) < len(with_signal[1])
    assert deviation(fast) < 0.5 * deviation(without_signal[1])


# The day before


def test_the_schedule_is_the_power_flow_of_the_plans_at_the_forecast():
    simulation = Transactive(BASE)
    simulation.reset(seed=3)
    days, params = simulation.running()[1], simulation.params
    forecast, agreed = rows_of(days.forecast, 0), days.day_ahead
    signal, exchange, imported = agreed.signal_per_kwh[0], agreed.exchange_kw[0], agreed.import_kw[0]
    load = forecast.load_kw[:, params.agent_bus]
    np.testing.assert_allclose(exchange, agreed.set_points.total_kw[0] + forecast.pv_kw - load, atol=1e-5)
    response = params.dso(
        DsoQuery(
            load_kw=forecast.load_kw,
            load_kvar=forecast.load_kvar,
            proposed_kw=exchange + load,
            lmp_per_kwh=forecast.lmp_per_kwh,
        )
    )
    np.testing.assert_allclose(response.substation_kw, imported, rtol=1e-6)
    np.testing.assert_array_equal(simulation.now().scheduled_kw, imported[:1])
    # Losses raise the signal from the substation outwards; on just these signals agents have planned.
    np.testing.assert_allclose(signal[:, 0], forecast.lmp_per_kwh)
    assert (signal[:, 1:] > forecast.lmp_per_kwh[:, None]).all()
    outlook = Outlook(
        first=0,
        signal_per_kwh=signal[:, params.agent_bus],
        shift_most_kw=days.shift_most_kw[0],
        stored_kwh=params.initial_kwh,
        shifted_kwh=np.zeros(9),
    )
    np.testing.assert_allclose(simulation.plan.solve(outlook).total_kw, agreed.set_points.total_kw[0], atol=0.1)
    upstream = forecast.lmp_per_kwh @ imported
    operating = operating_cost(params.resources, rows_of(agreed.set_points, 0)).sum()
    np.testing.assert_allclose(agreed.cost, upstream + operating)


def test_a_day_is_what_was_drawn_in_kilowatts():
    simulation = Transactive(SHORT)
    r, feeder = simulation.params.resources, simulation.params.feeder
    half_day = replace(simulation.episodes.shape, intervals=14)
    whole = SHORT.profiles.draw(half_day, 170, np.random.default_rng(0))
    noon = replace(whole, **{f.name: getattr(whole, f.name)[11:] for f in fields(whole)})
    simulation.begin(simulation.days_of([noon]))
    days = simulation.running()[1]
    for actual, forecast, drawn, foreseen, size in (
        (days.load_kw, days.forecast.load_kw, noon.load_pu, noon.load_forecast_pu, feeder.load_kw),
        (days.load_kvar, days.forecast.load_kvar, noon.load_pu, noon.load_forecast_pu, feeder.load_kvar),
        (days.pv_kw, days.forecast.pv_kw, noon.pv_pu, noon.pv_forecast_pu, r.pv_peak_kw),
        (days.lmp_per_kwh, days.forecast.lmp_per_kwh, noon.lmp_per_kwh, noon.lmp_day_ahead_per_kwh, 1.0),
    ):
        np.testing.assert_array_equal(actual[0], drawn * size)
        np.testing.assert_array_equal(forecast[0], foreseen * size)
        assert not np.array_equal(actual, forecast)
    shiftable = r.shiftable_share * days.forecast.load_kw[0][:, simulation.params.agent_bus]
    np.testing.assert_allclose(days.shift_most_kw[0], shiftable)
    _, outcome = simulation.step(np.zeros((1, 9, 3)))
    np.testing.assert_array_equal(outcome.lmp_per_kwh, noon.lmp_per_kwh[:1])


# Seeds and rows


def assert_same(one, other):
    for kind, a, b in zip((State, Days), one, other, strict=True):
        for f in fields(kind):
            if isinstance(getattr(a, f.name), np.ndarray):
                np.testing.assert_array_equal(getattr(a, f.name), getattr(b, f.name), err_msg=f.name)


def test_the_same_seed_gives_the_same_trajectory_and_another_one_another():
    def trajectory(seed):
        simulation, rng = Transactive(SHORT, num_envs=2), np.random.default_rng(5)
        seen = [simulation.reset(seed=seed)]
        for _ in range(6):
            seen.append(simulation.step(rng.uniform(-1, 1, (2, 9, 3)))[0])
        return simulation, np.array(seen)

    (one, seen), (other, again), (_, different) = trajectory(3), trajectory(3), trajectory(4)
    np.testing.assert_array_equal(seen, again)
    assert_same(one.running(), other.running())
    assert not np.array_equal(seen, different)
    # Row i draws with seed + i.
    np.testing.assert_array_equal(seen[0, 1], different[0, 0])


def test_rows_reset_apart_leave_the_others_alone():
    simulation = Transactive(SHORT, num_envs=3)
    simulation.reset(seed=0)
    simulation.step(np.zeros((3, 9, 3)))
    before = simulation.running()
    kept = np.array([True, False, True])
    simulation.reset(seed=9, rows=~kept)
    after = simulation.running()
    assert_same([rows_of(part, kept) for part in before], [rows_of(part, kept) for part in after])
    assert after[0].steps.tolist() == [1, 0, 1]
    alone = Transactive(SHORT)
    alone.reset(seed=10)
    assert_same([rows_of(part, ~kept) for part in after], alone.running())


def test_a_row_can_be_looked_at_alone():
    simulation = Transactive(SHORT, num_envs=2)
    simulation.reset(seed=0)
    assert simulation.row(1).outcome is None
    _, outcome = simulation.step(np.zeros((2, 9, 3)), rows=np.array([False, True]))
    row = simulation.row(1)
    assert simulation.row(0).outcome is None and row.outcome is not None
    np.testing.assert_array_equal(row.outcome.gap_kw, outcome.gap_kw)
    np.testing.assert_array_equal(row.seen, simulation.seen[1:])
    row.step(np.ones((1, 9, 3)))
    assert simulation.running()[0].steps.tolist() == [0, 1]
    simulation.reset(rows=np.array([False, True]))
    assert simulation.row(1).outcome is None  # that was another day's


def test_training_days_are_never_evaluation_days():
    drawn, source = [], SHORT.profiles

    class Watched:
        n_days, max_load_pu, max_lmp_per_kwh = source.n_days, source.max_load_pu, source.max_lmp_per_kwh
        load_persistence, lmp_persistence = source.load_persistence, source.lmp_persistence

        def draw(self, shape, day, rng):
            drawn.append(day)
            return source.draw(shape, day, rng)

    watched = Transactive(SHORT, profiles=Watched())
    for seed in range(15):
        watched.reset(seed=seed)
    assert not any(day % 10 == 4 for day in drawn) and len(set(drawn)) > 10
    watched.reset(options={"evaluation_day": 2})
    assert drawn[-1] == 24


# The distributed solver


def test_by_admm_the_exchange_is_that_of_the_interior_point():
    central, distributed = Transactive(SHORT), Transactive(SHORT, dso="admm")
    assert distributed.scenario.dso.solver == "admm"
    for simulation in (central, distributed):
        simulation.reset(options={"evaluation_day": 0})
    ahead = [s.running()[1].day_ahead.import_kw[0, 0] for s in (central, distributed)]
    np.testing.assert_allclose(*ahead, rtol=1e-3)
    for generator in (-1.0, 0.2):
        asked = np.tile([-1.0, generator, -1.0], (1, 9, 1))
        one, other = (s.step(asked)[1] for s in (central, distributed))
        assert (one.closing, other.closing) == (Closing.OPEN, Closing.OPEN)
        np.testing.assert_allclose(one.import_kw, other.import_kw, rtol=1e-3)
        np.testing.assert_allclose(one.signal_per_kwh, other.signal_per_kwh, rtol=1e-3)


# What is refused


def test_a_step_needs_an_episode_and_max_cycles_ends_it():
    simulation = Transactive(SHORT, max_cycles=2)
    with pytest.raises(PeergridError, match=r"no episode has begun: call reset\(\)"):
        simulation.step(np.zeros((1, 9, 3)))
    with pytest.raises(PeergridError, match=r"no episode has begun: call reset\(\)"):
        simulation.reset(rows=np.array([False]))
    simulation.reset(seed=0)
    for over in (False, True):
        simulation.step(np.zeros((1, 9, 3)))
        assert simulation.is_over.tolist() == [over]
    with pytest.raises(PeergridError, match=r"the episode is over: call reset\(\)"):
        simulation.step(np.zeros((1, 9, 3)))
    with pytest.raises(PeergridError, match="max_cycles is 0"):
        Transactive(SHORT, max_cycles=0)


def test_actions_that_mean_nothing_are_refused_and_nothing_is_played():
    simulation = Transactive(SHORT, num_envs=2)
    simulation.reset(seed=0)
    bad = np.zeros((2, 9, 3))
    bad[1, 4, 2] = np.nan
    with pytest.raises(InvalidAction, match=r"not finite at \(row, agent, number\) \[\[1, 4, 2\]\]"):
        simulation.step(bad)
    with pytest.raises(InvalidAction, match=r"shape \(1, 9, 3\), not \(2, 9, 3\)"):
        simulation.step(bad[:1])
    assert simulation.running()[0].steps.tolist() == [0, 0]


def test_names_that_nobody_has_suggest_the_nearest():
    with pytest.raises(UnknownName, match=r"no OPF solver is named 'admn'. Did you mean 'admm'\?"):
        Transactive(SHORT, dso="admn")
    with pytest.raises(UnknownName, match="no scenario is named 'ieee38'"):
        Transactive("ieee38")


def test_actions_beyond_their_space_do_what_the_bounds_do():
    results = []
    for scale in (1.0, 7.0):
        simulation = Transactive(SHORT)
        simulation.reset(seed=0)
        results.append(simulation.step(scale * np.ones((1, 9, 3)))[1])
    np.testing.assert_array_equal(results[0].import_kw, results[1].import_kw)
