"""One PPO policy for all microgrids, learned with RLlib on one machine or on a Ray cluster; scored on held-out days.

    python examples/rllib_shared_ppo.py --scenario ieee33 --predictor none --steps 50000 --env-runners 1
    python examples/rllib_shared_ppo.py --address auto --env-runners 16     # on a cluster that `ray start` made

Every microgrid is an agent of RLlib's and is paid its own reward; all share one policy.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from pettingzoo import ParallelEnv
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec
from ray.rllib.env.env_context import EnvContext
from ray.tune.registry import register_env

from peergrid.baselines.adapters.rllib import AsMultiAgent
from peergrid.baselines.entry import console_for_tables
from peergrid.baselines.scoring.references import References, references, score_policy
from peergrid.baselines.scoring.score import Scored, table
from peergrid.command import plainly
from peergrid.envs import p2p_trading_v0
from peergrid.envs.common.policy import Observations
from peergrid.envs.p2p_trading.scenario import Scenario, load_scenario
from peergrid.grid.errors import PeergridError

SHARED = "shared"
GAMMA = 0.99
OBJECT_STORE_BYTES = 200_000_000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is trained, on what and for how long. Steps are intervals of a market in which all its microgrids act."""

    scenario: str = "ieee33"
    predictor: str = "none"
    steps: int = 50_000
    env_runners: int = 1
    envs_per_runner: int = 8
    days_per_iteration: int = 128
    days: int = 20
    seed: int = 0


class ScaledRewards(ConnectorV2):
    """Rewards in units of the returns seen so far (their root mean square), so that the critic learns numbers near one.

    It changes what the learner sees; the returns that RLlib reports stay in currency.
    """

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma
        self.square, self.count = 0.0, 0

    def __call__(self, *, episodes: list[Any], batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        each = list(self.single_agent_episode_iterator(episodes, agents_that_stepped_only=False))
        rewards = [np.asarray(episode.get_rewards(), dtype=np.float32) for episode in each]
        for of_episode in rewards:
            returns = discounted(of_episode, self.gamma)
            self.square, self.count = self.square + float(np.square(returns).sum()), self.count + len(returns)
        unit = max((self.square / self.count) ** 0.5, 1e-6)
        for episode, of_episode in zip(each, rewards, strict=True):
            self.add_n_batch_items(batch, Columns.REWARDS, of_episode / unit, len(of_episode), episode)
        return batch


class NearNoTrade(PPOCatalog):
    """RLlib's networks with a last layer of the policy near zero: actions near zero are near no trade."""

    def build_pi_head(self, framework: str) -> Any:
        """The head, a hundredth of what it would have been."""
        head = super().build_pi_head(framework)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.mul_(0.01)
        return head


class SharedModule:
    """What RLlib learned, acting for every microgrid at the mean of its distribution; a `Policy`."""

    def __init__(self, module: RLModule) -> None:
        self.module = module

    def begin(self, env: ParallelEnv[Any, Any, Any]) -> None:
        """Nothing is remembered from day to day."""

    def act(self, observations: Observations) -> dict[str, np.ndarray]:
        """One action for each microgrid."""
        seen = torch.from_numpy(np.stack(list(observations.values())))
        with torch.no_grad():
            found = self.module.forward_inference({Columns.OBS: seen})[Columns.ACTION_DIST_INPUTS]
        chosen = self.module.get_inference_action_dist_cls().from_logits(found).to_deterministic().sample()
        return dict(zip(observations, chosen.numpy().clip(-1.0, 1.0), strict=True))


def discounted(rewards: np.ndarray, gamma: float) -> np.ndarray:
    """The discounted return from every step on."""
    returns = np.zeros(len(rewards))
    later = 0.0
    for i in reversed(range(len(rewards))):
        returns[i] = later = rewards[i] + gamma * later
    return returns


def market(arguments: EnvContext) -> AsMultiAgent:
    """A market as RLlib plays it."""
    return AsMultiAgent(p2p_trading_v0.parallel_env(**arguments), arguments.worker_index)


def configuration(settings: Settings, scenario: Scenario) -> PPOConfig:
    """PPO with one policy for all; most numbers are those of `conf/algo/ppo.yaml`."""
    register_env("p2p_trading", market)
    steps = settings.days_per_iteration * scenario.intervals
    return (
        PPOConfig()
        .environment("p2p_trading", env_config={"scenario": scenario, "predictor": settings.predictor})
        .multi_agent(policies={SHARED}, policy_mapping_fn=lambda agent, episode, **kwargs: SHARED)
        .env_runners(
            num_env_runners=settings.env_runners,
            num_envs_per_env_runner=settings.envs_per_runner,
            # "complete_episodes" begins every sample from the seed: the same days again and again.
            batch_mode="truncate_episodes",
            sample_timeout_s=None,  # what is played more slowly than the default's 60 s would be lost
        )
        .learners(num_learners=0, learner_connector=lambda *spaces: ScaledRewards(GAMMA))
        .rl_module(
            rl_module_spec=RLModuleSpec(
                catalog_class=NearNoTrade,
                model_config=DefaultModelConfig(fcnet_hiddens=[64, 64], free_log_std=True, vf_share_layers=False),
            )
        )
        .training(
            train_batch_size_per_learner=steps,
            minibatch_size=min(512, steps),
            num_epochs=5,
            lr=5e-4,
            gamma=GAMMA,
            lambda_=0.95,
            clip_param=0.2,
            use_kl_loss=False,
            vf_loss_coeff=0.5,
            vf_clip_param=float("inf"),
            grad_clip=0.5,
        )
        .debugging(seed=settings.seed, log_level="ERROR")
    )


def nodes_of(algorithm: Algorithm) -> Counter[str]:
    """How many runners each node of the cluster has, as the runners say."""
    group, alone = algorithm.env_runner_group, algorithm.config.num_env_runners == 0
    assert group is not None
    told = group.foreach_env_runner(lambda runner: ray.get_runtime_context().get_node_id(), local_env_runner=alone)
    return Counter(told)


def policy_of(algorithm: Algorithm) -> SharedModule:
    """The policy as it is now."""
    module = algorithm.get_module(SHARED)
    assert module is not None
    return SharedModule(module)


def train(algorithm: Algorithm, settings: Settings, scenario: Scenario, known: References) -> Scored:
    """Train with a line of figures for each iteration, and return how the last policy does on the held-out days."""
    print(f"{'iteration':>9} {'steps':>9} {'return of a day, all microgrids':>32} {'score':>7} {'seconds':>8}")
    start, steps, iteration, earned = time.perf_counter(), 0, 0, ""
    while True:
        scored = score_policy(scenario, settings.predictor, policy_of(algorithm), known, "shared PPO")
        seconds = time.perf_counter() - start
        print(f"{iteration:>9} {steps:>9} {earned:>32} {scored.score:>7.1f} {seconds:>8.0f}", flush=True)
        if steps >= settings.steps:
            return scored
        told = algorithm.train()["env_runners"]
        steps, earned = int(told["num_env_steps_sampled_lifetime"]), f"{told['episode_return_mean']:.2f}"
        iteration += 1


def connect(address: str | None, env_runners: int) -> None:
    """Join a cluster, or start one of this machine alone, with a processor for each runner."""
    if address is None:
        alone = {"num_cpus": max(env_runners, 1), "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
        ray.init(**alone)
    else:
        ray.init(address=address)
    free = int(ray.available_resources().get("CPU", 0))
    if env_runners > free:
        ray.shutdown()
        # RLlib would wait for ever.
        raise PeergridError(f"{env_runners} runners need a processor each and {free} are free: ask for fewer")


def run(settings: Settings, scenario: Scenario, known: References) -> Scored:
    """Train on the cluster that is connected, and return how the policy does on the held-out days."""
    algorithm = configuration(settings, scenario).build_algo()
    try:
        for node, count in nodes_of(algorithm).items():
            print(f"{count} runner{'s' if count > 1 else ''} on node {node[:8]}")
        return train(algorithm, settings, scenario, known)
    finally:
        algorithm.stop()


def main() -> None:
    """Read the command line, train, and print the scores."""
    defaults = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default=defaults.scenario, help="a name or a YAML file")
    parser.add_argument("--predictor", default=defaults.predictor, help="auto, none, transformer or oracle")
    parser.add_argument("--steps", type=int, default=defaults.steps, help="intervals of a market to train for")
    parser.add_argument("--env-runners", type=int, default=defaults.env_runners, help="0 plays in this process")
    parser.add_argument("--envs-per-runner", type=int, default=defaults.envs_per_runner, help="markets that each plays")
    parser.add_argument("--days-per-iteration", type=int, default=defaults.days_per_iteration, help="of play")
    parser.add_argument("--days", type=int, default=defaults.days, help="held-out days of the score")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--address", help="of a Ray cluster: `auto`, or host:port; this machine alone if left out")
    given = vars(parser.parse_args())
    address = given.pop("address")
    settings = Settings(**given)
    scenario = load_scenario(settings.scenario)
    known = references(scenario, settings.days, Path("outputs/references"))
    connect(address, settings.env_runners)
    try:
        scored = run(settings, scenario, known)
    finally:
        ray.shutdown()
    console_for_tables().print(table(f"{settings.days} held-out days; money in currency per day", [scored]))


if __name__ == "__main__":
    with plainly():
        main()
