"""A learning DSO beside its rules: Stable-Baselines3's PPO sets the root signal of `peergrid/DsoPricing-v0`.

    pip install -e '.[sb3]' && python benchmarks/dso_pricing.py --steps 20000

Trains on training days, then plays held-out days, each from the same agents' point of view: deviation from schedule,
cost, and iterations per hour of the learned DSO, of one that never moves the signal, and of the rules. Exits with 1
unless the learned one deviates less and costs less than the one that never moves it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table
from stable_baselines3 import PPO
from tqdm import trange

from peergrid.envs.transactive.gymnasium import DsoPricing
from peergrid.envs.transactive.scenario import load_scenario
from peergrid.envs.transactive.signal import SignalBase

Act = Callable[[np.ndarray], np.ndarray]


def play(env: DsoPricing, act: Act, days: int, what: str) -> tuple[float, float, float]:
    """Deviation in % of the schedule, cost per day, and iterations per hour, over held-out days."""
    deviation, scheduled, cost, iterations, hours = 0.0, 0.0, 0.0, 0, 0
    for day in trange(days, desc=what, disable=None, leave=False):
        seen, _ = env.reset(options={"evaluation_day": day})
        over = False
        while not over:
            seen, _, _, over, info = env.step(act(seen))
            iterations += 1
            if info["closing"]:
                deviation += abs(info["gap_kw"])
                scheduled += abs(info["scheduled_import_kw"])
                cost += info["total_cost"]
                hours += 1
    return 100.0 * deviation / scheduled, cost / days, iterations / hours


class Rule:
    """A rule of the scenario as a policy of the DSO: it reads what the DSO sees."""

    def __init__(self, env: DsoPricing, step_share: float) -> None:
        names = [entry.name for entry in env.describe_observation()]
        self.root, self.gap = names.index("root signal"), names.index("gap in the last iteration of this hour")
        self.step = step_share / env.simulation.params.loop.bound_share

    def __call__(self, seen: np.ndarray) -> np.ndarray:
        return np.clip(seen[[self.root]] + self.step * np.sign(seen[[self.gap]]), -1.0, 1.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--days", type=int, default=36)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--agents", default="optimising", help="how agents answer")
    parser.add_argument("--signal-base", choices=list(SignalBase), default="day_ahead", help="where signals start")
    args = parser.parse_args()
    shipped = load_scenario("ieee37")
    scenario = replace(shipped, loop=replace(shipped.loop, signal_base=args.signal_base))
    env = DsoPricing(args.agents, scenario=scenario)
    start = time.perf_counter()
    # An hour is nearly a task of its own: what comes after it counts little.
    model = PPO("MlpPolicy", env, seed=args.seed, n_steps=1024, batch_size=128, gamma=0.8, learning_rate=1e-3)
    model.learn(args.steps, progress_bar=sys.stderr.isatty())
    seconds = time.perf_counter() - start

    held_out = DsoPricing(args.agents, scenario=scenario)
    players: dict[str, Act] = {
        "never moves the signal": lambda seen: np.zeros(1, dtype=np.float32),
        f"PPO, {args.steps:,} steps": lambda seen: model.predict(seen, deterministic=True)[0],
        "fixed steps of 1 %": Rule(held_out, 0.01),
    }
    found = {name: play(held_out, act, args.days, name) for name, act in players.items()}
    table = Table(title=f"The DSO's signal, over {args.days} held-out days; training took {seconds:.0f} s")
    for column in ("DSO", "deviation, % of schedule", "cost per day", "iterations per hour"):
        table.add_column(column, justify="left" if column == "DSO" else "right")
    for name, (deviation, cost, iterations) in found.items():
        table.add_row(name, f"{deviation:.2f}", f"{cost:.2f}", f"{iterations:.1f}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    never, learned, _ = found.values()
    return int(not (learned[0] < never[0] and learned[1] < never[1]))


if __name__ == "__main__":
    sys.exit(main())
