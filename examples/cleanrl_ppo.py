"""PPO in one file, in the manner of CleanRL, on a vector environment; one policy for all microgrids, then its file.

    python examples/cleanrl_ppo.py --steps 100000
    python -m peergrid.baselines.evaluate policy=cleanrl.safetensors scenario=ieee33 predictor=none

Nothing here knows the market: it is Gymnasium's vector interface with Gymnasium's wrappers.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from gymnasium.wrappers.vector import ClipAction, NormalizeObservation, NormalizeReward, RecordEpisodeStatistics
from torch import nn
from torch.distributions import Normal

from peergrid.baselines.adapters.layers import actor_of
from peergrid.baselines.policies.learned import Actor, save_policy
from peergrid.command import plainly
from peergrid.envs.p2p_trading.scenario import Scenario
from peergrid.envs.p2p_trading.vector import shared_trading


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Numbers of the algorithm. Steps are intervals of a market in which all its microgrids act."""

    steps: int = 100_000
    num_envs: int = 32
    n_steps: int = 128
    epochs: int = 5
    batch: int = 512
    learning_rate: float = 5e-4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    seed: int = 0


class Agent(nn.Module):
    """An actor, whose last layer is near zero as no trade is, and a critic."""

    def __init__(self, n_seen: int, n_numbers: int) -> None:
        super().__init__()
        self.actor, self.critic = network(n_seen, n_numbers, 0.01), network(n_seen, 1, 1.0)
        self.log_deviation = nn.Parameter(torch.zeros(n_numbers))

    def distribution(self, seen: torch.Tensor) -> Normal:
        """What the actor draws from."""
        return Normal(self.actor(seen), self.log_deviation.exp())

    def value(self, seen: torch.Tensor) -> torch.Tensor:
        """What the critic expects from here on."""
        return self.critic(seen)[..., 0]


def network(n_in: int, n_out: int, gain: float) -> nn.Sequential:
    """Two hidden layers, orthogonal weights."""
    layers = [nn.Linear(n_in, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, n_out)]
    for layer, size in zip(layers[::2], (2**0.5, 2**0.5, gain), strict=True):
        nn.init.orthogonal_(layer.weight, size)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def wrapped(envs: gym.vector.VectorEnv, gamma: float) -> gym.vector.VectorEnv:
    """What CleanRL puts around continuous control; rewards are counted before they are scaled."""
    return NormalizeReward(NormalizeObservation(ClipAction(RecordEpisodeStatistics(envs))), gamma=gamma)


def train(envs: gym.vector.VectorEnv, settings: Settings) -> tuple[Agent, list[float]]:
    """Train on a wrapped vector environment that resets in the next step; the agent, and the mean return of the
    episodes that ended in each batch."""
    torch.manual_seed(settings.seed)
    agent = Agent(envs.single_observation_space.shape[0], envs.single_action_space.shape[0])
    optimizer = torch.optim.Adam(agent.parameters(), lr=settings.learning_rate, eps=1e-5)
    seen, _ = envs.reset(seed=settings.seed)
    seen, is_over, curve = torch.from_numpy(seen), torch.zeros(envs.num_envs, dtype=torch.bool), []
    for _ in range(-(-settings.steps // (settings.n_steps * settings.num_envs))):
        rows, returns = [], []
        for _ in range(settings.n_steps):
            with torch.no_grad():
                drawn = agent.distribution(seen)
                actions = drawn.sample()
                chance, value = drawn.log_prob(actions).sum(-1), agent.value(seen)
            after, rewards, terminations, truncations, infos = envs.step(actions.numpy())
            # The step after the last begins a new episode: its action is not looked at, and it teaches nothing.
            rows.append((seen, actions, chance, value, torch.from_numpy(rewards).float(), ~is_over))
            if "episode" in infos:
                returns += infos["episode"]["r"][infos["_episode"]].tolist()
            seen, ends = torch.from_numpy(after), torch.from_numpy(terminations)
            is_over = ends | torch.from_numpy(truncations)
            rows[-1] += (ends, is_over)
        batch = [torch.stack(column) for column in zip(*rows, strict=True)]
        update(agent, optimizer, batch, seen, settings)
        curve.append(float(np.mean(returns)) if returns else float("nan"))
    return agent, curve


def advantages_of(batch: list[torch.Tensor], last_value: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Generalised advantages. Nothing is expected after a termination; after a truncation, what the last observation is
    worth, which in this way of resetting is what the next row has seen."""
    _, _, _, values, rewards, _, terminated, is_over = batch
    advantages, later = torch.zeros_like(rewards), torch.zeros_like(last_value)
    following = torch.cat([values[1:], last_value[None]])
    for t in reversed(range(len(rewards))):
        error = rewards[t] + settings.gamma * following[t] * ~terminated[t] - values[t]
        later = error + settings.gamma * settings.gae_lambda * later * ~is_over[t]
        advantages[t] = later
    return advantages


def update(
    agent: Agent, optimizer: torch.optim.Optimizer, batch: list[torch.Tensor], last: torch.Tensor, settings: Settings
) -> None:
    """A few epochs of clipped policy gradients over the steps that were played."""
    with torch.no_grad():
        advantages = advantages_of(batch, agent.value(last), settings)
    seen, actions, chances, values, _, counts, _, _ = batch
    returns = advantages + values
    data = [x[counts] for x in (seen, actions, chances, advantages, returns)]
    for _ in range(settings.epochs):
        for chosen in torch.randperm(len(data[0])).split(settings.batch):
            seen, actions, chances, gained, returns = (x[chosen] for x in data)
            now = agent.distribution(seen)
            ratio = (now.log_prob(actions).sum(-1) - chances).exp()
            gained = (gained - gained.mean()) / (gained.std() + 1e-8)
            policy_loss = -torch.min(ratio * gained, ratio.clamp(1 - settings.clip, 1 + settings.clip) * gained).mean()
            loss = policy_loss + 0.5 * (agent.value(seen) - returns).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()


def actor_in(agent: Agent, envs: gym.vector.VectorEnv) -> Actor:
    """The actor for observations as they are: what NormalizeObservation does to them is put into its first layer."""
    while not isinstance(envs, NormalizeObservation):
        envs = envs.env
    return actor_of(agent.actor, mean=envs.obs_rms.mean, deviation=np.sqrt(envs.obs_rms.var + envs.epsilon))


def run(scenario: str | Scenario, predictor: str, settings: Settings, path: Path) -> list[float]:
    """Train, write the policy's file, and return the curve."""
    envs = wrapped(shared_trading(settings.num_envs, scenario=scenario, predictor=predictor), settings.gamma)
    agent, curve = train(envs, settings)
    save_policy(path, actor_in(agent, envs), "shared", {"trained by": "cleanrl_ppo.py", "steps": settings.steps})
    return curve


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="ieee33", help="a name or a YAML file")
    parser.add_argument("--predictor", default="none", help="auto, none, transformer or oracle")
    parser.add_argument("--steps", type=int, default=Settings.steps, help="intervals of a market to train for")
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--policy", type=Path, default=Path("cleanrl.safetensors"), help="the file to write")
    given = parser.parse_args()
    settings = Settings(steps=given.steps, seed=given.seed)
    for k, earned in enumerate(run(given.scenario, given.predictor, settings, given.policy)):
        print(f"{(k + 1) * settings.n_steps * settings.num_envs:>9} steps: a microgrid earned {earned:8.2f} a day")


if __name__ == "__main__":
    with plainly():
        main()
