"""What happens in a TE iteration: when an hour closes, and what moves when it does."""

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest

from peergrid.envs.common.rows import rows_of
from peergrid.envs.transactive.resources import SetPoints, store
from peergrid.envs.transactive.scenario import build_dso, load_scenario
from peergrid.envs.transactive.settlement import spread_cost
from peergrid.envs.transactive.simulation import Transactive
from peergrid.envs.transactive.transition import current_interval, decode, encode
from peergrid.envs.transactive.types import Closing, Outcome
from peergrid.grid.dso import DsoStatus, OpfDso

SHORT = load_scenario("ieee37", intervals=3)
N_AGENT = len(SHORT.agents)


def begun(seed=0, num_envs=1, scenario=SHORT, dso=None, **loop):
    simulation = Transactive(replace(scenario, loop=replace(scenario.loop, **loop)), num_envs=num_envs, dso=dso)
    simulation.reset(seed=seed)
    return simulation


either_base = pytest.mark.parametrize("signal_base", ["day_ahead", "real_time"])


def bases(simulation):
    """The prices from which the root signals of the first row's hours start."""
    days = simulation.running()[1]
    of = {"day_ahead": days.forecast.lmp_per_kwh, "real_time": days.lmp_per_kwh}
    return of[simulation.scenario.loop.signal_base][0]


def actions(shift=0.0, generator=0.0, storage=0.0, rows=1):
    return np.tile(np.array([shift, generator, storage]), (rows, N_AGENT, 1))


GREEDY = actions(-1.0, -1.0, -1.0)  # draws all that it can
GENEROUS = actions(1.0, 1.0, 1.0)  # injects all that it can


def until_closed(simulation, action, most=40, **arguments):
    """The outcomes of an hour in which everybody answers the same every time."""
    outcomes = []
    while len(outcomes) < most:
        outcomes.append(simulation.step(action, **arguments)[1])
        if outcomes[-1].is_closed.all():
            return outcomes
    raise AssertionError("the hour does not close")


# Why an hour closes


def test_an_hour_closes_within_the_threshold():
    outcome = begun(threshold_share=0.5).step(actions())[1]
    assert outcome.closing.tolist() == [Closing.WITHIN_THRESHOLD]
    assert 0 < abs(outcome.gap_kw[0]) <= 0.5 * outcome.scheduled_kw[0]


def test_an_hour_closes_where_the_rule_leaves_the_signal():
    outcome = begun(rule="none", threshold_share=1e-9).step(actions())[1]
    assert outcome.closing.tolist() == [Closing.SIGNAL_STANDS]


@either_base
@pytest.mark.parametrize(("action", "bound"), [(GREEDY, 1.2), (GENEROUS, 0.8)], ids=["missing", "left over"])
def test_an_hour_closes_at_the_bound_that_steps_lead_to(action, bound, signal_base):
    simulation = begun(signal_base=signal_base)
    outcomes = until_closed(simulation, action)
    assert len(outcomes) in (21, 22)  # twenty steps of 1 %, one more where rounding stops short of the bound
    assert [Closing(o.closing[0]) for o in outcomes] == [Closing.OPEN] * (len(outcomes) - 1) + [Closing.SIGNAL_STANDS]
    share = np.array([o.root_per_kwh[0] / bases(simulation)[0] for o in outcomes])
    expected = 1 + np.sign(bound - 1) * 0.01 * np.arange(len(outcomes))
    np.testing.assert_allclose(share, np.clip(expected, 0.8, 1.2))
    assert share[-1] == pytest.approx(bound)


def test_an_hour_closes_out_of_iterations():
    outcomes = until_closed(begun(max_iterations=4), GREEDY)
    assert [o.closing[0] for o in outcomes] == [Closing.OPEN] * 3 + [Closing.OUT_OF_ITERATIONS]
    assert [o.iteration[0] for o in outcomes] == [0, 1, 2, 3]


def test_the_best_reason_is_given_where_several_hold():
    assert begun(threshold_share=0.9, max_iterations=1, rule="none").step(actions())[1].closing[0] == 1
    assert begun(threshold_share=0.0, max_iterations=1, rule="none").step(actions())[1].closing[0] == 2


def test_every_reason_has_its_sentence():
    assert len({closing.sentence for closing in Closing}) == 4


@pytest.mark.parametrize("wild", [3.0, 0.1])
def test_no_rule_leads_beyond_the_bounds(wild):
    simulation = begun(threshold_share=0.0)

    def far(hour):
        return wild * hour.root_per_kwh, hour.step_share

    simulation.params = replace(simulation.params, loop=replace(simulation.params.loop, rule=far))
    first, second = until_closed(simulation, actions())
    assert first.closing[0] == Closing.OPEN and second.closing[0] == Closing.SIGNAL_STANDS
    np.testing.assert_allclose(second.root_per_kwh, (1.2 if wild > 1 else 0.8) * bases(simulation)[0])


# Where somebody else moves the signal


def test_a_signal_that_is_left_as_it_is_closes_the_hour_when_it_was_answered():
    simulation = begun(threshold_share=0.0)
    outcomes = until_closed(simulation, GREEDY, dso_actions=np.zeros(1))
    assert [o.closing[0] for o in outcomes] == [Closing.OPEN, Closing.SIGNAL_STANDS]
    assert all(o.root_per_kwh == bases(simulation)[0] for o in outcomes)


@either_base
@pytest.mark.parametrize(("action", "helps"), [(GREEDY, 1.0), (GENEROUS, -1.0)], ids=["missing", "left over"])
def test_the_bound_that_the_gap_asks_for_closes_the_hour_and_the_other_one_does_not(action, helps, signal_base):
    for moved, n_iterations in ((helps, 2), (-helps, 3)):
        simulation = begun(signal_base=signal_base)
        outcomes = until_closed(simulation, action, dso_actions=np.array([moved]))
        assert len(outcomes) == n_iterations and outcomes[-1].closing[0] == Closing.SIGNAL_STANDS
        assert all(np.sign(o.gap_kw[0]) == helps for o in outcomes)
        np.testing.assert_allclose(outcomes[-1].root_per_kwh, (1 + 0.2 * moved) * bases(simulation)[0])


def test_nobody_moves_the_signal_beyond_its_bounds():
    simulation = begun(threshold_share=0.0)
    simulation.step(GREEDY, dso_actions=np.array([9.0]))
    np.testing.assert_allclose(simulation.running()[0].root_per_kwh, 1.2 * bases(simulation)[0])


def test_what_differs_between_the_bases_is_where_signals_start_and_nothing_else():
    one, other = (begun(signal_base=base, rule="none") for base in ("day_ahead", "real_time"))
    assert_equal(one.running()[1], other.running()[1])
    a, b = (s.step(actions(0.3, 0.5, -0.6))[1] for s in (one, other))
    for name in ("lmp_per_kwh", "import_kw", "gap_kw", "upstream_cost", "total_cost", "dso_reward", "operating_cost"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    day_ahead, real_time = bases(one)[0], bases(other)[0]
    assert (a.root_per_kwh[0], b.root_per_kwh[0]) == (day_ahead, real_time) and day_ahead != real_time
    np.testing.assert_allclose(a.signal_per_kwh / b.signal_per_kwh, day_ahead / real_time)
    # Deviations are settled at the signal: what the DSO passes on is then not what it pays.
    np.testing.assert_allclose(a.bills.real_time / b.bills.real_time, day_ahead / real_time)
    np.testing.assert_array_equal(a.bills.day_ahead, b.bills.day_ahead)


# What moves, and when


def test_nothing_is_settled_and_nothing_moves_before_the_hour_closes():
    simulation = begun(max_iterations=3, threshold_share=0.0)
    money = ("operating_cost", "upstream_cost", "total_cost", "dso_result", "reward")
    for _ in range(3):
        before = simulation.running()[0]
        *still_open, closed = until_closed(simulation, actions(0.3, 0.5, -0.6))
        assert len(still_open) == 2
        for outcome in still_open:
            np.testing.assert_array_equal(outcome.stored_kwh, before.stored_kwh)
            np.testing.assert_array_equal(outcome.shifted_kwh, before.shifted_kwh)
            assert not any(getattr(outcome, name).any() for name in money)
            assert not outcome.bills.total.any()
        assert all(getattr(closed, name).all() for name in money) and closed.bills.day_ahead.all()
        done, after = closed.set_points, simulation.running()[0]
        moved = store(simulation.params.resources, before.stored_kwh, done.storage_kw, 1.0)
        np.testing.assert_array_equal(after.stored_kwh, moved)
        np.testing.assert_array_equal(after.shifted_kwh, before.shifted_kwh + done.shift_kw)
        np.testing.assert_array_equal(closed.stored_kwh, after.stored_kwh)
    assert np.abs(simulation.running()[0].stored_kwh - simulation.params.initial_kwh).max() < 1e-3


def test_the_gap_costs_the_dsos_mark_in_every_iteration():
    outcomes = until_closed(begun(max_iterations=3), GREEDY)
    assert len(outcomes) == 3
    for o in outcomes:
        expected = -spread_cost(o.import_kw - o.scheduled_kw, o.lmp_per_kwh, SHORT.imbalance_spread)
        np.testing.assert_allclose(o.dso_reward, expected)
        assert o.dso_reward[0] < -0.1


@either_base
def test_the_next_hour_opens_at_its_base_with_the_losses_of_the_schedule(signal_base):
    simulation = begun(max_iterations=2, signal_base=signal_base)
    simulation.step(GREEDY)
    simulation.state = replace(simulation.state, step_share=np.array([0.002]))  # as after halving
    until_closed(simulation, GREEDY)
    state, days = simulation.running()
    assert (state.interval[0], state.iteration[0], state.gap_kw[0]) == (1, 0, 0.0)
    assert state.root_per_kwh[0] == bases(simulation)[1] == pytest.approx(state.signal_per_kwh[0, 0])
    ahead = days.day_ahead.signal_per_kwh[0, 1]
    np.testing.assert_allclose(state.signal_per_kwh[0] / state.root_per_kwh[0], ahead / ahead[0])
    assert np.allclose(state.signal_per_kwh[0], ahead, rtol=1e-9) == (signal_base == "day_ahead")
    assert np.isnan(state.last_root_per_kwh[0]) and state.step_share[0] == SHORT.loop.step_share
    closed_with = simulation.outcome.gap_kw[0]
    assert state.last_gap_kw[0] == closed_with
    _, outcome = simulation.step(GENEROUS)  # this hour goes on, and remembers the one before
    state = simulation.running()[0]
    assert state.last_gap_kw[0] == closed_with != outcome.gap_kw[0] == state.gap_kw[0]
    assert state.last_root_per_kwh[0] == outcome.root_per_kwh[0] == outcome.base_per_kwh[0] == bases(simulation)[1]


def test_signals_follow_the_losses_of_the_flows_that_were_answered():
    simulation = begun()
    feeder, before = simulation.params.feeder, simulation.running()[0].root_per_kwh
    _, outcome = simulation.step(GREEDY)
    psi = [float(before[0])]
    for j in range(1, feeder.n_bus):
        v, flow_pu = outcome.response.voltage_pu[0, j], outcome.response.flow_kw[0, j] / feeder.base_kva
        psi.append(psi[feeder.parent[j]] * (1 + 2 * feeder.r_pu[j] * flow_pu / v**2))
    np.testing.assert_allclose(outcome.signal_per_kwh[0], psi)
    # What is answered next has moved as the root has.
    after = simulation.running()[0]
    np.testing.assert_allclose(after.signal_per_kwh[0], np.array(psi) * 1.01)


@pytest.mark.parametrize("seed", [0, 1])
def test_power_balances_and_voltages_stay_within_limits_whatever_agents_do(seed):
    simulation, rng = begun(seed, threshold_share=0.9), np.random.default_rng(seed)
    while not simulation.is_over[0]:
        now = simulation.now()
        _, o = simulation.step(rng.uniform(-1, 1, (1, N_AGENT, 3)))
        injected = o.import_kw + o.response.accepted_kw.sum() + o.response.shed_kw.sum()
        np.testing.assert_allclose(injected, now.load_kw.sum() + o.response.losses_kw, rtol=1e-6)
        np.testing.assert_allclose(o.exchange_kw, o.set_points.total_kw + o.pv_kw - o.load_kw, atol=1e-6)
        feeder = simulation.params.feeder
        assert (o.response.voltage_pu[0, 1:] > feeder.v_min_pu[1:] - 1e-5).all()
        assert (o.response.status == DsoStatus.OPTIMAL).all()


@pytest.mark.parametrize("extreme", [False, True], ids=["anything", "all at once"])
def test_whatever_agents_ask_for_the_day_ends_as_it_began(extreme):
    whole = load_scenario("ieee37")
    simulation = begun(2, 4, whole, threshold_share=0.9, max_iterations=1)
    rng, furthest = np.random.default_rng(0), np.zeros(2)
    while not simulation.is_over.all():
        asked = rng.uniform(-1, 1, (4, N_AGENT, 3))
        asked = np.sign(asked[:, :1, :1]) * np.ones_like(asked) if extreme else asked
        simulation.step(asked)
        state = simulation.running()[0]
        moved = np.abs(state.stored_kwh - simulation.params.initial_kwh).max(), np.abs(state.shifted_kwh).max()
        furthest = np.maximum(furthest, moved)
    assert (furthest > 50).all()
    np.testing.assert_allclose(state.stored_kwh, np.tile(simulation.params.initial_kwh, (4, 1)), atol=1e-4)
    np.testing.assert_allclose(state.shifted_kwh, 0.0, atol=1e-4)


# Actions


def test_actions_by_hand():
    params = begun().params
    r = params.resources
    chosen = decode(np.array([[[-0.5, 0.0, 1.0]] * N_AGENT]), params)
    np.testing.assert_allclose(chosen.shift_kw[0], -0.5 * 0.15 * r.peak_kw)
    np.testing.assert_allclose(chosen.generator_kw[0], 0.125 * r.peak_kw)
    np.testing.assert_allclose(chosen.storage_kw[0], 0.1 * r.peak_kw)


def test_actions_and_set_points_turn_into_each_other():
    params = begun().params
    some = np.random.default_rng(0).uniform(-1, 1, (5, N_AGENT, 3))
    np.testing.assert_allclose(encode(decode(some, params), params), some, atol=1e-12)
    # An agent without resources asks for nothing.
    bare = tuple(replace(a, shiftable_share=0.0, generator_share=0.0, storage_share=0.0) for a in SHORT.agents)
    params = begun(scenario=replace(SHORT, agents=bare)).params
    assert not decode(some, params).total_kw.any() and not encode(decode(some, params), params).any()


def test_what_is_impossible_is_clipped_and_told():
    simulation = begun()
    limits, most_kw = simulation.now().limits, simulation.params.resources.generator_max_kw
    far = np.full((1, N_AGENT), 1e4)
    _, outcome = simulation.answer(SetPoints(shift_kw=far, generator_kw=-far, storage_kw=-far))
    np.testing.assert_allclose(outcome.set_points.shift_kw, limits.shift_most_kw, atol=1e-5)
    np.testing.assert_allclose(outcome.set_points.generator_kw, 0.0)
    np.testing.assert_allclose(outcome.set_points.storage_kw, limits.storage_least_kw, atol=1e-5)
    np.testing.assert_allclose(outcome.clipped_kw, 3e4 - limits.shift_most_kw + limits.storage_least_kw)
    _, outcome = simulation.answer(SetPoints(shift_kw=0 * far, generator_kw=0.5 * most_kw[None], storage_kw=0 * far))
    assert not outcome.clipped_kw.any()


# A batch is its members


def assert_equal(one, other, where=""):
    if is_dataclass(one):
        for field in fields(one):
            if field.name != "solve_seconds":
                assert_equal(getattr(one, field.name), getattr(other, field.name), f"{where}.{field.name}")
    else:
        np.testing.assert_array_equal(one, other, err_msg=where)


class OneByOne:
    """Answers every row alone: the scenario's own DSO answers several at once to its tolerance only."""

    def __init__(self):
        self.own = build_dso(SHORT)

    def __call__(self, query):
        rows = [self.own(rows_of(query, slice(i, i + 1))) for i in range(len(query.load_kw))]
        return stacked(rows)


def stacked(parts):
    first = parts[0]
    if is_dataclass(first):
        names = [f.name for f in fields(first)]
        return replace(first, **{name: stacked([getattr(part, name) for part in parts]) for name in names})
    return np.concatenate(parts) if isinstance(first, np.ndarray) else first


def test_rows_in_different_hours_are_their_single_simulations_to_the_last_bit():
    n_row, rng = 3, np.random.default_rng(4)
    batch = begun(7, n_row, dso=OneByOne(), threshold_share=0.12, max_iterations=6)
    singles = [begun(7 + i, dso=OneByOne(), threshold_share=0.12, max_iterations=6) for i in range(n_row)]
    apart = set()
    while not batch.is_over.any():
        asked = 0.3 * rng.uniform(-1, 1, (n_row, N_AGENT, 3))
        seen, outcome = batch.step(asked)
        for i, single in enumerate(singles):
            own_seen, own = single.step(asked[i : i + 1])
            np.testing.assert_array_equal(seen[i], own_seen[0])
            assert_equal(rows_of(outcome, slice(i, i + 1)), own)
            assert_equal(rows_of(batch.running()[0], slice(i, i + 1)), single.running()[0])
        apart.add(len(set(batch.running()[0].interval.tolist())))
    assert max(apart) > 1  # the rows were in different hours


def test_marked_rows_alone_are_played():
    batch = begun(7, 3)
    before = batch.running()
    _, outcome = batch.step(actions(rows=3), rows=np.array([True, False, True]))
    after = batch.running()
    assert outcome.interval.shape == (2,) and after[0].steps.tolist() == [1, 0, 1]
    assert_equal(rows_of(after[0], slice(1, 2)), rows_of(before[0], slice(1, 2)))


# A DSO that fails


class Fails:
    """Answers as the scenario's own until it is told to find nothing feasible."""

    def __init__(self):
        self.own, self.fails = build_dso(SHORT), False
        feeder = self.own.feeder
        self.strict = OpfDso(replace(feeder, v_min_pu=np.full(feeder.n_bus, 1.04)), self.own.trade_bus)

    def __call__(self, query):
        return self.strict(query) if self.fails else self.own(query)


@pytest.mark.parametrize("fails_the_day_before", [False, True])
def test_a_dso_without_an_answer_is_a_status_and_the_day_goes_on(fails_the_day_before):
    dso = Fails()
    dso.fails = fails_the_day_before
    simulation, n = begun(dso=dso, max_iterations=2, threshold_share=0.0), 0
    dso.fails = True
    while not simulation.is_over[0]:
        _, outcome = simulation.step(actions(0.5, 1.0, -1.0))
        n += 1
        assert outcome.response.status.tolist() == [DsoStatus.INFEASIBLE]
        assert all(np.isfinite(getattr(outcome, f.name)).all() for f in fields(Outcome) if is_array(outcome, f.name))
        assert np.isfinite(simulation.seen).all() and np.isfinite(simulation.global_state()).all()
        # Nothing is exchanged but the load: what agents draw they must give themselves, and PV is wasted.
        np.testing.assert_array_equal(outcome.exchange_kw, -outcome.load_kw)
        np.testing.assert_allclose(outcome.set_points.total_kw + outcome.pv_kw, 0.0, atol=1e-9)
    assert n > 2


def is_array(part, name):
    return isinstance(getattr(part, name), np.ndarray)


def test_limits_after_the_last_hour_are_still_numbers():
    simulation = begun(threshold_share=0.9, max_iterations=1)
    while not simulation.is_over[0]:
        simulation.step(actions())
    limits = current_interval(*simulation.running(), simulation.params).limits
    assert all(np.isfinite(getattr(limits, f.name)).all() for f in fields(limits))
