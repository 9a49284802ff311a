"""Several processes and full disks: the same trajectories, and what was there before stays."""

import hashlib
import json
import multiprocessing
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from peergrid.baselines.policies.learned import Actor, load_policy, save_policy
from peergrid.baselines.training.lesson import CurvePoint, read_curve, write_curve
from peergrid.envs import p2p_trading_v0, transactive_v0
from peergrid.grid.files import write_json

POINT = CurvePoint(steps=1, welfare=2.0, score=3.0, seconds=4.0, environment_seconds=5.0)


def digest_of_both_markets():
    """A hash of all that three random steps in either market bring back."""
    found = hashlib.sha256()
    for make in (p2p_trading_v0.parallel_env, transactive_v0.parallel_env):
        env, rng = make(), np.random.default_rng(1)
        results = [env.reset(seed=5)]
        for _ in range(3):
            results.append(env.step({a: rng.uniform(-1, 1, env.action_space(a).shape) for a in env.agents}))
        found.update(repr([[{k: np.asarray(v).tolist() for k, v in p.items()} for p in r] for r in results]).encode())
    return found.hexdigest()


def test_a_forked_and_a_fresh_process_play_what_this_one_plays():
    here = digest_of_both_markets()
    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()
    child = context.Process(target=lambda: told.put(digest_of_both_markets()))
    child.start()
    child.join(timeout=120)
    assert child.exitcode == 0 and told.get() == here
    code = f"import runpy; print(runpy.run_path({__file__!r})['digest_of_both_markets']())"
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert fresh.returncode == 0 and fresh.stdout.split()[-1] == here, fresh.stderr


# Disks that are full, and others who write the same


@contextmanager
def full_disk(most_bytes=20):
    """No file grows beyond so many bytes: what is written beyond fails, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def actor_of(value):
    return Actor(
        weights=(np.full((4, 3), value, dtype=np.float32),),
        biases=(np.zeros(4, dtype=np.float32),),
        activation="tanh",
        bound="clip",
    )


WRITERS = {
    "results.json": lambda path, value: write_json(path, {"values": [value] * 20}),
    "policy.safetensors": lambda path, value: save_policy(path, actor_of(value), "shared", {}),
    "curve.csv": lambda path, value: write_curve(path, [replace(POINT, steps=int(value))] * 5),
}


@pytest.mark.parametrize("name", WRITERS)
def test_on_a_full_disk_what_was_there_stays(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path, 1.0)
    before = path.read_bytes()
    with full_disk(), pytest.raises(Exception, match=r"(?i)too large"):
        WRITERS[name](path, 2.0)
    assert path.read_bytes() == before
    WRITERS[name](path, 2.0)
    assert path.read_bytes() != before


def test_what_is_read_is_what_was_written(tmp_path):
    for name, write in WRITERS.items():
        write(tmp_path / name, 2.0)
    assert json.loads((tmp_path / "results.json").read_text())["values"] == [2.0] * 20
    assert (load_policy(tmp_path / "policy.safetensors").actor.weights[0] == 2.0).all()
    assert read_curve(tmp_path / "curve.csv") == [replace(POINT, steps=2)] * 5


def test_two_processes_that_keep_the_same_never_take_each_others_file(tmp_path, monkeypatch):
    path, original, written = tmp_path / "known.json", Path.write_text, []

    def write_while_another_does(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if not written:
            written.append(self)
            write_json(path, {"by": "another"})

    monkeypatch.setattr(Path, "write_text", write_while_another_does)
    write_json(path, {"by": "one"})
    assert json.loads(path.read_text()) == {"by": "one"} and list(tmp_path.iterdir()) == [path]


def test_two_processes_share_a_cache_of_references(tmp_path):
    code = (
        "import sys; from pathlib import Path; from peergrid.baselines.scoring.references import references\n"
        "from peergrid.envs.p2p_trading.scenario import load_scenario\n"
        "found = references(load_scenario('ieee33', intervals=2), 1, Path(sys.argv[1]))\n"
        "print(found.no_trade.tolist(), found.optimum.tolist())"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert told[0][0] == told[1][0] and len(list(tmp_path.iterdir())) == 1
