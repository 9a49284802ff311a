"""What chooses actions: policies that play an environment, or every row of a batch at once."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32
from pettingzoo import ParallelEnv

from peergrid.grid.parts import resolve

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


@runtime_checkable
class BatchPolicy(Protocol):
    """A policy that plays all rows of a simulation at once.

    One that has these methods as well as those of `Policy` is asked by them wherever a simulation is at hand.
    """

    def begin_rows(self, simulation: Any, rows: Bool[np.ndarray, " batch"]) -> None:
        """Episodes begin in the marked rows. What `simulation.spawn(rows)` draws is fixed by the rows' seeds."""
        ...

    def act_rows(
        self, simulation: Any, seen: Float32[np.ndarray, "batch agent entry"]
    ) -> Float[np.ndarray, "batch agent number"]:
        """The actions of all agents in all rows."""
        ...


def named_policy(policy: str | Policy | BatchPolicy, names: Mapping[str, str]) -> Any:
    """The policy given, or of that name or "module:attribute"; a class is called without arguments."""
    chosen = resolve(policy, "policy", names)
    return chosen() if inspect.isclass(chosen) else chosen
