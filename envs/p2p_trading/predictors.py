"""What will the DSO say? Predictions that each microgrid sees before it acts.

A predictor sees what a microgrid may know: the public network, the published load of the interval, everybody's last
accepted injection, its own proposal. Never the others' current ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from peergrid.envs.p2p_trading.types import Params
from peergrid.grid.dso import Dso, DsoQuery


@dataclass(frozen=True, eq=False, kw_only=True)
class Question:
    """What each microgrid asks of its predictor: several proposals of its own, one at a time."""

    load_kw: Float[np.ndarray, "batch bus"]
    load_kvar: Float[np.ndarray, "batch bus"]
    lmp_per_kwh: Float[np.ndarray, " batch"]
    published_kw: Float[np.ndarray, "batch agent"]
    published_price_per_kwh: Float[np.ndarray, "batch agent"]
    proposed_kw: Float[np.ndarray, "batch agent option"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Prediction:
    """For each proposal, what the DSO would accept and the nodal price then, each with an interval."""

    accepted_kw: Float[np.ndarray, "batch agent option"]
    accepted_low_kw: Float[np.ndarray, "batch agent option"]
    accepted_high_kw: Float[np.ndarray, "batch agent option"]
    price_per_kwh: Float[np.ndarray, "batch agent option"]
    price_low_per_kwh: Float[np.ndarray, "batch agent option"]
    price_high_per_kwh: Float[np.ndarray, "batch agent option"]


@runtime_checkable
class Predictor(Protocol):
    """Anything that predicts the DSO's response."""

    def __call__(self, question: Question, params: Params) -> Prediction: ...


def no_prediction(question: Question, params: Params) -> Prediction:
    """Everything is accepted, at the price published last; the interval is that point."""
    price = np.full(question.proposed_kw.shape, question.published_price_per_kwh[..., None])
    return _certain(question.proposed_kw, price)


def oracle(question: Question, params: Params, dso: Dso | None = None) -> Prediction:
    """The DSO itself, asked with everybody else at the last accepted injection; the interval is that point.

    It measures what a perfect model of the DSO is worth to somebody who doesn't know the others' current proposals.

    Args:
        dso: Who is asked, if not the DSO of the environment.
    """
    n_agent, n_option = question.proposed_kw.shape[1:]
    others = np.broadcast_to(
        question.published_kw[:, None, None, :], (len(question.lmp_per_kwh), n_agent, n_option, n_agent)
    )
    is_own = np.eye(n_agent, dtype=bool)[None, :, None, :]
    proposed = np.where(is_own, question.proposed_kw[..., None], others)
    batch = proposed.shape[:-1]
    response = (dso or params.dso)(
        DsoQuery(
            load_kw=np.broadcast_to(question.load_kw[:, None, None], (*batch, question.load_kw.shape[-1])),
            load_kvar=np.broadcast_to(question.load_kvar[:, None, None], (*batch, question.load_kvar.shape[-1])),
            proposed_kw=proposed,
            lmp_per_kwh=np.broadcast_to(question.lmp_per_kwh[:, None, None], batch).copy(),
        )
    )
    accepted = np.take_along_axis(response.accepted_kw, np.arange(n_agent)[None, :, None, None], axis=-1)[..., 0]
    at_own = params.trade_bus[None, :, None, None]
    return _certain(accepted, np.take_along_axis(response.price_per_kwh, at_own, axis=-1)[..., 0])


def _certain(
    accepted_kw: Float[np.ndarray, "batch agent option"], price_per_kwh: Float[np.ndarray, "batch agent option"]
) -> Prediction:
    return Prediction(
        accepted_kw=accepted_kw,
        accepted_low_kw=accepted_kw,
        accepted_high_kw=accepted_kw,
        price_per_kwh=price_per_kwh,
        price_low_per_kwh=price_per_kwh,
        price_high_per_kwh=price_per_kwh,
    )
