"""How agents answer signals, by the environment's published interface and in batches."""

from dataclasses import replace

import numpy as np
import pytest

from peergrid.baselines.policies.transactive import Myopic, Optimising, Scheduled
from peergrid.envs.common.policy import BatchPolicy, Policy
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.transactive.env import DSO, TransactiveMarket
from peergrid.envs.transactive.plans import Outlook
from peergrid.envs.transactive.resources import SetPoints
from peergrid.envs.transactive.scenario import build_dso, load_scenario
from peergrid.envs.transactive.simulation import Transactive
from peergrid.envs.transactive.transition import decode, encode, with_root
from peergrid.grid.dso import OpfDso

BASE = load_scenario("ieee37")
SHORT = replace(BASE, intervals=4, loop=replace(BASE.loop, max_iterations=3))
POLICIES = (Optimising, Myopic, Scheduled)
NAMES = ("shift_kw", "generator_kw", "storage_kw")
every_policy = pytest.mark.parametrize("policy", POLICIES)


def at_signal(simulation, policy, factor):
    """What the policy answers if the signals of the hour are that many times what they are."""
    state, _ = simulation.running()
    simulation.state = with_root(state, factor * state.root_per_kwh)
    answer = policy.answer(simulation)
    simulation.state = state
    return answer


@every_policy
def test_it_plays_a_day_by_actions_of_the_action_space_and_batches_agree(policy):
    env, simulation = TransactiveMarket(SHORT), Transactive(SHORT)
    by_names, by_rows = policy(), policy()
    assert isinstance(by_names, Policy) and isinstance(by_names, BatchPolicy)
    observations, _ = env.reset(seed=1)
    seen = simulation.reset(seed=1)
    by_names.begin(env)
    by_rows.begin_rows(simulation, np.ones(1, dtype=bool))
    while env.agents:
        actions = by_names.act(observations)
        assert list(actions) == env.agents
        assert all(env.action_space(a).contains(action.astype(np.float32)) for a, action in actions.items())
        rows = by_rows.act_rows(simulation, seen)
        np.testing.assert_array_equal(np.stack(list(actions.values())), rows[0])
        observations, *_ = env.step(actions)
        seen, _ = simulation.step(rows)


def test_the_dso_beside_them_leaves_the_signal_where_it_starts():
    env, policy = TransactiveMarket(SHORT, roles="both"), Myopic()
    observations, _ = env.reset(seed=1)
    policy.begin(env)
    while env.agents:
        actions = policy.act(observations)
        assert actions[DSO].tolist() == [0.0]
        observations, *_, infos = env.step(actions)
        assert infos[DSO]["root_per_kwh"] == infos[DSO]["base_per_kwh"]


@every_policy
def test_a_batch_is_answered_as_its_rows_one_by_one_also_when_one_is_over(policy):
    batch, played = Transactive(SHORT, num_envs=2), policy()
    batch.reset(seed=8)
    played_on = np.array([True, False])
    while not batch.is_over[0]:
        together = played.act_rows(batch, batch.seen)
        for i in (0, 1):
            alone = played.act_rows(batch.row(i), batch.seen[i : i + 1])
            np.testing.assert_array_equal(together[i], alone[0])
        batch.step(together, rows=played_on)
    after = played.act_rows(batch, batch.seen)
    np.testing.assert_array_equal(after[1], together[1])
    assert np.isfinite(after).all()


def test_set_points_survive_being_written_as_actions():
    simulation = Transactive(SHORT, num_envs=3)
    simulation.reset(seed=2)
    params, rng = simulation.params, np.random.default_rng(0)
    for _ in range(3):
        chosen = Optimising().answer(simulation)
        again = decode(encode(chosen, params), params)
        for name in NAMES:
            np.testing.assert_allclose(getattr(again, name), getattr(chosen, name), atol=1e-6)
        simulation.step(rng.uniform(-1, 1, (3, 9, 3)))


# Each in its own way


def test_optimising_agents_plan_with_the_signal_of_the_hour_and_those_of_the_day_before():
    simulation, rng = Transactive(BASE), np.random.default_rng(0)
    simulation.reset(seed=3)
    while simulation.running()[0].interval[0] < 2:
        simulation.step(0.2 * rng.uniform(-1, 1, (1, 9, 3)))
    state, days = simulation.running()
    agents = simulation.params.agent_bus
    signal = days.day_ahead.signal_per_kwh[0][:, agents].copy()
    signal[2] = 1.1 * state.signal_per_kwh[0, agents]
    expected = simulation.plan.solve(
        Outlook(
            first=2,
            signal_per_kwh=signal,
            shift_most_kw=days.shift_most_kw[0],
            stored_kwh=state.stored_kwh[0],
            shifted_kwh=state.shifted_kwh[0],
        )
    )
    answer = at_signal(simulation, Optimising(), 1.1)
    for name in NAMES:
        np.testing.assert_allclose(getattr(answer, name)[0], getattr(expected, name)[2], atol=1e-3)
    plain = at_signal(simulation, Optimising(), 1.0)
    assert (answer.total_kw > plain.total_kw - 1e-3).all() and (answer.total_kw > plain.total_kw + 0.5).any()


@pytest.mark.parametrize("level", [0.3, 0.8, 0.97, 1.05, 1.3, 3.0])
def test_myopic_agents_go_up_to_where_marginal_cost_meets_the_signal(level):
    simulation = Transactive(BASE)
    simulation.reset(seed=4)
    state, days = simulation.running()
    agents, r = simulation.params.agent_bus, simulation.params.resources
    mean = days.day_ahead.signal_per_kwh[0][:, agents].mean(axis=0)
    factor = level * mean[0] / state.signal_per_kwh[0, agents[0]]
    chosen, psi = at_signal(simulation, Myopic(), factor), factor * state.signal_per_kwh[0, agents]

    def meets(power, price, linear, quadratic, most):
        """Each resource is used until the next kW costs what it earns, or there is no more."""
        marginal, is_free = linear + 2 * quadratic * power, (power > 0) & (power < most)
        np.testing.assert_allclose(marginal[is_free], price[is_free])
        assert (marginal[power == 0] >= price[power == 0]).all()
        assert (marginal[power == most] <= price[power == most]).all()
        assert ((power >= 0) & (power <= most)).all()

    shift, storage = chosen.shift_kw[0], chosen.storage_kw[0]
    meets(chosen.generator_kw[0], psi, r.generator_b_per_kwh, r.generator_a_per_kw2h, r.generator_max_kw)
    off, forward = np.maximum(shift, 0), np.maximum(-shift, 0)
    meets(off, psi - mean, 0.0, r.shift_per_kw2h, r.shiftable_share * r.peak_kw)
    meets(forward, mean - psi, 0.0, r.shift_per_kw2h, r.shiftable_share * r.peak_kw)
    # A kWh drawn must be bought back at the mean, one charged is sold at the mean, each with its losses and wear.
    out, into = np.maximum(storage, 0), np.maximum(-storage, 0)
    meets(out, psi - mean / r.discharge_efficiency, r.wear_per_kwh, r.storage_per_kw2h, r.storage_max_kw)
    meets(into, mean * r.charge_efficiency - psi, r.wear_per_kwh, r.storage_per_kw2h, r.storage_max_kw)
    assert bool(out.any()) == (level > 1.2) and bool(into.any()) == (level < 0.85)


def test_scheduled_agents_do_what_was_planned_whatever_the_signal():
    simulation, policy = Transactive(SHORT, num_envs=2), Scheduled()
    simulation.reset(seed=5)
    planned = simulation.running()[1].day_ahead.set_points
    for _ in range(4):
        for name in NAMES:
            t, rows = simulation.running()[0].interval, np.arange(2)
            for factor in (0.8, 1.2):
                answer = getattr(at_signal(simulation, policy, factor), name)
                np.testing.assert_array_equal(answer, getattr(planned, name)[rows, t])
        simulation.step(policy.act_rows(simulation, simulation.seen))


@pytest.mark.parametrize("signal_base", ["day_ahead", "real_time"])
def test_who_optimises_earns_at_least_as_much_as_who_keeps_to_the_schedule_or_looks_at_the_hour_alone(signal_base):
    # At prices that stay as they are, without a loop: the day's bill and cost of all agents together.
    still = replace(BASE, loop=replace(BASE.loop, rule="none", signal_base=signal_base))
    earned = {}
    for policy in POLICIES:
        simulation, paid = Transactive(still), 0.0
        simulation.reset(options={"evaluation_day": 0})
        while not simulation.is_over[0]:
            _, outcome = simulation.step(policy().act_rows(simulation, simulation.seen))
            paid += outcome.reward.sum()
        earned[policy] = paid
    assert earned[Optimising] > earned[Myopic]
    if signal_base == "real_time":
        assert earned[Optimising] > earned[Scheduled]
    else:  # who is asked at the prices on which it planned, plans the same again
        assert earned[Optimising] == pytest.approx(earned[Scheduled], rel=1e-5)


def test_agents_do_what_they_planned_where_the_signal_stays_at_the_day_ahead_price():
    still = replace(BASE, loop=replace(BASE.loop, rule="none"))
    simulation = Transactive(still)
    simulation.reset(options={"evaluation_day": 0})
    size = simulation.params.resources.peak_kw
    while not simulation.is_over[0]:
        again, planned = (policy().answer(simulation) for policy in (Optimising, Scheduled))
        for name in NAMES:
            np.testing.assert_allclose(getattr(again, name) / size, getattr(planned, name) / size, atol=2e-4)
        simulation.answer(planned)


def test_optimising_agents_go_on_where_the_dso_left_them_with_a_day_that_cannot_end_as_it_began():
    own, strict_from = build_dso(SHORT), [10**9]
    strict = OpfDso(replace(own.feeder, v_min_pu=np.full(own.feeder.n_bus, 1.04)), own.trade_bus)
    asked = []

    def dso(query):
        asked.append(query)
        return (strict if len(asked) > strict_from[0] else own)(query)

    simulation = Transactive(SHORT, dso=dso)
    simulation.reset(seed=6)
    # They draw all they can, and then the DSO carries nothing to the end of the day.
    while simulation.running()[0].interval[0] < 2:
        simulation.step(np.full((1, 9, 3), -1.0))
    strict_from[0] = len(asked)
    while not simulation.is_over[0]:
        actions = Optimising().act_rows(simulation, simulation.seen)
        assert np.isfinite(actions).all()
        simulation.step(actions)
    assert np.abs(simulation.running()[0].shifted_kwh).max() > 1  # it did not return


def test_every_state_that_any_actions_lead_to_can_be_planned_from():
    simulation = Transactive(replace(BASE, loop=replace(BASE.loop, max_iterations=1)), num_envs=4)
    rng = np.random.default_rng(1)
    simulation.reset(seed=12)
    way = np.array([-1.0, 1.0, 0.0, 0.0])[:, None, None]
    while not simulation.is_over.any():
        Optimising().answer(simulation)
        asked = rng.uniform(-1, 1, (4, 9, 3))
        asked[2] = np.sign(asked[2])
        simulation.step(np.where(way == 0, asked, way))


def test_they_play_nothing_else():
    with pytest.raises(TypeError, match="Myopic plays transactive_v0 only, not P2PTrading"):
        Myopic().begin(P2PTrading())


def test_a_policy_of_set_points_is_written_by_one_method():
    class Idle(Myopic.__base__):
        def answer(self, simulation):
            none = np.zeros((len(simulation.running()[0].steps), simulation.n_agent))
            return SetPoints(shift_kw=none, generator_kw=none, storage_kw=none)

    simulation = Transactive(SHORT)
    simulation.reset(seed=0)
    _, outcome = simulation.step(Idle().act_rows(simulation, simulation.seen))
    assert not outcome.operating_cost.any() and not outcome.clipped_kw.any()
