"""What will the DSO say? Predictions that each microgrid sees before it acts.

A predictor is handed what a microgrid may know: what is public of the market, the loads and prices that are expected
now and in the intervals ahead, and whole sets of proposals, each supposed by one microgrid: its own, and what it takes
the others' to be. It never sees what the others propose now, nor anybody's costs, devices or storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from peergrid.envs.p2p_trading.types import Public
from peergrid.grid.dso import Dso, DsoQuery

SOLVED_AT_ONCE = 1024  # more no longer fit a core's cache


@dataclass(frozen=True, eq=False, kw_only=True)
class Question:
    """What each microgrid asks of its predictor, for the interval that begins (ahead 0) and for later ones.

    `supposed_kw` holds, for each microgrid that asks, interval and option, what it supposes everybody to propose: its
    own proposal in its own place. `published_per_kwh` and `published_lmp_per_kwh` are each own nodal price and the LMP
    of the interval before.
    """

    load_kw: Float[np.ndarray, "batch ahead bus"]
    load_kvar: Float[np.ndarray, "batch ahead bus"]
    lmp_per_kwh: Float[np.ndarray, "batch ahead"]
    published_per_kwh: Float[np.ndarray, "batch agent"]
    published_lmp_per_kwh: Float[np.ndarray, " batch"]
    supposed_kw: Float[np.ndarray, "batch agent ahead option trade"]

    @property
    def own_kw(self) -> Float[np.ndarray, "batch agent ahead option"]:
        """The proposals of those who ask."""
        return np.einsum("bakoa->bako", self.supposed_kw)

    def between(self, start: int, stop: int | None) -> Question:
        """The question for some of the intervals ahead."""
        of_ahead = slice(start, stop)
        return Question(
            load_kw=self.load_kw[:, of_ahead],
            load_kvar=self.load_kvar[:, of_ahead],
            lmp_per_kwh=self.lmp_per_kwh[:, of_ahead],
            published_per_kwh=self.published_per_kwh,
            published_lmp_per_kwh=self.published_lmp_per_kwh,
            supposed_kw=self.supposed_kw[:, :, of_ahead],
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Prediction:
    """For each own proposal, what the DSO would accept and the own nodal price then, each with an interval."""

    accepted_kw: Float[np.ndarray, "batch agent ahead option"]
    accepted_low_kw: Float[np.ndarray, "batch agent ahead option"]
    accepted_high_kw: Float[np.ndarray, "batch agent ahead option"]
    price_per_kwh: Float[np.ndarray, "batch agent ahead option"]
    price_low_per_kwh: Float[np.ndarray, "batch agent ahead option"]
    price_high_per_kwh: Float[np.ndarray, "batch agent ahead option"]


@runtime_checkable
class Predictor(Protocol):
    """Anything that predicts the DSO's response."""

    def __call__(self, question: Question, public: Public) -> Prediction: ...


def no_prediction(question: Question, public: Public) -> Prediction:
    """Everything is accepted, at the price published last; later, at the LMP expected then. Intervals are points.

    What the last price was above the LMP is not carried on to later intervals: it says little of them.
    """
    own_kw = question.own_kw.copy()
    price = np.repeat(question.lmp_per_kwh[:, None, :], own_kw.shape[1], axis=1)
    price[:, :, 0] = question.published_per_kwh
    return certain(own_kw, np.repeat(price[..., None], own_kw.shape[-1], axis=-1))


def oracle(question: Question, public: Public, dso: Dso | None = None) -> Prediction:
    """The DSO itself, asked what each microgrid supposes; intervals are points.

    It measures what a perfect model of the DSO is worth to somebody who doesn't know the others' current proposals.

    Args:
        dso: Who is asked, if not the DSO of the environment.
    """
    supposed, operator = question.supposed_kw, dso or public.dso
    n_row, n_agent, n_ahead, n_option, n_trade = supposed.shape
    # One after another: the microgrid that asks, the interval, the option.
    row, agent, ahead, _ = np.unravel_index(np.arange(supposed.size // n_trade), supposed.shape[:-1])
    flat_kw = supposed.reshape(-1, n_trade)
    accepted, price = np.empty(len(flat_kw)), np.empty(len(flat_kw))
    for start in range(0, len(flat_kw), SOLVED_AT_ONCE):
        part = slice(start, start + SOLVED_AT_ONCE)
        at, who = (row[part], ahead[part]), agent[part]
        response = operator(
            DsoQuery(
                load_kw=question.load_kw[at],
                load_kvar=question.load_kvar[at],
                proposed_kw=flat_kw[part],
                lmp_per_kwh=question.lmp_per_kwh[at],
            )
        )
        each = np.arange(len(who))
        accepted[part] = response.accepted_kw[each, who]
        price[part] = response.price_per_kwh[each, public.agent_bus[who]]
    shape = (n_row, n_agent, n_ahead, n_option)
    return certain(accepted.reshape(shape), price.reshape(shape))


def certain(
    accepted_kw: Float[np.ndarray, "batch agent ahead option"],
    price_per_kwh: Float[np.ndarray, "batch agent ahead option"],
) -> Prediction:
    """A prediction whose intervals are points."""
    return Prediction(
        accepted_kw=accepted_kw,
        accepted_low_kw=accepted_kw,
        accepted_high_kw=accepted_kw,
        price_per_kwh=price_per_kwh,
        price_low_per_kwh=price_per_kwh,
        price_high_per_kwh=price_per_kwh,
    )
