"""The vector environment: a batch of days is its single environments, whichever way the days begin anew."""

import copy
import pickle
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import DictInfoToList, NormalizeObservation, NormalizeReward, RecordEpisodeStatistics

import peergrid  # noqa: F401, importing it registers the environments
from peergrid.baselines.policies.transactive import Myopic
from peergrid.envs.common.rows import rows_of
from peergrid.envs.common.vector import PlayerVector
from peergrid.envs.transactive.infos import NETWORK_INFOS
from peergrid.envs.transactive.scenario import LoopSpec, build_dso, load_scenario
from peergrid.grid.errors import InvalidAction, PeergridError, UnknownName

NAME = "peergrid/DsoPricing-v0"
SHORT = load_scenario("ieee37", intervals=2, loop=LoopSpec(max_iterations=5))
NEXT_STEP, SAME_STEP, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED

every_mode = pytest.mark.parametrize("mode", AutoresetMode)


def make_vec(num_envs=2, **arguments):
    """A vector with agents that answer fast."""
    return gymnasium.make_vec(NAME, num_envs=num_envs, **{"scenario": SHORT, "agents": "myopic"} | arguments)


def make(**arguments):
    return gymnasium.make(NAME, **{"scenario": SHORT, "agents": "myopic"} | arguments)


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


# A batch is its members


@pytest.mark.parametrize("agents", ["myopic", "optimising"])
def test_every_row_plays_the_days_of_its_single_environment_and_goes_on_likewise(agents):
    vector = make_vec(agents=agents, autoreset_mode=SAME_STEP)
    assert isinstance(vector, PlayerVector) and vector.num_envs == 2
    singles, rng, ends = [make(agents=agents) for _ in range(2)], np.random.default_rng(0), np.zeros(2, dtype=int)
    seen, _ = vector.reset(seed=30)
    alone = np.stack([env.reset(seed=30 + i)[0] for i, env in enumerate(singles)])
    apart = False
    while not ends.all():
        np.testing.assert_allclose(seen, alone, rtol=0, atol=1e-5)
        actions = random_actions(vector, rng)
        seen, rewards, terminations, truncations, infos = vector.step(actions)
        for i, (env, action) in enumerate(zip(singles, actions, strict=True)):
            alone[i], reward, terminated, truncated, info = env.step(action)
            np.testing.assert_allclose(rewards[i], reward, rtol=1e-5, atol=1e-6)
            assert (terminations[i], truncations[i]) == (terminated, truncated) and not terminated
            told = infos["final_info"] if truncated else infos
            assert [key for key in told if not key.startswith(("_", "final"))] == list(info)
            np.testing.assert_allclose([told[key][i] for key in info], list(info.values()), rtol=1e-5, atol=1e-5)
            if truncated:
                np.testing.assert_allclose(infos["final_obs"][i], alone[i], rtol=0, atol=1e-5)
                alone[i], _ = env.reset()
        apart |= len(set(vector.unwrapped.simulation.running()[0].interval.tolist())) > 1
        ends += truncations
    assert apart  # the rows were in different hours meanwhile


@every_mode
def test_it_answers_as_gymnasium_s_own_vector_of_single_environments(mode):
    make = partial(gymnasium.make_vec, NAME, num_envs=3, scenario=SHORT, agents="myopic", max_cycles=2)
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


def test_the_same_seed_plays_the_same_whole_episodes():
    vector = make_vec()
    whole = play(vector, steps=12)
    assert sum(int(r[3].sum()) for r in whole[1:]) > 1  # more than one episode ended meanwhile
    assert same(play(vector, steps=12), whole) and same(play(make_vec(), steps=12), whole)
    assert not same(play(vector, seed=1, steps=1)[0], whole[0])
    unseeded = [vector.reset()[0] for _ in range(3)]
    assert not np.array_equal(unseeded[0], unseeded[1]) and not np.array_equal(unseeded[1], unseeded[2])


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"])
def test_a_copy_made_in_mid_episode_goes_on_like_the_original(clone):
    vector = make_vec(agents="optimising", max_cycles=3)
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

    vector = make_vec(4, max_cycles=2, dso=Counting(build_dso(SHORT)))
    vector.reset(seed=0)
    asked.clear()
    for _ in range(2):
        vector.step(np.zeros((4, 1)))
    assert asked == [(4, 9), (4, 9)]


# How days begin anew


def no_infos(infos, n):
    return all((values == 0).all() and values.shape == (n,) for key, values in infos.items() if not key.startswith("_"))


def test_by_default_the_step_after_the_last_begins_the_next_day():
    vector = make_vec(max_cycles=2)
    assert vector.metadata["autoreset_mode"] is NEXT_STEP
    first, first_infos = vector.reset(seed=0)
    assert no_infos(first_infos, 2)
    (_, *before, infos), last, begun, after = (vector.step(np.full((2, 1), a)) for a in (0.3, 0.1, 0.3, 0.1))
    assert before[0].all() and not before[1].any() and not before[2].any() and infos["import_kw"].all()
    assert last[3].all() and not last[2].any() and last[1].all() and "final_obs" not in last[4]
    assert not begun[2].any() and not begun[3].any() and not begun[1].any() and no_infos(begun[4], 2)
    assert not np.array_equal(begun[0], first) and not np.array_equal(begun[0], last[0])
    assert not after[3].any() and after[1].all()


def test_in_the_same_step_the_end_is_told_apart_from_the_next_beginning():
    vector = make_vec(max_cycles=2, autoreset_mode="SameStep")
    first, _ = vector.reset(seed=0)
    *_, infos = vector.step(np.full((2, 1), 0.3))
    assert "final_obs" not in infos
    seen, rewards, terminations, truncations, infos = vector.step(np.full((2, 1), 0.1))
    assert rewards.all() and truncations.all() and not terminations.any()
    assert infos["final_obs"].dtype == object and infos["_final_obs"].all() and infos["_final_info"].all()
    done = [e.name for e in vector.describe_observation()].index("gap with which the hour before closed")
    for i in range(2):
        assert vector.single_observation_space.contains(infos["final_obs"][i])
        assert not np.array_equal(infos["final_obs"][i], seen[i]) and not np.array_equal(seen[i], first[i])
        assert seen[i][done] == 0
    assert set(infos["final_info"]) == {*NETWORK_INFOS, *(f"_{name}" for name in NETWORK_INFOS)}
    assert infos["final_info"]["import_kw"].all() and infos["final_info"]["_import_kw"].all()
    assert (infos["import_kw"] == 0).all() and infos["_import_kw"].all()
    *_, truncations, infos = vector.step(np.full((2, 1), 0.3))
    assert not truncations.any() and "final_obs" not in infos


def test_where_nothing_begins_by_itself_a_mask_says_what_does():
    vector = make_vec(3, max_cycles=2, autoreset_mode=DISABLED)
    vector.reset(seed=0)
    for share in (0.3, 0.1):
        seen, _, _, truncations, infos = vector.step(np.full((3, 1), share))
    assert truncations.all() and "final_obs" not in infos
    with pytest.raises(PeergridError, match=r"over in rows \[0, 1, 2\]: call reset\(\)"):
        vector.step(np.zeros((3, 1)))
    now, infos = vector.reset(options={"reset_mask": np.array([True, False, True])})
    assert not np.array_equal(now[0], seen[0]) and not np.array_equal(now[2], seen[2])
    np.testing.assert_array_equal(now[1], seen[1])
    assert infos["_import_kw"].tolist() == [True, False, True]
    with pytest.raises(PeergridError, match=r"over in rows \[1\]: call reset\(\)"):
        vector.step(np.zeros((3, 1)))


def test_a_partial_reset_leaves_the_other_rows_as_they_are_to_the_last_bit():
    vector, kept, mask = make_vec(3, max_cycles=4), [0, 2], np.array([False, True, False])
    vector.reset(seed=0)
    seen, *_ = vector.step(np.full((3, 1), 0.3))
    before = vector.simulation.running()[0]
    for seed in (None, 7):
        again, _ = vector.reset(seed=seed, options={"reset_mask": mask})
        np.testing.assert_array_equal(again[kept], seen[kept])
        assert not np.array_equal(again[1], seen[1])
        after = vector.simulation.running()[0]
        assert same(vars(rows_of(after, kept)), vars(rows_of(before, kept)))
        assert after.steps.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(again[1], make(max_cycles=4).reset(seed=8)[0])


def test_rows_play_consecutive_evaluation_days():
    vector, single = make_vec(max_cycles=2), make(max_cycles=2)
    seen, _ = vector.reset(seed=1, options={"evaluation_day": 3})
    for i in range(2):
        np.testing.assert_array_equal(seen[i], single.reset(options={"evaluation_day": 3 + i})[0])
    part = {"evaluation_day": 3, "reset_mask": np.array([False, True])}
    vector.reset(seed=2)
    np.testing.assert_array_equal(vector.reset(options=part)[0][1], seen[1])
    with pytest.raises(PeergridError, match="evaluation_day"):
        vector.reset(options={"evaluation_day": -1})


# What comes in and out


@every_mode
def test_what_comes_back_is_in_its_space_finite_and_not_changed_later(mode):
    vector = make_vec(max_cycles=2, autoreset_mode=mode)
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


def test_observations_are_described_and_actions_not_changed():
    vector = make_vec(max_cycles=2)
    assert vector.describe_observation() == make().unwrapped.describe_observation()
    assert vector.single_observation_space.shape == (len(vector.describe_observation()),)
    vector.reset(seed=0)
    actions = np.array([[3.0], [-0.5]])
    vector.step(actions)
    np.testing.assert_array_equal(actions, [[3.0], [-0.5]])


def test_actions_that_mean_nothing_are_refused_and_nothing_is_played():
    vector = make_vec(max_cycles=3)
    with pytest.raises(PeergridError, match=r"call reset\(\)"):
        vector.step(vector.action_space.sample())
    vector.reset(seed=0)
    with pytest.raises(InvalidAction, match=r"not finite at \(row, number\) \[\[1, 0\]\]"):
        vector.step(np.array([[0.0], [np.nan]]))
    with pytest.raises(InvalidAction, match=r"shape \(1, 1\), not \(2, 1\)"):
        vector.step(np.zeros((1, 1)))
    with pytest.raises(InvalidAction, match="not real numbers"):
        vector.step(np.array([["a"], ["b"]]))
    assert vector.simulation.running()[0].steps.tolist() == [0, 0]


@pytest.mark.parametrize(
    "mask", [[True, False], np.array([1, 0]), np.ones(3, dtype=bool), np.zeros(2, dtype=bool)], ids=str
)
def test_a_mask_that_marks_nothing_clearly_is_refused(mask):
    vector = make_vec()
    vector.reset(seed=0)
    with pytest.raises(PeergridError, match="no array of 2 booleans"):
        vector.reset(options={"reset_mask": mask})
    with pytest.raises(PeergridError, match=r"no episode has begun: call reset\(\)"):
        make_vec().reset(options={"reset_mask": np.array([True, False])})


def test_arguments_that_nobody_knows_are_refused():
    with pytest.raises(TypeError, match="senario"):
        gymnasium.make_vec(NAME, num_envs=2, senario="ieee37")
    with pytest.raises(ValueError, match="not a valid AutoresetMode"):
        make_vec(autoreset_mode="sometimes")
    with pytest.raises(UnknownName, match="no policy is named 'myopik'"):
        make_vec(agents="myopik")
    with pytest.raises(UnknownName, match="no render mode"):
        make_vec(render_mode="rgb")


def test_agents_may_be_an_object_and_rows_can_be_drawn():
    assert make_vec(agents=Myopic()).render() is None
    vector, single = make_vec(render_mode="ansi", max_cycles=2), make(render_mode="ansi", max_cycles=2)
    vector.reset(seed=0), single.reset(seed=1)
    assert vector.render()[1] == single.render()
    vector.step(np.zeros((2, 1))), single.step(np.zeros(1, dtype=np.float32))
    drawn = vector.render()
    assert drawn[1] == single.render() and drawn[0] != drawn[1]


# Gymnasium's wrappers


@every_mode
def test_episodes_are_counted_by_gymnasium_s_wrapper(mode):
    vector = RecordEpisodeStatistics(make_vec(max_cycles=2, autoreset_mode=mode))
    results = play(vector, seed=1, steps=5)
    ends = [result for result in results if "episode" in result[-1]]
    assert len(ends) == 2 and vector.episode_count == 4
    *_, infos = ends[0]
    assert infos["episode"]["l"].tolist() == [2, 2]
    np.testing.assert_allclose(infos["episode"]["r"], results[1][1] + results[2][1])


def test_gymnasium_s_wrappers_of_vectors_work():
    for wrapper in (NormalizeObservation, NormalizeReward, DictInfoToList):
        results = play(wrapper(make_vec(max_cycles=2)), steps=4)
        assert all(np.isfinite(result[0]).all() for result in results)
    *_, infos = results[1]
    assert set(infos[0]) == set(make(max_cycles=2).reset()[1])
