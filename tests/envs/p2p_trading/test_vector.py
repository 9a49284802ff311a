"""Vector environments: a batch of markets is its single environments, whichever way their days begin anew."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers.vector import (
    DictInfoToList,
    NormalizeObservation,
    NormalizeReward,
    RecordEpisodeStatistics,
)

import peergrid  # noqa: F401, importing it registers the environments
from peergrid.baselines.policies.fixed import NoTrade
from peergrid.envs.common.policy import BatchPolicy, Policy
from peergrid.envs.common.vector import PlayerVector
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.infos import INFOS
from peergrid.envs.p2p_trading.scenario import build_dso, load_scenario
from peergrid.envs.p2p_trading.vector import shared_trading
from peergrid.grid.errors import InvalidAction, PeergridError, UnknownName

REGISTERED = sorted(
    name
    for name, spec in gymnasium.registry.items()
    if name.startswith("peergrid/") and name.endswith("Trading-v0") and spec.vector_entry_point
)
SOLO = "peergrid/SoloTrading-v0"
CENTRAL = "peergrid/CentralTrading-v0"
NEXT_STEP, SAME_STEP, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED

every_name = pytest.mark.parametrize("name", REGISTERED)
every_mode = pytest.mark.parametrize("mode", AutoresetMode)


def random_actions(vector, rng):
    return rng.uniform(-1, 1, vector.action_space.shape).astype(np.float32)


def play(vector, seed=0, steps=4, actions_seed=1):
    """All that comes back: from a reset, then from every step. Where nobody resets, it is done here."""
    rng, results = np.random.default_rng(actions_seed), [vector.reset(seed=seed)]
    for _ in range(steps):
        results.append(vector.step(random_actions(vector, rng)))
        ended = results[-1][2] | results[-1][3]
        if vector.metadata["autoreset_mode"] is DISABLED and ended.any():
            results.append(vector.reset(options={"reset_mask": ended}))
    return results


def same(one, other):
    return data_equivalence(one, other, exact=True)


def assert_close(one, other, where=""):
    """Equal in keys, types and masks, and in value to the solver's tolerance."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_close(one[key], other[key], f"{where} {key}")
    elif isinstance(one, (tuple, list)) or (isinstance(one, np.ndarray) and one.dtype == object):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_close(a, b, f"{where}[{i}]")
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, where
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5, err_msg=where)
    else:
        assert one == other, where


def test_there_are_vectors_of_what_gymnasium_makes():
    assert REGISTERED == [CENTRAL, SOLO]


# A batch is its members


@every_name
def test_every_row_plays_the_days_of_its_single_environment_and_goes_on_likewise(name):
    vector = gymnasium.make_vec(name, num_envs=2, autoreset_mode=SAME_STEP)
    assert isinstance(vector, PlayerVector) and vector.num_envs == 2
    singles, rng = [gymnasium.make(name) for _ in range(2)], np.random.default_rng(0)
    seen, _ = vector.reset(seed=30)
    alone = np.stack([env.reset(seed=30 + i)[0] for i, env in enumerate(singles)])
    for step in range(26):
        np.testing.assert_allclose(seen, alone, rtol=0, atol=1e-5, err_msg=str(step))
        actions = random_actions(vector, rng)
        seen, rewards, terminations, truncations, infos = vector.step(actions)
        for i, (env, action) in enumerate(zip(singles, actions, strict=True)):
            alone[i], reward, terminated, truncated, info = env.step(action)
            np.testing.assert_allclose(rewards[i], reward, rtol=1e-6, atol=1e-6)
            assert (terminations[i], truncations[i]) == (terminated, truncated) == (step == 23, False)
            told = infos["final_info"] if terminated else infos
            assert [key for key in told if not key.startswith("_")] == list(info)
            np.testing.assert_allclose([told[key][i] for key in info], list(info.values()), rtol=1e-5, atol=1e-5)
            if terminated:
                np.testing.assert_allclose(infos["final_obs"][i], alone[i], rtol=0, atol=1e-5)
                alone[i], _ = env.reset()


@every_mode
@pytest.mark.parametrize(
    ("name", "arguments"),
    [(CENTRAL, {}), (SOLO, {"learner": "microgrid_2"}), (SOLO, {"others": "random"}), (SOLO, {"others": "no_trade"})],
    ids=["central", "truthful", "random", "no_trade"],
)
def test_it_answers_as_gymnasium_s_own_vector_of_single_environments(name, arguments, mode):
    make = partial(gymnasium.make_vec, name, num_envs=3, max_cycles=2, **arguments)
    batch = make(autoreset_mode=mode)
    one_by_one = make(vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode})
    assert batch.observation_space == one_by_one.observation_space and batch.action_space == one_by_one.action_space
    assert batch.single_action_space == one_by_one.single_action_space
    assert batch.metadata == one_by_one.metadata
    assert_close(play(batch, seed=3, steps=5), play(one_by_one, seed=3, steps=5))
    # Rows that were reset apart end apart from then on.
    batch.reset(), one_by_one.reset()
    rng = np.random.default_rng(5)
    for step in range(4):
        actions = random_actions(batch, rng)
        answers = batch.step(actions), one_by_one.step(actions)
        assert_close(*answers)
        over = answers[0][2] | answers[0][3]
        marked = np.array([False, True, False]) if step == 0 else over & (mode is DISABLED)
        if marked.any():
            assert_close(*(v.reset(options={"reset_mask": marked.copy()}) for v in (batch, one_by_one)))


@pytest.mark.parametrize(
    "arguments", [{"name": CENTRAL}, {"name": SOLO, "others": "random"}], ids=["central", "random"]
)
def test_the_same_seed_plays_the_same_whole_episodes(arguments):
    def make(**more):
        return gymnasium.make_vec(arguments["name"], num_envs=2, **more, **others)

    others = {key: value for key, value in arguments.items() if key != "name"}
    whole = play(make(), steps=27)
    vector = make()
    assert same(play(vector, steps=27), whole)
    assert same(play(vector, steps=27), whole)  # from wherever it was
    assert not same(play(vector, seed=1, steps=1)[0], whole[0])
    unseeded = [vector.reset()[0] for _ in range(3)]
    assert not np.array_equal(unseeded[0], unseeded[1]) and not np.array_equal(unseeded[1], unseeded[2])
    assert not np.array_equal(make().reset()[0], make().reset()[0])


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"])
def test_a_copy_made_in_mid_episode_goes_on_like_the_original(clone):
    vector = gymnasium.make_vec(SOLO, num_envs=2, others="random", max_cycles=3)
    vector.reset(seed=4)
    rng = np.random.default_rng(0)
    vector.step(random_actions(vector, rng))
    twin = clone(vector)
    for _ in range(6):
        actions = random_actions(vector, rng)
        assert same(twin.step(actions), vector.step(actions))


def test_the_dso_is_asked_once_a_step_for_all_rows():
    asked = []

    class Counting:
        def __init__(self, own):
            self.own = own

        def __call__(self, query):
            asked.append(query.proposed_kw.shape)
            return self.own(query)

    vector = gymnasium.make_vec(CENTRAL, num_envs=4, max_cycles=2, dso=Counting(build_dso(load_scenario("ieee33"))))
    play(vector, steps=3)  # the third step begins the next day
    assert asked == [(4, 4), (4, 4)]


# How days begin anew


def ended(n, value=True):
    return np.full(n, value)


def no_infos(infos, n):
    return all((values == 0).all() and values.shape == (n,) for key, values in infos.items() if not key.startswith("_"))


def test_by_default_the_step_after_the_last_begins_the_next_day():
    vector = gymnasium.make_vec(CENTRAL, num_envs=2, max_cycles=2)
    assert vector.metadata["autoreset_mode"] is NEXT_STEP
    first, first_infos = vector.reset(seed=0)
    assert no_infos(first_infos, 2)
    (_, *before, infos), last, begun, after = (vector.step(np.zeros((2, 16))) for _ in range(4))
    assert not before[1].any() and not before[2].any() and infos["microgrid_0/load_kw"].all()
    assert last[2].all() and not last[3].any() and last[1].all() and last[4]["microgrid_3/stored_kwh"].all()
    assert "final_obs" not in last[4]
    assert not begun[2].any() and not begun[3].any() and not begun[1].any() and no_infos(begun[4], 2)
    assert not np.array_equal(begun[0], first) and not np.array_equal(begun[0], last[0])
    share_left = [e.name for e in vector.describe_observation()].index("microgrid_0: share of the episode left")
    assert [step[0][0, share_left] for step in (last, begun, after)] == [0.0, 1.0, 0.5]
    assert not (after[2] | after[3]).any() and after[1].all()


def test_in_the_same_step_the_end_is_told_apart_from_the_next_beginning():
    vector = gymnasium.make_vec(SOLO, num_envs=2, max_cycles=2, autoreset_mode="SameStep")
    vector.reset(seed=0)
    *_, infos = vector.step(np.zeros((2, 4)))
    assert "final_obs" not in infos
    seen, rewards, terminations, truncations, infos = vector.step(np.zeros((2, 4)))
    assert rewards.all() and terminations.all() and not truncations.any()
    names = [e.name for e in vector.describe_observation()]
    left = names.index("share of the episode left")
    assert infos["final_obs"].dtype == object and [end[left] for end in infos["final_obs"]] == [0.0, 0.0]
    assert seen[:, left].tolist() == [1.0, 1.0]
    assert infos["_final_obs"].tolist() == infos["_final_info"].tolist() == [True, True]
    assert set(infos["final_info"]) == {*INFOS, *(f"_{name}" for name in INFOS)}
    assert infos["final_info"]["stored_kwh"].all() and infos["final_info"]["_stored_kwh"].all()
    assert (infos["stored_kwh"] == 0).all() and infos["_stored_kwh"].all()
    _, _, terminations, _, infos = vector.step(np.zeros((2, 4)))
    assert not terminations.any() and "final_obs" not in infos


def test_where_nothing_begins_by_itself_a_mask_says_what_does():
    vector = gymnasium.make_vec(CENTRAL, num_envs=3, max_cycles=2, autoreset_mode=DISABLED)
    vector.reset(seed=0)
    for _ in range(2):
        seen, _, terminations, _, infos = vector.step(np.zeros((3, 16)))
    assert terminations.all() and "final_obs" not in infos
    with pytest.raises(PeergridError, match=r"over in rows \[0, 1, 2\]: call reset\(\)"):
        vector.step(np.zeros((3, 16)))
    now, infos = vector.reset(options={"reset_mask": np.array([True, False, True])})
    assert not np.array_equal(now[0], seen[0]) and not np.array_equal(now[2], seen[2])
    np.testing.assert_array_equal(now[1], seen[1])
    assert infos["_microgrid_0/bill"].tolist() == [True, False, True]
    with pytest.raises(PeergridError, match=r"over in rows \[1\]: call reset\(\)"):
        vector.step(np.zeros((3, 16)))


def test_a_partial_reset_leaves_the_other_rows_as_they_are_to_the_last_bit():
    vector = gymnasium.make_vec(SOLO, num_envs=3, others="random", max_cycles=4)
    simulation, rng = vector.simulation, np.random.default_rng(0)
    vector.reset(seed=0)
    seen, *_ = vector.step(random_actions(vector, rng))
    before = simulation.running()
    mask, kept = np.array([False, True, False]), [0, 2]
    for seed in (None, 7):
        again, _ = vector.reset(seed=seed, options={"reset_mask": mask})
        assert mask.tolist() == [False, True, False]
        np.testing.assert_array_equal(again[kept], seen[kept])
        assert not np.array_equal(again[1], seen[1])
        for old, new in zip(before, simulation.running(), strict=True):
            for field in fields(old):
                values, other = getattr(old, field.name), getattr(new, field.name)
                if isinstance(values, tuple):  # of further devices
                    assert values == other == ()
                    continue
                np.testing.assert_array_equal(other[kept], values[kept], err_msg=field.name)
        assert simulation.running()[0].interval.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(again[1], gymnasium.make(SOLO, max_cycles=4).reset(seed=8)[0])


@every_mode
def test_a_day_that_terminates_is_told_as_terminated(mode):
    vector = gymnasium.make_vec(
        CENTRAL, num_envs=2, scenario=load_scenario("ieee33", horizon="terminate"), max_cycles=1, autoreset_mode=mode
    )
    vector.reset(seed=0)
    _, _, terminations, truncations, _ = vector.step(np.zeros((2, 16)))
    assert terminations.all() and not truncations.any()


@every_name
def test_rows_play_consecutive_evaluation_days(name):
    vector, single = gymnasium.make_vec(name, num_envs=2, max_cycles=2), gymnasium.make(name, max_cycles=2)
    seen, _ = vector.reset(seed=1, options={"evaluation_day": 3})
    for i in range(2):
        np.testing.assert_array_equal(seen[i], single.reset(options={"evaluation_day": 3 + i})[0])
    part = {"evaluation_day": 3, "reset_mask": np.array([False, True])}
    vector.reset(seed=2)
    np.testing.assert_array_equal(vector.reset(options=part)[0][1], seen[1])
    with pytest.raises(PeergridError, match="evaluation_day"):
        vector.reset(options={"evaluation_day": -1})


def test_random_others_of_an_evaluation_day_are_the_same_whatever_the_seed():
    played = []
    for seed in (1, None):
        vector = gymnasium.make_vec(SOLO, num_envs=2, others="random", max_cycles=2)
        vector.reset(seed=seed, options={"evaluation_day": 3})
        one, other = vector.player.act(np.zeros((2, 4)))
        assert not np.array_equal(one, other)
        played.append(vector.step(np.zeros((2, 4))))
    assert same(*played)


# What comes in and out


@every_name
@every_mode
def test_what_comes_back_is_in_its_space_finite_and_not_changed_later(name, mode):
    vector = gymnasium.make_vec(name, num_envs=2, max_cycles=2, autoreset_mode=mode)
    results = play(vector, steps=3)
    kept = copy.deepcopy(results)
    play(vector, seed=9, steps=3)
    assert same(results, kept)
    for seen, *rest, infos in results:
        assert vector.observation_space.contains(seen)
        assert all(part.shape == (2,) for part in rest)
        assert [part.dtype.kind for part in rest] == ["f", "b", "b"][: len(rest)]
        assert all(np.isfinite(values).all() for key, values in infos.items() if not key.startswith(("_", "final")))
        assert all(infos[f"_{key}"].dtype == bool for key in infos if not key.startswith("_"))


@every_name
def test_observations_are_described_and_actions_not_changed(name):
    vector = gymnasium.make_vec(name, num_envs=2, max_cycles=2)
    described = vector.describe_observation()
    assert described == gymnasium.make(name).unwrapped.describe_observation()
    assert vector.single_observation_space.shape == (len(described),)
    vector.reset(seed=0)
    actions = random_actions(vector, np.random.default_rng(0))
    kept = actions.copy()
    vector.step(actions)
    np.testing.assert_array_equal(actions, kept)


@every_name
def test_actions_that_mean_nothing_are_refused_and_nothing_is_played(name):
    vector = gymnasium.make_vec(name, num_envs=2, max_cycles=3)
    with pytest.raises(PeergridError, match=r"call reset\(\)"):
        vector.step(vector.action_space.sample())
    vector.reset(seed=0)
    good = np.zeros(vector.action_space.shape)
    bad = good.copy()
    bad[1, 2] = np.nan
    with pytest.raises(InvalidAction, match=r"not finite at \(row, number\) \[\[1, 2\]\]"):
        vector.step(bad)
    with pytest.raises(InvalidAction, match=r"shape \(1, \d+\), not \(2, \d+\)"):
        vector.step(good[:1])
    with pytest.raises(InvalidAction, match="not real numbers"):
        vector.step(good.astype(str))
    assert vector.simulation.running()[0].interval.tolist() == [0, 0]


@pytest.mark.parametrize(
    "mask", [[True, False], np.array([1, 0]), np.ones(3, dtype=bool), np.zeros(2, dtype=bool)], ids=str
)
def test_a_mask_that_marks_nothing_clearly_is_refused(mask):
    vector = gymnasium.make_vec(CENTRAL, num_envs=2)
    vector.reset(seed=0)
    with pytest.raises(PeergridError, match="no array of 2 booleans"):
        vector.reset(options={"reset_mask": mask})
    fresh = gymnasium.make_vec(CENTRAL, num_envs=2)
    with pytest.raises(PeergridError, match=r"no episode has begun: call reset\(\)"):
        fresh.reset(options={"reset_mask": np.array([True, False])})


def test_arguments_that_nobody_knows_are_refused():
    with pytest.raises(TypeError, match="senario"):
        gymnasium.make_vec(CENTRAL, num_envs=2, senario="ieee33")
    with pytest.raises(ValueError, match="not a valid AutoresetMode"):
        gymnasium.make_vec(CENTRAL, num_envs=2, autoreset_mode="sometimes")
    with pytest.raises(UnknownName, match="no agent is named 'microgrid_4'"):
        gymnasium.make_vec(SOLO, num_envs=2, learner="microgrid_4")
    with pytest.raises(UnknownName, match="no render mode"):
        gymnasium.make_vec(SOLO, num_envs=2, render_mode="rgb")


def test_every_row_can_be_drawn():
    vector = gymnasium.make_vec(CENTRAL, num_envs=3, max_cycles=2, render_mode="ansi")
    single = P2PTrading(max_cycles=2, render_mode="ansi")
    vector.reset(seed=0), single.reset(seed=1)
    assert vector.render()[1] == single.render()
    vector.step(np.zeros((3, 16)))
    single.step({agent: np.zeros(4) for agent in single.agents})
    assert vector.render()[1] == single.render()
    # Row 0 begins anew, and only the others end in the step after; then they begin and row 0 plays.
    vector.reset(options={"reset_mask": np.array([True, False, False])})
    for _ in range(2):
        vector.step(np.zeros((3, 16)))
    played, begun, _ = vector.render()
    assert "welfare" in played and "welfare" not in begun
    pictures = gymnasium.make_vec(SOLO, num_envs=2, render_mode="rgb_array")
    pictures.reset(seed=0)
    assert [p.shape[-1] for p in pictures.render()] == [3, 3]
    assert gymnasium.make_vec(SOLO, num_envs=2).render() is None


# Gymnasium's wrappers


@every_name
@every_mode
def test_episodes_are_counted_by_gymnasium_s_wrapper(name, mode):
    vector = RecordEpisodeStatistics(gymnasium.make_vec(name, num_envs=2, max_cycles=2, autoreset_mode=mode))
    results = play(vector, seed=1, steps=5)
    ends = [result for result in results if "episode" in result[-1]]
    assert len(ends) == 2 and vector.episode_count == 4
    *_, infos = ends[0]
    assert infos["episode"]["l"].tolist() == [2, 2]
    np.testing.assert_allclose(infos["episode"]["r"], results[1][1] + results[2][1])


@every_name
def test_gymnasium_s_wrappers_of_vectors_work(name):
    make = partial(gymnasium.make_vec, name, num_envs=2, max_cycles=2)
    for wrapper in (NormalizeObservation, NormalizeReward, DictInfoToList):
        vector = wrapper(make())
        results = play(vector, steps=4)
        assert all(np.isfinite(result[0]).all() for result in results)
    *_, infos = results[1]
    single = gymnasium.make(name, max_cycles=2)
    assert set(infos[0]) == set(single.reset()[1])


@every_name
def test_each_environment_is_asked_as_in_gymnasium_s_own_vectors(name):
    arguments = {"num_envs": 2, "max_cycles": 2, "render_mode": "ansi"}
    ours, theirs = (gymnasium.make_vec(name, vectorization_mode=mode, **arguments) for mode in (None, "sync"))
    for vector in (ours, theirs):
        vector.reset(seed=0)
        vector.step(np.zeros(vector.action_space.shape, dtype=np.float32))
    assert ours.call("render") == theirs.call("render")
    assert ours.call("describe_observation") == theirs.call("describe_observation")
    for attribute in ("observation_space", "action_space", "render_mode"):
        assert ours.get_attr(attribute) == theirs.get_attr(attribute)
    with pytest.raises(PeergridError, match=r"call reset\(\) itself"):
        ours.call("reset")


def test_every_microgrid_of_a_row_has_the_picture_of_its_row():
    vector = shared_trading(2, max_cycles=2, render_mode="ansi")
    vector.reset(seed=0)
    first, second = vector.render()
    assert first != second and vector.call("render") == (first,) * 4 + (second,) * 4
    assert shared_trading(2, max_cycles=2).call("render") == (None,) * 8


# Who plays the others


class ByNames:
    """A policy that knows dictionaries alone, and takes note of what it was shown."""

    def __init__(self):
        self.inner, self.days, self.welfare = NoTrade(), [], []

    def begin(self, env):
        self.env = env
        self.days.append(env.simulation.days.load_kw.sum())
        self.inner.begin(env)

    def act(self, observations):
        assert set(observations) == set(self.env.agents)
        if self.env.last_outcome is not None:
            self.welfare.append(float(self.env.last_outcome.welfare[0]))
        return self.inner.act(observations)


def test_a_policy_that_knows_dictionaries_alone_plays_row_by_row():
    assert isinstance(NoTrade(), BatchPolicy) and isinstance(NoTrade(), Policy)
    assert isinstance(ByNames(), Policy) and not isinstance(ByNames(), BatchPolicy)
    policy = ByNames()
    vector = gymnasium.make_vec(SOLO, num_envs=2, others=policy, max_cycles=2)
    at_once = gymnasium.make_vec(SOLO, num_envs=2, others="no_trade", max_cycles=2)
    assert same(play(vector, steps=5), play(at_once, steps=5))
    first, second = vector.player.others.policies
    assert first is policy and second is not policy
    assert len(set(first.days + second.days)) == 4  # two days for each row, all different
    assert len(first.welfare) == len(second.welfare) == 2 and not set(first.welfare) & set(second.welfare)
    single = gymnasium.make(SOLO, others=ByNames(), max_cycles=2)
    single.reset(seed=0)
    _, reward, *_ = single.step(random_actions(vector, np.random.default_rng(1))[0])
    assert np.isfinite(reward)


def test_what_others_leave_out_is_named():
    class Forgetful(ByNames):
        def act(self, observations):
            actions = super().act(observations)
            del actions["microgrid_3"]
            return actions

    vector = gymnasium.make_vec(SOLO, num_envs=2, others=Forgetful())
    vector.reset(seed=0)
    with pytest.raises(InvalidAction, match="no action for microgrid_3"):
        vector.step(np.zeros((2, 4)))


# Every microgrid an environment


def test_every_microgrid_of_every_row_can_be_an_environment():
    vector = shared_trading(2, max_cycles=2, autoreset_mode=SAME_STEP)
    assert isinstance(vector, VectorEnv) and vector.num_envs == 8
    markets, rng = [P2PTrading(max_cycles=2) for _ in range(2)], np.random.default_rng(0)
    seen, _ = vector.reset(seed=6)
    alone = [o for i, market in enumerate(markets) for o in market.reset(seed=6 + i)[0].values()]
    for _ in range(2):
        np.testing.assert_allclose(seen, np.stack(alone), rtol=0, atol=1e-5)
        actions = random_actions(vector, rng)
        seen, rewards, terminations, _, infos = vector.step(actions)
        parts = [
            market.step(dict(zip(market.agents, actions[4 * i : 4 * i + 4], strict=True)))
            for i, market in enumerate(markets)
        ]
        alone = [o for part in parts for o in part[0].values()]
        np.testing.assert_allclose(rewards, [r for part in parts for r in part[1].values()], rtol=1e-6, atol=1e-6)
        assert terminations.tolist() == [t for part in parts for t in part[2].values()]
        told = infos["final_info"] if terminations.all() else infos
        for name in INFOS:
            expected = [info[name] for part in parts for info in part[4].values()]
            np.testing.assert_allclose(told[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)
    assert terminations.all()
    np.testing.assert_allclose(np.stack(list(infos["final_obs"])), np.stack(alone), rtol=0, atol=1e-5)


def test_the_microgrids_of_a_row_begin_together():
    vector = shared_trading(2, max_cycles=3, autoreset_mode=DISABLED)
    vector.reset(seed=0)
    vector.step(np.zeros((8, 4)))
    vector.reset(options={"reset_mask": np.arange(8) >= 4})
    assert vector.simulation.running()[0].interval.tolist() == [1, 0]
    with pytest.raises(PeergridError, match="parts the microgrids of a row"):
        vector.reset(options={"reset_mask": np.arange(8) >= 3})
