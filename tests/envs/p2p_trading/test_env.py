"""PettingZoo's view: dictionaries, spaces, seeding, the end of an episode."""

from dataclasses import replace

import numpy as np
import pytest

from peergrid.envs import p2p_trading_v0
from peergrid.envs.common.registered import MECHANISMS
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.infos import INFOS
from peergrid.envs.p2p_trading.scenario import build_dso, load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.grid.dso import DsoStatus, OpfDso, UncheckedDso
from peergrid.grid.errors import InvalidAction, PeergridError, UnknownName


def zeros(env):
    return {a: np.zeros(4, dtype=np.float32) for a in env.agents}


def random_actions(env, rng):
    return {a: rng.uniform(-1, 1, 4).astype(np.float32) for a in env.agents}


def test_it_is_the_simulation_of_one_row():
    env, sim, rng = P2PTrading(max_cycles=3), Simulation(load_scenario("ieee33", intervals=3)), np.random.default_rng(0)
    observations, _ = env.reset(seed=9)
    seen = sim.reset(seed=9)
    for _ in range(3):
        np.testing.assert_array_equal(np.stack(list(observations.values())), seen[0])
        actions = random_actions(env, rng)
        observations, rewards, *_, infos = env.step(actions)
        seen, outcome = sim.step(np.stack(list(actions.values()), dtype=np.float64)[None])
        np.testing.assert_array_equal(list(rewards.values()), outcome.reward[0])
        assert [i["accepted_kw"] for i in infos.values()] == outcome.response.accepted_kw[0].tolist()
        assert {i["welfare"] for i in infos.values()} == {outcome.welfare[0]}


def test_agents_are_called_by_group_and_number():
    assert P2PTrading("ieee69").possible_agents == [f"microgrid_{i}" for i in range(8)]
    assert str(p2p_trading_v0.raw_env()) == "p2p_trading_v0"


def test_the_order_in_which_actions_are_given_plays_no_part():
    env, rng = P2PTrading(max_cycles=2), np.random.default_rng(0)
    env.reset(seed=1)
    actions = random_actions(env, rng)
    rewards = env.step(actions)[1]
    env.reset(seed=1)
    assert env.step(dict(reversed(actions.items())))[1] == rewards


def test_every_fault_of_the_actions_is_named_and_nothing_is_played():
    env = P2PTrading(max_cycles=2)
    env.reset(seed=0)
    wrong = zeros(env) | {
        "microgrid_1": np.zeros(3),
        "microgrid_2": np.array([0, np.nan, 0, 0]),
        "someone": np.zeros(4),
    }
    wrong["microgrid_3"] = np.array(["a", "b", "c", "d"])
    del wrong["microgrid_0"]
    with pytest.raises(InvalidAction) as caught:
        env.step(wrong)
    for fault in (
        "no action for microgrid_0",
        "unknown agent 'someone'",
        "action of microgrid_1 has shape (3,)",
        "action of microgrid_2 is not finite",
        "action of microgrid_3 has shape (4,) and type <U1, not 4 numbers",
    ):
        assert fault in str(caught.value), fault
    _, rewards, *_ = env.step(zeros(env))
    assert len(rewards) == 4 and env.agents


def test_actions_may_be_integers_or_of_double_precision():
    env = P2PTrading(max_cycles=2)
    env.reset(seed=0)
    rewards = env.step(zeros(env))[1]
    for kind in (np.int64, np.float64):
        env.reset(seed=0)
        assert env.step({a: np.zeros(4, dtype=kind) for a in env.agents})[1] == rewards


def test_max_cycles_overwritten_from_outside_does_not_move_the_horizon():
    env = P2PTrading(max_cycles=2)
    assert env.max_cycles == 2
    env.reset(seed=0)
    env.max_cycles = 1000
    env.step(zeros(env))
    _, _, terminations, _, _ = env.step(zeros(env))
    assert all(terminations.values()) and env.agents == []
    with pytest.raises(PeergridError, match=r"call reset\(\)"):
        env.step({a: np.zeros(4) for a in env.possible_agents})


def test_the_horizon_is_the_scenarios_if_none_is_given():
    assert P2PTrading().max_cycles == 24
    assert P2PTrading(load_scenario("ieee33", intervals=7)).max_cycles == 7
    with pytest.raises(PeergridError, match="intervals is 0"):
        P2PTrading(max_cycles=0)


def test_a_finite_task_terminates_and_pays_for_the_energy_left():
    def last(horizon):
        env = P2PTrading(load_scenario("ieee33", horizon=horizon, daily_cycle=False), max_cycles=2)
        env.reset(seed=0)
        env.step({a: np.array([-1.0, 0, 0, 0]) for a in env.agents})  # charges
        return env.step(zeros(env))

    _, cut_rewards, cut_terminations, cut_truncations, _ = last("truncate")
    _, rewards, terminations, truncations, infos = last("terminate")
    assert not any(cut_terminations.values()) and all(cut_truncations.values())
    assert all(terminations.values()) and not any(truncations.values())
    assert all(rewards[a] > cut_rewards[a] + 0.1 for a in rewards)
    assert all(info["stored_kwh"] > 24.0 for info in infos.values())


def test_infos_before_the_first_interval_are_zero_and_carry_every_name():
    env = P2PTrading(max_cycles=1)
    _, infos = env.reset(seed=0)
    assert all(list(info) == list(INFOS) and not any(info.values()) for info in infos.values())
    *_, infos = env.step(zeros(env))
    assert all(list(info) == list(INFOS) for info in infos.values())


def test_infos_add_up():
    env, rng = P2PTrading("ieee33_communities", max_cycles=3), np.random.default_rng(1)
    env.reset(seed=2)
    while env.agents:
        *_, infos = env.step(random_actions(env, rng))
        network = next(iter(infos.values()))
        for i in infos.values():
            parts = sum(i[f"dlmp_{part}_per_kwh"] for part in ("energy", "loss", "reactive", "voltage", "congestion"))
            np.testing.assert_allclose(parts, i["dlmp_per_kwh"], atol=1e-5)
            balance = i["pv_kw"] + i["diesel_kw"] + i["battery_kw"] - i["load_kw"]
            np.testing.assert_allclose(balance, i["accepted_kw"], atol=1e-9)
            np.testing.assert_allclose(abs(i["proposed_kw"] - i["accepted_kw"]), i["curtailed_kwh"])
            # The DSO keeps voltages and currents within limits, whatever was proposed.
            assert i["voltage_violations"] == i["overloads"] == i["dso_status"] == 0.0
            assert (
                0.95 - 1e-5 <= i["voltage_min_pu"] <= i["voltage_max_pu"] <= 1.05 + 1e-5 and i["loading_max"] <= 1.0001
            )
        np.testing.assert_allclose(sum(i["contract_kw"] for i in infos.values()), 0, atol=1e-9)
        injected = sum(i["accepted_kw"] for i in infos.values())
        load = env.simulation.days.load_kw[0, env.simulation.state.interval[0] - 1].sum()
        given = network["substation_kw"] + network["generation_kw"] + injected + network["shed_kwh"]
        np.testing.assert_allclose(given, load + network["losses_kwh"], rtol=1e-6)


def test_a_dso_that_has_no_answer_is_a_status_in_the_infos():
    own = build_dso(load_scenario("ieee33"))
    strict = replace(own.feeder, v_min_pu=np.full(own.feeder.n_bus, 1.04))
    env = P2PTrading(dso=OpfDso(strict, own.trade_bus.tolist(), generators=own.generators), max_cycles=2)
    env.reset(seed=0)
    _, rewards, _, _, infos = env.step({a: np.array([0, -1.0, 0, -0.8]) for a in env.agents})
    for i in infos.values():
        assert i["dso_status"] == DsoStatus.INFEASIBLE
        assert i["accepted_kw"] == 0.0 != i["proposed_kw"] and i["is_curtailed"] == 1.0
        assert all(np.isfinite(value) for value in i.values())
    assert all(np.isfinite(r) for r in rewards.values())


def test_an_operator_that_does_not_look_lets_voltages_leave_their_limits():
    base = load_scenario("ieee33_communities")
    env = P2PTrading(base, dso=UncheckedDso(build_dso(base)))
    env.reset(seed=0)
    *_, infos = env.step({a: np.array([-1.0, -1.0, 1.0, -1.0]) for a in env.agents})
    info = infos["microgrid_0"]
    assert info["accepted_kw"] == info["proposed_kw"] < 0
    assert info["voltage_violations"] > 0 and info["voltage_min_pu"] < 0.95


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_every_mechanism_can_be_chosen_by_name(mechanism):
    env = P2PTrading(mechanism=mechanism, max_cycles=1)
    env.reset(seed=0)
    *_, infos = env.step({a: np.array([0, q, 0, 0]) for a, q in zip(env.agents, (1, -1, 1, -1), strict=True)})
    assert sum(abs(i["contract_kw"]) for i in infos.values()) > 0


def test_a_render_mode_that_nobody_knows_is_refused():
    with pytest.raises(UnknownName, match=r"no render mode is named 'rgb_aray'. Did you mean 'rgb_array'\?"):
        P2PTrading(render_mode="rgb_aray")
    env = P2PTrading()
    env.reset(seed=0)
    assert env.render() is None


def test_out_of_bounds_actions_are_clipped_by_the_aec_form_and_by_the_market():
    env = p2p_trading_v0.env(max_cycles=1)
    env.reset(seed=0)
    for _ in env.agents:
        env.step(np.full(4, 5.0, dtype=np.float32))
    parallel = P2PTrading(max_cycles=1)
    parallel.reset(seed=0)
    _, rewards, *_ = parallel.step({a: np.full(4, 5.0) for a in parallel.agents})
    assert {agent: env.rewards[agent] for agent in env.possible_agents} == rewards
