"""A policy that was learned, kept as a file of numbers and played like any other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float, Float32
from pettingzoo import ParallelEnv
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.policy import Observations
from peergrid.grid.errors import InvalidCheckpoint
from peergrid.grid.parts import resolve

FORMAT = "peergrid policy 1"
WEIGHTS = "policy.safetensors"
PLAYERS = ("shared", "central")
# Who builds the policy of an algorithm again, from its spaces and the sizes of its layers.
BUILDERS = dict.fromkeys(("ppo", "sac", "td3"), "peergrid.baselines.adapters.sb3:build_policy")
BUILDERS |= dict.fromkeys(("ippo", "mappo", "maddpg", "masac"), "peergrid.baselines.actor:build_actor")


class LearnedPolicy:
    """What was learned, acting for all microgrids: one policy for each of them, or one for all at once."""

    def __init__(self, policy: Any, player: str, about: Mapping[str, Any]) -> None:
        """
        Args:
            policy: Of Stable-Baselines3, or an `Actor`, which has the same methods.
            player: "shared" sees and acts for each microgrid apart, "central" for all at once.
            about: What it was trained on.
        """
        self.policy, self.player, self.about = policy, player, dict(about)
        self._market: P2PTrading | None = None

    def begin(self, env: ParallelEnv[Any, Any, Any]) -> None:
        self._market = env.unwrapped
        self.begin_rows(self._market.simulation, np.ones(1, dtype=bool))

    def act(self, observations: Observations) -> dict[str, np.ndarray]:
        assert self._market is not None, "begin() comes first"
        seen = np.stack([observations[agent] for agent in self._market.agents])
        actions = self.act_rows(self._market.simulation, seen[None])[0]
        return dict(zip(self._market.agents, actions, strict=True))

    def begin_rows(self, simulation: Simulation, rows: Bool[np.ndarray, " batch"]) -> None:
        n = len(simulation.entries) * (simulation.n_agent if self.player == "central" else 1)
        expected = self.policy.observation_space.shape
        if expected != (n,):
            raise InvalidCheckpoint(f"the policy sees {expected[0]} numbers, and this scenario shows {n}")

    def act_rows(
        self, simulation: Simulation, seen: Float32[np.ndarray, "batch agent entry"]
    ) -> Float[np.ndarray, "batch agent number"]:
        slots = seen.reshape(-1, seen.shape[-1]) if self.player == "shared" else seen.reshape(len(seen), -1)
        actions, _ = self.policy.predict(slots, deterministic=True)
        return np.asarray(actions).reshape(len(seen), simulation.n_agent, -1)


def save_policy(path: Path, policy: Any, algorithm: str, player: str, net_arch: Any, about: Mapping[str, Any]) -> None:
    """Write weights and what is needed to use them, whole or not at all."""
    known = {
        "format": FORMAT,
        "algorithm": algorithm,
        "player": player,
        "net_arch": net_arch,
        "observation": [policy.observation_space.low.tolist(), policy.observation_space.high.tolist()],
        "actions": int(policy.action_space.shape[0]),
        "about": dict(about),
    }
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in policy.state_dict().items()}
    unfinished = path.with_suffix(".partial")
    save_file(weights, unfinished, metadata={"peergrid": json.dumps(known)})
    unfinished.replace(path)


def load_policy(path: str | Path) -> LearnedPolicy:
    """The policy of a file that `save_policy` wrote; reading it runs no code of the file.

    Raises:
        InvalidCheckpoint: It is missing, damaged, or something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            known = json.loads((file.metadata() or {}).get("peergrid", "{}"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise InvalidCheckpoint(f"policy {str(path)!r} cannot be read: {error}") from None
    if known.get("format") != FORMAT or known.get("algorithm") not in BUILDERS or known.get("player") not in PLAYERS:
        raise InvalidCheckpoint(f"policy {str(path)!r} is not of the form {FORMAT!r}")
    low, high = (np.array(bound, dtype=np.float32) for bound in known["observation"])
    seen, acted = spaces.Box(low, high, dtype=np.float32), spaces.Box(-1.0, 1.0, (known["actions"],), np.float32)
    build = resolve(known["algorithm"], "algorithm", BUILDERS)
    policy = build(known["algorithm"], seen, acted, known["net_arch"])
    try:
        policy.load_state_dict(weights)
    except RuntimeError as error:
        raise InvalidCheckpoint(f"policy {str(path)!r} does not fit its own description: {error}") from None
    policy.eval()
    return LearnedPolicy(policy, known["player"], known["about"])
