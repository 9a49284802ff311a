"""The small networks of our own trainers: a perceptron over slots, the scale of what it sees, and both as an actor."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from peergrid.baselines.policies.learned import Actor, load_policy
from peergrid.grid.errors import InvalidCheckpoint


class Network(nn.Module):
    """A multilayer perceptron with tanh between its layers; the last may differ from slot to slot."""

    def __init__(self, n_in: int, hidden: list[int], n_out: int, heads: int, last_gain: float) -> None:
        super().__init__()
        sizes = [n_in, *hidden]
        self.layers = [nn.Linear(a, b) for a, b in zip(sizes, hidden, strict=False)]
        self.below = nn.ModuleList(self.layers)
        self.weight = nn.Parameter(torch.empty(heads, n_out, sizes[-1]))
        self.bias = nn.Parameter(torch.zeros(heads, n_out))
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight, 2**0.5)
            nn.init.zeros_(layer.bias)
        for head in self.weight.data:
            nn.init.orthogonal_(head, last_gain)

    def forward(self, seen: Float[Tensor, "*batch slot entry"]) -> Float[Tensor, "*batch slot number"]:
        x = seen
        for layer in self.layers:
            x = torch.tanh(layer(x))
        if len(self.weight) == 1:
            return torch.nn.functional.linear(x, self.weight[0], self.bias[0])
        return torch.einsum("...ai,aoi->...ao", x, self.weight) + self.bias

    def take_over(self, path: str, player: str) -> None:
        """Be the network of a policy's file, which scales what it sees in its first layer.

        Raises:
            InvalidCheckpoint: It is of another player, or another network.
        """
        policy = load_policy(path)
        actor = policy.actor
        found = [layer.shape[-2:] for layer in actor.weights]
        wanted = [*(layer.weight.shape for layer in self.layers), self.weight.shape[1:]]
        heads = len(actor.weights[-1]) if actor.weights[-1].ndim == 3 else 1
        own = (player, "tanh", "clip", [tuple(shape) for shape in wanted])
        if (policy.player, actor.activation, actor.bound, found) != own or heads not in (1, len(self.weight)):
            raise InvalidCheckpoint(
                f"{path!r} can't be started from: it plays {policy.player!r} with layers {found}, heads {heads}, "
                f"{actor.activation}, {actor.bound}; and this is {player!r} with layers {own[3]}, heads "
                f"{len(self.weight)}, tanh, clip"
            )
        with torch.no_grad():
            for layer, weight, bias in zip(self.layers, actor.weights, actor.biases, strict=False):
                layer.weight.copy_(torch.from_numpy(weight))
                layer.bias.copy_(torch.from_numpy(bias))
            self.weight.copy_(torch.from_numpy(actor.weights[-1]))  # one head for all is that of each
            self.bias.copy_(torch.from_numpy(actor.biases[-1]))

    def undo(self, scale: Scale) -> None:
        """Do with what is scaled as it did with what was not."""
        first = self.layers[0]
        with torch.no_grad():
            first.bias.add_(first.weight @ scale.mean)
            first.weight.mul_(scale.deviation)


class Scale:
    """Mean and spread of what has been seen so far, by which it is brought to the order of 1."""

    def __init__(self, n: int) -> None:
        self.mean, self.square, self.count = torch.zeros(n), torch.ones(n), 0.0

    def update(self, values: Float[Tensor, "*batch entry"]) -> None:
        flat = values.flatten(0, -2)
        self.count += len(flat)
        share = len(flat) / self.count
        self.mean = self.mean + share * (flat.mean(0) - self.mean)
        self.square = self.square + share * (flat.square().mean(0) - self.square)

    def kept(self) -> list[Any]:
        """What a checkpoint keeps of it."""
        return [self.mean, self.square, self.count]

    def put(self, kept: list[Any]) -> None:
        """Be as it was when it was kept."""
        self.mean, self.square, self.count = kept[0], kept[1], float(kept[2])

    @property
    def deviation(self) -> Float[Tensor, " entry"]:
        """The standard deviation, 1 where nothing ever changed."""
        found = (self.square - self.mean.square()).clip(min=0.0).sqrt()
        return torch.where(found > 1.0e-4, found, 1.0)

    def __call__(self, values: Float[Tensor, "*batch entry"]) -> Float[Tensor, "*batch entry"]:
        return (values - self.mean) / self.deviation


def actor_of(network: Network, scale: Scale) -> Actor:
    """A network as an actor that is kept in a file: what it sees is scaled in its first layer."""
    layers: list[tuple[Tensor, Tensor]] = [(layer.weight, layer.bias) for layer in network.layers]
    weight, bias = layers[0]
    scaled = weight / scale.deviation
    layers[0] = (scaled, bias - scaled @ scale.mean)
    is_one = len(network.weight) == 1
    layers.append((network.weight[0], network.bias[0]) if is_one else (network.weight, network.bias))
    weights, biases = zip(*layers, strict=True)
    return Actor(
        weights=tuple(w.detach().numpy().copy() for w in weights),
        biases=tuple(b.detach().numpy().copy() for b in biases),
        activation="tanh",
        bound="clip",
    )
