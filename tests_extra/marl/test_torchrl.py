"""TorchRL's view of the market: the same trajectories as everywhere else, and its own rules kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchrl.envs.utils import check_env_specs

from peergrid.baselines.adapters.torchrl import GROUP, TradingEnv
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.infos import INFOS
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.grid.errors import PeergridError, UnknownName

SCENARIO = load_scenario("ieee33", intervals=4)


def actions_for(n_row, seed=0, n_steps=4):
    return np.random.default_rng(seed).uniform(-1, 1, (n_steps, n_row, 4, 4)).astype(np.float32)


def play(env, actions):
    """Every step of an episode from a fresh reset, stacked."""
    tensordict, steps = env.reset(), []
    for action in actions:
        tensordict[GROUP, "action"] = torch.from_numpy(action)
        tensordict = env.step(tensordict)
        steps.append(tensordict.clone())
        tensordict = env.step_mdp(tensordict)
    return torch.stack(steps)


@pytest.mark.parametrize("n_row", [1, 3])
@pytest.mark.parametrize("infos", [tuple(INFOS), ()])
def test_specs_are_what_the_environment_gives(n_row, infos):
    check_env_specs(TradingEnv(n_row, seed=0, infos=infos, scenario=SCENARIO))


def test_one_row_is_pettingzoos_environment_bit_for_bit():
    actions, single = actions_for(1), P2PTrading(SCENARIO)
    steps = play(TradingEnv(1, seed=7, scenario=SCENARIO), actions)
    observations, _ = single.reset(seed=7)
    for k, action in enumerate(actions):
        before, after = steps[k, 0], steps[k, 0]["next"]
        np.testing.assert_array_equal(before[GROUP, "observation"], list(observations.values()))
        observations, rewards, terminations, truncations, infos = single.step(
            dict(zip(single.possible_agents, action[0], strict=True))
        )
        np.testing.assert_array_equal(after[GROUP, "observation"], list(observations.values()))
        np.testing.assert_array_equal(after["state"], single.state())
        np.testing.assert_array_equal(after[GROUP, "reward"][:, 0], np.float32(list(rewards.values())))
        assert after["terminated"].item() == all(terminations.values()) == (k == 3)
        assert after["truncated"].item() == all(truncations.values())
        for name in INFOS:
            expected = np.float32([told[name] for told in infos.values()])
            np.testing.assert_array_equal(after[GROUP, "info", name][:, 0], expected)


def test_row_i_is_pettingzoos_environment_seeded_with_seed_plus_i():
    n_row = 3
    actions = actions_for(n_row)
    steps = play(TradingEnv(n_row, seed=7, scenario=SCENARIO), actions)
    for i in range(n_row):
        single = P2PTrading(SCENARIO)
        single.reset(seed=7 + i)
        for k in range(len(actions)):
            observations, rewards, *_ = single.step(dict(zip(single.possible_agents, actions[k, i], strict=True)))
            after = steps[k, i]["next"]
            # A batch adds in another order than a row alone.
            close = {"rtol": 1e-6, "atol": 1e-9}
            np.testing.assert_allclose(after[GROUP, "observation"], list(observations.values()), **close)
            np.testing.assert_allclose(after["state"], single.state(), **close)
            np.testing.assert_allclose(after[GROUP, "reward"][:, 0], list(rewards.values()), **close)


def test_the_same_seed_replays_whole_episodes_and_another_does_not():
    actions = actions_for(2)
    env = TradingEnv(2, seed=1, scenario=SCENARIO)
    first, second = play(env, actions), play(env, actions)
    env.set_seed(1)
    again = torch.cat([play(env, actions), play(env, actions)])
    assert (again == torch.cat([first, second])).all()
    assert not (first == second).all()
    assert not (play(TradingEnv(2, seed=3, scenario=SCENARIO), actions) == first).all()


def test_only_the_marked_rows_begin_anew():
    env, actions = TradingEnv(3, seed=0, scenario=SCENARIO), torch.from_numpy(actions_for(3))
    tensordict = env.reset()
    for action in actions[:2]:
        tensordict = env.step_mdp(env.step(tensordict.set((GROUP, "action"), action)))
    mask = torch.tensor([[False], [True], [False]])
    after = env.reset(tensordict.clone().set("_reset", mask))
    for i in (0, 2):
        assert (after[i] == tensordict[i]).all()
    assert env.simulation.state.interval.tolist() == [2, 0, 2]
    assert not (after[1][GROUP, "observation"] == tensordict[1][GROUP, "observation"]).all()
    assert all((after[1][GROUP, "info", name] == 0).all() for name in INFOS)
    for action in actions[2:]:
        after = env.step(after.set((GROUP, "action"), action))["next"]
    assert after["terminated"][:, 0].tolist() == [True, False, True]
    with pytest.raises(PeergridError, match="call reset"):
        env.step(after.set((GROUP, "action"), actions[0]))


def test_rows_that_wait_stay_as_they_are():
    env, actions = TradingEnv(2, seed=0, scenario=SCENARIO), torch.from_numpy(actions_for(2))
    tensordict = env.reset().set((GROUP, "action"), actions[0]).set("_step", torch.tensor([True, False]))
    after = env.step(tensordict)["next"]
    assert env.simulation.state.interval.tolist() == [1, 0]
    assert (after[1][GROUP, "reward"] == 0).all() and (after[0][GROUP, "reward"] != 0).any()
    assert (after[1][GROUP, "observation"] == tensordict[1][GROUP, "observation"]).all()


def test_rollouts_go_on_over_the_end_of_episodes():
    env = TradingEnv(2, seed=0, infos=(), scenario=SCENARIO)
    rollout = env.rollout(10, break_when_any_done=False)
    assert rollout["next", "done"][..., 0].tolist() == [[k % 4 == 3 for k in range(10)]] * 2
    assert env.seconds > 0


@pytest.mark.parametrize("horizon", ["terminate", "truncate"])
def test_a_day_ends_as_its_scenario_says(horizon):
    env = TradingEnv(1, seed=0, infos=(), scenario=load_scenario("ieee33", intervals=2, horizon=horizon))
    last = env.rollout(2)["next"][0, -1]
    assert last["done"].item()
    assert (last["terminated"].item(), last["truncated"].item()) == (horizon == "terminate", horizon == "truncate")


def test_held_out_days_are_those_of_the_simulation():
    env, single = TradingEnv(2, seed=0, infos=(), scenario=SCENARIO), P2PTrading(SCENARIO)
    seen = env.reset(evaluation_day=1)[GROUP, "observation"]
    for row in range(2):
        observations, _ = single.reset(options={"evaluation_day": 1 + row})
        np.testing.assert_array_equal(seen[row], list(observations.values()))


def test_an_unknown_info_is_refused():
    with pytest.raises(UnknownName, match="Did you mean 'welfare'"):
        TradingEnv(1, infos=("welfar",))
