"""Who could still gain? A best response to a learned policy, microgrid by microgrid.

    python benchmarks/best_response.py outputs/train/<job>/policy.safetensors [--scenario ieee33] [--steps 100000]

Each microgrid in turn learns anew by PPO, paid its own gain, while the others go on by the policy of the file. The
table says what it gains a day on 20 held-out days by the policy, and by what it has learned against it. Where nobody
gains, the policy is near an equilibrium; the welfare says what the others pay for a response.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from peergrid.baselines.policies.learned import load_policy
from peergrid.baselines.training.ppo import Learner, PpoSettings, play_day
from peergrid.envs.common.rollout import rollout
from peergrid.envs.p2p_trading.players import Solo
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation

MARKETS, DAYS = 128, 20


def main() -> None:
    """Train the responses and print what they gain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", help="file of the policy that all others play")
    parser.add_argument("--scenario", default="ieee33")
    parser.add_argument("--predictor", default="none")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    scenario = load_scenario(chosen.scenario, cooperation=0.0)
    simulation = Simulation(scenario, num_envs=MARKETS, predictor=chosen.predictor)
    test = Simulation(scenario, num_envs=DAYS, predictor=chosen.predictor)
    table = Table(title=f"What each would gain by deviating from {chosen.policy}, in currency per day")
    for name in ("microgrid", "by the policy", "by its best response", "welfare by the policy", "after its response"):
        table.add_column(name, justify="right")
    for agent in simulation.agents:
        learner = respond(simulation, agent, chosen.policy, chosen.steps, chosen.seed)
        (gain, welfare), (gain_after, welfare_after) = (
            held_out_days(test, agent, chosen.policy, who) for who in (None, learner)
        )
        table.add_row(agent, f"{gain:.1f}", f"{gain_after:.1f}", f"{welfare:.1f}", f"{welfare_after:.1f}")
    Console().print(table)


def respond(simulation: Simulation, agent: str, policy: str, steps: int, seed: int) -> Learner:
    """What one microgrid learns against the others' policy."""
    torch.manual_seed(seed)
    settings = PpoSettings()
    player = Solo(simulation, agent, load_policy(policy))
    learner = Learner(settings, player, [64, 64])
    n_batch = -(-steps // (simulation.num_envs * simulation.params.intervals))
    for k in tqdm(range(n_batch), desc=agent, disable=None, leave=False):
        learner.learn(play_day(player, learner, settings, [seed, k]), 1.0 - k / n_batch)
    return learner


def held_out_days(test: Simulation, agent: str, policy: str, learner: Learner | None) -> tuple[float, float]:
    """A microgrid's gain and the welfare on a mean held-out day; it plays the policy too where nothing was learned."""
    player, everywhere = Solo(test, agent, load_policy(policy)), np.ones(DAYS, dtype=bool)
    test.reset(options={"evaluation_day": 0})
    player.begin(everywhere)
    own = load_policy(policy)
    own.begin_rows(test, everywhere)
    gain = welfare = 0.0

    def choose() -> np.ndarray:
        acts = (
            own.act_rows(test, test.seen)[:, player.place] if learner is None else learner.actor_alone()(player.see())
        )
        return player.act(np.asarray(acts, dtype=np.float64))

    for step in rollout(test, choose, test.step):
        gain += float(step.outcome.gain[:, player.place].mean())
        welfare += float(step.outcome.welfare.mean())
    return gain, welfare


if __name__ == "__main__":
    main()
