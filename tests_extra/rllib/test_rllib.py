"""RLlib plays our environments and learns in them, on one node and on two."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.utils.pre_checks.env import check_multiagent_environments
from ray.tune.registry import register_env
from rllib_shared_ppo import (
    GAMMA,
    ScaledRewards,
    Settings,
    configuration,
    connect,
    discounted,
    nodes_of,
    policy_of,
    train,
)

from peergrid.baselines.adapters.rllib import AsMultiAgent
from peergrid.baselines.scoring.references import references
from peergrid.envs import p2p_trading_v0, transactive_v0
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.envs.transactive.scenario import load_scenario as load_transactive
from peergrid.grid.errors import PeergridError

SCENARIO = load_scenario("ieee33")
HOURS = SCENARIO.intervals
TWO_HOURS = load_transactive("ieee37", intervals=2)
MAKERS = {
    "p2p_trading": lambda: p2p_trading_v0.parallel_env(scenario=SCENARIO),
    "transactive": lambda: transactive_v0.parallel_env(scenario=TWO_HOURS, roles="both"),
}
ENDS = {"p2p_trading": (True, False), "transactive": (False, True)}  # terminated, truncated
NAMES = [entry.name for entry in MAKERS["p2p_trading"]().describe_observation("microgrid_0")]

every_environment = pytest.mark.parametrize("name", MAKERS)


def small(**changes):
    """Two markets in each runner and two days of each between updates."""
    return Settings(**({"env_runners": 0, "envs_per_runner": 2, "days_per_iteration": 4, "days": 2} | changes))


def runner(worker=0, **changes):
    """A runner in this process, which needs no cluster."""
    return MultiAgentEnvRunner(config=configuration(small(**changes), SCENARIO), worker_index=worker)


def whole_days(of, days=2):
    """So many days of each of a runner's markets."""
    return of.sample(num_timesteps=days * HOURS * of.num_envs)


def weather(episode):
    """The sun on a microgrid, hour by hour."""
    return tuple(np.stack(episode.agent_episodes["microgrid_0"].get_observations())[:HOURS, NAMES.index("PV now")])


def digest(episodes):
    """Sixteen hexadecimal digits that stand for all observations, actions and rewards of some days."""
    told = hashlib.sha256()
    for episode in episodes:
        for agent, own in sorted(episode.agent_episodes.items()):
            told.update(agent.encode())
            for values in (own.get_observations(), own.get_actions(), own.get_rewards()):
                told.update(np.ascontiguousarray(values).tobytes())
    return told.hexdigest()[:16]


@every_environment
def test_rllib_s_own_check_passes(name):
    check_multiagent_environments(AsMultiAgent(MAKERS[name]()))


@every_environment
def test_rllib_s_runner_plays_whole_episodes_with_all_that_belongs_to_their_last_step(name):
    env = MAKERS[name]()
    register_env(name, lambda arguments: AsMultiAgent(MAKERS[name]()))
    config = (
        PPOConfig()
        .environment(name)
        .multi_agent(
            policies={"agents", "dso"} if "dso" in env.possible_agents else {"agents"},
            policy_mapping_fn=lambda agent, episode, **kwargs: "dso" if agent == "dso" else "agents",
        )
        .env_runners(num_env_runners=0)
        .debugging(seed=3)
    )
    (episode,) = MultiAgentEnvRunner(config=config).sample(num_episodes=1)
    assert set(episode.agent_episodes) == set(env.possible_agents)
    for whole in (episode, *episode.agent_episodes.values()):
        assert (whole.is_terminated, whole.is_truncated) == ENDS[name]

    # The same actions, played without RLlib, clipped as RLlib clips them.
    observations, _ = AsMultiAgent(env).reset(seed=3)
    own = {agent: episode.agent_episodes[agent] for agent in env.possible_agents}
    seen, paid = {a: [observations[a]] for a in own}, {a: [] for a in own}
    step = 0
    while env.agents:
        acts = {agent: np.clip(own[agent].get_actions(step), -1.0, 1.0) for agent in env.agents}
        observations, rewards, *_ = env.step(acts)
        for agent in own:
            seen[agent].append(observations[agent])
            paid[agent].append(rewards[agent])
        step += 1
    for agent, of_agent in own.items():
        assert len(of_agent) == step
        np.testing.assert_allclose(of_agent.get_observations(), seen[agent], atol=1e-6)
        np.testing.assert_allclose(of_agent.get_rewards(), paid[agent], rtol=1e-5, atol=1e-6)


def test_the_same_seed_gives_the_same_rollout_and_another_seed_another_one():
    first, again, other = (digest(whole_days(runner(seed=seed))) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_the_same_seed_gives_the_same_rollout_in_another_process_that_hashes_alike():
    # RLlib keeps agents in sets, and who is drawn for first follows from how Python hashes their names.
    here = Path(__file__).resolve()
    code = "import test_rllib as t; print(t.digest(t.whole_days(t.runner(seed=0))))"
    paths = os.pathsep.join((str(here.parent), os.environ["PYTHONPATH"]))
    fixed = os.environ | {"PYTHONPATH": paths, "PYTHONHASHSEED": "0"}
    one, other = (
        subprocess.run([sys.executable, "-c", code], env=fixed, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert len(one.split()[-1]) == 16
    assert one.split()[-1] == other.split()[-1]


def test_no_two_days_are_the_same_in_any_market_of_any_runner():
    runners = [runner(worker) for worker in (1, 2)]
    days = [weather(e) for of in runners for _ in range(2) for e in of.sample() if len(e) == HOURS]
    assert len(days) == 16
    assert len(set(days)) == len(days)


def test_rewards_are_scaled_by_the_size_of_the_returns():
    np.testing.assert_allclose(discounted(np.array([1.0, 2.0, 4.0]), 0.5), [3.0, 4.0, 4.0])
    days = whole_days(runner())
    batch = ScaledRewards(GAMMA)(episodes=days, batch={})[Columns.REWARDS]
    rewards = {(day.id_, agent): own.get_rewards() for day in days for agent, own in day.agent_episodes.items()}
    returns = np.concatenate([discounted(of_agent, GAMMA) for of_agent in rewards.values()])
    assert len(batch) == len(rewards) == 4 * 4
    for (day, agent, _), scaled in batch.items():
        own = rewards[day, agent]
        np.testing.assert_allclose(np.ravel(scaled) * np.sqrt(np.mean(returns**2)), own, rtol=1e-4)


def test_two_iterations_learn_from_near_no_trade(one_node, tmp_path, capsys):
    settings = small(env_runners=2, days_per_iteration=8, steps=2 * 8 * HOURS)
    known = references(SCENARIO, settings.days, tmp_path)
    algorithm = configuration(settings, SCENARIO).build_algo()
    try:
        before = weights(policy_of(algorithm))
        scored = train(algorithm, settings, SCENARIO, known)
        after = weights(policy_of(algorithm))
        learner = algorithm.learner_group.get_weights()["shared"]
    finally:
        algorithm.stop()
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()[0] in ("0", "1", "2")]
    assert [int(line[1]) for line in lines] == [0, settings.steps // 2, settings.steps]
    assert abs(float(lines[0][2])) < 2.0
    assert f"{scored.score:.1f}" == lines[-1][3]
    assert any((before[name] != after[name]).any() for name in before)
    for name, values in after.items():
        np.testing.assert_array_equal(values, learner[name])


def test_runners_play_on_both_nodes_of_a_cluster(two_nodes, tmp_path):
    connect(two_nodes, 2)
    settings = small(env_runners=2, steps=4 * HOURS)
    known = references(SCENARIO, settings.days, tmp_path)
    algorithm = configuration(settings, SCENARIO).build_algo()
    try:
        assert nodes_of(algorithm) == {node["NodeID"]: 1 for node in ray.nodes()}
        assert len(ray.nodes()) == 2
        train(algorithm, settings, SCENARIO, known)
        sampled = algorithm.env_runner_group.foreach_env_runner(
            lambda of: len(of.sample(num_episodes=1)), local_env_runner=False
        )
        assert min(sampled) >= 1
    finally:
        algorithm.stop()


def test_more_runners_than_processors_are_refused(two_nodes):
    with pytest.raises(PeergridError, match="3 runners need a processor each and 2 are free"):
        connect(two_nodes, 3)


def weights(policy):
    return {name: tensor.detach().numpy().copy() for name, tensor in policy.module.state_dict().items()}
