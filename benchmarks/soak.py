"""Random policies in every environment, one after the other, for as long as asked: steps, failures, growth of memory.

    python benchmarks/soak.py --minutes 3

Every id is played as registered: PettingZoo's parallel and AEC, Gymnasium's single and vector. Each gets an equal part
of the time, in turns, so that what leaks shows in more than one visit. A failure is an exception, or a number that is
NaN, infinite or outside its space. Growth is of resident memory of the whole process, as Linux tells it, from the
end of an environment's first turn to the end of its last.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pettingzoo
from rich.console import Console
from rich.table import Table

import peergrid  # noqa: F401, importing it registers the environments

TURNS = 3
ODD_SHARE = 0.02  # of the actions are far outside the space


@dataclass
class Soaked:
    """What came of an environment so far."""

    name: str
    kind: str
    play: Callable[[], Iterator[None]]
    steps: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    resident_mib: list[float] = field(default_factory=list)


def resident_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def random_action(space: gymnasium.spaces.Box, rng: np.random.Generator) -> np.ndarray:
    action = rng.uniform(space.low, space.high)
    return (1e6 * action if rng.random() < ODD_SHARE else action).astype(space.dtype)


def check(is_sound: Any, what: str) -> None:
    if not is_sound:
        raise ArithmeticError(f"{what} is not finite, or not in its space")


def parallel(name: str) -> Iterator[None]:
    env, rng = pettingzoo.make("parallel", name), np.random.default_rng(0)
    while True:
        env.reset(seed=int(rng.integers(2**31)))
        while env.agents:
            seen, rewards, _, _, infos = env.step({a: random_action(env.action_space(a), rng) for a in env.agents})
            check(all(env.observation_space(a).contains(o) for a, o in seen.items()), "an observation")
            check(np.isfinite([*rewards.values(), *(v for i in infos.values() for v in i.values())]).all(), "a number")
            yield


def in_turns(name: str) -> Iterator[None]:
    env, rng = pettingzoo.make("aec", name), np.random.default_rng(1)
    while True:
        env.reset(seed=int(rng.integers(2**31)))
        for agent in env.agent_iter():
            seen, reward, terminated, truncated, _ = env.last()
            check(env.observation_space(agent).contains(seen) and np.isfinite(reward), "an observation or a reward")
            is_over = terminated or truncated
            env.step(None if is_over else rng.uniform(-1.0, 1.0, env.action_space(agent).shape).astype(np.float32))
            yield


def single(name: str) -> Iterator[None]:
    env, rng = gymnasium.make(name).unwrapped, np.random.default_rng(2)
    while True:
        env.reset(seed=int(rng.integers(2**31)))
        is_over = False
        while not is_over:
            seen, reward, terminated, truncated, info = env.step(random_action(env.action_space, rng))
            check(env.observation_space.contains(seen), "an observation")
            check(np.isfinite([reward, *info.values()]).all(), "a number")
            is_over = terminated or truncated
            yield


def vector(name: str) -> Iterator[None]:
    env = gymnasium.make_vec(name, num_envs=8, vectorization_mode="vector_entry_point")
    rng = np.random.default_rng(3)
    env.reset(seed=0)
    while True:
        seen, rewards, *_, infos = env.step(random_action(env.action_space, rng))
        check(env.observation_space.contains(seen) and np.isfinite(rewards).all(), "an observation or a reward")
        check(all(np.isfinite(np.asarray(v, dtype=float)).all() for v in infos.values()), "an info")
        yield


def registered(registry: Any) -> list[str]:
    return sorted(name for name in registry if name.startswith("peergrid/"))


def every_environment() -> list[tuple[str, str, Callable[[str], Iterator[None]]]]:
    """Name, form and how it is played, of all that is registered."""
    found = [(name, "parallel", parallel) for name in registered(pettingzoo.parallel_registry)]
    found += [(name, "AEC", in_turns) for name in registered(pettingzoo.aec_registry)]
    names = registered(gymnasium.registry)
    return found + [(name, "Gymnasium", single) for name in names] + [(name, "vector of 8", vector) for name in names]


def soak(soaked: Soaked, seconds: float) -> None:
    """Play on for so long; a failure is kept, and the environment begun anew."""
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        try:
            for _ in soaked.play():
                soaked.steps += 1
                if time.perf_counter() - start >= seconds:
                    break
        except Exception as error:  # whatever it is, it is what is looked for
            soaked.failures.append(f"{type(error).__name__}: {error}")
    soaked.seconds += time.perf_counter() - start
    gc.collect()
    soaked.resident_mib.append(resident_mib())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=3.0, help="of all environments together")
    minutes = parser.parse_args().minutes
    all_soaked = [
        Soaked(name=name, kind=kind, play=lambda play=play, name=name: play(name))
        for name, kind, play in every_environment()
    ]
    for _ in range(TURNS):
        for soaked in all_soaked:
            soak(soaked, 60 * minutes / TURNS / len(all_soaked))
    table = Table(title=f"Random policies, {minutes:g} minutes", title_justify="left")
    for column in ("environment", "form", "steps", "steps/s", "failures", "resident MiB", "grown by"):
        table.add_column(column, justify="left" if column in ("environment", "form") else "right")
    for s in all_soaked:
        rate, grown = s.steps / s.seconds, s.resident_mib[-1] - s.resident_mib[0]
        figures = (str(s.steps), f"{rate:.0f}", str(len(s.failures)), f"{s.resident_mib[-1]:.0f}", f"{grown:+.1f}")
        table.add_row(s.name, s.kind, *figures)
    console = Console(width=110)
    console.print(table)
    first, last = (sum(s.resident_mib[k] for s in all_soaked) / len(all_soaked) for k in (0, -1))
    console.print(f"mean resident memory in the first and the last turn: {first:.1f} and {last:.1f} MiB")
    for s in all_soaked:
        for failure in s.failures[:3]:
            console.print(f"{s.name} ({s.kind}): {failure}")


if __name__ == "__main__":
    main()
