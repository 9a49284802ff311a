"""Episodes played to their end, step by step: the one loop of whoever plays, measures, records or draws."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Bool

from peergrid.envs.common.batch import Batch
from peergrid.envs.common.env import MarketEnv
from peergrid.envs.common.policy import BatchPolicy, Policy

StateT = TypeVar("StateT")
NowT = TypeVar("NowT")
OutcomeT = TypeVar("OutcomeT")
Choice = TypeVar("Choice")


@dataclass(frozen=True, eq=False, kw_only=True)
class Step(Generic[StateT, NowT, OutcomeT]):
    """A step of a batch: all rows as it began, and what happened in those that played."""

    state: StateT
    now: NowT
    outcome: OutcomeT
    deciding_seconds: float


def rollout(
    batch: Batch[StateT, Any, NowT, OutcomeT],
    choose: Callable[[], Choice],
    advance: Callable[[Choice, Bool[np.ndarray, " batch"]], tuple[Any, OutcomeT]],
) -> Iterator[Step[StateT, NowT, OutcomeT]]:
    """The steps of the episodes that run, until all are over; rows that end sooner rest.

    Args:
        choose: What all rows do next.
        advance: Does it in the rows that are not over, as `step` of the batch.
    """
    while not (over := batch.is_over).all():
        state, now, start = batch.running()[0], batch.now(), time.perf_counter()
        chosen = choose()
        seconds = time.perf_counter() - start
        _, outcome = advance(chosen, ~over)
        yield Step(state=state, now=now, outcome=outcome, deciding_seconds=seconds)


def rollout_of(
    batch: Batch[StateT, Any, NowT, OutcomeT], policy: BatchPolicy
) -> Iterator[Step[StateT, NowT, OutcomeT]]:
    """The steps of the episodes that have just begun in every row, played by a policy."""
    policy.begin_rows(batch, np.ones(batch.num_envs, dtype=bool))
    return rollout(batch, lambda: policy.act_rows(batch, batch.seen), batch.step)


def rollout_in(env: MarketEnv, policy: Policy, day: int) -> Iterator[Step[Any, Any, Any]]:
    """The steps of held-out day `day` in PettingZoo's view of a market, played by a policy of dictionaries."""
    seen, _ = env.reset(options={"evaluation_day": day})
    policy.begin(env)

    def advance(actions: dict[str, np.ndarray], rows: Bool[np.ndarray, " batch"]) -> tuple[Any, Any]:
        nonlocal seen
        seen, *_ = env.step(actions)
        return env.simulation.seen, env.simulation.outcome

    return rollout(env.simulation, lambda: policy.act(seen), advance)
