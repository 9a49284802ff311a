"""Recorded episodes: that they are what was played, in Minari's format and back, and what is learned from them."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from peergrid.baselines.episode.recorded import Dataset, Episodes, read_dataset
from peergrid.baselines.episode.recording import RecordSettings, record
from peergrid.baselines.policies.fixed import Truthful
from peergrid.baselines.policies.learned import load_policy
from peergrid.baselines.scoring.references import References
from peergrid.baselines.training.lesson import AlgoSettings, Lesson, learn
from peergrid.baselines.training.offline import OfflineSettings, Reader, steps_of
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.grid.errors import InvalidDataset, PeergridError, UnknownName

minari = pytest.importorskip("minari")

SCENARIO = load_scenario("ieee33", intervals=4, cooperation=1.0, over_no_trade=True)
KNOWN = References(no_trade=np.array([-1000.0, -1000.0]), optimum=np.array([-900.0, -900.0]))


def recorded(folder, policies=("truthful", "random"), scenario=SCENARIO, **settings):
    chosen = {"predictor": "none", "days": 3, "markets": 2, "seed": 5} | settings
    found = record(RecordSettings(policies=list(policies), **chosen), scenario, folder)
    return found, read_dataset(folder)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    return folder, *recorded(folder)


def test_episodes_are_the_days_that_a_policy_played(shared):
    _, found, dataset = shared
    simulation, policy = Simulation(SCENARIO, num_envs=3, predictor="none"), Truthful()
    simulation.reset(seed=5)
    mine, paid = dataset.chosen(["truthful"]), 0.0
    assert mine.day.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2] and mine.slot.tolist() == [0, 1, 2, 3] * 3
    for t in range(4):
        np.testing.assert_array_equal(mine.seen[:, t], simulation.seen.reshape(12, -1))
        actions = policy.act_rows(simulation, simulation.seen)
        np.testing.assert_array_equal(mine.actions[:, t], actions.reshape(12, -1))
        _, outcome = simulation.step(actions)
        np.testing.assert_allclose(mine.rewards[:, t], outcome.reward.ravel(), rtol=1e-5)
        paid += outcome.reward.mean()
    np.testing.assert_array_equal(mine.seen[:, 4], simulation.seen.reshape(12, -1))
    assert found["episodes"] == len(dataset.episodes.seen) == 24
    assert found["paid"]["truthful"] == pytest.approx(paid, rel=1e-4)


def test_all_policies_play_the_same_days(shared):
    dataset = shared[2]
    one, other = dataset.chosen(["truthful"]), dataset.chosen(["random"])
    np.testing.assert_array_equal(one.seen[:, 0], other.seen[:, 0])
    assert (one.seen[:, 1] != other.seen[:, 1]).any()


def test_what_is_known_of_a_data_set_stands_in_it(shared):
    about = shared[2].about
    assert (about["scenario"], about["predictor"], about["player"], about["seed"]) == ("ieee33", "none", "shared", 5)
    assert about["policies"] == ["truthful", "random"] and about["version"]
    assert len(about["entries"]) == shared[2].episodes.seen.shape[2]
    assert shared[2].terminates


def test_minari_reads_it_as_its_own(shared, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(shared[0]))
    dataset = minari.load_dataset("peergrid/ieee33-shared-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (24, 96)
    (episode,) = dataset.sample_episodes(1)
    assert episode.terminations.tolist() == [False, False, False, True] and not episode.truncations.any()
    assert dataset.observation_space.contains(episode.observations[0])
    assert dataset.action_space.contains(episode.actions[0])


@pytest.mark.parametrize(("player", "slots", "numbers"), [("central", 1, 16), ("solo", 1, 4)])
def test_other_players_have_episodes_of_their_own(tmp_path, player, slots, numbers):
    _, dataset = recorded(tmp_path, policies=["no_trade"], player=player, days=2)
    assert dataset.episodes.actions.shape == (2 * slots, 4, numbers)
    assert dataset.about["player"] == player


def test_days_that_are_cut_are_truncated(tmp_path):
    cut = load_scenario("ieee33", intervals=4, horizon="truncate")
    _, dataset = recorded(tmp_path, policies=["no_trade"], days=1, scenario=cut)
    assert not dataset.terminates
    assert steps_of(dataset, ()).goes_on.all()


def test_what_is_no_data_set_is_told(shared, tmp_path):
    with pytest.raises(InvalidDataset, match="there is no data set in"):
        read_dataset(tmp_path)
    with pytest.raises(InvalidDataset, match="no episodes of optimal; it has truthful, random"):
        shared[2].chosen(["optimal"])
    recorded(tmp_path, policies=["no_trade"], days=1)
    (metadata,) = tmp_path.rglob("data/metadata.json")
    known = json.loads(metadata.read_text())
    # An environment in it would be imported to learn its spaces.
    for other in ({k: v for k, v in known.items() if k != "peergrid"}, known | {"env_spec": "{}"}):
        metadata.write_text(json.dumps(other))
        with pytest.raises(InvalidDataset, match="not recorded by peergrid"):
            read_dataset(tmp_path)
    metadata.with_name("main_data.hdf5").write_bytes(b"nothing")
    with pytest.raises(InvalidDataset, match="can't be read"):
        read_dataset(tmp_path)


def test_recording_anew_leaves_one_data_set(tmp_path):
    for seed in (0, 1):
        _, dataset = recorded(tmp_path, policies=["no_trade"], days=1, seed=seed)
    assert dataset.about["seed"] == 1 and len(dataset.episodes.seen) == 4


def test_what_cannot_be_recorded_is_refused_before_a_day_is_played(tmp_path):
    with pytest.raises(UnknownName, match="no policy is named 'truthfull'"):
        recorded(tmp_path, policies=["truthful", "truthfull"])
    with pytest.raises(UnknownName, match="no player is named"):
        recorded(tmp_path, player="everyone")
    with pytest.raises(PeergridError, match="policies is empty"):
        recorded(tmp_path, policies=[])
    with pytest.raises(PeergridError, match="'case_1' plays by rules of its own"):
        recorded(tmp_path, policies=["case_1"])
    assert not list(tmp_path.iterdir())


def offline_lesson(folder, data, steps=12, scenario=SCENARIO, **arguments):
    chosen = {"data": str(data), "minibatch": 16} | arguments
    return Lesson(
        scenario=scenario,
        references=KNOWN,
        algo=AlgoSettings(name="iql", library="offline", num_envs=1, net_arch=[8], arguments=chosen),
        predictor="none",
        predicted_intervals=None,
        player="shared",
        steps=steps,
        check_every=4,
        seed=3,
        folder=folder,
    )


@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_learning_from_records_that_was_interrupted_ends_bit_for_bit_the_same(shared, tmp_path, temperature):
    def with_settings(folder):
        return offline_lesson(tmp_path / folder, shared[0], temperature=temperature)

    def interrupt(point):
        if point.steps == 8:
            raise KeyboardInterrupt

    whole = learn(with_settings("whole"))
    with pytest.raises(KeyboardInterrupt):
        learn(with_settings("parts"), interrupt)
    parts = learn(with_settings("parts"))
    assert [p.steps for p in parts] == [0, 4, 8, 12]
    assert [asdict(p)["welfare"] for p in parts] == [p.welfare for p in whole]
    for one, other in zip(
        *(load_policy(tmp_path / f / "policy.safetensors").actor.weights for f in ("whole", "parts")), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_cloning_does_what_was_recorded(shared):
    reader = Reader(OfflineSettings(policies=("truthful",), temperature=0.0, minibatch=64), shared[2], [32])
    steps = reader.steps

    def error():
        return (reader.network(reader.scale(steps.seen)) - steps.actions).abs().mean().item()

    before = error()
    for _ in range(300):
        reader.learn(1.0)
    assert error() < 0.2 * before


def test_an_action_that_was_paid_better_counts_more():
    rng = np.random.default_rng(0)
    actions = rng.choice([-0.5, 0.5], size=(200, 1, 1)).astype(np.float32)
    episodes = Episodes(
        seen=rng.normal(size=(200, 2, 3)).astype(np.float32),
        actions=actions,
        rewards=actions[:, :, 0] * 2.0,
        policy=np.zeros(200, dtype=int),
        day=np.arange(200),
        slot=np.zeros(200, dtype=int),
    )
    dataset = Dataset(episodes=episodes, about={"policies": ["some"], "terminates": True})
    means = []
    for temperature in (0.0, 3.0):
        reader = Reader(OfflineSettings(temperature=temperature, minibatch=64, tracking=0.05), dataset, [16])
        for _ in range(300):
            reader.learn(1.0)
        means.append(reader.network(reader.scale(reader.steps.seen)).mean().item())
    assert abs(means[0]) < 0.25 and means[1] > 0.4


def test_records_of_something_else_are_refused(shared, tmp_path):
    other = load_scenario("ieee33_communities", intervals=4)
    with pytest.raises(InvalidDataset, match="recorded with scenario 'ieee33' rather than 'ieee33_communities'"):
        learn(offline_lesson(tmp_path, shared[0], scenario=other))
    with pytest.raises(PeergridError, match=r"algo.arguments.data is empty"):
        learn(offline_lesson(tmp_path, ""))
    with pytest.raises(PeergridError, match="unknown key temprature"):
        learn(offline_lesson(tmp_path, shared[0], temprature=1.0))
