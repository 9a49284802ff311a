"""A policy that was learned, kept as a file of numbers and played like any other, by whatever it was learned."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32
from pettingzoo import ParallelEnv
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from peergrid.baselines.policies import Truthful
from peergrid.envs.common.policy import Observations, Policy
from peergrid.envs.common.registered import POLICIES
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.grid.errors import InvalidCheckpoint
from peergrid.grid.parts import resolve

FORMAT = "peergrid policy 2"
WEIGHTS = "policy.safetensors"
PLAYERS = ("shared", "central", "solo")
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0.0)}
BOUNDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"clip": lambda x: np.clip(x, -1.0, 1.0), "tanh": np.tanh}


@dataclass(frozen=True, eq=False, kw_only=True)
class Actor:
    """A multilayer perceptron from what is seen to an action between -1 and 1.

    `weights` and `biases` are those of its layers, `activation` comes between them and `bound` after the last. The last
    layer may have a first axis more: one for each microgrid, in turn.
    """

    weights: tuple[Float32[np.ndarray, "... _ _"], ...]
    biases: tuple[Float32[np.ndarray, "... _"], ...]
    activation: str
    bound: str

    def __call__(self, seen: Float32[np.ndarray, "slot entry"]) -> Float32[np.ndarray, "slot number"]:
        x = seen
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = ACTIVATIONS[self.activation](x) if k else x
            x = x @ weight.T + bias if weight.ndim == 2 else _each(x, weight, bias)
        return np.asarray(BOUNDS[self.bound](x), dtype=np.float32)

    @property
    def n_seen(self) -> int:
        """How many numbers it sees."""
        return self.weights[0].shape[1]


def _each(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A layer that differs from one microgrid to the next."""
    found = np.einsum("rai,aoi->rao", x.reshape(-1, len(weight), x.shape[-1]), weight) + bias
    return found.reshape(len(x), -1)


class LearnedPolicy:
    """What was learned, acting for all microgrids.

    Player "shared" acts for each microgrid apart, "central" for all at once, and "solo" for the first, while the
    others are truthful.
    """

    def __init__(self, actor: Actor, player: str, about: Mapping[str, Any]) -> None:
        """
        Args:
            about: What it was trained on.
        """
        self.actor, self.player, self.about = actor, player, dict(about)
        self._others = Truthful()
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
        if self.actor.n_seen != n:
            raise InvalidCheckpoint(f"the policy sees {self.actor.n_seen} numbers, and this scenario shows {n}")
        last = self.actor.weights[-1]
        if last.ndim == 3 and (self.player != "shared" or len(last) != simulation.n_agent):
            raise InvalidCheckpoint(
                f"the policy has heads for {len(last)} microgrids, and this scenario has {simulation.n_agent}"
            )

    def act_rows(
        self, simulation: Simulation, seen: Float32[np.ndarray, "batch agent entry"]
    ) -> Float[np.ndarray, "batch agent number"]:
        n_row, n_agent, n_entry = seen.shape
        if self.player == "solo":
            actions = np.asarray(self._others.act_rows(simulation, seen)).copy()
            actions[:, 0] = self.actor(seen[:, 0])
            return actions
        slots = seen.reshape(-1, n_entry) if self.player == "shared" else seen.reshape(n_row, -1)
        return self.actor(slots).reshape(n_row, n_agent, -1)


def save_policy(path: Path, actor: Actor, player: str, about: Mapping[str, Any]) -> None:
    """Write weights and what is needed to use them, whole or not at all."""
    known = {"format": FORMAT, "player": player, "activation": actor.activation, "bound": actor.bound}
    arrays = {f"weight {k}": np.ascontiguousarray(weight) for k, weight in enumerate(actor.weights)}
    arrays |= {f"bias {k}": np.ascontiguousarray(bias) for k, bias in enumerate(actor.biases)}
    told = json.dumps(known | {"about": dict(about)})
    unfinished = path.with_suffix(".partial")
    save_file(arrays, unfinished, metadata={"peergrid": told, "sha256": _digest(told, arrays)})
    unfinished.replace(path)


def load_policy(path: str | Path) -> LearnedPolicy:
    """The policy of a file that `save_policy` wrote; reading it runs no code of the file.

    Raises:
        InvalidCheckpoint: It is missing, damaged, or something else.
    """
    if not Path(path).is_file():
        raise InvalidCheckpoint(f"there is no policy file {str(path)!r}; {_nearest_files(Path(path))}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            known = json.loads(metadata.get("peergrid", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except (OSError, SafetensorError, ValueError) as error:
        raise InvalidCheckpoint(f"policy {str(path)!r} cannot be read: {error}") from None
    n = len(arrays) // 2
    names = {f"{what} {k}" for what in ("weight", "bias") for k in range(n)}
    choices = {"format": [FORMAT], "player": list(PLAYERS), "activation": list(ACTIVATIONS), "bound": list(BOUNDS)}
    is_known = isinstance(known, dict) and all(known.get(key) in choices[key] for key in choices)
    if not is_known or not isinstance(known.get("about", {}), dict):
        raise InvalidCheckpoint(f"policy {str(path)!r} is not of the form {FORMAT!r}")
    if not n or names != set(arrays) or not _fit(arrays, n):
        raise InvalidCheckpoint(f"policy {str(path)!r} does not hold the layers of a network, each fit for the next")
    if metadata.get("sha256", _digest(metadata["peergrid"], arrays)) != _digest(metadata["peergrid"], arrays):
        raise InvalidCheckpoint(f"policy {str(path)!r} is damaged: its numbers are not those that were written")
    actor = Actor(
        weights=tuple(arrays[f"weight {k}"] for k in range(n)),
        biases=tuple(arrays[f"bias {k}"] for k in range(n)),
        activation=known["activation"],
        bound=known["bound"],
    )
    return LearnedPolicy(actor, known["player"], known.get("about", {}))


def _nearest_files(path: Path) -> str:
    """Which policy files there are in the first folder above that exists."""
    folder = next(above for above in path.parents if above.is_dir())
    found = sorted(str(file) for file in folder.glob("**/*.safetensors")) if folder != Path() else []
    return f"in {str(folder)!r} there are {', '.join(found[:5]) or 'none'}{' and more' if len(found) > 5 else ''}"


def _digest(told: str, arrays: Mapping[str, np.ndarray]) -> str:
    found = hashlib.sha256(told.encode())
    for name in sorted(arrays):
        found.update(name.encode() + arrays[name].tobytes())
    return found.hexdigest()


def _fit(arrays: Mapping[str, np.ndarray], n: int) -> bool:
    """Whether these are finite layers of which each takes what the one before gives."""
    given: int | None = None
    for k in range(n):
        weight, bias = arrays[f"weight {k}"], arrays[f"bias {k}"]
        may_differ = k == n - 1 and weight.ndim == 3
        if not (weight.ndim == 2 or may_differ) or bias.shape != weight.shape[:-1]:
            return False
        if given not in (None, weight.shape[-1]):
            return False
        given = weight.shape[-2]
    return all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays.values())


def policy_of(name: str, seed: int = 0) -> Policy:
    """The policy of that name, of a file that training wrote, or "module:attribute"; one that draws gets the seed."""
    if name.endswith(".safetensors"):
        return load_policy(name)
    chosen: Any = resolve(name, "policy", POLICIES)
    if not isinstance(chosen, type):
        return chosen
    draws = "seed" in inspect.signature(chosen).parameters
    arguments: dict[str, Any] = {"seed": seed} if draws else {}
    made: Policy = chosen(**arguments)
    return made
