"""What chooses actions: policies that play a PettingZoo environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from pettingzoo import ParallelEnv

Observations = Mapping[str, np.ndarray]


@runtime_checkable
class Policy(Protocol):
    """Anything that chooses the actions of all agents of a parallel environment."""

    def begin(self, env: ParallelEnv[Any, Any, Any]) -> None:
        """An episode begins: called after every `env.reset()`, with the environment that was reset."""
        ...

    def act(self, observations: Observations) -> dict[str, np.ndarray]:
        """One action for each agent that is observed."""
        ...
