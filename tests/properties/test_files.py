"""Cut or changed files of weights, checkpoints, references and data sets: the same content, or an error of ours."""

import json
import pickle
import shutil
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import VecNormalize

from peergrid.baselines.adapters.sb3 import shared_trading
from peergrid.baselines.policies.learned import Actor, load_policy, save_policy
from peergrid.baselines.scoring.references import references
from peergrid.baselines.training.lesson import CHECKPOINT
from peergrid.baselines.training.sb3 import REPLAY, resume, save_checkpoint
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.grid.errors import InvalidCheckpoint, InvalidDataset
from peergrid.surrogate.checkpoint import SHIPPED, WEIGHTS
from peergrid.surrogate.dataset import MANIFEST, load_subset, make_dataset
from peergrid.surrogate.predictor import load_predictor
from peergrid.surrogate.sampling import Sampling

SHARE = settings(max_examples=2 * settings().max_examples)
COSTLY = settings(max_examples=max(settings().max_examples // 3, 5))
SCENARIO = load_scenario("ieee33", intervals=2)
MADE: list[Path] = []


class Evil:
    """Leaves a file behind if it is ever unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("evil-was-here"),))


@st.composite
def damage(draw, content):
    """The bytes cut, with a bit or some bytes changed, or with others put in; often in the header, where all begins."""
    near = draw(st.sampled_from([len(content), len(content), min(len(content), 2000), min(len(content), 16)]))
    where = draw(st.integers(0, near - 1))
    what = draw(st.sampled_from(["bit", "bit", "bytes", "cut", "put in", "filled up"]))
    if what == "bit":
        return content[:where] + bytes([content[where] ^ (1 << draw(st.integers(0, 7)))]) + content[where + 1 :]
    if what == "bytes":
        put = draw(st.binary(min_size=1, max_size=8))
        return content[:where] + put + content[where + len(put) :]
    if what == "cut":
        return content[:where]
    return content[:where] + draw(st.binary(max_size=6)) + content[where:] if what == "put in" else content + b"\0"


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A folder to work in, in which nothing evil was left when all is done."""
    path = tmp_path_factory.mktemp("files")
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        MADE.append(path)
        yield path
        assert not (path / "evil-was-here").exists()
    MADE.clear()
    assert Path.cwd() == before


# Policies


@lru_cache
def actor():
    rng = np.random.default_rng(0)
    sizes = [(16, 51), (4, 16)]
    return Actor(
        weights=tuple(rng.normal(size=size).astype(np.float32) for size in sizes),
        biases=tuple(rng.normal(size=size[0]).astype(np.float32) for size in sizes),
        activation="tanh",
        bound="clip",
    )


@lru_cache
def policy_bytes():
    path = MADE[0] / "policy.safetensors"
    save_policy(path, actor(), "shared", {"scenario": "ieee33"})
    return path.read_bytes()


@SHARE
@given(st.data())
def test_a_damaged_policy_is_refused_or_the_same(data):
    path = MADE[0] / "bad.safetensors"
    path.write_bytes(data.draw(damage(policy_bytes())))
    try:
        policy = load_policy(path)
    except InvalidCheckpoint as error:
        assert "bad.safetensors" in str(error)
        return
    assert (policy.player, policy.actor.activation, policy.actor.bound) == ("shared", "tanh", "clip")
    for one, other in zip(
        (*policy.actor.weights, *policy.actor.biases), (*actor().weights, *actor().biases), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@SHARE
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=3), st.lists, max_leaves=4), st.data())
def test_a_policy_with_odd_metadata_is_refused(odd, data):
    known = {"format": "peergrid policy 2", "player": "shared", "activation": "tanh", "bound": "clip", "about": {}}
    known[data.draw(st.sampled_from(sorted(known)))] = odd
    path = MADE[0] / "odd.safetensors"
    arrays = {"weight 0": np.zeros((4, 3), dtype=np.float32), "bias 0": np.zeros(4, dtype=np.float32)}
    save_file(arrays, path, metadata={"peergrid": json.dumps(data.draw(st.sampled_from([known, odd, [known]])))})
    with pytest.raises(InvalidCheckpoint, match=r"odd\.safetensors"):
        load_policy(path)


# The surrogate


@COSTLY
@given(st.data())
def test_a_damaged_surrogate_is_refused_or_the_same(data):
    path = MADE[0] / "model.safetensors"
    path.write_bytes(data.draw(damage(surrogate_bytes())))
    try:
        loaded = load_predictor(path, "ieee33")
    except InvalidCheckpoint as error:
        assert "model.safetensors" in str(error)
        return
    expected = load_predictor(SHIPPED / "ieee33" / WEIGHTS, "ieee33")
    np.testing.assert_array_equal(loaded.rating_kw, expected.rating_kw)
    for name, values in expected.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], values), name


@lru_cache
def surrogate_bytes():
    return (SHIPPED / "ieee33" / WEIGHTS).read_bytes()


# Checkpoints of trainings


@lru_cache
def model_of(kind):
    env = VecNormalize(shared_trading(1, scenario=SCENARIO), norm_obs=False)
    settings_of = {"n_steps": 4, "batch_size": 8} if kind is PPO else {"buffer_size": 16}
    return kind("MlpPolicy", env, seed=0, policy_kwargs={"net_arch": [4]}, device="cpu", **settings_of), env


@lru_cache
def checkpoint_of(kind):
    model, env = model_of(kind)
    path = MADE[0] / kind.__name__
    path.mkdir()
    save_checkpoint(model, env, path)
    return path


@pytest.mark.parametrize("kind", [PPO, SAC])
@COSTLY
@given(st.data())
def test_a_damaged_checkpoint_is_refused_and_changes_nothing_or_is_the_same(kind, data):
    model, env = model_of(kind)
    whole = checkpoint_of(kind)
    bad = MADE[0] / f"bad-{kind.__name__}"
    shutil.rmtree(bad, ignore_errors=True)
    shutil.copytree(whole, bad)
    name = data.draw(st.sampled_from([p.name for p in sorted(whole.iterdir())]))
    (bad / name).write_bytes(data.draw(damage((whole / name).read_bytes())))
    before = parameters(model)
    try:
        assert resume(model, env, bad)
    except InvalidCheckpoint as error:
        assert "Delete the folder" in str(error)
    after = parameters(model)
    assert before.keys() == after.keys()
    for key, values in before.items():
        assert torch.equal(values, after[key]), key


def parameters(model):
    return {
        f"{part}.{name}": values.clone()
        for part, found in model.get_parameters().items()
        for name, values in found.items()
        if isinstance(values, torch.Tensor)
    }


@pytest.mark.parametrize("where", [CHECKPOINT, REPLAY])
@pytest.mark.parametrize("write", ["pickle", "torch", "numpy"])
def test_what_is_pickled_in_a_checkpoint_is_not_run(folder, where, write):
    model, env = model_of(SAC)
    bad = folder / "evil"
    shutil.rmtree(bad, ignore_errors=True)
    shutil.copytree(checkpoint_of(SAC), bad)
    path = bad / where
    if write == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
    elif write == "torch":
        torch.save({"steps": Evil()}, path)
    else:
        with path.open("wb") as file:
            np.savez(file, observations=np.array([Evil()], dtype=object))
    with pytest.raises(InvalidCheckpoint):
        resume(model, env, bad)
    assert not (folder / "evil-was-here").exists()


# References and data sets


@lru_cache
def references_bytes():
    cache = MADE[0] / "cache"
    references(SCENARIO, 2, cache)
    (path,) = cache.iterdir()
    return path, path.read_bytes()


@SHARE
@given(st.data())
def test_damaged_references_are_refused_or_finite(data):
    path, content = references_bytes()
    path.write_bytes(data.draw(damage(content)))
    try:
        known = references(SCENARIO, 2, path.parent)
    except InvalidDataset as error:
        assert path.name in str(error)
        return
    assert known.no_trade.shape == known.optimum.shape == (2,)
    assert np.isfinite([known.no_trade, known.optimum]).all()


@lru_cache
def dataset():
    made = MADE[0] / "data"
    make_dataset(made, SCENARIO, {"train": Sampling(days=1, hours=(3, 12))}, workers=1)
    return made, load_subset(made, "train").digest()


@SHARE
@given(st.data())
def test_a_damaged_data_set_is_refused_or_the_same(data):
    made, digest = dataset()
    path = data.draw(st.sampled_from([made / MANIFEST, made / "train" / "shard-00000.parquet"]))
    content = path.read_bytes()
    path.write_bytes(data.draw(damage(content)))
    try:
        assert load_subset(made, "train").digest() == digest
    except InvalidDataset as error:
        assert str(made) in str(error)
    finally:
        path.write_bytes(content)
