"""From a network's layers to an `Actor`, whichever library trained them.

save_policy(Path("mine.safetensors"), actor_of(model.actor), "shared", {"trained by": "my loop"})
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from peergrid.baselines.policies.learned import ACTIVATIONS, BOUNDS, Actor
from peergrid.grid.errors import PeergridError, UnknownName

ACTIVATION_OF: dict[type[nn.Module], str] = {nn.Tanh: "tanh", nn.ReLU: "relu"}
NO_COMPUTATION = (nn.Identity, nn.Flatten, nn.Dropout)  # Dropout, once nobody trains


def actor_of(
    *parts: nn.Module,
    bound: str = "clip",
    mean: Float[np.ndarray, " entry"] | None = None,
    deviation: Float[np.ndarray, " entry"] | None = None,
    numbers: int | None = None,
) -> Actor:
    """The actor that these parts are, one after the other: linear layers with the same activation between them.

    Args:
        parts: Modules whose layers are used in the order in which they were registered.
        bound: How actions are kept between -1 and 1: "clip" or "tanh". A Tanh after the last layer says so by itself.
        mean: What was taken from observations before the network saw them; nothing if None.
        deviation: What they were divided by after that; 1 if None.
        numbers: How many outputs are the action, from the first on, where the network has more; all if None.

    Raises:
        PeergridError: The parts compute something else.
    """
    if bound not in BOUNDS:
        raise UnknownName("bound", bound, BOUNDS)
    # An activation may stand in several places, which modules() would tell of once.
    modules = [module for part in parts for _, module in part.named_modules(remove_duplicate=False)]
    layers = [m for m in modules if not list(m.children()) and not isinstance(m, NO_COMPUTATION)]
    if layers and isinstance(layers[-1], nn.Tanh):
        layers, bound = layers[:-1], "tanh"
    linear, between = [layer for layer in layers[::2] if isinstance(layer, nn.Linear)], layers[1::2]
    names = {ACTIVATION_OF.get(type(layer), type(layer).__name__) for layer in between}
    if len(linear) != len(between) + 1 or len(names) > 1 or not names <= set(ACTIVATIONS):
        told = ", ".join(type(layer).__name__ for layer in layers) or "no layer"
        raise PeergridError(f"an actor has linear layers with Tanh, or with ReLU, between them; these are: {told}")
    weights = [_numbers_of(layer.weight) for layer in linear]
    biases = [_numbers_of(layer.bias) if layer.bias is not None else np.zeros(len(layer.weight)) for layer in linear]
    if deviation is not None:
        weights[0] = weights[0] / deviation
    if mean is not None:
        biases[0] = biases[0] - weights[0] @ mean
    weights[-1], biases[-1] = weights[-1][:numbers], biases[-1][:numbers]
    return Actor(
        weights=tuple(weight.astype(np.float32) for weight in weights),
        biases=tuple(bias.astype(np.float32) for bias in biases),
        activation=names.pop() if names else "tanh",
        bound=bound,
    )


def _numbers_of(parameter: torch.Tensor) -> Float[np.ndarray, "..."]:
    return parameter.detach().cpu().double().numpy()
