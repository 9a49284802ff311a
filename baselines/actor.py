"""The network that acts for each microgrid in BenchMARL's algorithms, in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float32
from torch import nn

FIRST_ACTIONS = 0.01  # how far from 0 an untrained network acts, as a share of an ordinary layer's outputs


def build_layers(n_seen: int, net_arch: Sequence[int], n_out: int) -> nn.Sequential:
    """Layers with tanh between them; untrained, their outputs are near 0."""
    sizes = (n_seen, *net_arch)
    layers: list[nn.Module] = []
    for n_in, n in zip(sizes, net_arch, strict=False):
        layers += [_linear(n_in, n, 2**0.5), nn.Tanh()]
    return nn.Sequential(*layers, _linear(sizes[-1], n_out, FIRST_ACTIONS))


class Actor(nn.Module):
    """One network that acts for every microgrid from what that one sees; it has the methods of Stable-Baselines3's."""

    def __init__(self, seen: spaces.Box, acted: spaces.Box, net_arch: Sequence[int]) -> None:
        super().__init__()
        self.observation_space, self.action_space = seen, acted
        self.layers = build_layers(seen.shape[0], net_arch, acted.shape[0])

    @torch.no_grad()
    def predict(self, seen: Float32[np.ndarray, "slot entry"], deterministic: bool = True) -> tuple[np.ndarray, None]:
        """The actions of each slot, between -1 and 1; it draws nothing, so that they are always deterministic."""
        return torch.tanh(self.layers(torch.from_numpy(seen))).numpy(), None


def build_actor(algorithm: str, seen: spaces.Box, acted: spaces.Box, net_arch: list[int]) -> Actor:
    """An untrained actor: the same for every algorithm."""
    return Actor(seen, acted, net_arch)


def actor_of(layers: nn.Sequential, seen: spaces.Box, acted: spaces.Box, net_arch: Sequence[int]) -> Actor:
    """What trained layers do: their first outputs are the locations of actions, the others scales, or none."""
    actor, n = Actor(seen, acted, net_arch), acted.shape[0]
    last = f"{len(layers) - 1}."
    weights = {name: value[:n] if name.startswith(last) else value for name, value in layers.state_dict().items()}
    actor.layers.load_state_dict(weights)
    return actor


def _linear(n_in: int, n_out: int, gain: float) -> nn.Linear:
    layer = nn.Linear(n_in, n_out)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
