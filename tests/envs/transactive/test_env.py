"""PettingZoo's view: dictionaries, spaces, who acts, what is seen, the end of an episode."""

from dataclasses import replace

import numpy as np
import pytest

from peergrid.envs import transactive_v0
from peergrid.envs.transactive import observation
from peergrid.envs.transactive.env import DSO, TransactiveMarket
from peergrid.envs.transactive.infos import INFOS, NETWORK_INFOS, OWN_INFOS
from peergrid.envs.transactive.scenario import build_dso, load_scenario
from peergrid.envs.transactive.simulation import Transactive
from peergrid.envs.transactive.types import Closing
from peergrid.grid.dso import DsoStatus, OpfDso
from peergrid.grid.errors import InvalidAction, PeergridError, UnknownName

BASE = load_scenario("ieee37")
SHORT = replace(BASE, intervals=3, loop=replace(BASE.loop, max_iterations=5))
BUSES = [f"bus_{a.bus}" for a in BASE.agents]
every_role = pytest.mark.parametrize("roles", ["agents", "both"])


def begun(seed=0, **arguments):
    env = TransactiveMarket(**{"scenario": SHORT} | arguments)
    env.reset(seed=seed)
    return env


def random_actions(env, rng):
    return {a: rng.uniform(-1, 1, env.action_space(a).shape).astype(np.float32) for a in env.agents}


def zeros(env):
    return {a: np.zeros(env.action_space(a).shape, dtype=np.float32) for a in env.agents}


# Who acts


def test_agents_are_called_by_their_buses_and_the_dso_may_be_one_of_them():
    assert TransactiveMarket().possible_agents == BUSES
    env = TransactiveMarket(roles="both")
    assert env.possible_agents == [*BUSES, DSO]
    assert env.action_space(DSO).shape == (1,) and env.action_space(BUSES[0]).shape == (3,)
    assert str(transactive_v0.raw_env()) == "transactive_v0"
    with pytest.raises(UnknownName, match=r"no role is named 'bot'. Did you mean 'both'\?"):
        TransactiveMarket(roles="bot")


@every_role
def test_it_is_the_simulation_of_one_row(roles):
    env, rng = TransactiveMarket(SHORT, roles=roles), np.random.default_rng(0)
    simulation = Transactive(SHORT)
    observations, _ = env.reset(seed=9)
    seen = simulation.reset(seed=9)
    while env.agents:
        np.testing.assert_array_equal(np.stack([observations[a] for a in BUSES]), seen[0])
        if roles == "both":
            np.testing.assert_array_equal(observations[DSO], simulation.seen_by_dso[0])
        actions = random_actions(env, rng)
        of_dso = actions[DSO].astype(float) if roles == "both" else None
        observations, rewards, *_, infos = env.step(actions)
        asked = np.stack([actions[a] for a in BUSES], dtype=np.float64)[None]
        seen, outcome = simulation.step(asked, dso_actions=of_dso)
        assert [rewards[a] for a in BUSES] == outcome.reward[0].tolist()
        assert rewards.get(DSO) == (outcome.dso_reward[0] if roles == "both" else None)
        assert [infos[a]["exchange_kw"] for a in BUSES] == outcome.exchange_kw[0].tolist()
        assert {i["gap_kw"] for i in infos.values()} == {outcome.gap_kw[0]}
    assert simulation.is_over.all()


def test_the_dso_moves_the_signal_that_is_answered_next():
    env = begun(roles="both", scenario=replace(SHORT, loop=replace(SHORT.loop, threshold_share=0.0)))
    asked, signals = [0.5, -0.25, 1.0], []
    for share in asked:
        *_, infos = env.step(zeros(env) | {DSO: np.array([share])})
        signals.append(infos[DSO]["root_per_kwh"] / infos[DSO]["base_per_kwh"])
        assert infos[DSO]["closing"] == Closing.OPEN
    np.testing.assert_allclose(signals, [1.0, 1.1, 0.95])
    seen = env.step(zeros(env) | {DSO: np.array([9.0])})[0][DSO]
    names = [e.name for e in env.describe_observation(DSO)]
    assert seen[names.index("root signal")] in (0.0, 1.0)  # at the bound, or a new hour at its base


# What is paid


@every_role
def test_agents_are_paid_only_when_an_hour_closes_and_the_dso_in_every_iteration(roles):
    env, rng, n_closed, n_open = begun(roles=roles), np.random.default_rng(1), 0, 0
    while env.agents:
        _, rewards, *_, infos = env.step(random_actions(env, rng))
        own = infos[BUSES[0]]
        is_closed = own["closing"] != Closing.OPEN
        n_closed, n_open = n_closed + is_closed, n_open + (not is_closed)
        for agent in BUSES:
            assert (rewards[agent] != 0) == is_closed
            paid = infos[agent]["bill_day_ahead"] + infos[agent]["bill_real_time"] + infos[agent]["operating_cost"]
            np.testing.assert_allclose(rewards[agent], -paid, atol=1e-12)
        if roles == "both":
            gap_cost = BASE.imbalance_spread * own["lmp_per_kwh"] * abs(own["gap_kw"])
            np.testing.assert_allclose(rewards[DSO], -gap_cost)
            assert rewards[DSO] < 0 and all(infos[DSO][name] == 0 for name in OWN_INFOS)
    assert n_closed == 3 and n_open > 3


# What is seen


@every_role
def test_spaces_are_the_same_objects_at_every_call_and_describe_what_is_seen(roles):
    env = TransactiveMarket(SHORT, roles=roles)
    for agent in env.possible_agents:
        space, described = env.observation_space(agent), env.describe_observation(agent)
        assert env.observation_space(agent) is space and env.action_space(agent) is env.action_space(agent)
        assert space.shape == (len(described),) and space.dtype == np.float32
        np.testing.assert_array_equal(space.low, np.array([e.low for e in described], dtype=np.float32))
        np.testing.assert_array_equal(space.high, np.array([e.high for e in described], dtype=np.float32))
        assert len({e.name for e in described}) == len(described)
    assert len({id(env.action_space(a)) for a in env.possible_agents}) == len(env.possible_agents)
    described = env.describe_state()
    assert env.state_space.shape == (len(described),) and len({e.name for e in described}) == len(described)


def random_day(seed, num_envs=4):
    """What was seen over whole days of random actions, before it was clipped: by agents, by the DSO, as state."""
    simulation, rng = Transactive("ieee37", num_envs=num_envs), np.random.default_rng(seed)
    simulation.params = replace(simulation.params, loop=replace(simulation.params.loop, max_iterations=3))
    simulation.reset(seed=seed)
    seen: list[list[np.ndarray]] = [[], [], []]
    while not simulation.is_over.all():
        state, days = simulation.running()
        clipped = simulation.global_state()
        seen[0].append(observation.observe(state, days, simulation.now(), simulation.params))
        seen[1].append(observation.observe_dso(state, days, simulation.now(), simulation.params))
        seen[2].append(clipped)
        simulation.step(rng.uniform(-1, 1, (num_envs, 9, 3)), rows=~simulation.is_over)
    layouts = simulation.entries, simulation.dso_entries, simulation.state_entries
    return [(entries, np.concatenate(s)) for entries, s in zip(layouts, seen, strict=True)]


def test_no_entry_is_clipped_often_or_stands_still_over_random_days():
    for entries, values in random_day(0):
        columns = values.reshape(-1, len(entries))
        for entry, column in zip(entries, columns.T, strict=True):
            beyond = (column < entry.low - 1e-6) | (column > entry.high + 1e-6)
            assert beyond.mean() < 0.02, (entry.name, column.min(), column.max())
            is_given = entry.name == "bus 799: last voltage"  # at the substation
            assert (np.ptp(column) > 1e-6) != is_given, entry.name


def test_what_is_seen_says_what_is_so():
    env = begun(roles="both", scenario=replace(BASE, loop=replace(BASE.loop, threshold_share=0.9)))
    while env.simulation.running()[0].interval[0] < 12:
        env.step(zeros(env))
    narrow = replace(env.simulation.params.loop, threshold_share=0.0)
    env.simulation.params = replace(env.simulation.params, loop=narrow)
    for share in (0.4, -0.3):
        observations, *_ = env.step(zeros(env) | {DSO: np.array([share])})
    state, days = env.simulation.running()
    assert state.interval[0] == 12 and state.iteration[0] == 2
    params, t = env.simulation.params, int(state.interval[0])
    agent = 1
    names = [e.name for e in env.describe_observation(BUSES[agent])]
    seen = dict(zip(names, observations[BUSES[agent]].tolist(), strict=True))
    bus, rating = params.agent_bus[agent], params.resources.rating_kw[agent]
    expected = {
        "sine of time of day": np.sin(2 * np.pi * t / 24),
        "share of the day left": 1 - t / 24,
        "share of the hour's iterations done": state.iteration[0] / 30,
        "own signal now": state.signal_per_kwh[0, bus] / 0.1,
        "day-ahead signal now": days.day_ahead.signal_per_kwh[0, t, bus] / 0.1,
        "day-ahead signal in 3 intervals": days.day_ahead.signal_per_kwh[0, t + 3, bus] / 0.1,
        "own load now": days.load_kw[0, t, bus] / rating,
        "PV now": days.pv_kw[0, t, agent] / rating,
        "PV forecast in 7 intervals": days.forecast.pv_kw[0, t + 7, agent] / rating,
        "state of charge": state.stored_kwh[0, agent] / params.resources.storage_max_kwh[agent],
        "shifted energy to return": -state.shifted_kwh[0, agent] / days.shifted_most_kwh[0, 0, agent],
        "own exchange in the last iteration": env.last_outcome.exchange_kw[0, agent] / rating,
        "scheduled exchange now": days.day_ahead.exchange_kw[0, t, agent] / rating,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(seen[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    names = [e.name for e in env.describe_observation(DSO)]
    seen, size = dict(zip(names, observations[DSO].tolist(), strict=True)), params.feeder.base_kva
    expected = {
        "LMP now": days.lmp_per_kwh[0, t] / 0.1,
        "day-ahead LMP in 2 intervals": days.forecast.lmp_per_kwh[0, t + 2] / 0.1,
        "root signal": (state.root_per_kwh[0] / days.forecast.lmp_per_kwh[0, t] - 1) / 0.2,
        "scheduled import now": days.day_ahead.import_kw[0, t] / size,
        "scheduled import in 7 intervals": days.day_ahead.import_kw[0, t + 7] / size,
        "gap in the last iteration of this hour": 10 * state.gap_kw[0] / size,
        "gap with which the hour before closed": 10 * state.last_gap_kw[0] / size,
        "agents' flexible injection in the last iteration": state.last_flexible_kw.sum() / size,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(seen[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


@every_role
def test_the_global_state_is_in_its_space_and_holds_what_everybody_sees(roles):
    env, rng = begun(roles=roles), np.random.default_rng(2)
    while env.agents:
        observations, *_ = env.step(random_actions(env, rng))
        state = env.state()
        assert env.state_space.contains(state)
        both = [*(observations[a] for a in BUSES), env.simulation.seen_by_dso[0]]
        np.testing.assert_array_equal(state[: -env.simulation.params.feeder.n_bus], np.concatenate(both))
        volts = env.last_outcome.response.voltage_pu[0]
        np.testing.assert_allclose(state[-len(volts) :], volts, rtol=1e-6)


# What is told


@every_role
def test_infos_have_constant_names_and_are_zero_before_the_first_iteration(roles):
    env, rng = TransactiveMarket(SHORT, roles=roles), np.random.default_rng(0)
    _, infos = env.reset(seed=0)
    assert all(list(info) == list(INFOS) and not any(info.values()) for info in infos.values())
    while env.agents:
        *_, infos = env.step(random_actions(env, rng))
        assert list(infos) == env.possible_agents
        for info in infos.values():
            assert list(info) == list(INFOS)
            assert all(isinstance(value, float) and np.isfinite(value) for value in info.values())
        assert len({tuple(info[name] for name in NETWORK_INFOS) for info in infos.values()}) == 1


def test_infos_add_up():
    env, rng = begun(scenario=replace(BASE, intervals=4)), np.random.default_rng(3)
    while env.agents:
        *_, infos = env.step(random_actions(env, rng))
        for i in infos.values():
            flexible = i["shift_kw"] + i["generator_kw"] + i["storage_kw"] + i["pv_kw"]
            np.testing.assert_allclose(flexible, i["accepted_kw"], atol=1e-9)
            np.testing.assert_allclose(flexible - i["load_kw"], i["exchange_kw"], atol=1e-9)
            np.testing.assert_allclose(i["asked_kw"], i["accepted_kw"], atol=1e-5)  # nothing binds here
            np.testing.assert_allclose(i["import_kw"] - i["scheduled_import_kw"], i["gap_kw"], atol=1e-9)
            assert i["voltage_violations"] == i["overloads"] == i["dso_status"] == 0.0
            assert 0 <= i["shed_kw"] < 1e-6
            assert i["signal_per_kwh"] > i["root_per_kwh"] and i["losses_kw"] > 0


# How it ends


@every_role
def test_the_day_ends_for_everybody_at_once_as_truncated(roles):
    env, rng = begun(roles=roles), np.random.default_rng(0)
    while env.agents:
        everybody = list(env.agents)
        *parts, infos = env.step(random_actions(env, rng))
        assert all(list(part) == everybody for part in (*parts, infos))
        _, _, terminations, truncations = parts
        assert not any(terminations.values()) and len(set(truncations.values())) == 1
    assert all(truncations.values()) and infos[BUSES[0]]["interval"] == 2.0
    with pytest.raises(PeergridError, match=r"call reset\(\)"):
        env.step({})
    env.reset()
    assert env.agents == everybody


def test_max_cycles_is_the_most_iterations_of_an_episode():
    env = begun(max_cycles=2, scenario=BASE)
    assert not any(env.step(zeros(env))[3].values())
    assert all(env.step(zeros(env))[3].values()) and env.agents == []
    with pytest.raises(PeergridError, match="max_cycles is 0"):
        TransactiveMarket(max_cycles=0)


# What is refused


def test_every_fault_of_the_actions_is_named_and_nothing_is_played():
    env = begun(roles="both")
    wrong = zeros(env) | {
        "bus_713": np.zeros(2),
        "bus_722": np.array([0, np.nan, 0]),
        "bus_728": np.array(["a", "b", "c"]),
        "bus_731": np.array([np.inf, 0, 0]),
        DSO: np.zeros(3),
        "someone": np.zeros(3),
    }
    del wrong["bus_701"]
    with pytest.raises(InvalidAction) as caught:
        env.step(wrong)
    for fault in (
        "no action for bus_701",
        "unknown agent 'someone'",
        "action of bus_713 has shape (2,)",
        "action of bus_722 is not finite",
        "action of bus_728 has shape (3,) and type <U1, not 3 numbers",
        "action of bus_731 is not finite",
        "action of dso has shape (3,) and type float64, not 1 number",
    ):
        assert fault in str(caught.value), fault
    assert env.simulation.running()[0].steps.tolist() == [0]
    _, rewards, *_ = env.step(zeros(env))
    assert len(rewards) == 10


def test_a_signal_that_is_no_number_is_refused():
    env = begun(roles="both")
    with pytest.raises(InvalidAction, match="action of dso is not finite"):
        env.step(zeros(env) | {DSO: np.array([np.nan])})


def test_the_order_and_the_precision_of_actions_play_no_part():
    paid = []
    for change in (
        lambda a: a,
        lambda a: dict(reversed(a.items())),
        lambda a: {k: v.astype(int) for k, v in a.items()},
    ):
        env = begun(roles="both", scenario=replace(SHORT, loop=replace(SHORT.loop, max_iterations=1)))
        paid.append(env.step(change(zeros(env) | {"bus_701": np.ones(3), DSO: np.ones(1)}))[1])
    assert paid[0] == paid[1] == paid[2]


def test_a_render_mode_that_nobody_knows_is_refused():
    with pytest.raises(UnknownName, match=r"no render mode is named 'rgb_aray'. Did you mean 'rgb_array'\?"):
        TransactiveMarket(render_mode="rgb_aray")
    assert begun().render() is None


def test_a_dso_that_has_no_answer_is_a_status_in_the_infos():
    own = build_dso(SHORT)
    strict = replace(own.feeder, v_min_pu=np.full(own.feeder.n_bus, 1.04))
    env = begun(dso=OpfDso(strict, own.trade_bus))
    while env.agents:
        observations, rewards, _, _, infos = env.step({a: np.array([0, 1.0, 0]) for a in env.agents})
        for agent, i in infos.items():
            assert i["dso_status"] == DsoStatus.INFEASIBLE and i["accepted_kw"] == 0.0 < i["asked_kw"]
            assert all(np.isfinite(value) for value in i.values())
            assert env.observation_space(agent).contains(observations[agent])
        assert all(np.isfinite(r) for r in rewards.values())


def test_the_aec_form_clips_actions_and_plays_the_same():
    env = transactive_v0.env(scenario=SHORT, max_cycles=1, roles="both")
    env.reset(seed=0)
    for agent in env.agents:
        env.step(np.full(env.action_space(agent).shape, 5.0, dtype=np.float32))
    parallel = begun(max_cycles=1, roles="both")
    _, rewards, *_ = parallel.step({a: np.ones(parallel.action_space(a).shape) for a in parallel.agents})
    assert {agent: env.rewards[agent] for agent in env.possible_agents} == rewards
