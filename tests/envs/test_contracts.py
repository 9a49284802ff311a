"""What every registered environment promises, found by looping over the registries."""

import copy
import hashlib
import pickle
import subprocess
import sys
from functools import lru_cache, partial
from types import SimpleNamespace

import cloudpickle
import gymnasium
import numpy as np
import pettingzoo
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from pettingzoo.test import (
    api_test,
    max_cycles_test,
    parallel_api_test,
    parallel_seed_test,
    render_test,
    seed_test,
    state_test,
)
from pettingzoo.utils.conversions import parallel_to_aec
from stable_baselines3.common.env_checker import check_env as check_env_sb3
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

import peergrid  # noqa: F401, importing it registers the environments
from peergrid.envs import p2p_trading_v0, transactive_v0
from peergrid.envs.transactive.scenario import load_scenario
from peergrid.grid.errors import PeergridError, UnknownName


def registered(registry):
    return sorted(name for name in registry if name.startswith("peergrid/"))


PARALLEL = registered(pettingzoo.parallel_registry)
AEC = registered(pettingzoo.aec_registry)
SINGLE = registered(gymnasium.registry)
TRANSACTIVE = ("peergrid/transactive-v0", "peergrid/DsoPricing-v0")
SHORT_DAY = load_scenario("ieee37", intervals=6)
STEPPED = [("parallel", name) for name in PARALLEL] + [("gymnasium", name) for name in SINGLE]

every_parallel = pytest.mark.parametrize("name", PARALLEL)
every_aec = pytest.mark.parametrize("name", AEC)
every_single = pytest.mark.parametrize("name", SINGLE)
# Those that one steps as a whole: parallel environments and Gymnasium's.
every_stepped = pytest.mark.parametrize(("kind", "name"), STEPPED)


def make(kind, name, **arguments):
    """The environment as registered; Gymnasium's without its wrappers."""
    if kind == "gymnasium":
        return gymnasium.make(name, **arguments).unwrapped
    return pettingzoo.make(kind, name, **arguments)


def act(env, rng):
    """Random actions for everybody who acts, from a generator of one's own."""
    if isinstance(env, gymnasium.Env):
        return random_action(env.action_space, rng)
    return {agent: random_action(env.action_space(agent), rng) for agent in env.agents}


def random_action(space, rng):
    return rng.uniform(space.low, space.high).astype(space.dtype)


def is_over(env, result):
    return bool(result[2] or result[3]) if isinstance(env, gymnasium.Env) else not env.agents


def play_on(env, rng):
    """All that comes back from the steps that are left of an episode."""
    results = [env.step(act(env, rng))]
    while not is_over(env, results[-1]):
        results.append(env.step(act(env, rng)))
    return results


def play(env, seed=0, actions_seed=1):
    """All that comes back from an episode: what reset returns, then what every step returns."""
    return [env.reset(seed=seed), *play_on(env, np.random.default_rng(actions_seed))]


def same(one, other):
    """Equal to the last bit, in kind and value."""
    return data_equivalence(one, other, exact=True)


def make_whole(kind, name):
    """The environment with episodes of whole days: of six hours where an hour takes many steps."""
    short = {"scenario": SHORT_DAY} if name in TRANSACTIVE else {}
    return make(kind, name, **short)


@lru_cache
def whole_episode(kind, name):
    """What comes back from a whole day; not to be changed."""
    return play(make_whole(kind, name))


def digests():
    """A hash of everything that comes back in a whole episode, for every environment."""

    def plain(value):
        if isinstance(value, dict):
            return [(key, plain(v)) for key, v in value.items()]
        if isinstance(value, (tuple, list)):
            return [plain(v) for v in value]
        return (str(value.dtype), value.tobytes()) if isinstance(value, np.ndarray) else repr(value)

    return [hashlib.sha256(repr(plain(whole_episode(*which))).encode()).hexdigest() for which in STEPPED]


def arrays(results):
    """Every array and number in what came back, infos included."""
    if isinstance(results, dict):
        results = list(results.values())
    return [a for r in results for a in arrays(r)] if isinstance(results, (tuple, list)) else [np.asarray(results)]


def test_the_registries_hold_our_environments():
    assert PARALLEL == AEC == ["peergrid/p2p_trading-v0", "peergrid/transactive-v0"]
    assert {"peergrid/CentralTrading-v0", "peergrid/DsoPricing-v0", "peergrid/SoloTrading-v0"} <= set(SINGLE)


# The checkers of others


@every_parallel
def test_pettingzoo_accepts_it_as_parallel(name):
    parallel_api_test(make("parallel", name, max_cycles=4), num_cycles=6)


@every_aec
def test_pettingzoo_accepts_it_as_aec(name):
    api_test(make("aec", name, max_cycles=4), num_cycles=6)


@every_parallel
def test_pettingzoo_accepts_its_conversion_to_aec(name):
    api_test(parallel_to_aec(make("parallel", name, max_cycles=4)), num_cycles=6)


@every_parallel
def test_pettingzoo_finds_it_seeded(name):
    # The test of parallel environments looks at one step only in some releases; that of AEC looks at all.
    seed_test(lambda: parallel_to_aec(make("parallel", name, max_cycles=4)), num_cycles=4)
    seed_test(partial(make, "aec", name, max_cycles=4), num_cycles=4)
    parallel_seed_test(partial(make, "parallel", name, max_cycles=4), num_cycles=4)


@every_parallel
def test_max_cycles_is_the_number_of_steps(name):
    max_cycles_test(SimpleNamespace(parallel_env=partial(make, "parallel", name), env=partial(make, "aec", name)))


@pytest.mark.parametrize("module", [p2p_trading_v0, transactive_v0])
def test_max_cycles_is_the_number_of_steps_in_the_module_that_people_import(module):
    max_cycles_test(module)


@every_parallel
def test_the_global_state_is_in_its_space(name):
    state_test(make("aec", name, max_cycles=4), make("parallel", name, max_cycles=4), num_cycles=4)


@every_aec
def test_every_render_mode_draws(name):
    # The test asks for "human" first, which nobody promised.
    def make_drawn(render_mode):
        return make("aec", name, max_cycles=4, render_mode=None if render_mode == "human" else render_mode)

    render_test(make_drawn)


@every_single
def test_gymnasium_accepts_it(name):
    check_env(make("gymnasium", name, max_cycles=3), skip_render_check=True)


@every_single
def test_gymnasium_accepts_its_rendering(name):
    for mode in make("gymnasium", name).metadata["render_modes"]:
        env = gymnasium.make(name, render_mode=mode, max_cycles=2)
        env.reset(seed=0)
        env.step(env.action_space.sample())
        assert env.render() is not None


@every_single
def test_stable_baselines_accepts_it(name):
    check_env_sb3(make("gymnasium", name, max_cycles=3))


# The same seed, the same episode


@every_stepped
def test_two_instances_play_the_same_whole_episode(kind, name):
    one = play(make_whole(kind, name))
    assert len(one) > 20
    assert same(one, whole_episode(kind, name))


def test_another_process_plays_the_same_whole_episodes():
    code = f"import runpy; print(runpy.run_path({__file__!r})['digests']())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(digests())


@every_stepped
def test_a_seed_begins_the_same_episode_again_and_no_seed_another_one(kind, name):
    env = make(kind, name, max_cycles=2)
    first = play(env, seed=3)
    assert same(first, play(env, seed=3))
    unseeded = [env.reset() for _ in range(3)]
    assert not same(unseeded[0], unseeded[1]) and not same(unseeded[1], unseeded[2])
    env.reset(seed=3)
    assert same([env.reset() for _ in range(3)], unseeded)  # it is the seed that decides what comes after
    assert not same(make(kind, name).reset(), make(kind, name).reset())


@every_stepped
@pytest.mark.parametrize(
    "clone",
    [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env)), lambda env: cloudpickle.loads(cloudpickle.dumps(env))],
    ids=["deepcopy", "pickle", "cloudpickle"],
)
def test_a_copy_made_in_mid_episode_goes_on_like_the_original(kind, name, clone):
    env, rng = make(kind, name, max_cycles=4), np.random.default_rng(2)
    env.reset(seed=1)
    for _ in range(2):
        env.step(act(env, rng))
    twin, twin_rng = clone(env), copy.deepcopy(rng)
    assert same(play_on(twin, twin_rng), play_on(env, rng))
    assert same(twin.reset(), env.reset())  # and draws the same days after


@every_stepped
def test_environments_in_one_process_never_touch_each_other(kind, name):
    apart = [play(make(kind, name, max_cycles=3), seed, seed) for seed in (1, 2)]
    envs, rngs = [make(kind, name, max_cycles=3) for _ in range(2)], [np.random.default_rng(seed) for seed in (1, 2)]
    together = [[env.reset(seed=seed)] for env, seed in zip(envs, (1, 2), strict=True)]
    for _ in range(3):
        for env, rng, results in zip(envs, rngs, together, strict=True):
            results.append(env.step(act(env, rng)))
    assert same(together, apart)


# What comes back


@every_stepped
def test_what_comes_back_is_not_changed_later(kind, name):
    env, rng = make(kind, name, max_cycles=3), np.random.default_rng(2)
    results = [env.reset(seed=1)]
    kept = copy.deepcopy(results)
    results += play_on(env, rng)
    kept += copy.deepcopy(results[1:])
    env.reset(seed=2)
    play_on(env, rng)
    assert same(results, kept)


@every_stepped
def test_actions_are_not_changed(kind, name):
    env = make(kind, name, max_cycles=3)
    env.reset(seed=1)
    actions = act(env, np.random.default_rng(0))
    kept = copy.deepcopy(actions)
    env.step(actions)
    assert same(actions, kept)


@every_parallel
def test_spaces_are_the_same_objects_at_every_call(name):
    env = make("parallel", name)
    for agent in env.possible_agents:
        assert env.observation_space(agent) is env.observation_space(agent)
        assert env.action_space(agent) is env.action_space(agent)
        assert env.observation_spaces[agent] is env.observation_space(agent)
        assert env.action_spaces[agent] is env.action_space(agent)
    spaces = [env.action_space(agent) for agent in env.possible_agents]
    assert len({id(space) for space in spaces}) == len(spaces)  # else agents seeded apart would sample together


@every_stepped
def test_infos_have_the_same_keys_throughout_and_finite_numbers(kind, name):
    results = play(make(kind, name, max_cycles=4))
    infos = [r[-1] for r in results]
    if kind == "parallel":
        assert {tuple(info) for info in infos} == {tuple(results[0][0])}
        infos = [own for info in infos for own in info.values()]
    assert len({tuple(info) for info in infos}) == 1 and len(infos[0]) > 0
    for info in infos:
        assert all(isinstance(value, float) and np.isfinite(value) for value in info.values())


@every_parallel
def test_an_episode_ends_with_its_day_for_everybody_at_once(name):
    env = make("parallel", name, max_cycles=3)
    everybody = env.possible_agents
    _, *steps = play(env)
    for step in steps:
        assert all(list(part) == everybody for part in step)
        assert all(env.observation_space(a).contains(o) for a, o in step[0].items())
        assert all(isinstance(r, float) and np.isfinite(r) for r in step[1].values())
        assert all(isinstance(flag, bool) for part in step[2:4] for flag in part.values())
    assert len(steps) == 3
    ends, cut = (2, 3) if name == "peergrid/p2p_trading-v0" else (3, 2)  # it terminates; the other is truncated
    assert not any(flag for step in steps for flag in step[cut].values())
    assert [set(step[ends].values()) for step in steps] == [{False}, {False}, {True}]
    assert env.agents == []
    env.reset()
    assert env.agents == everybody


@every_stepped
def test_the_last_step_pays_and_shows_like_any_other(kind, name):
    # Agents of transactive_v0 are paid when an hour closes, as the last of a whole day does.
    is_paid_late = name == "peergrid/transactive-v0"
    *_, before, last = whole_episode(kind, name) if is_paid_late else play(make(kind, name, max_cycles=3))
    assert not same(before[0], last[0]) and not same(before[1], last[1])
    assert all(np.isfinite(a).all() for a in arrays(last))


@every_stepped
def test_a_step_before_the_first_reset_or_after_the_end_says_what_to_do(kind, name):
    env, rng = make(kind, name, max_cycles=1), np.random.default_rng(0)
    agents = getattr(env, "possible_agents", [])
    actions = {a: env.action_space(a).sample() for a in agents} or env.action_space.sample()
    with pytest.raises(PeergridError, match=r"call reset\(\)"):
        env.step(actions)
    env.reset(seed=0)
    play_on(env, rng)
    with pytest.raises(PeergridError, match=r"call reset\(\)"):
        env.step(actions)


@every_stepped
def test_unknown_options_are_tolerated(kind, name):
    env = make(kind, name, max_cycles=2)
    plain = env.reset(seed=5)
    assert same(env.reset(seed=5, options={"options": 1}), plain)
    assert same(env.reset(seed=5, options={}), plain)


@every_stepped
def test_a_misspelled_option_is_refused(kind, name):
    with pytest.raises(UnknownName, match="Did you mean 'evaluation_day'"):
        make(kind, name, max_cycles=2).reset(seed=5, options={"eval_day": 1})


@every_stepped
def test_an_evaluation_day_is_the_same_whatever_the_seed(kind, name):
    env = make(kind, name, max_cycles=2)
    day = env.reset(seed=1, options={"evaluation_day": 3})
    assert same(env.reset(seed=2, options={"evaluation_day": 3}), day)
    assert same(env.reset(options={"evaluation_day": np.int64(3)}), day)
    assert same(make(kind, name, max_cycles=2).reset(options={"evaluation_day": 3}), day)
    assert not same(env.reset(options={"evaluation_day": 4}), day)
    for bad in (-1, 1.5, "3", True):
        with pytest.raises(PeergridError, match="evaluation_day"):
            env.reset(options={"evaluation_day": bad})


# Vectors of environments


# Interpreters take long to start: one environment is enough, the others are asked for with the slow tests.
@pytest.mark.parametrize("name", [SINGLE[0], *(pytest.param(name, marks=pytest.mark.slow) for name in SINGLE[1:])])
def test_subprocesses_of_stable_baselines_step_it(name):
    # A fresh interpreter knows the id once it has imported the package that the id names.
    constructors = [partial(gymnasium.make, f"peergrid:{name}", max_cycles=2)] * 2
    actions = np.stack([random_action(make("gymnasium", name).action_space, np.random.default_rng(i)) for i in (0, 1)])

    def played(vector):
        vector.seed(4)
        results = [vector.reset(), *(vector.step(actions) for _ in range(3))]
        vector.close()
        return results

    apart, here = played(SubprocVecEnv(constructors, start_method="spawn")), played(DummyVecEnv(constructors))
    for one, other in zip(apart[1:], here[1:], strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_allclose(one[1], other[1], rtol=1e-6)  # one of the two rounds rewards to float32
        np.testing.assert_array_equal(one[2], other[2])
    _, _, done, infos = apart[2]
    assert done.all() and all(info["TimeLimit.truncated"] is (name in TRANSACTIVE) for info in infos)
    assert all(info["terminal_observation"].shape == apart[0][0].shape for info in infos)


@every_single
def test_gymnasium_makes_vectors_of_it(name):
    vector = gymnasium.make_vec(name, num_envs=2, vectorization_mode="sync", max_cycles=2)
    observations, _ = vector.reset(seed=[8, 9])
    alone = [make("gymnasium", name, max_cycles=2).reset(seed=seed)[0] for seed in (8, 9)]
    np.testing.assert_array_equal(observations, np.stack(alone))
    vector.close()
