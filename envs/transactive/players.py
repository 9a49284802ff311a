"""Who answers for the agents while somebody else learns."""

from __future__ import annotations

import inspect
from typing import Any

from peergrid.envs.policy import BatchPolicy
from peergrid.grid.parts import resolve

POLICIES = {
    "optimising": "peergrid.baselines.transactive_policies:Optimising",
    "myopic": "peergrid.baselines.transactive_policies:Myopic",
    "scheduled": "peergrid.baselines.transactive_policies:Scheduled",
}


def agents_policy(chosen: str | BatchPolicy) -> BatchPolicy:
    """The policy of that name, an object or a class, or "module:attribute"."""
    policy = resolve(chosen, "policy", POLICIES)
    made: Any = policy() if inspect.isclass(policy) else policy
    return made
