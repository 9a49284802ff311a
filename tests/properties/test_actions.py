"""Whatever is handed to an environment as an action: InvalidAction and nothing happened, or a finite, lawful step."""

import copy
from functools import lru_cache

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import peergrid  # noqa: F401, importing it registers the environments
from peergrid.envs import p2p_trading_v0, transactive_v0
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.transactive.simulation import Transactive
from peergrid.grid.errors import InvalidAction, PeergridError

SHARE = settings(max_examples=max(settings().max_examples // 2, 4))
STEPS = 3
MARKETS = {"p2p": p2p_trading_v0.parallel_env, "transactive": transactive_v0.parallel_env}
SIMULATIONS = {"p2p": Simulation, "transactive": Transactive}
SINGLE = ("peergrid/CentralTrading-v0", "peergrid/SoloTrading-v0", "peergrid/DsoPricing-v0")

seeds = st.integers(0, 10**6)
every_market = pytest.mark.parametrize("market", MARKETS)
DTYPES = ("f2", "f4", "f8", "i1", "u2", "i8", "g", "?", "c8", "S2", "U2", "O", "M8[s]")


@lru_cache
def environment(market, number=0):
    roles = {"roles": "both"} if market == "transactive" else {}
    return MARKETS[market](**roles)


@lru_cache
def simulation(market, num_envs):
    return SIMULATIONS[market](num_envs=num_envs)


def finite(n):
    """Actions of one agent that are numbers, near the space or far from it."""
    whole = arrays(np.int64, n, elements=st.integers(-3, 3))
    near, far = st.floats(-1.2, 1.2), st.floats(allow_nan=False, allow_infinity=False)
    return st.one_of(arrays(np.float64, n, elements=near), arrays(np.float64, n, elements=far), whole)


def anything(n):
    """Actions of any kind, many of which are none."""
    odd = st.one_of(
        st.none(), st.text(max_size=3), st.floats(), st.integers(-(10**400), 10**400), st.binary(max_size=3)
    )
    return st.one_of(
        finite(n),
        arrays(np.float32, st.sampled_from([n, n + 1, 0, (1, n), (n, 1), ()]), elements=st.floats(width=32)),
        st.sampled_from(DTYPES).map(lambda kind: np.ones(n, dtype=kind)),
        arrays(np.longdouble, n, elements=st.just(np.longdouble("1e4000"))),
        st.lists(st.one_of(odd, st.lists(st.floats(), max_size=2)), max_size=n + 1),
        st.dictionaries(st.text(max_size=2), odd, max_size=2),
        odd,
    )


def sizes(env):
    return {agent: env.action_space(agent).shape[0] for agent in env.possible_agents}


def same(one, other):
    return data_equivalence(one, other, exact=True)


def assert_finite_and_in_space(env, result):
    observations, rewards, _, _, infos = result
    for agent, seen in observations.items():
        assert env.observation_space(agent).contains(seen)
    assert np.isfinite(list(rewards.values())).all()
    assert all(np.isfinite(list(info.values())).all() for info in infos.values())
    assert env.state_space.contains(env.state())


def assert_p2p_laws(env, state, days):
    """Energy and money of the interval just played, and the battery's window."""
    outcome, params, row = env.last_outcome, env.simulation.params, int(state.interval[0])
    r, d, spec, hours = outcome.response, outcome.dispatch, env.simulation.scenario, params.step_hours
    np.testing.assert_allclose(d.pv_kw + d.diesel_kw + d.battery_kw - d.load_kw, r.accepted_kw, rtol=0, atol=1e-8)
    t, a = outcome.proposed_kw, r.accepted_kw
    assert ((a >= np.minimum(t, 0)) & (a <= np.maximum(t, 0))).all()
    load = days.load_kw[:, row]
    if (r.status == 0).all():
        into = r.substation_kw + r.generator_kw.sum(-1) + a.sum(-1) + r.shed_kw.sum(-1)
        np.testing.assert_allclose(into, load.sum(-1) + r.losses_kw, rtol=1e-5)
    assert (outcome.stored_kwh >= days.least_kwh[:, row + 1] - 1e-8).all()
    assert (outcome.stored_kwh <= days.most_kwh[:, row + 1] + 1e-8).all()

    cap, delta, bill = spec.market.price_cap_per_kwh, spec.market.half_spread_per_kwh, outcome.bills.total
    price = np.clip(r.price_per_kwh[:, params.agent_bus], -cap, cap)
    deviation = np.abs(a - outcome.contracts.quantity_kw)
    np.testing.assert_allclose(outcome.contracts.quantity_kw.sum(-1), 0, atol=1e-8)
    np.testing.assert_allclose(bill.sum(-1), (delta * deviation - price * a).sum(-1) * hours, rtol=0, atol=1e-7)
    cost = params.generators.cost_per_hour(r.generator_kw).sum(-1) + outcome.lmp_per_kwh * r.substation_kw
    shed = spec.dso.voll_per_kwh * r.shed_kw.sum(-1) + spec.dso.c_ls_per_kw2h * (r.shed_kw**2).sum(-1)
    worth = outcome.gain.sum(-1) + bill.sum(-1) - (cost + shed) * hours
    np.testing.assert_allclose(outcome.welfare, worth, rtol=0, atol=1e-7)


def assert_transactive_laws(env, state, days):
    """Energy and, where an hour closed, money; the window of storage and of shifted load."""
    outcome, row = env.last_outcome, int(state.interval[0])
    r = outcome.response
    if (r.status == 0).all():
        own = outcome.exchange_kw.sum(-1)
        others = np.delete(days.load_kw[:, row], env.simulation.params.agent_bus, axis=-1).sum(-1)
        drawn = others - own - r.shed_kw.sum(-1) + r.losses_kw
        np.testing.assert_allclose(r.substation_kw, drawn, rtol=1e-5)
    np.testing.assert_allclose(outcome.gap_kw, outcome.import_kw - outcome.scheduled_kw, atol=1e-9)
    if outcome.is_closed[0]:
        paid = outcome.bills.day_ahead + outcome.bills.real_time
        np.testing.assert_allclose(outcome.reward, -paid - outcome.operating_cost, rtol=0, atol=1e-9)
    else:
        assert not outcome.reward.any() and not outcome.bills.total.any()
    stored, size = outcome.stored_kwh, env.simulation.params.resources.storage_max_kwh
    assert ((stored >= -1e-8) & (stored <= size + 1e-8)).all()


LAWS = {"p2p": assert_p2p_laws, "transactive": assert_transactive_laws}


@every_market
@SHARE
@given(st.data(), seeds)
def test_numbers_of_any_size_make_a_lawful_step(market, data, seed):
    env = environment(market)
    env.reset(seed=seed)
    for _ in range(STEPS):
        state, days = env.simulation.running()
        result = env.step({agent: data.draw(finite(n)) for agent, n in sizes(env).items()})
        assert_finite_and_in_space(env, result)
        LAWS[market](env, state, days)


@every_market
@SHARE
@given(st.data(), seeds)
def test_what_is_no_action_is_refused_and_nothing_has_happened(market, data, seed):
    env = environment(market)
    env.reset(seed=seed)
    quiet = {agent: np.zeros(n) for agent, n in sizes(env).items()}
    actions = dict(quiet)
    agent = data.draw(st.sampled_from(sorted(actions)))
    actions[agent] = data.draw(anything(len(actions[agent])))
    if data.draw(st.integers(0, 4)) == 0:
        actions[data.draw(st.sampled_from(["nobody", 7, agent]))] = None
    try:
        assert_finite_and_in_space(env, env.step(actions))
    except InvalidAction as error:
        assert "action" in str(error) or "agent" in str(error)
        after = env.step(quiet)
        env.reset(seed=seed)
        assert same(after, env.step(quiet))


@pytest.mark.parametrize("name", SINGLE)
@SHARE
@given(st.data(), seeds)
def test_gymnasium_environments_refuse_or_play_whatever_they_are_given(name, data, seed):
    env = single(name)
    env.reset(seed=seed)
    n = env.action_space.shape[0]
    try:
        seen, reward, _, _, info = env.step(data.draw(anything(n)))
    except InvalidAction:
        return
    assert env.observation_space.contains(seen)
    assert np.isfinite([reward, *info.values()]).all()


@pytest.mark.parametrize("name", SINGLE)
@SHARE
@given(st.data(), seeds)
def test_vectors_refuse_or_play_whatever_they_are_given(name, data, seed):
    vector = vectorised(name)
    vector.reset(seed=seed)
    n = vector.single_action_space.shape[0]
    rows = st.sampled_from([(2, n), (n,), (2, n + 1), (3, n), ()])
    given_ = data.draw(st.one_of(anything(n), arrays(np.float64, rows, elements=st.floats())))
    try:
        seen, rewards, _, _, infos = vector.step(given_)
    except InvalidAction:
        return
    assert vector.observation_space.contains(seen)
    assert np.isfinite(rewards).all()
    assert all(np.isfinite(np.asarray(values, dtype=float)).all() for values in infos.values())


@lru_cache
def single(name):
    return gymnasium.make(name).unwrapped


@lru_cache
def vectorised(name):
    return gymnasium.make_vec(name, num_envs=2, vectorization_mode="vector_entry_point")


@every_market
@SHARE
@given(st.data(), seeds)
def test_a_batch_agrees_with_its_members_and_a_seed_replays_to_the_last_bit(market, data, seed):
    batch, alone = simulation(market, 2), simulation(market, 1)
    shape = batch.reset(seed=seed).shape
    n = 4 if market == "p2p" else 3
    acted = data.draw(arrays(np.float64, (STEPS, 2, shape[1], n), elements=st.floats(-1.1, 1.1)))

    def played(sim, start, actions):
        seen = [sim.reset(seed=start).copy()]
        rewards = []
        for action in actions:
            now, outcome = sim.step(action)
            seen.append(now.copy())
            rewards.append(outcome.reward.copy())
        return np.array(seen), np.array(rewards)

    together = played(batch, seed, acted)
    for row in range(2):
        for one, all_rows in zip(played(alone, seed + row, acted[:, row : row + 1]), together, strict=True):
            np.testing.assert_allclose(all_rows[:, row], one[:, 0], rtol=1e-4, atol=1e-4)
    again = played(batch, seed, acted)
    assert same(list(together), list(again))


@every_market
@SHARE
@given(st.data(), seeds, seeds)
def test_environments_that_take_turns_never_touch_each_other(market, data, seed, other_seed):
    env, other = environment(market), environment(market, 1)
    acted = [{agent: data.draw(finite(n)) for agent, n in sizes(env).items()} for _ in range(2)]
    kept = copy.deepcopy(acted)
    apart = [env.reset(seed=seed), *(env.step(actions) for actions in acted)]
    turns = data.draw(st.lists(st.booleans(), min_size=3, max_size=3))
    together = [env.reset(seed=seed)]
    other.reset(seed=other_seed)
    for actions, has_turn in zip(acted, turns, strict=False):
        if has_turn:
            other.step(acted[0])
        together.append(env.step(actions))
    assert same(apart, together) and same(acted, kept)


@every_market
@SHARE
@given(st.one_of(st.integers(-(10**30), 10**30), st.floats(), st.text(max_size=2), st.none(), st.booleans()))
def test_options_and_seeds_that_make_no_sense_are_refused(market, value):
    env = environment(market)
    for arguments in ({"options": {"evaluation_day": value}}, {"seed": value}):
        try:
            observations, _ = env.reset(**arguments)
        except (PeergridError, gymnasium.error.Error):
            continue
        assert all(env.observation_space(agent).contains(seen) for agent, seen in observations.items())
