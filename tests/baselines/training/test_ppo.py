"""Our own PPO: what it learns from, that an interruption changes nothing, and that its file plays as it did."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from peergrid.baselines.episode.play import play_all
from peergrid.baselines.policies.learned import load_policy
from peergrid.baselines.scoring.references import References
from peergrid.baselines.training.lesson import AlgoSettings, Lesson, learn
from peergrid.baselines.training.network import Scale
from peergrid.baselines.training.ppo import Learner, PpoSettings, play_day
from peergrid.envs.p2p_trading.players import player_of
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.grid.errors import InvalidCheckpoint, PeergridError

SCENARIO = load_scenario("ieee33", intervals=4, cooperation=1.0, over_no_trade=True)
KNOWN = References(no_trade=np.array([-1000.0, -1000.0]), optimum=np.array([-900.0, -900.0]))


def lesson(folder, steps=64, player="shared", scenario=SCENARIO, num_envs=4, **arguments):
    chosen = {"copies": 2, "minibatch": 32, "epochs": 2} | arguments
    return Lesson(
        scenario=scenario,
        references=KNOWN,
        algo=AlgoSettings(num_envs=num_envs, net_arch=[8], arguments=chosen),
        predictor="none",
        predicted_intervals=None,
        player=player,
        steps=steps,
        check_every=16,
        seed=3,
        folder=folder,
    )


def weights(folder):
    return load_policy(folder / "policy.safetensors").actor.weights


def somebody(player="shared", num_envs=4, **arguments):
    settings = PpoSettings(**({"copies": 2, "minibatch": 32, "epochs": 2} | arguments))
    torch.manual_seed(0)
    acting = player_of(player, Simulation(SCENARIO, num_envs=num_envs, predictor="none"))
    return settings, acting, Learner(settings, acting, [8])


def test_a_training_that_was_interrupted_ends_bit_for_bit_as_one_that_was_not(tmp_path):
    whole = learn(lesson(tmp_path / "whole"))

    def interrupt(point):
        if point.steps == 48:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(lesson(tmp_path / "parts"), interrupt)
    parts = learn(lesson(tmp_path / "parts"))
    assert [p.steps for p in parts] == [0, 16, 32, 48, 64]
    assert [p.welfare for p in parts] == [p.welfare for p in whole]
    for one, other in zip(weights(tmp_path / "whole"), weights(tmp_path / "parts"), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("player", "arguments"),
    [
        ("shared", {"own_heads": True}),
        ("shared", {"critic": "market"}),
        ("shared", {"critic": "day", "copies": 1}),
        ("central", {"critic": "day"}),
        ("solo", {"entropy": 0.01}),
    ],
)
def test_every_form_learns_and_its_file_plays_as_it_did(tmp_path, player, arguments):
    curve = learn(lesson(tmp_path, steps=32, player=player, **arguments))
    assert len({p.welfare for p in curve}) == 3
    again = play_all(Simulation(SCENARIO, num_envs=2, predictor="none"), load_policy(tmp_path / "policy.safetensors"))
    assert np.mean(again) == curve[-1].welfare


def test_heads_are_for_as_many_microgrids_as_there_were(tmp_path):
    learn(lesson(tmp_path, steps=16, own_heads=True))
    policy, fewer = load_policy(tmp_path / "policy.safetensors"), Simulation(replace(SCENARIO, n_microgrids=2))
    fewer.reset(seed=0)
    with pytest.raises(InvalidCheckpoint, match="heads for 4 microgrids, and this scenario has 2"):
        policy.begin_rows(fewer, np.ones(1, dtype=bool))


def test_what_is_seen_is_scaled_in_the_first_layer_of_the_file():
    settings, player, learner = somebody(own_heads=True)
    batch = play_day(player, learner, settings, [0, 0])
    learner.learn(batch, 1.0)
    seen = torch.from_numpy(batch.seen[0])
    with torch.no_grad():
        meant = learner.actor(learner.scale(seen)).numpy().clip(-1.0, 1.0)
    kept = learner.actor_alone()(batch.seen[0].reshape(-1, batch.seen.shape[-1])).reshape(meant.shape)
    assert np.ptp(meant) > 0
    np.testing.assert_allclose(kept, meant, atol=1e-5)


def test_copies_play_the_same_day_and_batches_others():
    settings, player, learner = somebody()
    one, other = (play_day(player, learner, settings, [0, k]) for k in range(2))
    np.testing.assert_array_equal(one.seen[0, 0], one.seen[0, 1])
    assert (one.actions[0, 0] != one.actions[0, 1]).any()
    assert (one.seen[0, 0] != one.seen[0, 2]).any() and (one.seen[0, 0] != other.seen[0, 0]).any()
    np.testing.assert_array_equal(play_day(player, learner, settings, [0, 1]).rewards, other.rewards)


def test_advantages_without_a_critic_are_what_is_still_to_come_above_the_mean_of_the_copies():
    _, _, learner = somebody(trace=1.0)
    rewards = torch.tensor(np.random.default_rng(0).normal(size=(3, 4, 2)), dtype=torch.float32)
    found, returns = learner._advantages(rewards, torch.zeros(4, 4, 2))
    to_come = rewards.flip(0).cumsum(0).flip(0)
    np.testing.assert_allclose(returns, to_come, rtol=1e-5)
    above = to_come.clone()
    for day in (slice(0, 2), slice(2, 4)):
        above[:, day] -= to_come[:, day].mean(1, keepdim=True)
    np.testing.assert_allclose(found, (above - above.mean()) / above.std(), atol=1e-5)


def test_a_critic_that_knows_better_moves_advantages_as_the_source_says():
    _, _, learner = somebody(trace=0.5, discount=0.9, copies=1)
    rewards, worth = torch.tensor([[[1.0]], [[2.0]]]), torch.tensor([[[3.0]], [[4.0]], [[0.0]]])
    found, returns = learner._advantages(rewards.expand(2, 2, 1), worth.expand(3, 2, 1))
    last = 2.0 - 4.0
    first = 1.0 + 0.9 * 4.0 - 3.0 + 0.9 * 0.5 * last
    np.testing.assert_allclose(returns[:, 0, 0], [first + 3.0, last + 4.0], rtol=1e-6)
    assert found[0, 0, 0] > found[1, 0, 0]


def test_a_scale_is_that_of_all_that_was_seen():
    scale, values = Scale(3), torch.randn(7, 5, 3, generator=torch.Generator().manual_seed(0)) * 3.0 + 1.0
    values[..., 2] = 4.0
    for part in values.split(2):
        scale.update(part)
    flat = values.reshape(-1, 3)
    np.testing.assert_allclose(scale.mean, flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(scale.deviation[:2], flat.std(0, unbiased=False)[:2], rtol=1e-4)
    assert (scale(values)[..., 2].abs() < 1e-5).all()  # what never changes is nought


def test_settings_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(PeergridError, match="num_envs is 4, no multiple of copies, which is 3"):
        learn(lesson(tmp_path, copies=3))
    with pytest.raises(PeergridError, match="critic is 'all', not one of own, market, day"):
        learn(lesson(tmp_path, critic="all"))
    with pytest.raises(PeergridError, match="unknown key epoch "):
        learn(lesson(tmp_path, epoch=3))


def test_what_comes_after_a_day_counts_only_where_the_day_is_cut():
    for horizon in ("terminate", "truncate"):
        scenario = replace(SCENARIO, horizon=horizon)
        player = player_of("shared", Simulation(scenario, num_envs=4, predictor="none"))
        learner = Learner(PpoSettings(copies=1, epochs=1), player, [8])
        learner.scale_returns.mean = learner.scale_returns.mean + 1000.0  # what the critic expects everywhere
        batch = play_day(player, learner, learner.settings, [0, 0])
        learner.learn(batch, 0.0)
        # Returns hold what is expected of the future where it goes on.
        assert (learner.scale_returns.mean.item() > 500.0) == (horizon == "truncate")


def test_a_training_keeps_to_its_threads(tmp_path):
    before, found = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        learn(lesson(tmp_path, steps=16), lambda point: found.append(torch.get_num_threads()))
        assert found == [1, 1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
