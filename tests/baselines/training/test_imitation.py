"""Learning from a teacher: who acts, what is shown, that an interruption changes nothing, and going on with PPO."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from peergrid.baselines.episode.play import play_all
from peergrid.baselines.policies.fixed import Truthful
from peergrid.baselines.policies.learned import load_policy
from peergrid.baselines.scoring.references import References
from peergrid.baselines.training.imitation import ImitationSettings, Student, Teacher, play_day
from peergrid.baselines.training.lesson import AlgoSettings, Lesson, learn
from peergrid.envs.p2p_trading.players import player_of
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.grid.errors import InvalidCheckpoint, PeergridError

SCENARIO = load_scenario("ieee33", intervals=4, cooperation=1.0, over_no_trade=True)
KNOWN = References(no_trade=np.array([-1000.0, -1000.0]), optimum=np.array([-900.0, -900.0]))
IMITATION = {"teacher": "truthful", "teacher_predictor": "", "updates": 5, "minibatch": 32, "memory": 40}
PPO = {"copies": 2, "minibatch": 32, "epochs": 2}


def lesson(folder, library="imitation", steps=48, player="shared", net_arch=(8,), **arguments):
    chosen = (IMITATION if library == "imitation" else PPO) | arguments
    return Lesson(
        scenario=SCENARIO,
        references=KNOWN,
        algo=AlgoSettings(library=library, num_envs=4, net_arch=list(net_arch), arguments=chosen),
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


def somebody(player="shared", teacher="truthful", teacher_predictor="", **arguments):
    settings = ImitationSettings(**(IMITATION | {"teacher": teacher} | arguments))
    torch.manual_seed(0)
    simulation = Simulation(replace(SCENARIO, over_no_trade=False), num_envs=4, predictor="none")
    acting = player_of(player, simulation)
    return acting, Teacher(teacher, teacher_predictor, simulation), Student(settings, acting, [8])


def test_a_training_that_was_interrupted_ends_bit_for_bit_as_one_that_was_not(tmp_path):
    whole = learn(lesson(tmp_path / "whole"))

    def interrupt(point):
        if point.steps == 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(lesson(tmp_path / "parts"), interrupt)
    parts = learn(lesson(tmp_path / "parts"))
    assert [p.steps for p in parts] == [0, 16, 32, 48]
    assert [p.welfare for p in parts] == [p.welfare for p in whole]
    for one, other in zip(weights(tmp_path / "whole"), weights(tmp_path / "parts"), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("player", "own_heads"), [("shared", False), ("shared", True), ("central", False)])
def test_every_form_learns_and_its_file_plays_as_it_did(tmp_path, player, own_heads):
    curve = learn(lesson(tmp_path, steps=32, player=player, own_heads=own_heads))
    assert len({p.welfare for p in curve}) == 3
    again = play_all(Simulation(SCENARIO, num_envs=2, predictor="none"), load_policy(tmp_path / "policy.safetensors"))
    assert np.mean(again) == curve[-1].welfare


def test_a_student_of_many_updates_does_as_its_teacher_does():
    player, teacher, student = somebody(updates=400)
    shown = play_day(player, teacher, student, 1.0, [0, 0])
    before = np.abs(student.act(shown.seen) - shown.actions).mean()
    for _ in range(3):
        student.learn(shown, 1.0)
    assert np.abs(student.act(shown.seen) - shown.actions).mean() < 0.15 * before


def test_the_teacher_shows_what_it_does_where_it_acts():
    player, teacher, student = somebody()
    shown = play_day(player, teacher, student, 1.0, [0, 0])
    simulation, policy = Simulation(SCENARIO, num_envs=4, predictor="none"), Truthful()
    simulation.begin(player.simulation.running()[1])
    for t in range(4):
        np.testing.assert_array_equal(shown.seen[t], simulation.seen)
        actions = policy.act_rows(simulation, simulation.seen)
        np.testing.assert_array_equal(shown.actions[t], actions)
        simulation.step(actions)


def test_students_act_in_the_rest_of_the_markets_and_teachers_see_where_that_leads():
    player, teacher, student = somebody()
    alone = play_day(player, teacher, student, 1.0, [0, 0])
    mixed = play_day(player, teacher, student, 0.5, [0, 0])
    np.testing.assert_array_equal(alone.seen[0], mixed.seen[0])  # the same days
    np.testing.assert_array_equal(alone.seen[:, :2], mixed.seen[:, :2])
    assert (alone.seen[1:, 2:] != mixed.seen[1:, 2:]).any(axis=(1, 2, 3)).all()
    assert (alone.actions[1:, 2:] != mixed.actions[1:, 2:]).any()
    other = play_day(player, teacher, student, 0.5, [0, 1])
    assert (other.seen[0] != mixed.seen[0]).any()


def test_a_teacher_may_be_told_more_than_its_student():
    player, teacher, student = somebody(teacher="foresighted", teacher_predictor="oracle")
    told = play_day(player, teacher, student, 0.0, [0, 0])
    unaware = Teacher("foresighted", "", player.simulation)
    untold = play_day(player, unaware, student, 0.0, [0, 0])
    np.testing.assert_array_equal(told.seen, untold.seen)
    assert (told.actions != untold.actions).any()


def test_the_optimum_goes_back_to_its_plan_from_where_others_led():
    player, teacher, student = somebody(teacher="optimal")
    play_day(player, teacher, student, 1.0, [0, 0])
    simulation, days = player.simulation, player.simulation.running()[1]
    planned = np.stack([teacher.policy._stored_kwh[i] for i in range(4)])
    np.testing.assert_allclose(simulation.running()[0].stored_kwh, planned[:, -1], atol=1e-3)
    simulation.begin(days)
    teacher.begin(days)
    simulation.step(np.zeros((4, simulation.n_agent, 4)))  # no battery moves
    for _ in range(3):
        simulation.step(teacher.show())
    np.testing.assert_allclose(simulation.running()[0].stored_kwh, planned[:, -1], atol=1e-3)


def test_only_so_much_is_remembered():
    player, teacher, student = somebody()
    for k in range(4):
        shown = play_day(player, teacher, student, 1.0, [0, k])
        student.learn(shown, 1.0)
    assert len(student.seen) == len(student.shown) == 40
    np.testing.assert_array_equal(student.seen[-16:], shown.seen.reshape(16, *shown.seen.shape[2:]))


def test_settings_that_cannot_be_are_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("PEERGRID_ALLOW_IMPORTS", raising=False)
    with pytest.raises(PeergridError, match=r"share_kept is 1\.5, not from 0 to 1"):
        learn(lesson(tmp_path, share_kept=1.5))
    with pytest.raises(PeergridError, match="no policy is named 'truthfull'"):
        learn(lesson(tmp_path, teacher="truthfull"))
    with pytest.raises(PeergridError, match="player is 'solo'"):
        learn(lesson(tmp_path, player="solo"))
    with pytest.raises(PeergridError, match="would import code from outside peergrid"):
        learn(lesson(tmp_path, teacher="somewhere:else"))


@pytest.mark.parametrize("own_heads", [False, True])
def test_ppo_starts_from_a_policy_and_goes_on_the_same_where_it_was_interrupted(tmp_path, own_heads):
    taught = learn(lesson(tmp_path / "taught", steps=16))
    start = str(tmp_path / "taught" / "policy.safetensors")
    arguments = {"steps": 32, "start": start, "initial_deviation": 0.05, "own_heads": own_heads}
    whole = learn(lesson(tmp_path / "whole", "peergrid", **arguments))
    assert whole[0].welfare == pytest.approx(taught[-1].welfare, rel=1e-6)
    assert whole[-1].welfare != whole[0].welfare

    def interrupt(point):
        if point.steps == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(lesson(tmp_path / "parts", "peergrid", **arguments), interrupt)
    parts = learn(lesson(tmp_path / "parts", "peergrid", **arguments))
    assert [p.welfare for p in parts] == [p.welfare for p in whole]


def test_scaling_what_is_seen_anew_changes_nothing_that_is_done(tmp_path):
    learn(lesson(tmp_path / "taught", steps=32))
    start = str(tmp_path / "taught" / "policy.safetensors")
    learn(lesson(tmp_path / "still", "peergrid", steps=16, start=start, learning_rate=0.0))
    for name in ("weights", "biases"):
        before, after = (
            getattr(load_policy(tmp_path / folder / "policy.safetensors").actor, name) for folder in ("taught", "still")
        )
        for one, other in zip(before, after, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_ppo_starts_from_nothing_that_does_not_fit(tmp_path):
    learn(lesson(tmp_path / "taught", steps=16))
    start = str(tmp_path / "taught" / "policy.safetensors")
    with pytest.raises(InvalidCheckpoint, match="can't be started from"):
        learn(lesson(tmp_path / "wider", "peergrid", start=start, net_arch=(16,)))
    with pytest.raises(InvalidCheckpoint, match="can't be started from"):
        learn(lesson(tmp_path / "central", "peergrid", start=start, player="central"))
    with pytest.raises(InvalidCheckpoint, match="there is no policy file"):
        learn(lesson(tmp_path / "none", "peergrid", start=str(tmp_path / "policy.safetensors")))
