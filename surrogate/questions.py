"""Questions to the operator and answers to them, one per row: what the transformer and all it is compared with share.

    what               who makes it                       who reads it
    `Question`         the environment, for its agents    every predictor; `questions_of` lays it out in rows
    `Questions`        the data set, `questions_of`       the transformer (as tensors), plain methods, the exact DSO
    `Answers`          the transformer, plain methods     the predictor of environments, the report
    `Prediction`       every predictor                    the environment, which shows it to its agents

The first and the last belong to the environment (`peergrid.envs.p2p_trading.predictors`): they are about one microgrid
each, its intervals ahead and its options. The two here are about the whole network in one interval.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Float

from peergrid.envs.p2p_trading.predictors import Question
from peergrid.grid.dso import Coefficient, OpfDso, Penalty
from peergrid.grid.errors import InvalidQuery

Array = TypeVar("Array")
Other = TypeVar("Other")


@dataclass(frozen=True, eq=False)
class Questions(Generic[Array]):
    """What the operator is asked, one question per row; NumPy's arrays, or tensors."""

    load_kw: Array  # [row, bus]
    load_kvar: Array  # [row, bus]
    proposed_kw: Array  # [row, trade]
    lmp_per_kwh: Array  # [row]
    lambda_corr_per_kw2h: Array  # [row]
    c_ls_per_kw2h: Array  # [row]

    def columns(self) -> dict[str, Array]:
        """The arrays by name."""
        return {name: getattr(self, name) for name in QUESTION}

    def each(self, change: Callable[[Array], Other]) -> Questions[Other]:
        """The same questions with every array changed."""
        return Questions(*[change(values) for values in self.columns().values()])

    def rows(self, chosen: Any) -> Questions[Array]:
        """Some of the rows, by an index."""
        return Questions(*[getattr(self, name)[chosen] for name in QUESTION])


QUESTION = tuple(f.name for f in fields(Questions))


@dataclass(frozen=True, eq=False, kw_only=True)
class Answers:
    """Predicted answers to questions: acceptances, nodal prices, shed loads, and intervals where a method has them.

    A place is a bus: every bus, or the trades' buses alone, in the order of the trades. Ends of intervals are either
    all given or all None.
    """

    accepted_kw: Float[np.ndarray, "row trade"]
    price_per_kwh: Float[np.ndarray, "row place"]
    shed_kw: Float[np.ndarray, "row some_place"] | None = None
    accepted_low_kw: Float[np.ndarray, "row trade"] | None = None
    accepted_high_kw: Float[np.ndarray, "row trade"] | None = None
    price_low_per_kwh: Float[np.ndarray, "row place"] | None = None
    price_high_per_kwh: Float[np.ndarray, "row place"] | None = None

    @property
    def has_intervals(self) -> bool:
        """Whether the method says where its answers lie."""
        return self.accepted_low_kw is not None

    def without_intervals(self) -> Answers:
        """The same, saying nothing of how sure they are."""
        return replace(
            self, accepted_low_kw=None, accepted_high_kw=None, price_low_per_kwh=None, price_high_per_kwh=None
        )


ENDS = ("accepted_low_kw", "accepted_high_kw", "price_low_per_kwh", "price_high_per_kwh")


def questions_of(question: Question, penalty: Penalty) -> Questions[np.ndarray]:
    """What microgrids ask, a row for each that asks, interval ahead and option: what it supposes everybody to propose.

    Raises:
        InvalidQuery: The penalty differs among buses or trades.
    """
    supposed = question.supposed_kw
    n_row, n_agent, n_ahead, n_option, n_trade = supposed.shape

    def for_each(values: np.ndarray) -> np.ndarray:
        """The same for every microgrid that asks, and every option."""
        shape = (n_row, n_agent, n_ahead, n_option, *values.shape[2:])
        by_row = np.broadcast_to(values.astype(np.float32)[:, None, :, None], shape)
        return by_row.reshape(-1, *values.shape[2:])

    def constant(coefficient: Coefficient, name: str) -> np.ndarray:
        return np.full(supposed.size // n_trade, as_number(coefficient, name), dtype=np.float32)

    return Questions(
        load_kw=for_each(question.load_kw),
        load_kvar=for_each(question.load_kvar),
        proposed_kw=supposed.reshape(-1, n_trade),
        lmp_per_kwh=for_each(question.lmp_per_kwh),
        lambda_corr_per_kw2h=constant(penalty.lambda_corr_per_kw2h, "lambda_corr_per_kw2h"),
        c_ls_per_kw2h=constant(penalty.c_ls_per_kw2h, "c_ls_per_kw2h"),
    )


def as_number(coefficient: Coefficient, name: str) -> float:
    """A coefficient of the DSO's penalty that is the same for all.

    Raises:
        InvalidQuery: It is not.
    """
    if np.size(coefficient) != 1:
        raise InvalidQuery(f"{name} differs among buses or trades: the transformer takes one number for all")
    return float(np.reshape(coefficient, ()))


def network_digest(dso: OpfDso) -> str:
    """SHA-256 of all that the DSO's answers depend on beside the question: network, trades, generators and rules."""
    feeder, penalty = dso.feeder, dso.penalty
    names = ("parent", "r_ohm", "x_ohm", "base_kv", "v_min_pu", "v_max_pu", "i_max_a", "capacitor_kvar", "load_kw")
    found = hashlib.sha256()
    numbers = [np.asarray(getattr(feeder, name), dtype=float) for name in names]
    numbers += [np.asarray(getattr(dso.generators, f.name), dtype=float) for f in fields(dso.generators)]
    numbers += [dso.trade_bus.astype(float), np.array([feeder.v_source_pu, dso.substation_limit_kva])]
    coefficients = (penalty.kappa_per_kwh, penalty.voll_per_kwh, penalty.lambda_corr_per_kw2h, penalty.c_ls_per_kw2h)
    numbers += [np.asarray(value, dtype=float) for value in coefficients]
    for values in numbers:
        # Ratings come from a power flow, whose last digits are the processor's.
        found.update(" ".join(f"{value:.9g}" for value in values.flatten()).encode() + b"\n")
    found.update(f"{penalty.energy_at_lmp} {dso.upper_voltage.value}".encode())
    return found.hexdigest()
